// The way to the broker: one connection to /ws, requests to /api, and the key for both where one is needed. The key stays in
// this module's memory until the page is left. Every address is relative to the page's own: a proxy may have given the broker
// a path of its own.

import { connect } from '../ringyard.js';

/** Codes of the broker, in errors and of a close, that a key may answer. */
const ASKS = new Set(['unauthorized', 'bad-token', 'forbidden', 4400, 4401, 4403, 4408]);

export const by = (id) => document.getElementById(id);

/** An element with these properties and children; texts become text, never markup. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** A row of a table: its first cell is the row's name. */
export function row(name, ...cells) {
  const head = element('th', { scope: 'row' }, name);
  return element('tr', {}, head, ...cells.map((cell) => (cell instanceof Node ? cell : element('td', {}, String(cell)))));
}

export const number = (value) => (value === null || value === undefined ? '–' : value.toLocaleString('en'));

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(value) {
  if (value === null || value === undefined) return '–';
  const power = Math.min(UNITS.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10));
  return `${number(Math.round((value / 1024 ** power) * 10) / 10)} ${UNITS[power]}`;
}

export const complain = (sentence) => { by('problem').textContent = sentence; };

// ---- the key

let key;

function askKey() {
  complain(key === undefined ? '' : 'That key is not valid here, or does not have what this needs.');
  by('access').hidden = false;
}

// ---- the connection

const root = new URL('.', location);
const subscribed = []; // what every connection subscribes to
let bus;
let isRead = false; // whether the broker lets this page read anything

function show(state, detail = '') {
  by('state').textContent = by('state').dataset.state = state;
  by('detail').textContent = detail;
}

function start() {
  const url = new URL('ws', root);
  url.protocol = url.protocol.replace('http', 'ws');
  const mine = connect(url.href, { token: key });
  bus = mine;
  isRead = false;
  mine.on('state', ({ state, code, reason, delay }) => {
    if (mine !== bus) return;
    const next = delay === undefined ? '' : `next attempt within ${Math.ceil(delay / 1000)} s`;
    show(state, state === 'closed' ? `for good: ${code} ${reason ?? ''}` : next);
    if (ASKS.has(code)) askKey();
  });
  mine.on('error', (error) => mine === bus && failed(error));
  for (const what of subscribed) follow(what);
}

function failed({ code, message }) {
  if (ASKS.has(code)) askKey();
  else complain(`${code ?? 'error'}: ${message}`);
}

function follow({ topic, options, take }) {
  const [mine, subscription] = [bus, bus.subscribe(topic, options)];
  subscription.onmessage = ({ data }) => {
    if (mine === bus) take(data);
  };
  subscription.ready.then(() => { isRead = true; }, (error) => mine === bus && failed(error));
}

/** Calls `take` with each value of one of the broker's topics, over this connection and those to come. */
export function watch(topic, take, options = {}) {
  const what = { topic, options, take };
  subscribed.push(what);
  follow(what);
}

by('access').addEventListener('submit', (event) => {
  event.preventDefault();
  key = by('key').value.trim() || undefined;
  by('key').value = '';
  by('access').hidden = true;
  complain('');
  // Where no key is needed to read, the connection stays as it is: the key is for what is asked for besides.
  if (isRead) return;
  const old = bus;
  start();
  old.close();
});

start();
show(bus.state);

// ---- requests

/** The answer to a request; an answer that is no success is an error with its sentence. */
export async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(key === undefined ? {} : { authorization: `Bearer ${key}` }) };
  const answer = await fetch(new URL(path, root), { cache: 'no-store', ...options, headers });
  if (answer.ok) return answer;
  if (answer.status === 401 || answer.status === 403) askKey();
  const problem = await answer.json().catch(() => ({}));
  throw new Error(problem.detail ?? problem.title ?? `status ${answer.status}`);
}

/** Does something when a form is sent or a button is pressed; what goes wrong is said. */
export function on(node, name, handle) {
  node.addEventListener(name, async (event) => {
    event.preventDefault();
    complain('');
    try {
      await handle(event);
    } catch (error) {
      if (error.name !== 'AbortError' && by('access').hidden) complain(error.message);
    }
  });
}
