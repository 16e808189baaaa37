// The connection: when and how the client comes back, how it finds that a connection is dead, and how it ends.

import assert from "node:assert/strict";
import { test } from "node:test";
import { WebSocket } from "ws";
import { mockClock, mockPage } from "./clock.js";
import { collect, connect, EPOCH, noDelay, offsets, older, pings, settle, startBoth, startBus, startFake, until } from "./fake.js";

/** Random numbers that are as large as they get: delays are at their upper bounds. */
const MOST = 0.999999;

/** Where a WebSocket would be, but the test opens and closes it. */
class ManualSocket {
  static made = [];

  constructor(url, protocol) {
    Object.assign(this, { url, protocol, sent: [], closes: 0 });
    ManualSocket.made.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closes++;
  }

  open() {
    this.onopen({});
  }

  drop(code = 1006, reason = "") {
    this.onclose({ code, reason });
  }

  say(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }
}

const startManual = (t) => {
  ManualSocket.made = [];
  const bus = connect("ws://fake/ws", { WebSocket: ManualSocket });
  const states = [];
  bus.on("state", (event) => states.push(event));
  t.after(() => bus.close());
  return { bus, states, socket: () => ManualSocket.made.at(-1), count: () => ManualSocket.made.length };
};

test("a WebSocket is needed, and no option is ignored", () => {
  const global = globalThis.WebSocket;
  try {
    delete globalThis.WebSocket;
    assert.throws(() => connect("ws://127.0.0.1:1/ws"), { message: "there is no WebSocket; pass one" });
    globalThis.WebSocket = ManualSocket;
    connect("ws://fake/ws").close();
  } finally {
    globalThis.WebSocket = global;
  }
  assert.throws(() => connect("ws://fake/ws", { WebSocket: ManualSocket, sessions: true }), {
    name: "TypeError",
    message: 'unknown option "sessions"',
  });
  assert.throws(() => connect("no address", { WebSocket }), SyntaxError);
});

test("delays double from 0.5 to 20 s, with full jitter", (t) => {
  const clock = mockClock(t);
  const random = t.mock.method(Math, "random", () => MOST);
  const { states, socket, count } = startManual(t);
  const delays = [];
  for (let i = 0; i < 8; i++) {
    socket().drop();
    delays.push(Math.round(states.at(-1).delay));
    clock.tick(20_000);
  }
  assert.deepEqual(delays, [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
  assert.equal(count(), 9);
  random.mock.mockImplementation(() => 0);
  socket().drop(1006, "gone");
  assert.deepEqual(states.at(-1), { state: "connecting", code: 1006, reason: "gone", delay: 0 });
});

test("an attempt is made when the delay is over, not before", (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => 0.5);
  const { socket, count } = startManual(t);
  socket().drop();
  clock.tick(249);
  assert.equal(count(), 1);
  clock.tick(1);
  assert.equal(count(), 2);
});

test("only a connection that was open for 10 s resets the number of attempts", (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => MOST);
  const { states, socket } = startManual(t);
  const openFor = (ms) => {
    socket().open();
    clock.tick(ms);
    socket().drop();
    const delay = Math.round(states.at(-1).delay);
    clock.tick(20_000);
    return delay;
  };
  assert.deepEqual([9999, 9999, 9999, 10_000, 9999].map(openFor), [500, 1000, 2000, 500, 1000]);
});

test("after 1001 and 1012 it takes up to 5 s, after 1013 at least 1 s", (t) => {
  const clock = mockClock(t);
  const random = t.mock.method(Math, "random", () => MOST);
  const { states, socket } = startManual(t);
  const delay = (code, value) => {
    random.mock.mockImplementation(() => value);
    socket().open();
    clock.tick(10_000);
    socket().drop(code);
    clock.tick(20_000);
    return Math.round(states.findLast(({ delay }) => delay !== undefined).delay);
  };
  assert.deepEqual([delay(1001, MOST), delay(1012, MOST)], [5000, 5000]);
  assert.deepEqual([delay(1001, 0), delay(1012, 0)], [0, 0]);
  assert.deepEqual([delay(1013, MOST), delay(1013, 0)], [1500, 1000]);
});

test("1013 of a broker: back after a second, where it left off", async (t) => {
  noDelay(t);
  const { fake, bus, peer, states } = await startBoth(t);
  const messages = collect(bus.subscribe("a"));
  await peer.subscribed("a");
  peer.message("a", 1);
  const begun = performance.now();
  peer.close(1013, "slow consumer");
  const second = await fake.accept();
  assert.ok(performance.now() - begun >= 990);
  const { since } = await second.subscribed("a", { epoch: EPOCH, offset: 2, recovered: true });
  assert.deepEqual(since, { epoch: EPOCH, offset: 1 });
  second.message("a", 2);
  await until(() => messages.length === 2);
  assert.deepEqual(states.map(({ state, code, reason }) => [state, code, reason]), [
    ["open", undefined, undefined],
    ["connecting", 1013, "slow consumer"],
    ["open", undefined, undefined],
  ]);
});

test("codes from 4400 to 4499 are final", async (t) => {
  const { fake, bus, peer, states, errors } = await startBoth(t);
  const chat = bus.subscribe("a");
  const messages = collect(chat);
  await peer.subscribed("a");
  const published = assert.rejects(bus.publish("a", 1), { code: "closed" });
  await peer.next("publish");
  peer.message("a", 1);
  peer.close(4403, "no longer allowed");
  await assert.rejects(messages.done, { code: "closed", message: "the broker closed with 4403: no longer allowed" });
  await published;
  assert.deepEqual(offsets(messages), [1], "what came before the end is delivered");
  assert.deepEqual(states.at(-1), { state: "closed", code: 4403, reason: "no longer allowed" });
  assert.equal(bus.state, "closed");
  assert.equal(errors.length, 1);
  await settle();
  assert.equal(fake.peers.length, 1);
});

test("4500 is not final", async (t) => {
  noDelay(t);
  const { fake, peer } = await startBoth(t);
  peer.close(4500);
  await fake.accept();
});

test("close ends the connection, the subscriptions and the attempts", async (t) => {
  const { fake, bus, peer, states } = await startBoth(t);
  const messages = collect(bus.subscribe("a"));
  await peer.subscribed("a");
  bus.close();
  bus.close();
  await messages.done;
  await until(() => peer.closed !== null);
  assert.equal(peer.closed, 1005);
  assert.deepEqual(states.at(-1), { state: "closed", code: 1000, reason: "" });
  await settle();
  assert.equal(fake.peers.length, 1);
});

test("close while it connects", async (t) => {
  const fake = await startFake(t);
  const { bus, errors } = startBus(t, fake);
  bus.close();
  await settle();
  assert.equal(bus.state, "closed");
  assert.deepEqual(errors, []);
});

test("a listener that was removed hears nothing", async (t) => {
  const { bus, peer } = await startBoth(t);
  const heard = [];
  const off = bus.on("error", (error) => heard.push(error.code));
  peer.say({ type: "error", code: "limit", reason: "" });
  await until(() => heard.length === 1);
  off();
  peer.say({ type: "error", code: "limit", reason: "" });
  await settle();
  assert.equal(heard.length, 1);
});

test("an error that nobody listens to is written to the console", async (t) => {
  const written = t.mock.method(console, "error", () => {});
  const { socket } = startManual(t);
  socket().open();
  socket().say({ type: "error", code: "limit", reason: "enough" });
  assert.equal(written.mock.calls[0].arguments[0].code, "limit");
});

test("after a drop each topic goes on where it was, each once", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const a = bus.subscribe("a", { last: 10 });
  const gaps = [];
  a.ongap = (gap) => gaps.push(gap);
  const messages = collect(a);
  const b = collect(bus.subscribe("b"));
  assert.equal((await peer.subscribed("a")).last, 10);
  await peer.subscribed("b", { epoch: "00000000000000bb", offset: 100 });
  peer.message("a", 1);
  peer.message("a", 2);
  await settle();
  peer.cut();
  const second = await fake.accept();
  const resume = await second.subscribed("a", { epoch: EPOCH, offset: 3, recovered: true });
  assert.deepEqual(resume, { type: "subscribe", topic: "a", since: { epoch: EPOCH, offset: 2 }, id: resume.id });
  const other = await second.subscribed("b", { epoch: "00000000000000bb", offset: 100, recovered: true });
  assert.deepEqual(other.since, { epoch: "00000000000000bb", offset: 99 });
  for (const offset of [2, 3, 4]) second.message("a", offset);
  second.message("b", 100);
  await until(() => messages.length === 4 && b.length === 1);
  assert.deepEqual(offsets(messages), [1, 2, 3, 4]);
  assert.deepEqual(gaps, []);
});

test("what could not be recovered after a drop is told", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  const events = [];
  chat.ongap = ({ from, to, reason }) => events.push([from, to, reason]);
  chat.onmessage = ({ offset }) => events.push(offset);
  await peer.subscribed("a");
  peer.message("a", 1);
  await settle();
  peer.cut();
  const second = await fake.accept();
  await second.subscribed("a", { epoch: EPOCH, offset: 301, recovered: false, available: { from: 45, to: 300 } });
  second.message("a", 301);
  await until(() => events.length === 3);
  assert.deepEqual(events, [1, [2, 300, "unrecovered"], 301]);
});

test("a filter draws its state anew after a drop and says that there may be a gap", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const all = bus.subscribe("status/+");
  const gaps = [];
  all.ongap = (gap) => gaps.push(gap);
  const messages = collect(all);
  await peer.subscribed("status/+", {});
  peer.message("status/1", 5, "up", { state: true });
  peer.say({ type: "state-end", topic: "status/+" });
  await settle();
  assert.deepEqual(gaps, []);
  peer.cut();
  const second = await fake.accept();
  const { since, last } = await second.subscribed("status/+", {});
  assert.deepEqual([since, last], [undefined, undefined]);
  second.message("status/1", 5, "up", { state: true });
  second.message("status/1", 1, "another epoch");
  await until(() => messages.length === 3);
  assert.deepEqual(gaps, [{ topic: "status/+", reason: "reconnect" }]);
});

test("a broker that recovers nothing is subscribed to without, and the gap is told", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  const gaps = [];
  chat.ongap = (gap) => gaps.push(gap);
  const messages = collect(chat);
  await peer.subscribed("a");
  peer.message("a", 1);
  await settle();
  peer.cut();
  const second = await fake.accept();
  second.error(await second.next("subscribe"), "unsupported");
  const { since } = await second.subscribed("a", { epoch: EPOCH, offset: 9 });
  assert.equal(since, undefined);
  second.message("a", 9);
  await until(() => messages.length === 2);
  assert.deepEqual(gaps, [{ topic: "a", reason: "reconnect" }]);
});

test("a subscription that was never answered begins as it was asked for", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  bus.subscribe("a", { last: 5 });
  bus.subscribe("b", { since: `${EPOCH}:7` });
  await peer.next("subscribe");
  peer.cut();
  const second = await fake.accept();
  assert.equal((await second.next("subscribe")).last, 5);
  assert.deepEqual((await second.next("subscribe")).since, { epoch: EPOCH, offset: 7 });
});

test("a topic that was closed before a drop is not subscribed again", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  bus.subscribe("a").close();
  bus.subscribe("b");
  await peer.next("subscribe");
  peer.cut();
  const second = await fake.accept();
  assert.equal((await second.next("subscribe")).topic, "b");
  bus.subscribe("a");
  assert.equal((await second.next("subscribe")).topic, "a");
});

test("pings of the broker are answered and keep the connection", async (t) => {
  const clock = mockClock(t);
  const { fake, peer, states } = await startBoth(t, pings(1000));
  await settle();
  for (let i = 0; i < 10; i++) {
    peer.say({ type: "ping" });
    assert.deepEqual(await peer.next("pong"), { type: "pong" });
    clock.tick(1000);
  }
  assert.equal(fake.peers.length, 1);
  assert.equal(states.length, 1);
});

test("a half-open connection is given up after 1.5 times the ping interval", async (t) => {
  noDelay(t);
  const clock = mockClock(t);
  const { fake, peer, states } = await startBoth(t, pings(1000));
  await settle();
  // From here on nothing comes and nothing is read, and no end of the connection is seen.
  peer.socket.pause();
  clock.tick(1499);
  assert.equal(states.length, 1);
  clock.tick(1);
  assert.deepEqual(states.at(-1), { state: "connecting", code: 1006, reason: "no sign of life", delay: 0 });
  clock.tick(0);
  const second = await fake.accept();
  await until(() => states.at(-1).state === "open");
  peer.socket.terminate();
  await settle();
  assert.equal(second.closed, null);
  assert.equal(states.at(-1).state, "open", "the end of the old connection ends nothing");
});

test("a broker whose ping is late is asked before it is given up", async (t) => {
  const clock = mockClock(t);
  const { peer, states } = await startBoth(t, pings(1000));
  await settle();
  for (let round = 0; round < 5; round++) {
    clock.tick(1249);
    await settle();
    assert.deepEqual(peer.commands, []);
    clock.tick(1);
    await peer.next("ping");
    peer.say({ type: "pong" });
    await settle();
  }
  assert.equal(states.length, 1);
});

for (const [name, answer] of [["bad-command", older], ["ok without ping", ({ id }) => ({ type: "ok", id })]]) {
  test(`a broker that sends no pings (${name}) is asked every 25 s`, async (t) => {
    noDelay(t);
    const clock = mockClock(t);
    const { fake, peer, states } = await startBoth(t, answer);
    await settle();
    for (let i = 0; i < 3; i++) {
      clock.tick(18_750);
      await settle();
      assert.deepEqual(peer.commands, []);
      clock.tick(6_250);
      assert.deepEqual(await peer.next("ping"), { type: "ping" });
      peer.say({ type: "pong" });
      await settle();
    }
    clock.tick(25_000);
    await peer.next("ping");
    clock.tick(6249);
    assert.equal(states.length, 1);
    clock.tick(1);
    assert.equal(states.at(-1).reason, "no sign of life");
    clock.tick(1);
    await fake.accept();
  });
}

test("a page whose timers are throttled asks late, and does not take its own silence for the broker's", async (t) => {
  noDelay(t);
  const clock = mockClock(t);
  const { peer, states } = await startBoth(t, older);
  await settle();
  for (let minute = 0; minute < 3; minute++) {
    clock.sleep(60_000);
    clock.tick(0);
    await peer.next("ping");
    peer.say({ type: "pong" });
    await settle();
  }
  assert.equal(states.length, 1);
});

test("a filter takes offsets that begin anew after a drop for news", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const all = collect(bus.subscribe("chat/+"));
  await peer.subscribed("chat/+", {});
  peer.message("chat/7", 57);
  await until(() => all.length === 1);
  peer.cut();
  const second = await fake.accept();
  await second.subscribed("chat/+", {});
  bus.subscribe("chat/7");
  await second.subscribed("chat/7", { epoch: EPOCH, offset: 3 });
  second.message("chat/7", 3);
  await until(() => all.length === 2);
});

test("a refusal of connect that says more is told", async (t) => {
  const { errors } = await startBoth(t, ({ id }) => ({ type: "error", id, code: "busy", reason: "later" }));
  await until(() => errors.length === 1);
  assert.equal(errors[0].code, "busy");
});

test("a handshake that is never answered is given up", (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => 0);
  const { states, socket, count } = startManual(t);
  const first = socket();
  clock.tick(18_750);
  assert.equal(states.length, 0);
  clock.tick(6_250);
  assert.deepEqual([states.length, first.closes, first.onopen], [1, 1, null]);
  clock.tick(1);
  assert.equal(count(), 2);
});

for (const name of ["online", "visibilitychange", "pageshow"]) {
  test(`on ${name} it comes back at once if the last sign of life is old`, (t) => {
    const clock = mockClock(t);
    t.mock.method(Math, "random", () => MOST);
    const page = mockPage(t);
    const { bus, socket, count } = startManual(t);
    socket().open();
    socket().say({ type: "ok", id: 1, ping: 25_000 });
    // The page sleeps: timers do not run, the clock does.
    clock.sleep(37_500);
    page.dispatchEvent(new Event(name));
    assert.equal(count(), 1);
    clock.sleep(1);
    page.dispatchEvent(new Event(name));
    assert.equal(count(), 2);
    assert.equal(bus.state, "connecting");
    clock.tick(1000);
    assert.equal(count(), 2, "one attempt, not a second one after the delay");
    // Between two attempts, too.
    socket().drop();
    page.dispatchEvent(new Event(name));
    assert.equal(count(), 3);
    socket().open();
    page.dispatchEvent(new Event(name));
    assert.equal(count(), 3);
    bus.close();
    clock.sleep(1e12);
    page.dispatchEvent(new Event(name));
    assert.equal(count(), 3);
  });
}

test("what an abandoned socket says is not heard", (t) => {
  t.mock.method(Math, "random", () => 0);
  const { socket } = startManual(t);
  const first = socket();
  first.drop();
  assert.deepEqual([first.onopen, first.onmessage, first.onclose], [null, null, null]);
  assert.equal(typeof first.onerror, "function", "ws throws errors that nobody listens to");
});

test("a connection that is cut again and again delivers every message once", async (t) => {
  noDelay(t);
  const fake = await startFake(t);
  const { bus } = startBus(t, fake);
  const gaps = [];
  const chat = bus.subscribe("a");
  chat.ongap = (gap) => gaps.push(gap);
  const messages = collect(chat);
  let head = 0;
  for (let round = 0; round < 20; round++) {
    const peer = await fake.accept();
    const command = await peer.next("subscribe");
    const begin = command.since?.offset ?? 0;
    assert.ok(begin <= head);
    peer.ok(command, { topics: [{ topic: "a", epoch: EPOCH, offset: begin + 1, recovered: command.since && true }] });
    head += 50;
    for (let offset = begin + 1; offset <= head; offset++) peer.message("a", offset);
    // Some of them are on their way when it is cut.
    if (round % 2) await until(() => messages.length >= begin + 20);
    peer.cut();
    await until(() => peer.closed !== null);
  }
  const last = await fake.accept();
  const command = await last.next("subscribe");
  last.ok(command, {
    topics: [{ topic: "a", epoch: EPOCH, offset: (command.since?.offset ?? 0) + 1, recovered: command.since && true }],
  });
  for (let offset = (command.since?.offset ?? 0) + 1; offset <= head; offset++) last.message("a", offset);
  await until(() => messages.length >= head);
  await settle();
  assert.deepEqual(offsets(messages), Array.from({ length: head }, (_, i) => i + 1));
  assert.deepEqual(gaps, []);
});
