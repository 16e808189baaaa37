// Subscriptions on one connection: messages, positions, gaps, state, overlapping filters, their ends.

import assert from "node:assert/strict";
import { test } from "node:test";
import { mockClock } from "./clock.js";
import { collect, EPOCH, noDelay, offsets, OTHER_EPOCH, settle, startBoth, startBus, startFake, until } from "./fake.js";

test("an iterator reads the messages of a topic in order", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("chat/7");
  assert.deepEqual(await peer.subscribed("chat/7"), { type: "subscribe", id: 2, topic: "chat/7" });
  const messages = collect(chat);
  for (let offset = 1; offset <= 500; offset++) peer.message("chat/7", offset, { n: offset });
  await until(() => messages.length === 500);
  assert.deepEqual(offsets(messages), Array.from({ length: 500 }, (_, i) => i + 1));
  assert.deepEqual(messages[6].data, { n: 7 });
  assert.equal(messages[6].topic, "chat/7");
});

test("subscriptions made before the connection is open are made when it is", async (t) => {
  const fake = await startFake(t);
  const { bus } = startBus(t, fake);
  assert.equal(bus.state, "connecting");
  const messages = collect(bus.subscribe("a"));
  const peer = await fake.accept();
  await peer.subscribed("a");
  peer.message("a", 1);
  await until(() => messages.length === 1);
});

test("the client speaks ringyard.v1 and asks for pings", async (t) => {
  const { peer } = await startBoth(t, null);
  assert.equal(peer.socket.protocol, "ringyard.v1");
  assert.deepEqual(await peer.next("connect"), { type: "connect", ping: "message", id: 1 });
});

test("leaving the loop unsubscribes", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  await peer.subscribed("a");
  peer.message("a", 1);
  peer.message("a", 2);
  for await (const message of chat) {
    assert.equal(message.offset, 1);
    break;
  }
  assert.deepEqual(await peer.next("unsubscribe"), { type: "unsubscribe", topic: "a" });
  assert.deepEqual(await chat[Symbol.asyncIterator]().next(), { value: undefined, done: true });
});

test("close ends an iterator that waits, and lets go of what is queued", async (t) => {
  const { bus, peer } = await startBoth(t);
  const a = bus.subscribe("a");
  const b = bus.subscribe("b");
  const waiting = collect(a);
  await peer.subscribed("a");
  await peer.subscribed("b");
  peer.message("b", 1);
  await settle();
  a.close();
  b.close();
  await waiting.done;
  assert.deepEqual(await b[Symbol.asyncIterator]().next(), { value: undefined, done: true });
});

test("onmessage takes the place of the iterator, also for what is queued already", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  await peer.subscribed("a");
  peer.message("a", 1);
  await settle();
  const messages = [];
  chat.onmessage = (message) => messages.push(message);
  assert.deepEqual(offsets(messages), [1]);
  peer.message("a", 2);
  await until(() => messages.length === 2);
  assert.equal(typeof chat.onmessage, "function");
});

test("what a handler throws is reported and stops nothing", async (t) => {
  const thrown = [];
  t.mock.method(globalThis, "queueMicrotask", (f) => {
    try {
      f();
    } catch (error) {
      thrown.push(error.message);
    }
  });
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  let count = 0;
  chat.onmessage = () => {
    count++;
    throw new Error("oops");
  };
  await peer.subscribed("a");
  peer.message("a", 1);
  peer.message("a", 2);
  await until(() => count === 2);
  assert.deepEqual(thrown, ["oops", "oops"]);
  assert.equal(bus.state, "open");
});

test("the position is that of the message that the application was given last", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  assert.equal(chat.position, undefined);
  await peer.subscribed("a", { epoch: EPOCH, offset: 8 });
  assert.deepEqual(await chat.ready, {
    recovered: undefined,
    position: `${EPOCH}:7`,
    available: undefined,
    history: undefined,
  });
  peer.message("a", 8);
  peer.message("a", 9);
  await settle();
  assert.equal(chat.position, `${EPOCH}:7`);
  const iterator = chat[Symbol.asyncIterator]();
  await iterator.next();
  assert.equal(chat.position, `${EPOCH}:8`);
  await iterator.next();
  assert.equal(chat.position, `${EPOCH}:9`);
});

test("since, last, state and throttle are asked for", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a", { since: `${EPOCH}:5`, state: false });
  assert.equal(chat.position, `${EPOCH}:5`);
  const command = await peer.subscribed("a", { epoch: EPOCH, offset: 6, recovered: true });
  assert.deepEqual(command, {
    type: "subscribe",
    topic: "a",
    since: { epoch: EPOCH, offset: 5 },
    state: false,
    id: 2,
  });
  assert.equal((await chat.ready).recovered, true);
  bus.subscribe("b", { last: 50, throttle: 100 });
  assert.deepEqual(await peer.next("subscribe"), { type: "subscribe", topic: "b", last: 50, throttle: 100, id: 3 });
  bus.subscribe("c", { throttle: 5000 });
  assert.equal((await peer.next("subscribe")).throttle, 5000);
  bus.subscribe("d/+", { throttle: 20 });
  assert.equal((await peer.next("subscribe")).throttle, 20);
  bus.subscribe("e", { throttle: 0 });
  assert.deepEqual(await peer.next("subscribe"), { type: "subscribe", topic: "e", throttle: 0, id: 6 });
});

test("options that are wrong or unknown throw", async (t) => {
  const { bus } = await startBoth(t);
  assert.throws(() => bus.subscribe("a", { since: "5" }), TypeError);
  assert.throws(() => bus.subscribe("a", { since: `${EPOCH}:` }), TypeError);
  assert.throws(() => bus.subscribe("a", { since: `${EPOCH}:5`, last: 5 }), TypeError);
  assert.throws(() => bus.subscribe("a/+", { since: `${EPOCH}:5` }), TypeError);
  for (const throttle of [-1, 0.5, 5001, NaN, Infinity, "100", null, true, [100]]) {
    const expected = { name: "TypeError", message: "throttle is an integer from 0 to 5000" };
    assert.throws(() => bus.subscribe("a", { throttle }), expected, String(throttle));
  }
  assert.throws(() => bus.subscribe("a", { history: 5 }), { message: 'unknown option "history"' });
  assert.throws(() => bus.on("message", () => {}), { message: 'unknown event "message"' });
  bus.subscribe("a");
  assert.throws(() => bus.subscribe("a"), { code: "already-subscribed" });
});

test("a position that could not be recovered is told, with what is left", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a", { since: `${EPOCH}:5` });
  const gaps = [];
  chat.ongap = (gap) => gaps.push(gap);
  const available = { from: 10, to: 20 };
  await peer.subscribed("a", { epoch: EPOCH, offset: 21, recovered: false, available });
  const ready = await chat.ready;
  assert.equal(ready.recovered, false);
  assert.equal(ready.position, `${EPOCH}:20`);
  assert.deepEqual(ready.available, available);
  assert.deepEqual(gaps, [{ topic: "a", from: 6, to: 20, reason: "unrecovered", available }]);
});

test("a position of another epoch is told as such", async (t) => {
  const { bus, peer } = await startBoth(t);
  const gaps = [];
  const chat = bus.subscribe("a", { since: `${EPOCH}:5` });
  chat.ongap = (gap) => gaps.push(gap);
  await peer.subscribed("a", { epoch: OTHER_EPOCH, offset: 3, recovered: false });
  await chat.ready;
  assert.deepEqual(gaps, [{ topic: "a", from: 1, to: 2, reason: "epoch", available: undefined }]);
  assert.equal(chat.position, `${OTHER_EPOCH}:2`);
});

test("a position beyond the head is not taken for one in the topic", async (t) => {
  const { bus, peer } = await startBoth(t);
  const gaps = [];
  const chat = bus.subscribe("a", { since: `${EPOCH}:50` });
  chat.ongap = (gap) => gaps.push(gap);
  await peer.subscribed("a", { epoch: EPOCH, offset: 3, recovered: false });
  await chat.ready;
  assert.deepEqual(gaps, [{ topic: "a", from: 1, to: 2, reason: "unrecovered", available: undefined }]);
});

test("an offset that came before is not delivered again", async (t) => {
  const { bus, peer } = await startBoth(t);
  const messages = collect(bus.subscribe("a"));
  await peer.subscribed("a");
  for (const offset of [1, 2, 2, 1, 3]) peer.message("a", offset);
  await until(() => messages.length >= 3);
  await settle();
  assert.deepEqual(offsets(messages), [1, 2, 3]);
});

test("gaps of the broker are passed on, and are no holes", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  const all = bus.subscribe("+");
  const gaps = [];
  chat.ongap = ({ topic, from, to, reason }) => gaps.push(["chat", topic, from, to, reason]);
  all.ongap = ({ topic, from, to, reason }) => gaps.push(["all", topic, from, to, reason]);
  const messages = collect(chat);
  await peer.subscribed("a");
  await peer.subscribed("+", {});
  peer.message("a", 1);
  peer.say({ type: "gap", topic: "a", from: 2, to: 5, reason: "slow-consumer" });
  peer.message("a", 6);
  await until(() => messages.length === 2);
  assert.deepEqual(gaps, [
    ["chat", "a", 2, 5, "slow-consumer"],
    ["all", "a", 2, 5, "slow-consumer"],
  ]);
});

test("a gap that is told ahead hides nothing that comes before it", async (t) => {
  const { bus, peer } = await startBoth(t);
  const messages = collect(bus.subscribe("a"));
  await peer.subscribed("a");
  peer.say({ type: "gap", topic: "a", from: 3, to: 5, reason: "expired" });
  for (const offset of [1, 2, 6]) peer.message("a", offset);
  await until(() => messages.length === 3);
  assert.deepEqual(offsets(messages), [1, 2, 6]);
});

test("a hole that the broker does not tell is told before the message after it", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  const events = [];
  chat.ongap = ({ from, to, reason }) => events.push([from, to, reason]);
  chat.onmessage = ({ offset }) => events.push(offset);
  await peer.subscribed("a");
  peer.message("a", 1);
  peer.message("a", 4);
  peer.message("a", 9, "dense by prev", { prev: 4 });
  peer.message("a", 20, "after a hole", { prev: 15 });
  await until(() => events.length === 6);
  assert.deepEqual(events, [1, [2, 3, "missing"], 4, 9, [10, 15, "missing"], 20]);
});

test("a subscription that is conflated has no holes", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  const gaps = [];
  chat.ongap = (gap) => gaps.push(gap);
  const messages = collect(chat);
  await peer.subscribed("a", { epoch: EPOCH, offset: 1, slow_consumer: "latest" });
  peer.message("a", 1);
  peer.message("a", 40);
  await until(() => messages.length === 2);
  assert.deepEqual(gaps, []);
});

test("a conflated topic goes on after a drop without holes, with its throttle", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a", { throttle: 100 });
  const gaps = [];
  chat.ongap = (gap) => gaps.push(gap);
  const messages = collect(chat);
  const latest = { epoch: EPOCH, slow_consumer: "latest", throttle: 100 };
  const first = await peer.subscribed("a", { ...latest, offset: 1 });
  assert.equal(first.throttle, 100);
  peer.message("a", 7, 1, { key: "x" });
  await until(() => messages.length === 1);
  peer.cut();

  const second = await fake.accept();
  const { since, throttle } = await second.subscribed("a", { ...latest, offset: 8, recovered: true });
  assert.deepEqual([since, throttle], [{ epoch: EPOCH, offset: 7 }, 100]);
  second.message("a", 20, 2, { key: "x" });
  second.message("a", 25, 3, { key: "y" });
  await until(() => messages.length === 3);
  assert.deepEqual(gaps, []);
  assert.equal(chat.position, `${EPOCH}:25`);
  second.cut();

  // What is not there any more is told all the same, once; and where the rule has changed, holes are told again.
  const third = await fake.accept();
  await third.subscribed("a", { ...latest, offset: 90, recovered: false });
  third.message("a", 95, 4, { key: "x" });
  await until(() => messages.length === 4);
  assert.deepEqual(gaps.splice(0), [{ topic: "a", from: 26, to: 89, reason: "unrecovered", available: undefined }]);
  third.cut();
  const fourth = await fake.accept();
  await fourth.subscribed("a", { epoch: EPOCH, offset: 96, recovered: true });
  fourth.message("a", 98, 5, { key: "x" });
  await until(() => messages.length === 5);
  assert.deepEqual(gaps, [{ topic: "a", from: 96, to: 97, reason: "missing" }]);
});

test("what came by a filter before the answer has its place among what is conflated", async (t) => {
  const { bus, peer } = await startBoth(t);
  bus.subscribe("#");
  await peer.subscribed("#", {});
  const one = bus.subscribe("a", { since: `${EPOCH}:5` });
  const gaps = [];
  one.ongap = (gap) => gaps.push(gap);
  const messages = collect(one);
  const command = await peer.next("subscribe");
  peer.message("a", 30);
  peer.ok(command, {
    topics: [{ topic: "a", epoch: EPOCH, offset: 6, recovered: true, slow_consumer: "latest" }],
  });
  for (const offset of [9, 22, 41]) peer.message("a", offset);
  await until(() => messages.length === 4);
  assert.deepEqual(offsets(messages), [9, 22, 30, 41]);
  assert.deepEqual(gaps, []);
});

test("a reset begins anew in the other epoch", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  const gaps = [];
  chat.ongap = ({ topic, from, to, reason }) => gaps.push({ topic, from, to, reason });
  const messages = collect(chat);
  await peer.subscribed("a");
  peer.message("a", 1);
  peer.message("a", 2);
  peer.say({ type: "reset", topic: "a", epoch: OTHER_EPOCH, offset: 0, reason: "purged" });
  peer.message("a", 1, "new");
  await until(() => messages.length === 3);
  assert.deepEqual(offsets(messages), [1, 2, 1]);
  assert.equal(chat.position, `${OTHER_EPOCH}:1`);
  assert.deepEqual(gaps, [{ topic: "a", from: 1, to: 0, reason: "purged" }]);
});

test("the retained message comes first and is no duplicate", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("status/7");
  const messages = collect(chat);
  await peer.subscribed("status/7", { epoch: EPOCH, offset: 9, history: "window" });
  peer.message("status/7", 4, "up", { state: true });
  await until(() => messages.length === 1);
  assert.equal(messages[0].state, true);
  assert.equal(chat.position, `${EPOCH}:8`);
  peer.message("status/7", 9, "down");
  await until(() => messages.length === 2);
});

test("a snapshot stands for everything up to an offset", async (t) => {
  const { bus, peer } = await startBoth(t);
  const doc = bus.subscribe("doc/1");
  const gaps = [];
  doc.ongap = (gap) => gaps.push(gap);
  const messages = collect(doc);
  await peer.subscribed("doc/1", { epoch: EPOCH, offset: 8, history: "window" });
  peer.say({ type: "message", topic: "doc/1", up_to: 7, data: "all", state: true });
  peer.message("doc/1", 8);
  await until(() => messages.length === 2);
  assert.equal(messages[0].upTo, 7);
  assert.deepEqual(gaps, []);
});

test("bytes come as Uint8Array", async (t) => {
  const { bus, peer } = await startBoth(t);
  const messages = collect(bus.subscribe("a"));
  await peer.subscribed("a");
  peer.message("a", 1, "AAH/gA==", { encoding: "base64" });
  await until(() => messages.length === 1);
  assert.deepEqual(messages[0].data, Uint8Array.of(0, 1, 255, 128));
});

test("filters get what they match", async (t) => {
  const { bus, peer } = await startBoth(t);
  const filters = ["#", "+", "a/#", "a/+", "+/b", "a/+/c", "$sys/#", "$sys/+", "x.y/(z)/#", "/#", "+/+", "a//+"];
  const got = Object.fromEntries(filters.map((filter) => [filter, []]));
  for (const filter of filters) {
    bus.subscribe(filter).onmessage = ({ topic }) => got[filter].push(topic);
    await peer.subscribed(filter, {});
  }
  const topics = ["a", "a/b", "a/b/c", "$sys/load", "x.y/(z)", "xzy/(z)", "/", "/a", "a//b", "ab"];
  for (const topic of topics) peer.message(topic, 1);
  await until(() => got["#"].length === 9);
  await settle();
  assert.deepEqual(got, {
    "#": ["a", "a/b", "a/b/c", "x.y/(z)", "xzy/(z)", "/", "/a", "a//b", "ab"],
    "+": ["a", "ab"],
    "a/#": ["a", "a/b", "a/b/c", "a//b"],
    "a/+": ["a/b"],
    "+/b": ["a/b"],
    "a/+/c": ["a/b/c"],
    "$sys/#": ["$sys/load"],
    "$sys/+": ["$sys/load"],
    "x.y/(z)/#": ["x.y/(z)"],
    "/#": ["/", "/a"],
    "+/+": ["a/b", "x.y/(z)", "xzy/(z)", "/", "/a"],
    "a//+": ["a//b"],
  });
});

test("what a topic recovers is nothing new for a filter that had it", async (t) => {
  const { bus, peer } = await startBoth(t);
  const all = collect(bus.subscribe("chat/+"));
  await peer.subscribed("chat/+", {});
  for (const offset of [5, 6, 7]) peer.message("chat/7", offset);
  await until(() => all.length === 3);
  const one = collect(bus.subscribe("chat/7", { last: 2 }));
  await peer.subscribed("chat/7", { epoch: EPOCH, offset: 6 });
  for (const offset of [6, 7, 8]) peer.message("chat/7", offset);
  await until(() => one.length === 3 && all.length === 4);
  await settle();
  assert.deepEqual(offsets(one), [6, 7, 8]);
  assert.deepEqual(offsets(all), [5, 6, 7, 8]);
});

test("what came by a filter before the answer is put where it belongs", async (t) => {
  const { bus, peer } = await startBoth(t);
  const all = collect(bus.subscribe("chat/+"));
  await peer.subscribed("chat/+", {});
  const one = bus.subscribe("chat/7", { since: `${EPOCH}:5` });
  const gaps = [];
  one.ongap = (gap) => gaps.push(gap);
  const messages = collect(one);
  const command = await peer.next("subscribe");
  peer.message("chat/7", 9);
  peer.message("chat/7", 10);
  peer.ok(command, { topics: [{ topic: "chat/7", epoch: EPOCH, offset: 6, recovered: true }] });
  for (const offset of [6, 7, 8]) peer.message("chat/7", offset);
  await until(() => messages.length === 5);
  peer.message("chat/7", 11);
  await until(() => messages.length === 6);
  assert.deepEqual(offsets(messages), [6, 7, 8, 9, 10, 11]);
  assert.deepEqual(gaps, []);
  assert.equal(all[0].offset, 9);
});

test("what came by a filter before the answer comes before what is newer, though there are holes", async (t) => {
  const { bus, peer } = await startBoth(t);
  bus.subscribe("#");
  await peer.subscribed("#", {});
  const one = bus.subscribe("a");
  const events = [];
  one.ongap = ({ from, to }) => events.push([from, to]);
  one.onmessage = ({ offset }) => events.push(offset);
  const command = await peer.next("subscribe");
  peer.message("a", 8);
  peer.message("a", 15);
  peer.ok(command, { topics: [{ topic: "a", epoch: EPOCH, offset: 6 }] });
  peer.message("a", 10);
  peer.say({ type: "gap", topic: "a", from: 11, to: 14, reason: "evicted" });
  await until(() => events.length === 6);
  assert.deepEqual(events, [[6, 7], 8, [9, 9], 10, [11, 14], 15]);
});

test("what came by a filter before the answer and before the subscription is left out", async (t) => {
  const { bus, peer } = await startBoth(t);
  collect(bus.subscribe("#"));
  await peer.subscribed("#", {});
  const messages = collect(bus.subscribe("a"));
  const command = await peer.next("subscribe");
  for (const offset of [1, 2, 3]) peer.message("a", offset);
  peer.ok(command, { topics: [{ topic: "a", epoch: EPOCH, offset: 3 }] });
  await until(() => messages.length === 1);
  peer.message("a", 4);
  await until(() => messages.length === 2);
  assert.deepEqual(offsets(messages), [3, 4]);
});

test("offsets that begin anew under a filter are news", async (t) => {
  const { bus, peer } = await startBoth(t);
  const all = collect(bus.subscribe("chat/+"));
  await peer.subscribed("chat/+", {});
  peer.message("chat/7", 57);
  peer.message("chat/7", 1);
  await until(() => all.length === 2);
  // Told for the topic itself, too.
  bus.subscribe("chat/7");
  await peer.subscribed("chat/7", { epoch: EPOCH, offset: 2 });
  peer.message("chat/7", 2);
  peer.say({ type: "reset", topic: "chat/7", epoch: OTHER_EPOCH, offset: 0, reason: "purged" });
  peer.message("chat/7", 1);
  await until(() => all.length === 4);
});

test("a subscription that is refused rejects, throws and is told", async (t) => {
  const { bus, peer, errors } = await startBoth(t);
  const chat = bus.subscribe("$secret");
  const messages = collect(chat);
  peer.error(await peer.next("subscribe"), "forbidden");
  await assert.rejects(chat.ready, { code: "forbidden", message: "it is forbidden" });
  await assert.rejects(messages.done, { code: "forbidden" });
  assert.deepEqual(errors.map(({ code }) => code), ["forbidden"]);
  // And may be tried again.
  bus.subscribe("$secret");
  await peer.next("subscribe");
});

test("a subscription that is refused for now is tried again", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  peer.error(await peer.next("subscribe"), "busy");
  await peer.subscribed("a");
  await chat.ready;
});

test("a subscription that is refused for now, then loses the connection, begins once", async (t) => {
  const clock = mockClock(t);
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  peer.error(await peer.next("subscribe"), "busy");
  await settle();
  peer.cut();
  await until(() => bus.state === "connecting");
  clock.tick(0);
  const second = await fake.accept();
  const command = await second.next("subscribe");
  clock.tick(1000);
  await settle();
  assert.deepEqual(second.commands, []);
  second.ok(command, { topics: [{ topic: "a", epoch: EPOCH, offset: 1 }] });
  await chat.ready;
});

test("an error without an id is told", async (t) => {
  const { peer, errors } = await startBoth(t);
  peer.say({ type: "error", code: "limit", reason: "enough" });
  await until(() => errors.length === 1);
  assert.equal(errors[0].code, "limit");
});

test("messages of unknown types are ignored", async (t) => {
  const { bus, peer, errors } = await startBoth(t);
  const messages = collect(bus.subscribe("a"));
  await peer.subscribed("a");
  peer.say({ type: "news", topic: "a", id: 99 });
  peer.message("a", 1, "x", { unknown: [1] });
  await until(() => messages.length === 1);
  assert.deepEqual(errors, []);
});

test("a topic may be subscribed again before the broker has answered the one that was closed", async (t) => {
  const { bus, peer } = await startBoth(t);
  const first = bus.subscribe("a");
  first.close();
  await assert.rejects(first.ready, { code: "closed" });
  const again = bus.subscribe("a");
  const second = collect(again);
  const command = await peer.next("subscribe");
  await settle();
  assert.deepEqual(peer.commands, []);
  peer.ok(command, { topics: [{ topic: "a", epoch: EPOCH, offset: 1 }] });
  peer.message("a", 1, "for the first");
  await peer.next("unsubscribe");
  await peer.subscribed("a", { epoch: EPOCH, offset: 2 });
  peer.message("a", 2);
  await until(() => second.length === 1);
  assert.deepEqual(offsets(second), [2]);
  // And again.
  again.close();
  await peer.next("unsubscribe");
  const third = bus.subscribe("a");
  await peer.subscribed("a", { epoch: EPOCH, offset: 3 });
  await third.ready;
});
