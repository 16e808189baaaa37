// The list of messages, newest first. What it shows comes from the network, so everything goes into the document as text,
// never as markup.

const SHOWN_MAX = 300; // list items
const TEXT_MAX = 4000; // characters of one message that are shown
const FRAME_MS = 16; // changes of the document that are closer to each other become one
const HEX_MAX = 256; // bytes of one binary message that are shown

const by = (id) => document.getElementById(id);
const ui = { count: by('count'), noun: by('count-noun'), messages: by('messages') };

/** A payload as a person reads it, and whether it is bytes. */
export function readable(data) {
  if (data instanceof Uint8Array) return { text: hexDump(data), binary: true };
  const text = typeof data === 'string' ? data : JSON.stringify(data);
  return { text: text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}… (${text.length} characters)` : text, binary: false };
}

export function clock(at) {
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

/** Calls `f` at once or, if that was less than a frame ago, once soon, however often it is asked to: a single message shows
 *  without delay, and a burst changes the document once. Not with a timer: those of hidden pages come once a second. */
export function batched(f) {
  const { port1, port2 } = new MessageChannel();
  let due = false;
  let doneAt = -Infinity;
  const run = () => {
    due = false;
    f();
    doneAt = performance.now();
  };
  port1.onmessage = run;
  return () => {
    if (due) return;
    if (performance.now() - doneAt > FRAME_MS) return run();
    due = true;
    port2.postMessage(null);
  };
}

let count = 0;
let fresh = []; // entries that are not in the document yet
const own = new Map(); // offset -> when this page published it, of messages that have not come yet
const arrived = new Map(); // offset -> entry, of those in the list that may turn out to be our own
const flushSoon = batched(flush);

/** Lists a message; `where` says of which topic or key it is, or ''. */
export function addMessage(message, where) {
  count += 1;
  const entry = { message, where, at: new Date(), now: performance.now() };
  const sent = own.get(message.offset);
  if (sent !== undefined) entry.took = entry.now - sent;
  own.delete(message.offset);
  arrived.set(message.offset, entry);
  if (arrived.size > SHOWN_MAX) arrived.delete(arrived.keys().next().value);
  add(entry);
}

/** Lists a sentence among the messages: here some are missing, our own perhaps, and the offsets may begin anew. */
export function addNotice(notice) {
  own.clear();
  arrived.clear();
  add({ notice });
}

function add(entry) {
  fresh.push(entry);
  if (fresh.length > SHOWN_MAX) fresh.shift();
  flushSoon();
}

/** The broker has acknowledged what this page published: it may be in the list already. */
export function isOwn(offset, sentAt) {
  const entry = arrived.get(offset);
  if (!entry) {
    own.set(offset, sentAt);
    return;
  }
  entry.took = entry.now - sentAt;
  if (entry.when) showTook(entry);
}

export function clearFeed() {
  count = 0;
  fresh = [];
  own.clear();
  arrived.clear();
  scrolling.disconnect();
  ui.messages.replaceChildren();
  flush();
}

function flush() {
  ui.count.textContent = count.toLocaleString('en');
  ui.noun.textContent = count === 1 ? 'message' : 'messages';
  ui.messages.prepend(...fresh.reverse().map((entry) => (entry.notice ? noticeItem(entry) : messageItem(entry))));
  fresh = [];
  while (ui.messages.childElementCount > SHOWN_MAX) {
    const text = ui.messages.lastElementChild.querySelector('.text');
    if (text) scrolling.unobserve(text);
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

function span(className, text) {
  const element = document.createElement('span');
  element.className = className;
  element.textContent = text;
  return element;
}

function noticeItem({ notice }) {
  const li = document.createElement('li');
  li.className = 'notice';
  li.textContent = notice;
  return li;
}

function messageItem(entry) {
  const { message, where, at } = entry;
  const li = document.createElement('li');
  li.dataset.testid = 'item';
  const { text, binary } = message.removed ? { text: '' } : readable(message.data);
  if (binary) li.classList.add('binary');
  const body = span('text', text || (message.removed ? '(removed)' : '(empty)'));
  if (!text) li.classList.add('empty-payload');
  const tags = [where, message.state && (message.upTo ? 'snapshot' : 'retained')].filter(Boolean);
  entry.when = span('took', clock(at));
  entry.when.title = at.toLocaleString();
  li.append(...tags.map((tag) => span('tag', tag)), body, entry.when);
  if (entry.took !== undefined) showTook(entry);
  scrolling.observe(body);
  return li;
}

/** In place of when it came: how long it was on its way. */
function showTook({ when, took, at }) {
  when.textContent = `${took < 100 ? took.toFixed(1) : Math.round(took)} ms`;
  when.title = `There and back; arrived ${at.toLocaleString()}`;
  when.parentElement.classList.add('own');
}
