// Four ways by which a page gets the messages of one topic, each as plain as a page would write it without a library, and each counting
// what it costs: requests, and bytes on the wire as far as a page can know them.
//
// What is known of bytes: the bodies, the fields of answers that scripts see, the form of events and of WebSocket frames: exactly.
// The fields that browsers add to requests: reckoned, since scripts do not see them. TCP, IP and TLS: not counted.

const RETRY_MS = 1000; // after a failure
const LIMIT = 1000; // messages of an answer

const encoder = new TextEncoder();
const length = (text) => encoder.encode(text).length;

/** What a browser sends as the head of a request for this path; without cookies. */
const requestLength = (path, more = '') => length([
  `GET ${path} HTTP/1.1`, `Host: ${location.host}`, 'Connection: keep-alive', `User-Agent: ${navigator.userAgent}`, 'Accept: */*',
  'Sec-Fetch-Site: same-origin', 'Sec-Fetch-Mode: cors', 'Sec-Fetch-Dest: empty', `Referer: ${location.href}`,
  'Accept-Encoding: gzip, deflate, br, zstd', `Accept-Language: ${navigator.languages.join(',')}`, more, '',
].join('\r\n'));

const headLength = ({ status, statusText, headers }) => {
  let sum = length(`HTTP/1.1 ${status} ${statusText}\r\n\r\n`);
  for (const [name, value] of headers) sum += length(`${name}: ${value}\r\n`);
  return sum;
};

const pathOf = (topic, query = '') => `/sub/${topic}${query}`;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks again and again for what came after the last answer; `pause()` says for how long not to. */
async function poll(topic, side, wait, pause) {
  const get = async (query) => {
    const path = pathOf(topic, query);
    side.asked(requestLength(path));
    const answer = await fetch(path, { cache: 'no-store' });
    const body = await answer.text();
    side.got(headLength(answer) + length(body));
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return JSON.parse(body);
  };
  let since;
  for (;;) {
    try {
      const { epoch, offset, messages } = await get(since ? `?since=${since}&wait=${wait}&limit=${LIMIT}` : '');
      for (const { data } of messages) side.heard(data);
      side.ready();
      since = `${epoch}:${offset}`;
      await sleep(pause());
    } catch (error) {
      side.failed(error);
      await sleep(RETRY_MS);
    }
  }
}

/** The chunk in which an event comes. */
const eventLength = (id, data) => {
  const bytes = length(`id: ${id}\ndata: ${data}\n\n`);
  return bytes + bytes.toString(16).length + 4;
};

function events(topic, side) {
  const source = new EventSource(pathOf(topic));
  source.onopen = () => side.asked(requestLength(pathOf(topic)));
  source.addEventListener('position', () => side.ready());
  source.onmessage = ({ data, lastEventId }) => {
    side.got(eventLength(lastEventId, data));
    side.heard(JSON.parse(data));
  };
  source.onerror = () => {
    side.failed(new Error('the stream ended'));
    if (source.readyState === EventSource.CLOSED) setTimeout(events, RETRY_MS, topic, side);
  };
}

/** The header of a frame; a client's has four bytes more. */
const frameLength = (bytes) => bytes + (bytes < 126 ? 2 : bytes < 65_536 ? 4 : 10);

const socketUrl = (path) => new URL(path, location.href.replace(/^http/, 'ws'));

function webSocket(topic, side) {
  const socket = new WebSocket(socketUrl('/ws'), 'ringyard.v1');
  const command = JSON.stringify({ type: 'subscribe', id: 1, topic });
  socket.onopen = () => {
    side.asked(requestLength('/ws', 'Sec-WebSocket-Protocol: ringyard.v1\r\nSec-WebSocket-Key: 24 characters of base64'));
    side.sent(frameLength(command.length) + 4);
    socket.send(command);
  };
  socket.onmessage = ({ data: text }) => {
    side.got(frameLength(length(text)));
    const { type, data, reason } = JSON.parse(text);
    if (type === 'message') side.heard(data);
    else if (type === 'ok') side.ready();
    else if (type === 'error') side.failed(new Error(reason));
  };
  socket.onclose = () => {
    side.failed(new Error('the connection ended'));
    setTimeout(webSocket, RETRY_MS, topic, side);
  };
}

/** By the names that the page and the table use. */
export const ways = {
  'short-poll': { name: 'Short poll', begin: (topic, side, settings) => poll(topic, side, '0s', () => settings.pollMs) },
  'long-poll': { name: 'Long poll', begin: (topic, side) => poll(topic, side, '25s', () => 0) },
  sse: { name: 'Server-sent events', begin: events },
  websocket: { name: 'WebSocket', begin: webSocket },
};

/** What publishes texts to a topic: by a request each, or over one WebSocket. Resolves when the broker has the text. */
export function publisher(topic, failed) {
  let socket;
  return async (text, way) => {
    if (way === 'post') {
      const answer = await fetch(`/pub/${topic}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: text });
      if (!answer.ok) failed(new Error(`POST /pub: status ${answer.status}`));
      return;
    }
    if (!socket || socket.readyState > WebSocket.OPEN) socket = new WebSocket(socketUrl(`/pub/${topic}`));
    if (socket.readyState === WebSocket.OPEN) socket.send(text);
    else socket.addEventListener('open', () => socket.send(text), { once: true });
  };
}
