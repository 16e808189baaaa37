// Topics: the busiest, as `$sys/topics` says; one of them in detail, its last messages, and a form to publish to it.

import { ask, by, bytes, element, number, on, row, watch } from './link.js';

let listed;
let chosen = '';

// ---- the busiest

function showBusiest() {
  if (!listed || by('topics').hidden) return;
  const order = by('order').value;
  const sorted = listed.topics.toSorted((a, b) => b[order] - a[order] || (a.topic < b.topic ? -1 : 1)).slice(0, 50);
  const focused = document.activeElement?.closest('#busiest button')?.textContent;
  by('busiest').replaceChildren(...sorted.map((of) => {
    const name = element('button', { type: 'button' }, of.topic);
    on(name, 'click', () => look(of.topic));
    return row(name, number(of.messages_per_second), bytes(of.bytes_per_second), number(of.subscribers), bytes(of.waiting_bytes), of.history);
  }));
  // The table is made anew every other second: who is in it with the keyboard stays there.
  if (focused !== undefined) [...by('busiest').querySelectorAll('button')].find((button) => button.textContent === focused)?.focus();
  by('registered').textContent = `${number(listed.registered)} topics and filters are in use. Numbers of subscribers may be some seconds old.`;
}

export function show() {
  showBusiest();
}

by('order').addEventListener('change', showBusiest);
watch('$sys/topics', (listing) => {
  listed = listing;
  showBusiest();
});

// ---- one topic

const FACTS = [
  ['Rule', ({ rule }) => rule.match ?? 'none matches: the defaults'],
  ['History', ({ rule, history }) => [history, rule.history_messages && `${number(rule.history_messages)} messages`,
    rule.history_bytes && bytes(rule.history_bytes), rule.history_ttl && `${rule.history_ttl / 1000} s`].filter(Boolean).join(', ')],
  ['Position', ({ epoch, offset }) => (epoch ? `${epoch}:${offset}` : 'nothing was published')],
  ['Window', ({ window }) => (window ? `${number(window.messages)} messages, ${window.from} to ${window.to}, ${bytes(window.bytes)}` : 'empty')],
  ['State', ({ state, keys }) => `${number(state.entries)} entries, ${number(keys)} keys, ${bytes(state.bytes)}`],
  ['Subscribers', ({ subscribers }) => number(subscribers)],
  ['Waits for them', ({ waiting_bytes: waiting }) => bytes(waiting)],
  ['Furthest behind', ({ slowest }) => slowest.map((slow) => `${slow.connection} (${slow.address ?? 'gone'}): ${bytes(slow.bytes)}, ${slow.behind_ms} ms`).join('; ') || 'nobody'],
  ['Members', ({ presence }) => (presence ? `${number(presence.count)}: ${presence.members.slice(0, 50).map(({ member }) => member).join(', ')}` : 'no presence')],
  ['Lease', ({ lease }) => (lease ? `${lease.by ?? 'somebody'}, until ${new Date(lease.until).toLocaleTimeString()}` : 'nobody has it')],
];

async function look(topic) {
  by('topic').value = topic;
  const details = await (await ask(`api/topics/${encodeURIComponent(topic)}`)).json();
  chosen = topic;
  by('one-topic-name').textContent = topic;
  by('facts').replaceChildren(...FACTS.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value(details))]));
  by('messages').replaceChildren();
  by('published').textContent = '';
  by('one-topic').hidden = false;
  by('one-topic').focus();
}

on(by('find-topic'), 'submit', () => look(by('topic').value));

function text({ data, encoding }) {
  if (encoding === 'base64') return `(bytes, base64) ${data}`;
  return typeof data === 'string' ? data : JSON.stringify(data);
}

on(by('show-messages'), 'click', async () => {
  const { messages } = await (await ask(`api/topics/${encodeURIComponent(chosen)}/messages`)).json();
  by('messages').replaceChildren(...messages.map((message) => {
    const key = message.key === undefined ? '' : ` [${message.key}]`;
    return element('li', {}, `${message.offset}${key} ${message.removed ? '(removed)' : text(message)}`);
  }));
  if (!messages.length) by('messages').append(element('li', {}, 'It remembers no message.'));
});

on(by('publish'), 'submit', async () => {
  const path = chosen.split('/').map(encodeURIComponent).join('/');
  const options = { method: 'POST', headers: { 'content-type': 'text/plain' }, body: by('payload').value };
  const { offset, subscribers } = await (await ask(`pub/${path}`, options)).json();
  by('published').textContent = `Published as ${offset}, for ${number(subscribers)} subscribers.`;
  by('payload').select();
});
