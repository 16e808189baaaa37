// Game: each player says thirty times a second where it is, in twelve bytes. The topic is keyed by player: of what waits for a
// slow page, the broker sends only the newest position of each player, so it is late but never further and further behind.
//
// A message, all numbers big-endian: 0 format (1), 1 hue (256ths of the circle), 2 x and 4 y (65536ths of the field),
// 6 the player's own lag in ms, 8 sequence number.

import { by, complain, element, explain, ignore, join } from './demo.js';
import { steer } from './steer.js';

const TOPIC = 'demos/game';
const FORMAT = 1, BYTES = 12;
const SEND_MS = 1000 / 30;
const GONE_MS = 3000; // a player of whom nothing came for so long is taken away
const PLAYERS_MAX = 100;
const THROTTLE_MAX_MS = 5000;

const me = [...crypto.getRandomValues(new Uint8Array(4))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
const hue = Math.floor(256 * Math.random());
const players = new Map(); // key -> { x, y, hue, lag, seq, at, got }
const sentAt = new Map(); // sequence number -> when, for what is on its way
const totals = { sent: 0, got: 0, skipped: 0, drawn: 0 };
let seq = 0, lag = 0, workMs = 0, subscription;

const colorOf = (hue) => `hsl(${hue * 360 / 256} 70% 50%)`;
const canvas = by('field'), pen = canvas.getContext('2d');
const own = steer(canvas, () => by('auto').checked); // { x, y }, from 0 to 1
const bus = join('game');

function pack() {
  const view = new DataView(new ArrayBuffer(BYTES));
  view.setUint8(0, FORMAT);
  view.setUint8(1, hue);
  view.setUint16(2, own.x * 65535);
  view.setUint16(4, own.y * 65535);
  view.setUint16(6, Math.min(lag, 65535));
  view.setUint32(8, seq);
  return view;
}

function unpack(data) {
  if (!(data instanceof Uint8Array) || data.length !== BYTES || data[0] !== FORMAT) return undefined;
  const view = new DataView(data.buffer);
  return { hue: data[1], x: view.getUint16(2) / 65535, y: view.getUint16(4) / 65535, lag: view.getUint16(6), seq: view.getUint32(8) };
}

/** A page that is slow asks for less: while it works, the broker keeps only the newest position of each player for it. */
function subscribe() {
  subscription?.close();
  const throttle = workMs ? Math.min(THROTTLE_MAX_MS, workMs) : undefined;
  subscription = bus.subscribe(TOPIC, { frame: true, throttle });
  subscription.onmessage = take;
}

function take({ key = '', data, removed, state }) {
  const news = removed ? {} : unpack(data);
  if (!news || !/^[0-9a-f]{8}$/.test(key) || (!players.has(key) && players.size >= PLAYERS_MAX)) return ignore();
  if (removed) return players.delete(key);
  const player = players.get(key) ?? { got: 0 };
  const left = news.seq - player.seq - 1; // positions of this player that the broker left out
  if (left > 0 && left < 1000) totals.skipped += left;
  totals.got += 1;
  players.set(key, Object.assign(player, news, { got: player.got + 1, at: performance.now() }));
  if (key === me && !state) measure(news.seq);
}

/** How long our own position took to the broker and back. */
function measure(seen) {
  const took = performance.now() - sentAt.get(seen);
  if (Number.isFinite(took)) lag += (took - lag) * 0.2;
  for (const number of sentAt.keys()) if (number <= seen) sentAt.delete(number);
}

function send() {
  if (bus.state !== 'open') return sentAt.clear();
  seq += 1;
  sentAt.set(seq, performance.now());
  totals.sent += 1;
  bus.publish(TOPIC, pack(), { key: me }).catch(({ code, message }) => {
    if (code !== 'disconnected') complain(explain({ code, message })); // one that was under way is no loss
  });
}


function dot({ x, y, hue }, isOwn) {
  const unit = canvas.width / 60;
  pen.beginPath();
  pen.arc(x * canvas.width, y * canvas.height, unit, 0, 2 * Math.PI);
  pen.fillStyle = pen.strokeStyle = colorOf(hue);
  pen.fill();
  if (!isOwn) return;
  pen.beginPath(); // where we are, before the broker has said so
  pen.arc(own.x * canvas.width, own.y * canvas.height, unit * 1.6, 0, 2 * Math.PI);
  pen.lineWidth = unit / 4;
  pen.stroke();
}

function frame(now) {
  own.move(now);
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  if (canvas.width !== width) [canvas.width, canvas.height] = [width, Math.round(width * 0.625)];
  pen.clearRect(0, 0, canvas.width, canvas.height);
  for (const [key, player] of players) {
    if (performance.now() - player.at > GONE_MS) players.delete(key);
    else dot(player, key === me);
  }
  totals.drawn += 1;
  const until = performance.now() + workMs;
  while (performance.now() < until); // this is what makes the tab slow
  if (workMs) setTimeout(requestAnimationFrame, 20, frame); // all else has its turn
  else requestAnimationFrame(frame);
}

let shownAt = performance.now();

function showFigures() {
  const seconds = (performance.now() - shownAt) / 1000; // timers of a slow tab are late
  shownAt += 1000 * seconds;
  for (const name of Object.keys(totals)) {
    by(name).textContent = `${Math.round(totals[name] / seconds)} a second`;
    totals[name] = 0;
  }
  by('lag').textContent = players.has(me) ? `${Math.round(lag)} ms` : '–';
  const rows = [...players].sort().map(([key, player]) => {
    const swatch = element('span', { className: 'swatch' });
    swatch.style.background = colorOf(player.hue);
    const cells = [`${player.lag} ms`, Math.round(player.got / seconds)].map((value) => element('td', { textContent: value }));
    player.got = 0;
    return element('tr', {}, element('td', {}, swatch, key === me ? 'you' : key), ...cells);
  });
  by('players').replaceChildren(...rows);
}

by('slow').addEventListener('input', () => {
  workMs = Number(by('slow').value);
  by('work').textContent = workMs ? `${workMs} ms of work for each picture` : 'not slowed down';
});
by('slow').addEventListener('change', subscribe);
addEventListener('pagehide', () => bus.publish(TOPIC, pack(), { key: me, removed: true }).catch(() => {}));

subscribe();
setInterval(send, SEND_MS);
setInterval(showFigures, 1000);
requestAnimationFrame(frame);
