// The controller of the demo's model railway, which is a client as the pages are: node railway.mjs
//
// BROKER is the broker's URL, http://127.0.0.1:8080 by default. BROKER_TOKEN is a token or key, if it asks for one. Needs Node 20.10
// or newer, and the client beside it as in a checkout.
//
// It answers requests, on demos/rail/points/N { to: "main" | "loop" } and demos/rail/signal/N { to: "red" | "green" }; takes speeds,
// on demos/rail/throttle/N { speed: 0 to 100 }; and says what is, on demos/rail/state, with the keys points/N, signal/N and
// train/N. With a layout of your own, `step` is what your hardware does, and the rest stays.
//
// Two trains go round clockwise. A train stops before a red signal, before points that are set against it, and before a block
// that another train is in; so no command can make them collide.

import { once } from 'node:events';
import { isMainThread, Worker } from 'node:worker_threads';
import { connect } from '../../protocol/js/ringyard.min.mjs';

const STATE = 'demos/rail/state';
const TICK_MS = 50;
const REPEAT_MS = 2000; // all state again, for brokers without the topic's rule
const TRAIN_LENGTH = 90, OVERHANG = 16; // units of the drawing; a train holds this far before the end of its block
const UNITS_PER_SECOND = 1.4; // at speed 1 of 100

// The blocks: their length, the points at their end, how these must be set or where each setting leads, the signal there.
const BLOCKS = {
  'top': { length: 300, points: 2, needs: 'main', next: 'right', signal: 1 },
  'top-loop': { length: 320, points: 2, needs: 'loop', next: 'right', signal: 2 },
  'right': { length: 540, points: 3, next: { main: 'bottom', loop: 'bottom-loop' } },
  'bottom': { length: 300, points: 4, needs: 'main', next: 'left', signal: 3 },
  'bottom-loop': { length: 320, points: 4, needs: 'loop', next: 'left', signal: 4 },
  'left': { length: 540, points: 1, next: { main: 'top', loop: 'top-loop' } },
};
const KINDS = {
  points: { values: ['main', 'loop'], state: ['main', 'main', 'main', 'main'] },
  signal: { values: ['red', 'green'], state: ['green', 'green', 'green', 'green'] },
};
const trains = [
  { block: 'right', before: 'top', way: 60, speed: 45, waits: '' },
  { block: 'left', before: 'bottom', way: 60, speed: 35, waits: '' },
];

const url = new URL('/ws', process.env.BROKER ?? 'http://127.0.0.1:8080');
url.protocol = url.protocol.replace('http', 'ws');
if (!globalThis.WebSocket && isMainThread) {
  // Node 20 has it behind an option, which a thread can be given.
  await once(new Worker(new URL(import.meta.url), { execArgv: ['--experimental-websocket'] }), 'exit');
  process.exit(1);
}
const bus = connect(url.href, { token: process.env.BROKER_TOKEN });
bus.on('state', ({ state, reason }) => console.log(`${url.href}: ${state} ${reason ?? ''}`));
bus.on('error', ({ code, message }) => console.error(`${code}: ${message}`));

/** Without a connection nothing is published: what waited would be old. */
function publish(key, data) {
  if (bus.state !== 'open') return;
  bus.publish(STATE, data, { key }).catch(({ code, message }) => console.error(`not published: ${code} ${message}`));
}

const publishTrain = (number) => {
  const { block, before, way, speed, waits } = trains[number - 1];
  publish(`train/${number}`, { block, before, at: Math.min(1, way / BLOCKS[block].length), speed, waits });
};

function publishAll() {
  for (const [kind, { state }] of Object.entries(KINDS)) state.forEach((is, index) => publish(`${kind}/${index + 1}`, { is }));
  trains.forEach((_, index) => publishTrain(index + 1));
}

/** A train is in its block, and still in the one before until its last car has left that. */
const isIn = (train, block) => train.block === block || (train.before === block && train.way < TRAIN_LENGTH);
const isOver = (train, points) => train.way < TRAIN_LENGTH && BLOCKS[train.before].points === points;

/** Carries out a request, or throws what the page shows. */
function set(kind, { topic, data }) {
  const { values, state } = KINDS[kind];
  const number = Number(topic.split('/').at(-1));
  const refuse = (code, message) => { throw Object.assign(new Error(message), { code }); };
  if (!state[number - 1]) refuse('not-found', `there is no ${kind} ${topic}`);
  if (!values.includes(data?.to)) refuse('bad-request', `"to" is ${values.join(' or ')}`);
  const above = kind === 'points' && trains.findIndex((train) => isOver(train, number)) + 1;
  if (above && state[number - 1] !== data.to) refuse('occupied', `train ${above} is on points ${number}`);
  state[number - 1] = data.to;
  publish(`${kind}/${number}`, { is: data.to });
  return { is: data.to };
}

/** Why the train may not go on at the end of its block, or where it goes. */
function ahead(train) {
  const { points, needs, next, signal } = BLOCKS[train.block];
  const setting = KINDS.points.state[points - 1];
  if (signal && KINDS.signal.state[signal - 1] === 'red') return { waits: `signal ${signal} is red` };
  if (needs && needs !== setting) return { waits: `points ${points} are set against it` };
  const block = needs ? next : next[setting];
  const other = trains.findIndex((other) => other !== train && isIn(other, block)) + 1;
  return other ? { waits: `train ${other} is ahead` } : { block };
}

/** Moves a train by one tick; whether there is something new to tell. */
function step(train) {
  const { waits, way } = train;
  train.way += train.speed * UNITS_PER_SECOND * TICK_MS / 1000;
  train.waits = '';
  const { length } = BLOCKS[train.block];
  if (train.way >= length - OVERHANG) {
    const then = ahead(train);
    if (then.waits) Object.assign(train, { way: Math.min(train.way, Math.max(way, length - OVERHANG)), waits: then.waits });
    else if (train.way >= length) Object.assign(train, { before: train.block, block: then.block, way: train.way - length });
  }
  return train.way !== way || train.waits !== waits;
}

for (const kind of Object.keys(KINDS)) bus.respond(`demos/rail/${kind}/+`, (request) => set(kind, request));

bus.subscribe('demos/rail/throttle/+').onmessage = ({ topic, data }) => {
  const number = Number(topic.split('/').at(-1));
  const { speed } = data ?? {};
  if (!trains[number - 1] || !Number.isFinite(speed)) return; // not of this demo
  trains[number - 1].speed = Math.min(100, Math.max(0, speed));
  publishTrain(number);
};

setInterval(() => trains.forEach((train, index) => step(train) && publishTrain(index + 1)), TICK_MS);
setInterval(publishAll, REPEAT_MS);
bus.on('state', ({ state }) => state === 'open' && publishAll());
