// Why connections end and requests are refused: counts from `$sys/closed`, each with what it means and what to change. The
// reasons are those of ringyard_closed_total and ringyard_refused_total; broker/METRICS.md has them too.

import { by, element, number, row, watch } from './link.js';

/** What the client saw, and what to change. */
const ENDS = {
  by_client: ['its own close', 'The client, its page or a proxy in between closed it. A proxy that does so after a fixed time has an idle timeout below the ping interval: raise it, or lower --ping-interval.'],
  ping_timeout: ['1006', 'Nothing came for --ping-timeout after a ping, or a send made no progress for so long: the network is gone, or the client hangs. Nothing to change unless it is frequent.'],
  reset: ['1006', 'The peer or the network broke the connection. A mobile network or a crashed client does that.'],
  slow: ['1013', 'It was further behind than --max-lag, or max-lag of the topic\'s rule, allows. Let the client read faster, subscribe to less, or use slow-consumer = "skip" or "latest", a throttle, or a higher max-lag.'],
  memory: ['1013', 'Memory was short, and this connection held much of it and took nothing. Raise --max-memory or --max-log, or see who is slow.'],
  violation: ['1002, 1003, 1007, 1008, 1009', 'The client broke the protocol, or sent a message longer than --max-message (1009). Mend the client, or raise the limit.'],
  message_timeout: ['1008', 'A message was not complete within --message-timeout.'],
  rate: ['1008', 'It published faster than --max-publish-rate without commands. Publish slower, or over /ws, where that is an error and the connection goes on.'],
  limit: ['1008', 'At /pub or /bus it published what its topic has no room for: history-messages, history-bytes, --max-keys, --max-history.'],
  expired: ['4401', 'Its token ended, and no other came in time. Give the client a token function that fetches a new one.'],
  access: ['4400, 4403, 4408', '4408: no token came within --auth-timeout. 4400: it was not valid; see Security for the cause. 4403: rights ended, or an operator closed it.'],
  session_taken: ['4409', 'The same session goes on over another connection: a duplicated tab, or a reconnect that was faster than the end of the old connection.'],
  shutdown: ['1001', 'The broker was stopped or restarted. Clients come back by themselves.'],
  handshake_timeout: ['408', 'No complete request came within --handshake-timeout: a port scan, a preconnect of a browser, or a very slow network.'],
  refused: ['an HTTP error', 'Its request was refused: see Security for the cause.'],
  http_idle: ['end of stream', 'An HTTP connection was idle for --http-idle-timeout. That is normal.'],
  handed_over: ['nothing', 'It asked for something over HTTP, and another part of the broker answers. That is normal.'],
  tls: ['a TLS alert', 'TLS could not begin or go on: ringyard_tls_failures_total has the causes.'],
  proxy_header: ['end of stream', 'A trusted proxy sent no PROXY header, or a broken one: --proxy-protocol and the proxy must agree.'],
  handover: ['end of stream', 'It asked for HTTP, and the control plane could not take it: too many at once.'],
  adoption: ['1006', 'It was a WebSocket on a connection used before, and the shard had no room: raise --max-connections.'],
};

const REFUSED = {
  host: 'Addressed to a host that is not the broker\'s (421): list the name with --allow-host.',
  origin: 'From a web page of a foreign origin (403): if it is yours, list it with --allow-origin.',
  publish: 'To publish without a key of --publish-key, or with --client-publish off (401, 403).',
  access: 'No token or key where one is needed, a bad one, or one that grants too little (401, 403). The table below has the causes.',
  connections: 'As many connections as --max-connections allows (503).',
  address: 'As many of one address as --max-connections-per-address allows (429). Behind a proxy, set --trusted-proxy.',
  accept_rate: 'More at once than --accept-rate allows (503): clients that come back all at once. They wait and succeed.',
  draining: 'The broker was shutting down (503).',
  topics: 'As many topics as --max-topics allows, or no memory for more names (503).',
  memory: 'Memory was short (503): raise --max-memory.',
  overload: 'More HTTP connections than the control plane takes, or a topic\'s sequencer with too much to do (503).',
  request: 'The request itself was wrong (400, 404, 405, 413 and others): mend the client.',
};

const CREDENTIALS = {
  missing: 'There was no token and no key, and one is required.',
  'unknown-api-key': 'It looks like an API key, and no [[key]] has its SHA-256.',
  'no-tokens': 'It is no API key, and [auth] has no source of keys that tokens are checked with.',
  'too-long': 'It is longer than 4,096 bytes.',
  ambiguous: 'The request brought more than one.',
  malformed: 'It is no JWT.',
  algorithm: 'Its alg is not one of algorithms in [auth].',
  critical: 'Its header has crit.',
  type: 'Its typ is not that of [auth].',
  'unknown-key': 'No trusted key suits its kid and alg: were keys rotated, and does keys-url answer?',
  signature: 'The signature is wrong: another secret, or a forgery.',
  claims: 'A registered claim has the wrong type.',
  issuer: 'Its iss is not that of [auth].',
  audience: 'Its aud is not that of [auth].',
  user: 'The claim that names the user is missing, or no usable text.',
  topics: 'The claim with topics is not as it must be.',
  'no-expiry': 'It has no exp, and [auth] has no max-age.',
  'not-yet': 'Its nbf or iat is in the future: see the clocks, or leeway.',
  revoked: 'An operator revoked it.',
  expired: 'It has ended: the client should fetch another one in time.',
};

const COMMANDS = {
  forbidden: 'Commands that nothing grants, on connections that went on: [[allow]] tables, or the token\'s claim.',
  limit: 'Publishes over /ws faster than --max-publish-rate.',
};

function fill(id, counts, explain) {
  const all = Object.entries(counts).toSorted(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
  by(id).replaceChildren(...all.map(([cause, count]) => {
    const [first, last] = [].concat(explain(cause));
    const texts = [first, last].filter((text) => text !== undefined).map((text) => element('td', { className: 'text' }, text));
    const made = row(cause, number(count), ...texts);
    if (count === 0) made.className = 'none';
    return made;
  }));
}

let newest;

export function show() {
  if (!newest || (by('ends').hidden && by('security').hidden)) return;
  fill('closed', newest.closed, (cause) => ENDS[cause] ?? ['', '']);
  fill('refused', newest.refused, (cause) => REFUSED[cause] ?? '');
  const others = Object.entries(newest.commands).map(([code, count]) => [`command: ${code}`, count]);
  fill('credentials', { ...newest.credentials, ...Object.fromEntries(others) },
    (cause) => CREDENTIALS[cause] ?? COMMANDS[cause.replace('command: ', '')] ?? '');
}

watch('$sys/closed', (ends) => {
  newest = ends;
  show();
});
