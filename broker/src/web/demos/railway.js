// Model railway: a panel whose clicks are requests to the controller, deploy/demos/railway.mjs, and say how long it took to answer.
//
// demos/rail/state is keyed: points/N { is }, signal/N { is }, train/N { block, before, at, speed, waits }. Requests go to
// demos/rail/points/N and demos/rail/signal/N { to }; speeds to demos/rail/throttle/N { speed }.

import { overHttp, overLongPoll } from './ask.js';
import { by, complain, element, explain, ignore, join, text } from './demo.js';

const STATE = 'demos/rail/state';
const SILENT_MS = 5000; // the controller says all that is every two seconds
const LEASE_MS = 120_000; // background tabs renew once a minute
const CARS = [0, 32, 62]; // how far behind the front each car is, in units of the drawing
const VALUES = { points: ['main', 'loop'], signal: ['red', 'green'] };
const TIMES_MAX = 500;

const bus = join('railway', { session: true });
const known = new Map(); // key -> what the controller said last
const times = { ws: [], http: [], poll: [] };
const throttleOf = (number) => `demos/rail/throttle/${number}`;
let heardAt, driving; // { number, lease }: the train that this tab drives

const isTrain = (data) => by(`block-${data?.block}`) && by(`block-${data.before}`) && data.at >= 0 && data.at <= 1
  && Number.isFinite(data.speed) && typeof data.waits === 'string';

bus.subscribe(STATE, { frame: true }).onmessage = ({ key = '', data, removed, state }) => {
  const [, kind, number] = /^(points|signal|train)\/([1-4])$/.exec(key) ?? [];
  if (removed) return known.delete(key);
  if (!(kind === 'train' ? number <= 2 && isTrain(data) : VALUES[kind]?.includes(data?.is))) return ignore();
  if (!state) heardAt = performance.now(); // else it may be long ago
  known.set(key, data);
  if (kind === 'train') showTrain(number, data);
  else showSetting(kind, number, data.is);
};

function showSetting(kind, number, is) {
  by(`set-${kind}-${number}`).textContent = is;
  if (kind === 'signal') by(`lamp-${number}`).dataset.shows = is;
  else for (const way of VALUES.points) by(`blade-${number}-${way}`).classList.toggle('unset', way !== is);
}

/** Puts the cars of a train on the track; those behind may still be in the block before. */
function showTrain(number, { block, before, at, speed, waits }) {
  const track = by(`block-${block}`), behind = by(`block-${before}`);
  const front = at * track.getTotalLength();
  by(`train-${number}`).setAttribute('visibility', 'visible');
  CARS.forEach((distance, car) => {
    const [path, way] = front >= distance ? [track, front - distance] : [behind, behind.getTotalLength() + front - distance];
    const { x, y } = path.getPointAtLength(way), ahead = path.getPointAtLength(way + 1), back = path.getPointAtLength(way - 1);
    const angle = Math.atan2(ahead.y - back.y, ahead.x - back.x) * 180 / Math.PI;
    by(`car-${number}-${car}`).setAttribute('transform', `translate(${x} ${y}) rotate(${angle})`);
    by(`car-${number}-${car}`).querySelector('text')?.setAttribute('transform', `rotate(${-angle})`); // the number stays upright
  });
  by(`doing-${number}`).textContent = waits ? `waits: ${text(waits, 60)}` : speed ? `runs at ${Math.round(speed)}` : 'stands';
  if (driving?.number !== number) by(`speed-${number}`).value = speed;
}

const written = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

function note(way, ms) {
  times[way].push(ms);
  if (times[way].length > TIMES_MAX) times[way].shift();
  const sorted = times[way].toSorted((a, b) => a - b);
  by(`${way}-last`).textContent = written(ms);
  by(`${way}-median`).textContent = written(sorted[sorted.length >> 1]);
  by(`${way}-count`).textContent = sorted.length;
}

/** Asks the controller, over the WebSocket and then, to compare, the same in other ways. To ask again does no harm: a request
 *  names what it wants, not a change. */
async function click(kind, number) {
  const [one, other] = VALUES[kind];
  const to = known.get(`${kind}/${number}`)?.is === one ? other : one;
  const topic = `demos/rail/${kind}/${number}`;
  const begun = performance.now();
  try {
    const { data } = await bus.request(topic, { to }, { timeout: 2000 });
    note('ws', performance.now() - begun);
    by('answer').textContent = `The controller: ${kind} ${number}, ${text(data?.is, 20) ?? 'done'}.`;
    complain('');
  } catch (error) {
    by('answer').textContent = '';
    return complain(whyNot(error));
  }
  if (!by('compare').checked) return;
  await compare('http', overHttp, topic, to);
  await compare('poll', overLongPoll, topic, to, STATE, `${kind}/${number}`);
}

/** What one way to ask takes, without the WebSocket. */
async function compare(way, measure, ...how) {
  try {
    note(way, await measure(...how));
  } catch (error) {
    complain(`By ${way === 'http' ? 'HTTP' : 'long poll'}: ${error.message}.`);
  }
}

function whyNot(error) {
  if (error.code === 'no-responder') return 'No controller is there: start it with node deploy/demos/railway.mjs.';
  if (error.code === 'responder-error') return `Not done: ${text(error.error?.reason, 200) ?? error.error?.code}.`;
  return `Not done, or nobody said so. ${explain(error)}`;
}

/** One tab drives a train, which stops when that tab goes: a lease and a last will. Driving it already: leaves it. */
async function drive(number) {
  const before = driving;
  driving = undefined;
  if (before) bus.will(null).catch(() => {});
  before?.lease.release();
  if (before?.number !== number) {
    try {
      const lease = await bus.lease(throttleOf(number), { ttl: LEASE_MS });
      driving = { number, lease };
      bus.will({ topic: throttleOf(number), data: { speed: 0 } }).catch((error) => complain(explain(error)));
      lease.lost.then((reason) => {
        if (driving?.lease !== lease) return;
        driving = undefined;
        showDriving(`You do not drive any more: ${reason}.`);
      });
    } catch (error) {
      return showDriving(error.code === 'held' ? `Train ${number} has a driver: ${error.by}.` : explain(error));
    }
  }
  showDriving('');
}

function showDriving(note) {
  complain(note);
  for (const number of ['1', '2']) {
    const isMine = driving?.number === number;
    by(`speed-${number}`).disabled = !isMine;
    by(`take-${number}`).textContent = isMine ? `Leave train ${number}` : `Drive train ${number}`;
  }
}

for (const number of ['1', '2']) {
  by(`take-${number}`).addEventListener('click', () => drive(number));
  by(`speed-${number}`).addEventListener('input', ({ target }) => {
    const { lease } = driving ?? {};
    bus.publish(throttleOf(number), { speed: Number(target.value) }, { lease }).catch((error) => complain(explain(error)));
  });
  bus.subscribe(`$lease/${throttleOf(number)}`).onmessage = ({ data }) => {
    by(`driver-${number}`).textContent = data?.by === bus.member ? 'you drive' : data?.by ? `driver: ${text(data.by, 20)}` : '';
  };
}
for (const node of document.querySelectorAll('[data-kind]')) node.addEventListener('click', () => click(node.dataset.kind, node.dataset.number));
setInterval(() => {
  const isHere = performance.now() - heardAt < SILENT_MS;
  by('controller').textContent = isHere ? 'The controller is here.' : 'No controller: node deploy/demos/railway.mjs';
}, 500);
