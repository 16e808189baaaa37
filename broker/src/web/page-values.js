// The table of present values: of a filter the newest message of each topic, of keyed topics that of each key. A
// subscription begins with what the broker remembers, so the table is full at once.

import { batched, clock, readable } from './page-feed.js';

const ROWS_MAX = 500; // in the document; more values are counted only
const TEXT_MAX = 120; // characters of one value

const by = (id) => document.getElementById(id);
const ui = { card: by('values'), body: by('values-body'), count: by('values-count'), name: by('values-name') };

const values = new Map(); // topic and key -> { name, message, at, row }
const changed = new Set();
const renderSoon = batched(render);

/** Whether there are values to show, and what names them: topics or keys. */
export function showValues(shown, name) {
  ui.card.hidden = !shown;
  ui.name.textContent = name;
  clearValues();
}

export function clearValues() {
  values.clear();
  changed.clear();
  ui.body.replaceChildren();
  renderSoon();
}

/** Takes a message into the table; one that removes a value out of it. */
export function setValue(id, name, message) {
  if (message.removed) {
    values.get(id)?.row?.remove();
    values.delete(id);
    changed.delete(id);
  } else {
    values.set(id, { name, message, at: new Date(), row: values.get(id)?.row });
    changed.add(id);
  }
  renderSoon();
}

function render() {
  ui.count.textContent = values.size.toLocaleString('en');
  for (const id of changed) {
    const value = values.get(id);
    if (!value.row && ui.body.childElementCount < ROWS_MAX) value.row = insertRow(id, value);
    if (value.row) fill(value);
  }
  changed.clear();
}

/** A row where it belongs: they are in the order of their names. */
function insertRow(id, { name }) {
  const row = document.createElement('tr');
  row.dataset.id = id;
  const head = document.createElement('th');
  head.scope = 'row';
  head.textContent = name || '(no key)';
  row.append(head, document.createElement('td'), document.createElement('td'));
  const rows = ui.body.children;
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].dataset.id < id) low = middle + 1;
    else high = middle;
  }
  ui.body.insertBefore(row, rows[low] ?? null);
  return row;
}

function fill({ row, message, at }) {
  const { text } = readable(message.data);
  row.children[1].textContent = text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text || '(empty)';
  row.children[2].textContent = message.state ? 'remembered' : clock(at).slice(0, 8);
}
