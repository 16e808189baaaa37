// The client against the real broker. RINGYARD names its binary; without it these tests are skipped.

import assert from "node:assert/strict";
import { test as testOf } from "node:test";
import { WebSocket } from "ws";
import { BROKER, startBroker, startProxy } from "./broker.js";
import { collect, connect, noDelay, offsets, until } from "./fake.js";

const test = (name, f) => testOf(name, { skip: BROKER ? false : "RINGYARD names no broker" }, f);

const startBus = (t, { url, port }) => {
  const bus = connect(url ?? `ws://127.0.0.1:${port}/ws`, { WebSocket });
  bus.errors = [];
  bus.on("error", (error) => bus.errors.push(error));
  t.after(() => bus.close());
  return bus;
};

const watchGaps = (subscription) => {
  const gaps = [];
  subscription.ongap = (gap) => gaps.push(gap);
  return gaps;
};

const upTo = (n, from = 1) => Array.from({ length: n - from + 1 }, (_, i) => i + from);

test("payloads of every kind come as they were published", async (t) => {
  const bus = startBus(t, await startBroker(t));
  const chat = bus.subscribe("chat/7");
  const messages = collect(chat);
  const { position } = await chat.ready;
  assert.match(position, /^[0-9a-f]{16}:0$/);
  const payloads = ["text", "", { a: [1, null] }, 4.5, null, true, Uint8Array.of(0, 255, 128), new Uint8Array(0)];
  for (const [i, payload] of payloads.entries()) {
    const { epoch, offset } = await bus.publish("chat/7", payload);
    assert.equal(`${epoch}:${offset}`, position.replace(":0", `:${i + 1}`));
  }
  await until(() => messages.length === payloads.length);
  assert.deepEqual(messages.map(({ data }) => data), payloads);
  assert.deepEqual(bus.errors, []);
});

test("a drop loses nothing", async (t) => {
  noDelay(t);
  const broker = await startBroker(t);
  const proxy = await startProxy(t, broker);
  const [bus, other] = [startBus(t, proxy), startBus(t, broker)];
  const chat = bus.subscribe("chat/7");
  const gaps = watchGaps(chat);
  const messages = collect(chat);
  await chat.ready;
  await other.publish("chat/7", 1);
  await until(() => messages.length === 1);
  proxy.refuses = true;
  proxy.cut();
  await until(() => bus.state === "connecting");
  for (const n of upTo(101, 2)) await other.publish("chat/7", n);
  proxy.refuses = false;
  await until(() => messages.length === 101);
  await other.publish("chat/7", 102);
  await until(() => messages.length === 102);
  assert.deepEqual(offsets(messages), upTo(102));
  assert.deepEqual(gaps, []);
});

test("cut again and again while messages are published, every one comes once", async (t) => {
  noDelay(t);
  const broker = await startBroker(t);
  const proxy = await startProxy(t, broker);
  const [bus, other] = [startBus(t, proxy), startBus(t, broker)];
  const chat = bus.subscribe("chat/7");
  const gaps = watchGaps(chat);
  const messages = collect(chat);
  await chat.ready;
  const cutting = setInterval(() => proxy.cut(), 37);
  try {
    for (const n of upTo(3000)) {
      const published = other.publish("chat/7", n);
      if (n % 5 === 0) await published;
    }
  } finally {
    clearInterval(cutting);
  }
  await until(() => messages.length >= 3000);
  assert.deepEqual(offsets(messages), upTo(3000));
  assert.deepEqual(gaps, []);
});

test("more than the window is told as a gap", async (t) => {
  noDelay(t);
  const broker = await startBroker(t);
  const proxy = await startProxy(t, broker);
  const [bus, other] = [startBus(t, proxy), startBus(t, broker)];
  const chat = bus.subscribe("chat/7");
  const gaps = watchGaps(chat);
  const messages = collect(chat);
  await chat.ready;
  await other.publish("chat/7", 1);
  await until(() => messages.length === 1);
  proxy.refuses = true;
  proxy.cut();
  for (const n of upTo(1000, 2)) await other.publish("chat/7", n);
  proxy.refuses = false;
  await until(() => gaps.length === 1);
  const { available, ...gap } = gaps[0];
  assert.deepEqual(gap, { topic: "chat/7", from: 2, to: 1000, reason: "unrecovered" });
  assert.equal(available.to, 1000);
  assert.ok(available.from > 2);
  await other.publish("chat/7", 1001);
  await until(() => messages.length === 2);
  assert.deepEqual(offsets(messages), [1, 1001]);
});

test("a stored position goes on in another bus, and last replays", async (t) => {
  const broker = await startBroker(t);
  const first = startBus(t, broker);
  const chat = first.subscribe("chat/7");
  for (const n of upTo(20)) await first.publish("chat/7", n);
  const iterator = chat[Symbol.asyncIterator]();
  for (let i = 0; i < 5; i++) await iterator.next();
  const { position } = chat;
  first.close();

  const second = startBus(t, broker);
  const resumed = second.subscribe("chat/7", { since: position });
  const messages = collect(resumed);
  assert.equal((await resumed.ready).recovered, true);
  await until(() => messages.length === 15);
  assert.deepEqual(offsets(messages), upTo(20, 6));
  resumed.close();

  const newest = second.subscribe("chat/7", { last: 3 });
  const replayed = collect(newest);
  await until(() => replayed.length === 3);
  assert.deepEqual(offsets(replayed), [18, 19, 20]);
  assert.equal((await newest.ready).history, "window");
  newest.close();

  const beyond = second.subscribe("chat/7", { since: position.replace(/\d+$/, "9007199254740991") });
  assert.equal((await beyond.ready).recovered, false);
});

test("a broker that was killed is found again; topics and filters tell the gap", async (t) => {
  noDelay(t);
  const broker = await startBroker(t);
  const bus = startBus(t, broker);
  const chat = bus.subscribe("chat/7");
  const all = bus.subscribe("chat/+");
  const [gaps, allGaps] = [watchGaps(chat), watchGaps(all)];
  const [messages, allMessages] = [collect(chat), collect(all)];
  await all.ready;
  await bus.publish("chat/7", "before");
  await until(() => messages.length === 1 && allMessages.length === 1);
  await broker.stop("SIGKILL");
  await until(() => bus.state === "connecting");
  const held = bus.publish("chat/7", "held");
  await broker.start();
  assert.equal((await held).offset, 1);
  await until(() => messages.length === 2 && allMessages.length === 2);
  assert.deepEqual(messages.map(({ data }) => data), ["before", "held"]);
  assert.deepEqual(gaps.map(({ from, to, reason }) => [from, to, reason]), [[1, 0, "epoch"]]);
  assert.deepEqual(allGaps, [{ topic: "chat/+", reason: "reconnect" }]);
});

test("a broker that drains is left and found again", async (t) => {
  const broker = await startBroker(t);
  const bus = startBus(t, broker);
  const states = [];
  bus.on("state", (event) => states.push(event));
  await until(() => bus.state === "open");
  await broker.stop();
  assert.deepEqual([states.at(-1).state, states.find(({ code }) => code).code], ["connecting", 1001]);
  await broker.start();
  bus.close();
});

test("a publish whose answer is lost is stored once", async (t) => {
  noDelay(t);
  const broker = await startBroker(t);
  const proxy = await startProxy(t, broker);
  const [bus, other] = [startBus(t, proxy), startBus(t, broker)];
  const chat = other.subscribe("chat/7");
  const messages = collect(chat);
  await chat.ready;
  await until(() => bus.state === "open");
  await bus.publish("chat/7", "first");
  proxy.blocksAnswers = true;
  const published = bus.publish("chat/7", "second");
  await until(() => messages.length === 2);
  proxy.cut();
  proxy.blocksAnswers = false;
  const { offset, duplicate } = await published;
  assert.deepEqual([offset, duplicate], [2, true]);
  await bus.publish("chat/7", "third");
  await until(() => messages.length === 3);
  assert.deepEqual(messages.map(({ data }) => data), ["first", "second", "third"]);
});

for (const size of [1001, 100_000, 8_000_000]) {
  test(`a publish of ${size} bytes, where 1,000 are allowed, is too big and stops nothing else`, async (t) => {
    noDelay(t);
    const broker = await startBroker(t, { args: ["--max-message", "1000"] });
    const [bus, other] = [startBus(t, broker), startBus(t, broker)];
    const chat = bus.subscribe("chat/7");
    const gaps = watchGaps(chat);
    const messages = collect(chat);
    await chat.ready;
    const closes = [];
    bus.on("state", ({ code }) => code && closes.push(code));
    const before = bus.publish("chat/7", "before");
    const big = bus.publish("chat/7", "x".repeat(size));
    const after = bus.publish("chat/7", "after");
    await assert.rejects(big, { code: "too-big" });
    await Promise.all([before, after]);
    await other.publish("chat/7", "live");
    await until(() => messages.length === 3);
    assert.deepEqual(messages.map(({ data }) => data), ["before", "after", "live"]);
    assert.deepEqual([closes, gaps, bus.errors], [[1009], [], []]);
  });
}

test("text with half a surrogate pair is refused, and whole ones come as they are", async (t) => {
  const bus = startBus(t, await startBroker(t));
  const messages = collect(bus.subscribe("chat/7"));
  await assert.rejects(bus.publish("chat/7", "cut emoji \ud83d"), { code: "bad-json" });
  await bus.publish("chat/7", { "\ud83d\ude00": "\\ud83d" });
  await until(() => messages.length === 1);
  assert.deepEqual(messages[0].data, { "\ud83d\ude00": "\\ud83d" });
  assert.deepEqual(bus.errors, []);
});

test("pings of the broker show that it is there, and their absence that it is not", async (t) => {
  noDelay(t);
  const broker = await startBroker(t, { args: ["--ping-interval", "400ms", "--ping-timeout", "1s"] });
  const proxy = await startProxy(t, broker);
  const bus = startBus(t, proxy);
  const states = [];
  bus.on("state", ({ state, reason }) => states.push([state, reason]));
  await until(() => bus.state === "open");
  await new Promise((resolve) => setTimeout(resolve, 2000));
  assert.deepEqual(states, [["open", undefined]]);
  proxy.blocksAnswers = true;
  await until(() => states.length > 1);
  assert.deepEqual(states[1], ["connecting", "no sign of life"]);
  proxy.blocksAnswers = false;
  await until(() => bus.state === "open");
});

test("compare-and-set tells what there is", async (t) => {
  const bus = startBus(t, await startBroker(t));
  await bus.publish("a", 1, { ifOffset: "absent" });
  await assert.rejects(bus.publish("a", 2, { ifOffset: "absent" }), { code: "conflict", offset: 1 });
  assert.equal((await bus.publish("a", 2, { ifOffset: 1 })).offset, 2);
  const twice = { idempotencyKey: "k" };
  assert.equal((await bus.publish("a", 3, twice)).duplicate, undefined);
  assert.deepEqual((({ offset, duplicate }) => [offset, duplicate])(await bus.publish("a", 3, twice)), [3, true]);
});

test("a newcomer gets the retained messages of a filter, then what changes", async (t) => {
  noDelay(t);
  const broker = await startBroker(t);
  const proxy = await startProxy(t, broker);
  const [bus, other] = [startBus(t, proxy), startBus(t, broker)];
  for (const n of upTo(20)) await other.publish(`status/${n}`, n, { retain: true });
  await other.publish("status/1", "not retained");
  const all = bus.subscribe("status/+");
  const messages = collect(all);
  await until(() => messages.length === 20);
  assert.deepEqual(messages.map(({ data, state }) => [data, state]).sort(([a], [b]) => a - b), upTo(20).map((n) => [n, true]));
  await other.publish("status/5", "changed", { retain: true });
  await until(() => messages.length === 21);
  assert.equal(messages[20].state, undefined);

  proxy.cut();
  await until(() => messages.length === 41);
  assert.deepEqual(messages.slice(21).filter(({ state }) => state).length, 20);

  const declined = other.subscribe("status/+", { state: false });
  const none = collect(declined);
  await declined.ready;
  await other.publish("status/5", null, { retain: true, removed: true });
  await until(() => none.length === 1);
  assert.equal(none[0].removed, true);
});

test("a topic that recovers beside a filter that is live: both get everything once", async (t) => {
  const broker = await startBroker(t);
  const [bus, other] = [startBus(t, broker), startBus(t, broker)];
  const all = bus.subscribe("chat/+");
  const live = collect(all);
  await all.ready;
  const { epoch } = await other.publish("chat/7", 1);
  let n = 1;
  const publishing = setInterval(() => {
    for (let i = 0; i < 10; i++) other.publish("chat/7", ++n);
  }, 1);
  try {
    await until(() => live.length > 50);
    for (let round = 0; round < 30; round++) {
      const begin = live.length - 40;
      const one = bus.subscribe("chat/7", { since: `${epoch}:${begin}` });
      const gaps = watchGaps(one);
      const messages = collect(one);
      assert.equal((await one.ready).recovered, true);
      await until(() => messages.length > 80, "messages of the topic");
      one.close();
      assert.deepEqual(offsets(messages), upTo(begin + messages.length, begin + 1));
      assert.deepEqual(gaps, []);
    }
  } finally {
    clearInterval(publishing);
  }
  await until(() => live.length === n);
  assert.deepEqual(offsets(live), upTo(n));
});

test("the state of a keyed topic, over a drop and with removals", async (t) => {
  noDelay(t);
  let broker;
  try {
    broker = await startBroker(t, { rules: true });
  } catch (error) {
    if (!/no table \[\[topic\]\]/.test(error.message)) throw error;
    return t.skip("this broker has no rules for topics");
  }
  const proxy = await startProxy(t, broker);
  const [bus, other] = [startBus(t, proxy), startBus(t, broker)];
  for (const key of ["a", "b", "c"]) await other.publish("keyed/1", `${key}1`, { key });
  const game = bus.subscribe("keyed/1");
  const gaps = watchGaps(game);
  const states = [];
  game.onstate = (map) => states.push([...map].map(([key, { data }]) => `${key}=${data}`).sort().join());
  assert.equal((await game.ready).history, "keyed");
  await until(() => states.length === 1);
  assert.equal(states[0], "a=a1,b=b1,c=c1");
  await other.publish("keyed/1", "a2", { key: "a" });
  await until(() => states.at(-1) === "a=a2,b=b1,c=c1");
  proxy.refuses = true;
  proxy.cut();
  await other.publish("keyed/1", undefined, { key: "b", removed: true });
  await other.publish("keyed/1", "d1", { key: "d" });
  proxy.refuses = false;
  await until(() => states.at(-1) === "a=a2,c=c1,d=d1");
  assert.deepEqual(gaps, []);
});

/** Games: only the newest message of each key matters, ten times a second. */
const LATEST = `
[[topic]]
match = "window/#"
history-messages = 1000
slow-consumer = "latest"
throttle = "100ms"

[[topic]]
match = "keyed/#"
history = "keyed"
slow-consumer = "latest"
throttle = "100ms"
`;

for (const topic of ["window/1", "keyed/1"]) {
  test(`the newest of each key, ten times a second, over drops: ${topic}`, async (t) => {
    noDelay(t);
    let broker;
    try {
      broker = await startBroker(t, { rules: LATEST });
    } catch (error) {
      if (!/latest|\[\[topic\]\]/.test(error.message)) throw error;
      return t.skip("this broker does not conflate");
    }
    const proxy = await startProxy(t, broker);
    const [bus, other] = [startBus(t, proxy), startBus(t, broker)];
    const game = bus.subscribe(topic, { throttle: 20 });
    const gaps = watchGaps(game);
    const newest = new Map();
    const seen = [];
    game.onmessage = ({ key, data, offset }) => {
      newest.set(key, data);
      seen.push(offset);
    };
    await game.ready;
    let published = 0;
    for (let round = 0; round < 4; round++) {
      for (const n of upTo(200)) await other.publish(topic, (published = round * 200 + n), { key: `${n % 5}` });
      if (round === 1) proxy.cut();
      if (round === 2) {
        await until(() => bus.state === "open");
        proxy.refuses = true;
        proxy.cut();
      }
    }
    proxy.refuses = false;
    const expected = upTo(published, published - 4).map((data) => [`${(data % 200) % 5}`, data]);
    await until(() => expected.every(([key, data]) => newest.get(key) === data));
    assert.equal(published, 800);
    assert.deepEqual(seen, [...new Set(seen)].sort((a, b) => a - b), "offsets rise");
    // What a window has comes whole after a drop.
    if (topic === "keyed/1") assert.ok(seen.length < published / 2, `${seen.length} of ${published} came`);
    assert.deepEqual([gaps, bus.errors], [[], []]);
  });
}
