// The table of uses by protocol: what `bench protocols` measured and judged (compare.json). Nothing in it is written by hand.

const VERDICTS = { fits: 'fits', 'costs-much': 'costs much', 'does-not-serve': 'does not serve' };

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const inMs = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms).toLocaleString('en')} ms`;
const inMicros = (us) => `${us < 10 ? us.toFixed(1) : Math.round(us).toLocaleString('en')} µs`;

const describe = ({ rate, bytes, subscribers, everybody_publishes: everybody, deadline_ms: deadline }) =>
  `${rate} messages/s of ${bytes} bytes to ${subscribers}; ${everybody ? 'everybody publishes' : 'one publishes'}; wanted within ${deadline} ms`;

function cell(of) {
  if (!of) return element('td', { textContent: 'not measured' });
  return element('td', {},
    element('strong', { className: `verdict ${of.verdict}`, textContent: VERDICTS[of.verdict] }),
    element('span', { textContent: `p99 ${inMs(of.p99_ms)}` }),
    element('span', { textContent: `${inMicros(of.cpu_us)} processor` }),
    element('span', { textContent: `${Math.round(of.bytes).toLocaleString('en')} B wire` }),
    element('span', { textContent: `${of.requests.toFixed(2)} requests` }),
    element('span', { className: 'note', textContent: of.why }));
}

/** Fills the table, and says when, where and by which rule that was measured and judged. */
export async function drawUses(table, measured, rule, columns) {
  const answer = await fetch('compare.json');
  const { uses, machine, rule: sentences } = await answer.json();
  const head = element('tr', {}, ...['Use', ...columns.map(({ name }) => name)].map((name) => element('th', { scope: 'col', textContent: name })));
  const rows = uses.map((use) => element('tr', {},
    element('th', { scope: 'row' }, element('strong', { textContent: use.name }), element('span', { className: 'note', textContent: describe(use) })),
    ...columns.map(({ way }) => cell(use.cells.find(({ protocol }) => protocol === way)))));
  table.replaceChildren(element('caption', { className: 'visually-hidden', textContent: 'Uses by protocol' }),
    element('thead', {}, head), element('tbody', {}, ...rows));
  measured.textContent = machine ? `Measured by bench protocols. ${machine}.` : 'Not measured yet: bench protocols does that.';
  rule.replaceChildren(...sentences.map((sentence) => element('li', { textContent: sentence })));
}
