// Status page: what a Wi-Fi router says of itself, from deploy/demos/wifi.py, as live plots.
//
// demos/status/NAME carries { value, unit }. The broker retains the last message of each, so a page that opens shows all values
// at once, also if the publisher has stopped.

import { Plot } from './plot.js';
import { by, element, ignore, join, text } from './demo.js';

const FILTER = 'demos/status/+';
const VALUES_MAX = 60;
const NAME_MAX = 40, UNIT_MAX = 12; // characters
const OLD_MS = 5000; // a value that is older is marked
const RADIO = ['signal', 'noise']; // the lines of the large plot

const values = new Map(); // name -> { value, unit, at, plot, shown, age, card }
const radio = new Plot(by('radio'), ['--accent', '--other'], true);
let first; // when the first value came, after the page had asked

const bus = join('status', { fallback: () => import('../ringyard-sse.js') });
bus.on('state', ({ state }) => {
  const way = bus.transport === 'sse' ? 'By server-sent events: WebSockets are blocked' : 'By WebSocket';
  by('transport').textContent = state === 'open' ? way : '';
});
const opened = performance.now();
const subscription = bus.subscribe(FILTER, { frame: true });
subscription.onmessage = take;

function take({ topic, data, removed, time }) {
  const name = text(topic.slice(topic.lastIndexOf('/') + 1), NAME_MAX);
  if (!name) return ignore();
  if (removed) return forget(name);
  if (!Number.isFinite(data?.value) || (!values.has(name) && values.size >= VALUES_MAX)) return ignore();
  first ??= performance.now() - opened;
  const entry = values.get(name) ?? insert(name);
  entry.value = data.value;
  entry.unit = text(data.unit, UNIT_MAX) ?? '';
  const age = Number.isFinite(time) ? Math.max(0, Date.now() - time) : 0; // of a retained one; as far as the clocks agree
  entry.at = performance.now() - age;
  entry.plot.add(0, entry.at, entry.value);
  const line = RADIO.indexOf(name);
  if (line >= 0) radio.add(line, entry.at, entry.value);
}

/** A card where it belongs: signal and noise first, then in the order of their names. */
function insert(name) {
  const canvas = element('canvas', { role: 'img', ariaLabel: `${name} in the last two minutes` });
  const shown = element('strong'), age = element('span', { className: 'old' });
  const card = element('section', { className: 'card value', ariaLabel: name },
    element('h2', { textContent: name }), element('p', {}, shown, age), canvas);
  const rank = (of) => (RADIO.includes(of) ? `0${RADIO.indexOf(of)}` : `1${of}`);
  const next = [...values].filter(([other]) => rank(other) > rank(name)).sort(([a], [b]) => (rank(a) < rank(b) ? -1 : 1))[0];
  by('values').insertBefore(card, next?.[1].card ?? null);
  const entry = { plot: new Plot(canvas, ['--accent']), shown, age, card };
  values.set(name, entry);
  return entry;
}

function forget(name) {
  values.get(name)?.card.remove();
  values.delete(name);
}

const written = ({ value, unit }) => {
  const digits = Math.abs(value) < 1e9 ? value.toLocaleString('en', { maximumSignificantDigits: 6 }) : value.toExponential(3);
  return `${digits} ${unit}`.trim();
};

const ageOf = ({ at }, now) => (now - at > OLD_MS ? `${Math.round((now - at) / 1000)} s old` : '');

function draw() {
  const now = performance.now();
  for (const entry of values.values()) {
    entry.shown.textContent = written(entry);
    entry.age.textContent = ageOf(entry, now);
    entry.plot.draw(now);
  }
  radio.draw(now);
  for (const name of RADIO) by(name).textContent = values.has(name) ? written(values.get(name)) : 'no value yet';
  by('count').textContent = values.size;
  by('first').textContent = first === undefined ? '' : `The first value was here ${Math.round(first)} ms after the page asked.`;
  by('empty').hidden = values.size > 0;
}

setInterval(draw, 250);
