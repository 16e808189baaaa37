// One feed, got in four ways side by side. The page publishes it itself, so that it works with nothing else running, and every message
// carries when it was sent: the time until it is here is measured on one clock.

import { drawUses } from './compare-uses.js';
import { publisher, ways } from './compare-ways.js';
import { Plot } from './demos/plot.js';

const LATENCIES_MAX = 1000; // the newest, of which median and p99 are
const SHOW_MS = 500;

const by = (id) => document.getElementById(id);
const topic = `compare/${crypto.getRandomValues(new Uint32Array(2)).join('-')}`;
const settings = { get pollMs() { return Number(by('poll').value); } };
const sides = new Map(); // way -> what it has counted
let sent = 0, round = 1, timer; // a round ends with each change of a setting

/** Counts what one way costs, and how late its messages are. */
class Side {
  messages = 0;
  bytes = 0;
  requests = 0;
  isReady = false;
  trouble = '';
  #latencies = [];
  #highest = 0; // number of a message

  constructor(way) {
    this.fields = Object.fromEntries([...by(way).querySelectorAll('[data-shows]')].map((node) => [node.dataset.shows, node]));
    this.plot = new Plot(by(way).querySelector('canvas'), ['--accent']);
  }

  /** A request was sent, with a head of so many bytes. */
  asked(bytes) {
    this.requests += 1;
    this.bytes += bytes;
  }

  sent(bytes) { this.bytes += bytes; }

  got(bytes) { this.bytes += bytes; }

  ready() {
    this.isReady = true;
    this.trouble = '';
  }

  failed({ message }) { this.trouble = message; }

  heard(data) {
    const { n, at, round: of } = typeof data === 'string' ? JSON.parse(data) : data ?? {};
    if (of !== round || !Number.isFinite(n) || !Number.isFinite(at)) return; // of an earlier round, or not of this page
    const now = performance.now();
    this.#highest = Math.max(this.#highest, n);
    this.messages += 1;
    this.#latencies.push(now - at);
    if (this.#latencies.length > LATENCIES_MAX) this.#latencies.shift();
    this.plot.add(0, now, now - at);
  }

  /** Begins anew: the first request of each counts no more. */
  reset() {
    Object.assign(this, { messages: 0, bytes: 0, requests: 0 });
    this.#latencies = [];
    this.#highest = 0;
  }

  show() {
    const sorted = this.#latencies.toSorted((a, b) => a - b);
    const per = (amount) => (this.messages ? amount / this.messages : undefined);
    const values = {
      messages: String(this.messages),
      missing: String(Math.max(0, this.#highest - this.messages)), // of a round all are numbered from 1
      bytes: inBytes(this.bytes),
      'bytes-each': inBytes(per(this.bytes)),
      requests: String(this.requests),
      'requests-each': per(this.requests)?.toFixed(2) ?? '–',
      median: inMs(sorted[sorted.length >> 1]),
      p99: inMs(sorted[Math.ceil(sorted.length * 0.99) - 1]),
    };
    for (const [name, value] of Object.entries(values)) this.fields[name].textContent = value;
    this.plot.draw(performance.now());
  }
}

function inBytes(bytes) {
  if (bytes === undefined) return '–';
  return bytes < 10_000 ? `${Math.round(bytes)} B` : bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;
}

function inMs(ms) {
  if (ms === undefined) return '–';
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

const complain = (sentence) => { by('problem').textContent = sentence; };
const publish = publisher(topic, ({ message }) => complain(message));

function send() {
  const head = JSON.stringify({ n: sent += 1, round, at: performance.now() }).slice(0, -1);
  const padding = 'x'.repeat(Math.max(0, Number(by('size').value) - head.length - 10));
  publish(`${head},"pad":"${padding}"}`, by('by').value).catch(({ message }) => complain(`Not published: ${message}`));
}

/** Publishes at the chosen rate while the page is seen: browsers slow the timers of hidden pages down. */
function restart() {
  clearInterval(timer);
  const goes = by('run').getAttribute('aria-pressed') === 'true' && !document.hidden && [...sides.values()].every(({ isReady }) => isReady);
  if (goes) timer = setInterval(send, 1000 / Number(by('rate').value));
  return goes;
}

function reset() {
  sent = 0;
  round += 1;
  for (const side of sides.values()) side.reset();
  complain('');
  restart();
}

let wasReady = false;

function show() {
  const all = [...sides.values()];
  for (const side of all) side.show();
  const isReady = all.every(({ isReady }) => isReady);
  by('state').textContent = by('state').dataset.state = isReady ? 'open' : 'connecting';
  const troubles = [...sides].filter(([, { trouble }]) => trouble).map(([way, { trouble }]) => `${ways[way].name}: ${trouble}`);
  by('detail').textContent = troubles.join('; ');
  by('sent').textContent = `${sent} published`;
  if (isReady && !wasReady) restart();
  wasReady = isReady;
}

for (const [way, { begin }] of Object.entries(ways)) {
  const side = new Side(way);
  sides.set(way, side);
  begin(topic, side, settings);
}
by('run').addEventListener('click', ({ currentTarget: button }) => {
  const isPressed = button.getAttribute('aria-pressed') !== 'true';
  button.setAttribute('aria-pressed', isPressed);
  restart();
});
by('reset').addEventListener('click', reset);
for (const id of ['rate', 'size', 'by', 'poll']) by(id).addEventListener('change', reset);
document.addEventListener('visibilitychange', restart);
setInterval(show, SHOW_MS);
drawUses(by('uses'), by('measured'), by('rule'), Object.entries(ways).map(([way, { name }]) => ({ way, name })));
