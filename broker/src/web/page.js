// The page at `/`: one topic over one WebSocket at bus/{topic}. What it shows comes from the network, so everything goes
// into the document as text, never as markup. Every address is relative to the page's own: a proxy may have given the
// broker a path of its own.
'use strict';

const SHOWN_MAX = 300; // list items
const TEXT_MAX = 4000; // characters of one message that are shown
const HEX_MAX = 256; // bytes of one binary message that are shown
const AWAITED_MAX = 1000; // own messages that may be on their way
const BACKOFF_MIN_MS = 250;
const BACKOFF_MAX_MS = 10_000;
const STABLE_MS = 5000; // a connection that lived this long was a good one
const STATS_EVERY_MS = 2000;
const ASK_MS = 5000; // how long an answer of /readyz is waited for
const RETRY_AFTER_MAX_S = 60; // a longer Retry-After is not believed

const by = (id) => document.getElementById(id);
const ui = {
  state: by('state'), detail: by('detail'), compose: by('compose'), topic: by('topic'), problem: by('topic-problem'),
  message: by('message'), send: by('send'), count: by('count'), noun: by('count-noun'), current: by('current'),
  messages: by('messages'), clear: by('clear'),
};

// ---- topics and addresses

/** Why the broker would refuse this topic, or ''. Its own rules are in protocol/src/topic.rs. */
function topicProblem(topic) {
  if (topic === '') return 'Give the topic a name.';
  if (new TextEncoder().encode(topic).length > 255) return 'A topic has at most 255 bytes.';
  if (/[+#]/.test(topic)) return 'Only subscriptions may use + and #; name one topic here.';
  if (topic.startsWith('$')) return 'Topics that begin with $ belong to the broker.';
  if (/\p{Cc}/u.test(topic)) return 'A topic has no control characters.';
  return '';
}

function pathOf(topic) {
  const level = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
  return topic.split('/').map(level).join('/');
}

/** Two topics, or one with a filter, as JavaScript writes them. */
function topicsAsCode(topic) {
  const quoted = (text) => `'${text.replace(/['\\]/g, '\\$&')}'`;
  return `[${[topic, 'chat/+'].map(quoted).join(', ')}]`;
}

/** Where the broker is: the page's folder, without a slash at its end. */
const httpBase = new URL('.', document.baseURI).href.replace(/\/$/, '');
const socketBase = httpBase.replace(/^http/, 'ws');

function showTopic(topic) {
  const path = pathOf(topic);
  ui.current.textContent = topic;
  by('curl').textContent = `curl -d 'hello' ${httpBase}/pub/${path}`;
  by('wscat').textContent = `wscat -c ${socketBase}/bus/${path}`;
  by('console').textContent = [
    `const ws = new WebSocket('${socketBase}/bus/${path}');`,
    'ws.onmessage = (m) => console.log(m.data);',
    "ws.onopen = () => ws.send('hello');",
  ].join('\n');
  by('v1').textContent = [
    `const ws = new WebSocket('${socketBase}/ws', 'ringyard.v1');`,
    'ws.onmessage = (m) => console.log(JSON.parse(m.data));',
    `const command = { type: 'subscribe', id: 1, topics: ${topicsAsCode(topic)} };`,
    'ws.onopen = () => ws.send(JSON.stringify(command));',
  ].join('\n');
  history.replaceState(null, '', topic === 'demo' ? location.pathname : `#${encodeURIComponent(topic)}`);
  document.title = `${topic} · Ringyard`;
}

// ---- the connection

let topic = '';
let socket = null;
let retries = 0;
let retryTimer = 0;
let openedAt = 0;

function show(state, detail = '') {
  ui.state.textContent = state;
  ui.state.dataset.state = state;
  ui.detail.textContent = detail;
  ui.send.disabled = state !== 'open';
}

function join(next) {
  topic = next;
  retries = 0;
  showTopic(topic);
  clearList();
  connect('connecting');
}

function connect(state) {
  clearTimeout(retryTimer);
  awaited.clear();
  if (socket) socket.close(1000);
  show(state);
  const mine = new WebSocket(`${socketBase}/bus/${pathOf(topic)}`);
  socket = mine;
  mine.binaryType = 'arraybuffer';
  // A socket that was replaced has nothing to say any more.
  mine.onopen = () => {
    if (mine !== socket) return;
    openedAt = performance.now();
    show('open');
  };
  mine.onmessage = (event) => {
    if (mine === socket) received(event.data);
  };
  mine.onclose = (event) => {
    if (mine === socket) lost(event);
  };
}

/** Comes back after a pause that grows and differs from page to page, so that a broker that restarts is not
 *  met by all its pages at once. A refused handshake tells a page neither its status nor Retry-After (the WebSocket
 *  API hides both), so the broker is asked whether it takes connections, and says itself when to come back. */
async function lost(event) {
  const mine = socket;
  const refused = openedAt === 0;
  if (!refused && performance.now() - openedAt > STABLE_MS) retries = 0;
  openedAt = 0;
  const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** retries);
  let pause = ceiling * (0.5 + Math.random() / 2);
  retries += 1;
  let why = event.reason || (event.code === 1006 ? 'no connection' : `code ${event.code}`);
  if (refused) {
    show('reconnecting', why);
    const { reason, waitMs } = await askWhy();
    // Meanwhile another topic was chosen, or the page came back by itself.
    if (mine !== socket || mine.readyState !== WebSocket.CLOSED) return;
    why = reason || why;
    pause = Math.max(pause, waitMs * (1 + Math.random() / 2));
  }
  show('reconnecting', `${why}, again in ${(pause / 1000).toFixed(1)} s`);
  clearTimeout(retryTimer);
  retryTimer = setTimeout(() => connect('reconnecting'), pause);
}

/** Why the broker takes no WebSocket, and how long it wants to be left alone. */
async function askWhy() {
  try {
    const answer = await fetch(`${httpBase}/readyz`, { cache: 'no-store', signal: AbortSignal.timeout(ASK_MS) });
    const waitMs = 1000 * Math.min(RETRY_AFTER_MAX_S, Number(answer.headers.get('retry-after')) || 0);
    if (answer.ok) return { reason: 'the handshake was refused', waitMs };
    return { reason: answer.status === 503 ? 'the broker takes no connections now (503)' : `status ${answer.status}`, waitMs };
  } catch {
    return { reason: '', waitMs: 0 };
  }
}

function hurry() {
  if (socket && socket.readyState === WebSocket.CLOSED) {
    retries = 0;
    connect('reconnecting');
  }
}
addEventListener('online', hurry);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) hurry();
});

// ---- messages

/** Text of own messages on their way -> when each was sent. */
const awaited = new Map();
let count = 0;
let fresh = [];
let flushing = 0;

function send(text) {
  const times = awaited.get(text) ?? [];
  if (times.length + awaited.size < AWAITED_MAX) {
    times.push(performance.now());
    awaited.set(text, times);
  }
  socket.send(text);
}

/** When this own message was sent, the first of its kind if there are several; undefined if it is not ours. */
function sentAt(text) {
  const times = awaited.get(text);
  const at = times?.shift();
  if (times?.length === 0) awaited.delete(text);
  return at;
}

function received(data) {
  const now = performance.now();
  const sent = typeof data === 'string' ? sentAt(data) : undefined;
  count += 1;
  fresh.push({ data, took: sent === undefined ? undefined : now - sent, at: new Date() });
  if (fresh.length > SHOWN_MAX) fresh.shift();
  if (!flushing) flushing = setTimeout(flush, 0); // one change of the document per burst
}

function flush() {
  flushing = 0;
  ui.count.textContent = count.toLocaleString('en');
  ui.noun.textContent = count === 1 ? 'message' : 'messages';
  ui.messages.prepend(...fresh.reverse().map(item));
  fresh = [];
  while (ui.messages.childElementCount > SHOWN_MAX) {
    scrolling.unobserve(ui.messages.lastElementChild.firstElementChild);
    ui.messages.lastElementChild.remove();
  }
}

/** Gives the keyboard what can be scrolled, for as long as there is something to scroll. */
const scrolling = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const scrolls = target.scrollHeight > target.clientHeight || target.scrollWidth > target.clientWidth;
    if (scrolls === target.hasAttribute('tabindex')) continue;
    const attributes = { tabindex: '0', role: 'group', 'aria-label': 'Message, scrolls' };
    for (const [name, value] of Object.entries(attributes)) {
      if (scrolls) target.setAttribute(name, value);
      else target.removeAttribute(name);
    }
  }
});

function item({ data, took, at }) {
  const li = document.createElement('li');
  li.dataset.testid = 'item';
  const text = document.createElement('span');
  text.className = 'text';
  if (typeof data === 'string') {
    text.textContent = data.length > TEXT_MAX ? `${data.slice(0, TEXT_MAX)}… (${data.length} characters)` : data;
  } else {
    li.classList.add('binary');
    text.textContent = hexDump(new Uint8Array(data));
  }
  if (text.textContent === '') {
    li.classList.add('empty-payload');
    text.textContent = '(empty)';
  }
  const when = document.createElement('span');
  when.className = 'took';
  when.title = at.toLocaleString();
  if (took === undefined) {
    when.textContent = clock(at);
  } else {
    li.classList.add('own');
    when.textContent = `${took < 100 ? took.toFixed(1) : Math.round(took)} ms`;
    when.title = `There and back; arrived ${when.title}`;
  }
  li.append(text, when);
  scrolling.observe(text);
  return li;
}

function clock(at) {
  const two = (n) => String(n).padStart(2, '0');
  const ms = String(at.getMilliseconds()).padStart(3, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${ms}`;
}

/** Offset, bytes, and what of them is ASCII, eight to a line. */
function hexDump(bytes) {
  const lines = [`${bytes.length} byte${bytes.length === 1 ? '' : 's'}, binary`];
  const shown = bytes.subarray(0, HEX_MAX);
  for (let at = 0; at < shown.length; at += 8) {
    const row = [...shown.subarray(at, at + 8)];
    const hex = row.map((b) => b.toString(16).padStart(2, '0')).join(' ');
    const ascii = row.map((b) => (b >= 0x20 && b < 0x7f ? String.fromCharCode(b) : '·')).join('');
    lines.push(`${at.toString(16).padStart(4, '0')}  ${hex.padEnd(23)}  ${ascii}`);
  }
  if (bytes.length > HEX_MAX) lines.push('…');
  return lines.join('\n');
}

function clearList() {
  count = 0;
  fresh = [];
  scrolling.disconnect();
  ui.messages.replaceChildren();
  flush();
}

// ---- controls

/** Joins the topic in the field if it is another one; says whether the field holds a valid one. */
function takeTopic() {
  const wanted = ui.topic.value.trim();
  const problem = topicProblem(wanted);
  ui.problem.textContent = problem;
  ui.topic.setAttribute('aria-invalid', String(problem !== ''));
  if (problem === '' && wanted !== topic) join(wanted);
  return problem === '';
}

ui.topic.addEventListener('change', takeTopic);
ui.topic.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter') return;
  event.preventDefault();
  if (takeTopic()) ui.message.focus();
});
ui.message.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ui.compose.requestSubmit();
});
ui.compose.addEventListener('submit', (event) => {
  event.preventDefault();
  if (!takeTopic() || socket.readyState !== WebSocket.OPEN) return;
  send(ui.message.value);
  ui.message.select();
  ui.message.focus();
});
ui.clear.addEventListener('click', clearList);

for (const button of document.querySelectorAll('.copy')) {
  const label = button.firstElementChild;
  button.addEventListener('click', async () => {
    const code = by(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(code.textContent);
      label.textContent = 'Copied';
    } catch {
      // Browsers lend the clipboard to secure pages only.
      getSelection().selectAllChildren(code);
      label.textContent = 'Selected';
    }
    setTimeout(() => { label.textContent = 'Copy'; }, 1500);
  });
}

// ---- the broker

/** What the members of /healthz are called here, in this order. `null`: shown otherwise. */
const FACTS = {
  status: 'Status', version: 'Version', shards: 'Shards', driver: 'I/O driver', fallback: 'Why not io_uring', counters: null,
};

/** Every member of the answer of /healthz, those without a name here under their own. */
function showFacts(health) {
  const names = [...new Set([...Object.keys(FACTS), ...Object.keys(health)])];
  const shown = names.filter((name) => name in health && FACTS[name] !== null);
  by('facts').replaceChildren(...shown.map((name) => {
    const value = health[name];
    const row = document.createElement('div');
    const term = document.createElement('dt');
    term.textContent = FACTS[name] ?? name.replaceAll('_', ' ');
    const fact = document.createElement('dd');
    fact.dataset.testid = `fact-${name}`;
    fact.textContent = typeof value === 'object' ? JSON.stringify(value) : String(value);
    row.append(term, fact);
    return row;
  }));
  by('facts').hidden = false;
}

/** Counters are for operators: only where they are on this port as well are they asked for and shown. */
async function showStats() {
  if (document.hidden) return;
  const ask = async (path) => (await fetch(`${httpBase}/${path}`)).json();
  try {
    const health = await ask('healthz');
    showFacts(health);
    const { counters } = health;
    if (counters) {
      const { totals } = await ask('api/stats');
      const figures = {
        connections: totals.connections, subscriptions: totals.subscriptions, in: totals.messages_in, out: totals.messages_out,
      };
      for (const [name, value] of Object.entries(figures)) by(`stat-${name}`).textContent = value.toLocaleString('en');
    }
    for (const id of ['stats', 'all-counters']) by(id).hidden = !counters;
    by('stat-about').textContent = counters ? '' : "Counters are on the operators' port.";
  } catch {
    for (const id of ['facts', 'stats', 'all-counters']) by(id).hidden = true;
    by('stat-about').textContent = 'The broker does not answer.';
  }
}

setInterval(showStats, STATS_EVERY_MS);
showStats();

// ---- start

function topicOfAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return '';
  }
}

const start = topicOfAddress();
ui.topic.value = topicProblem(start) === '' ? start : 'demo';
takeTopic();
addEventListener('hashchange', () => {
  ui.topic.value = topicOfAddress() || 'demo';
  takeTopic();
});
