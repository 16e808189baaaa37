// Editor: a text that many write at once, merged by Yjs. Whoever is offline goes on writing, and it merges later.
//
// demos/doc/NAME carries updates of Yjs; demos/doc/NAME/awareness who is here, and where. The provider does both.

import { createAbsolutePositionFromRelativePosition, createRelativePositionFromJSON, createRelativePositionFromTypeIndex, Doc } from 'yjs';
import { RingyardProvider } from '../ringyard-yjs.js';
import { by, complain, element, explain, ignore, join, makeCable, text as clean } from './demo.js';

const NAME_MAX = 30; // characters
const HERE_MAX = 50; // names

const cable = makeCable();
const bus = join('editor', { WebSocket: cable.WebSocket });
const name = clean(decodeURIComponent(location.hash.slice(1)).replace(/[\p{Cc}/+#]/gu, ''), NAME_MAX) ?? 'notes';
const doc = new Doc();
const text = doc.getText('text');
const provider = new RingyardProvider(bus, `demos/doc/${name}`, doc);
const { awareness } = provider;
const area = by('text');

let shown = ''; // what the area showed before the user changed it
let isComposing = false; // an input method is at work: what the area shows must stay
const deferred = []; // changes of others meanwhile

/** Where an index of the text is after a change. */
function shift(index, delta) {
  let at = 0;
  for (const { retain = 0, insert = '', delete: removed = 0 } of delta) {
    at += retain;
    if (insert && index > at) index += insert.length;
    if (index > at) index -= Math.min(removed, index - at);
    at += insert.length;
  }
  return index;
}

const shifted = (index) => deferred.reduce(shift, index);

/** Shows the text, with the selection where it was between the same characters. */
function show() {
  const { scrollTop, selectionStart, selectionEnd, selectionDirection } = area;
  area.value = shown = text.toString();
  area.setSelectionRange(shifted(selectionStart), shifted(selectionEnd), selectionDirection);
  area.scrollTop = scrollTop;
  deferred.length = 0;
}

/** What the user changed: so many characters stayed at the begin and at the end. */
function compare(before, after, caret) {
  const room = Math.min(before.length, after.length);
  let end = 0;
  while (end < Math.min(room, after.length - caret) && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  let begin = 0;
  while (begin < room - end && before[begin] === after[begin]) begin += 1;
  // Both halves of a character outside the basic plane change together.
  if (/[\uD800-\uDBFF]/.test(after[begin - 1] ?? '')) begin -= 1;
  if (end && /[\uDC00-\uDFFF]/.test(after.at(-end))) end -= 1;
  return { begin, end };
}

function takeInput() {
  if (isComposing || area.value === shown) return;
  const { begin, end } = compare(shown, area.value, area.selectionEnd);
  const [from, to] = [shifted(begin), shifted(shown.length - end)];
  const inserted = area.value.slice(begin, area.value.length - end).toWellFormed();
  doc.transact(() => {
    text.delete(from, to - from);
    text.insert(from, inserted);
  }, area);
  shown = area.value;
  if (deferred.length) show();
  tellCaret();
}

text.observe(({ delta, transaction }) => {
  if (transaction.origin !== area) {
    deferred.push(delta);
    if (!isComposing) show();
  }
  showCarets();
});

function tellCaret() {
  const caret = document.activeElement === area ? createRelativePositionFromTypeIndex(text, area.selectionEnd) : null;
  awareness.setLocalStateField('caret', caret);
}

/** Where another one's caret is, or undefined. What others send may be anything. */
function indexOf(caret) {
  try {
    const position = caret && createAbsolutePositionFromRelativePosition(createRelativePositionFromJSON(caret), doc);
    return position?.type === text ? position.index : undefined;
  } catch {
    return undefined;
  }
}

function showCarets() {
  const value = text.toString();
  const others = [...awareness.getStates()].filter(([id]) => id !== awareness.clientID).slice(0, HERE_MAX)
    .map(([, state]) => ({ name: clean(state?.name, NAME_MAX) ?? 'somebody', index: indexOf(state?.caret) }));
  const items = others.map(({ name, index }) => {
    const line = index === undefined ? '' : `, line ${value.slice(0, index).split('\n').length}`;
    return element('li', { textContent: `${name}${line}` });
  });
  by('here').replaceChildren(element('li', { textContent: `${by('name').value} (you)` }), ...items);
  by('here-count').textContent = Math.max(1, awareness.getStates().size);

  const nodes = [];
  let at = 0;
  for (const { name, index } of others.filter(({ index }) => index !== undefined).sort((a, b) => a.index - b.index)) {
    const caret = element('span');
    caret.dataset.name = name;
    nodes.push(value.slice(at, index), caret);
    at = index;
  }
  by('carets').replaceChildren(...nodes, `${value.slice(at)}\n`);
  by('carets').scrollTop = area.scrollTop;
}

const showSaved = () => {
  by('saved').textContent = provider.unsaved ? 'Not saved yet.' : provider.synced ? 'Everything is saved.' : '';
};

provider.on('synced', (isSynced) => {
  if (isSynced) area.disabled = false; // from now on it can be edited, also without a connection
  showSaved();
});
provider.on('unsaved', showSaved);
provider.on('error', (error) => (error.code ? complain(explain(error)) : ignore()));
awareness.on('change', showCarets);
area.addEventListener('input', takeInput);
area.addEventListener('compositionstart', () => { isComposing = true; });
area.addEventListener('compositionend', () => { isComposing = false; takeInput(); if (deferred.length) show(); });
area.addEventListener('scroll', () => { by('carets').scrollTop = area.scrollTop; });
for (const event of ['focus', 'blur', 'keyup', 'pointerup']) area.addEventListener(event, tellCaret);

by('document').textContent = document.title = name;
by('name').value = sessionStorage.getItem('name') ?? `Guest ${Math.floor(1000 * Math.random())}`;
const tellName = () => { awareness.setLocalStateField('name', clean(by('name').value, NAME_MAX) ?? 'Guest'); sessionStorage.setItem('name', by('name').value); };
by('name').addEventListener('change', tellName);
tellName();
by('cable').addEventListener('click', () => {
  cable.isIn = !cable.isIn;
  by('cable').textContent = cable.isIn ? 'Pull the cable' : 'Plug it in again';
});
addEventListener('hashchange', () => location.reload());
