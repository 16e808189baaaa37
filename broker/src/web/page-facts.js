// The card about the broker: what /healthz says and, where the public port has them, the counters.

const STATS_EVERY_MS = 2000;

const by = (id) => document.getElementById(id);

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
async function showStats(httpBase) {
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

/** Keeps the card up to date. */
export function watchBroker(httpBase) {
  setInterval(showStats, STATS_EVERY_MS, httpBase);
  showStats(httpBase);
}
