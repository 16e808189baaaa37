// Connections: found by user, address or name, and the trace of one.

import { ask, by, element, number, on, row } from './link.js';

const SHOWN_MAX = 1000;

// ---- find

function button(connection) {
  const trace = element('button', { type: 'button', className: 'quiet' }, 'Trace');
  trace.setAttribute('aria-label', `Trace ${connection}`);
  on(trace, 'click', () => begin(connection));
  return element('td', {}, trace);
}

function show(connections, sentence) {
  by('found').textContent = sentence;
  by('found-connections').replaceChildren(...connections.map(({ connection, user, kind, subscriptions, expires }) => {
    const ends = expires ? new Date(expires).toLocaleString() : '';
    return row(connection, user === undefined ? kind : `${user} (${kind})`, number(subscriptions), ends, button(connection));
  }));
}

on(by('find'), 'submit', async () => {
  const [kind, what] = [by('find-by').value, by('find-what').value.trim()];
  if (kind === 'connection') return show([{ connection: what, kind: '', subscriptions: null }], 'By its name, which topics and logs show.');
  const query = what === '' ? '' : `?${kind}=${encodeURIComponent(what)}`;
  const { total, truncated, connections } = await (await ask(`api/connections${query}`)).json();
  show(connections, `${number(total)} found${truncated ? `, the first ${number(connections.length)} are shown` : ''}.`);
});

// ---- trace

let running;

function line({ at_us: at, event, bytes, text, reason }) {
  const size = bytes === undefined ? '' : ` ${number(bytes)} B`;
  return `${(at / 1e6).toFixed(6)} ${event}${size}${reason ? ` ${reason}` : ''}${text === undefined ? '' : ` ${text}`}`;
}

async function begin(connection) {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  by('trace-title').textContent = `Trace of ${connection}`;
  by('trace-lines').replaceChildren();
  by('trace-end').textContent = '';
  by('trace').hidden = false;
  by('trace').focus();
  try {
    const answer = await ask(`api/connections/${encodeURIComponent(connection)}/trace`, { signal: mine.signal });
    let rest = '';
    for (const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
      const { done, value } = await reader.read();
      if (done || mine !== running) break;
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      by('trace-lines').append(...lines.map((text) => element('li', {}, line(JSON.parse(text)))));
      while (by('trace-lines').childElementCount > SHOWN_MAX + 1) by('trace-lines').firstElementChild.remove();
    }
  } finally {
    if (mine === running) {
      by('trace-end').textContent = 'The trace has ended.';
      running = undefined;
    }
  }
}

by('stop-trace').addEventListener('click', () => running?.abort());
