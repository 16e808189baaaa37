// The state of keyed topics, queues and their overflow, and delivery by frames.

import assert from "node:assert/strict";
import { test } from "node:test";
import { collect, EPOCH, noDelay, offsets, OTHER_EPOCH, settle, startBoth, until } from "./fake.js";

const KEYED = { epoch: EPOCH, offset: 10, history: "keyed" };

/** Each state that was told, as `key=data` texts. */
const watchState = (subscription) => {
  const states = [];
  subscription.onstate = (map) => states.push([...map].map(([key, { data }]) => `${key}=${data}`).join());
  return states;
};

test("the state of a keyed topic is told when it has come and after each change", async (t) => {
  const { bus, peer } = await startBoth(t);
  const game = bus.subscribe("game/1");
  const states = watchState(game);
  const gaps = [];
  game.ongap = (gap) => gaps.push(gap);
  await peer.subscribed("game/1", KEYED);
  assert.equal((await game.ready).position, `${EPOCH}:0`);
  peer.message("game/1", 3, "x", { key: "a", state: true });
  peer.message("game/1", 7, "y", { key: "b", state: true });
  await settle();
  assert.deepEqual(states, []);
  assert.equal(game.position, `${EPOCH}:7`, "since a position amid the state, the rest of the state comes");
  peer.say({ type: "state-end", topic: "game/1", offset: 9 });
  await until(() => states.length === 1);
  assert.equal(game.position, `${EPOCH}:9`);
  peer.message("game/1", 10, "z", { key: "a" });
  peer.message("game/1", 11, null, { key: "b", removed: true });
  peer.message("game/1", 12, "w");
  await until(() => states.length === 4);
  assert.deepEqual(states, ["a=x,b=y", "a=z,b=y", "a=z", "a=z,=w"]);
  assert.equal(game.position, `${EPOCH}:12`);
  assert.deepEqual(gaps, []);
});

test("messages of a keyed topic can be iterated beside its state", async (t) => {
  const { bus, peer } = await startBoth(t);
  const game = bus.subscribe("game/1");
  const states = watchState(game);
  const messages = collect(game);
  await peer.subscribed("game/1", KEYED);
  peer.message("game/1", 3, "x", { key: "a", state: true });
  peer.say({ type: "state-end", topic: "game/1", offset: 9 });
  peer.message("game/1", 10, "z", { key: "a" });
  await until(() => states.length === 2 && messages.length === 2);
  assert.deepEqual(offsets(messages), [3, 10]);
});

test("who only looks at the state is told no overflow", async (t) => {
  const { bus, peer } = await startBoth(t);
  const game = bus.subscribe("game/1");
  const states = watchState(game);
  const gaps = [];
  game.ongap = (gap) => gaps.push(gap);
  await peer.subscribed("game/1", KEYED);
  peer.say({ type: "state-end", topic: "game/1", offset: 9 });
  for (let offset = 10; offset < 1510; offset++) peer.message("game/1", offset, offset, { key: "a" });
  await until(() => states.length === 1501);
  assert.deepEqual(gaps, []);
  assert.equal(states.at(-1), "a=1509");
});

test("a state that is declined is not kept", async (t) => {
  const { bus, peer } = await startBoth(t);
  const game = bus.subscribe("game/1", { state: false });
  const states = watchState(game);
  const messages = collect(game);
  await peer.subscribed("game/1", KEYED);
  assert.equal((await game.ready).position, `${EPOCH}:9`);
  peer.message("game/1", 10, "z", { key: "a" });
  await until(() => messages.length === 1);
  assert.deepEqual(states, []);
});

test("a keyed topic recovers what changed, though its state was declined", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const game = bus.subscribe("game/1", { state: false });
  const states = watchState(game);
  const gaps = [];
  game.ongap = (gap) => gaps.push(gap);
  const messages = collect(game);
  await peer.subscribed("game/1", KEYED);
  peer.message("game/1", 10, "z", { key: "a" });
  await until(() => messages.length === 1);
  peer.cut();
  const second = await fake.accept();
  const { since, state } = await second.subscribed("game/1", { ...KEYED, offset: 11, recovered: true });
  assert.deepEqual([since, state], [{ epoch: EPOCH, offset: 10 }, false]);
  second.message("game/1", 14, "y", { key: "a", state: true });
  second.say({ type: "state-end", topic: "game/1", offset: 15 });
  second.message("game/1", 16, "x", { key: "a" });
  await until(() => messages.length === 3);
  assert.deepEqual(offsets(messages), [10, 14, 16]);
  assert.deepEqual([gaps, states], [[], []]);
});

test("a keyed topic keeps its state over a reconnect, and draws a new one if it must", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const game = bus.subscribe("game/1");
  const states = watchState(game);
  await peer.subscribed("game/1", KEYED);
  peer.message("game/1", 3, "x", { key: "a", state: true });
  peer.message("game/1", 4, "y", { key: "b", state: true });
  peer.say({ type: "state-end", topic: "game/1", offset: 9 });
  await until(() => states.length === 1);
  peer.cut();

  const second = await fake.accept();
  const resume = await second.subscribed("game/1", { ...KEYED, offset: 13, recovered: true });
  assert.deepEqual(resume.since, { epoch: EPOCH, offset: 9 });
  second.message("game/1", 11, null, { key: "b", state: true, removed: true });
  second.message("game/1", 12, "z", { key: "c", state: true });
  second.say({ type: "state-end", topic: "game/1", offset: 12 });
  await until(() => states.length === 2);
  second.cut();

  const third = await fake.accept();
  const again = await third.subscribed("game/1", { epoch: OTHER_EPOCH, offset: 2, history: "keyed", recovered: false });
  assert.deepEqual(again.since, { epoch: EPOCH, offset: 12 });
  third.message("game/1", 1, "n", { key: "n", state: true });
  third.say({ type: "state-end", topic: "game/1", offset: 1 });
  await until(() => states.length === 3);
  assert.deepEqual(states, ["a=x,b=y", "a=x,c=z", "n=n"]);
});

test("a keyed topic that is conflated keeps its state over a drop and tells no gap", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const game = bus.subscribe("game/1", { throttle: 50 });
  const states = watchState(game);
  const gaps = [];
  game.ongap = (gap) => gaps.push(gap);
  const latest = { ...KEYED, slow_consumer: "latest", throttle: 50 };
  await peer.subscribed("game/1", latest);
  peer.message("game/1", 3, "x", { key: "a", state: true });
  peer.message("game/1", 7, "y", { key: "b", state: true });
  peer.say({ type: "state-end", topic: "game/1", offset: 9 });
  peer.message("game/1", 25, "z", { key: "a" });
  peer.message("game/1", 30, null, { key: "b", removed: true });
  await until(() => states.length === 3);
  assert.deepEqual(states.splice(0), ["a=x,b=y", "a=z,b=y", "a=z"]);
  peer.cut();

  const second = await fake.accept();
  const { since, throttle } = await second.subscribed("game/1", { ...latest, offset: 31, recovered: true });
  assert.deepEqual([since, throttle], [{ epoch: EPOCH, offset: 30 }, 50]);
  second.message("game/1", 44, "w", { key: "c", state: true });
  second.say({ type: "state-end", topic: "game/1", offset: 48 });
  await until(() => states.length === 1);
  second.message("game/1", 60, "v", { key: "a" });
  await until(() => states.length === 2);
  assert.deepEqual(states, ["a=z,c=w", "a=v,c=w"]);
  assert.deepEqual(gaps, []);
  assert.equal(game.position, `${EPOCH}:60`);
});

test("a drop amid the state asks for the rest of it", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const states = watchState(bus.subscribe("game/1"));
  await peer.subscribed("game/1", KEYED);
  peer.message("game/1", 3, "x", { key: "a", state: true });
  await settle();
  peer.cut();
  const second = await fake.accept();
  const { since } = await second.subscribed("game/1", { ...KEYED, offset: 10, recovered: true });
  assert.deepEqual(since, { epoch: EPOCH, offset: 3 });
  second.message("game/1", 4, "y", { key: "b", state: true });
  second.say({ type: "state-end", topic: "game/1", offset: 9 });
  await until(() => states.length === 1);
  assert.deepEqual(states, ["a=x,b=y"]);
});

test("a reset empties the state", async (t) => {
  const { bus, peer } = await startBoth(t);
  const states = watchState(bus.subscribe("game/1"));
  await peer.subscribed("game/1", KEYED);
  peer.message("game/1", 3, "x", { key: "a", state: true });
  peer.say({ type: "state-end", topic: "game/1", offset: 9 });
  peer.say({ type: "reset", topic: "game/1", epoch: OTHER_EPOCH, offset: 0, reason: "purged" });
  await until(() => states.length === 2);
  assert.deepEqual(states, ["a=x", ""]);
});

/** A subscription that nobody reads while messages come. */
const flood = async (t, options, count, data) => {
  const { bus, peer, errors } = await startBoth(t);
  const chat = bus.subscribe("a", options);
  const gaps = [];
  chat.ongap = ({ topic, from, to, reason }) => gaps.push({ topic, from, to, reason });
  await peer.subscribed("a");
  for (let offset = 1; offset <= count; offset++) peer.message("a", offset, data);
  peer.say({ type: "error", code: "limit", reason: "the last one" });
  await until(() => errors.some(({ code }) => code === "limit"));
  return { chat, gaps, errors, messages: collect(chat) };
};

test("of more than 1,000 messages that wait, the oldest are dropped and told", async (t) => {
  const { gaps, messages, chat } = await flood(t, {}, 1001);
  await settle();
  assert.deepEqual(gaps, [{ topic: "a", from: 1, to: 251, reason: "overflow" }]);
  assert.deepEqual(offsets(messages), Array.from({ length: 750 }, (_, i) => i + 252));
  assert.equal(chat.position, `${EPOCH}:1001`);
});

test("1,000 messages may wait", async (t) => {
  const { gaps, messages } = await flood(t, {}, 1000);
  await until(() => messages.length === 1000);
  assert.deepEqual(gaps, []);
});

test("of more than 1 MiB that waits, the oldest messages are dropped", async (t) => {
  const { gaps, messages } = await flood(t, {}, 11, "x".repeat(100_000));
  await settle();
  assert.deepEqual(gaps, [{ topic: "a", from: 1, to: 4, reason: "overflow" }]);
  assert.deepEqual(offsets(messages), [5, 6, 7, 8, 9, 10, 11]);
});

test("what was read waits no longer", async (t) => {
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a");
  const gaps = [];
  chat.ongap = (gap) => gaps.push(gap);
  await peer.subscribed("a");
  const iterator = chat[Symbol.asyncIterator]();
  for (let round = 0; round < 5; round++) {
    for (let i = 1; i <= 5; i++) peer.message("a", 5 * round + i, "x".repeat(100_000));
    await settle();
    for (let i = 1; i <= 5; i++) assert.equal((await iterator.next()).value.offset, 5 * round + i);
  }
  assert.deepEqual(gaps, []);
});

test("one message may be larger than the queue", async (t) => {
  const { gaps, messages } = await flood(t, {}, 1, "x".repeat(2 ** 21));
  await until(() => messages.length === 1);
  assert.deepEqual(gaps, []);
});

test("onoverflow may drop the newest", async (t) => {
  const asked = [];
  const onoverflow = (subscription) => {
    asked.push(subscription.topic);
    return "newest";
  };
  const { gaps, messages } = await flood(t, { onoverflow }, 1002);
  await until(() => messages.length === 1000);
  assert.deepEqual(asked, ["a", "a"]);
  assert.deepEqual(gaps, [1001, 1002].map((offset) => ({ topic: "a", from: offset, to: offset, reason: "overflow" })));
});

test("onoverflow may end the subscription", async (t) => {
  const { messages, chat, errors } = await flood(t, { onoverflow: () => "close" }, 1200);
  await assert.rejects(messages.done, { code: "overflow" });
  assert.equal(messages.length, 1001);
  assert.deepEqual(errors.map(({ code }) => code), ["overflow", "limit"]);
  await chat.ready;
});

test("an overflow of a filter is told for each topic", async (t) => {
  const { bus, peer } = await startBoth(t);
  const all = bus.subscribe("+");
  const gaps = [];
  all.ongap = ({ topic, from, to, reason }) => gaps.push([topic, from, to, reason]);
  await peer.subscribed("+", {});
  for (let i = 1; i <= 501; i++) {
    peer.message("a", i);
    peer.message("b", 100 + i);
  }
  await until(() => gaps.length === 2);
  assert.deepEqual(gaps, [
    ["a", 1, 126, "overflow"],
    ["b", 101, 225, "overflow"],
  ]);
});

/** Animation frames that come when the test says so. */
const mockFrames = (t) => {
  const waiting = [];
  globalThis.requestAnimationFrame = (f) => waiting.push(f);
  t.after(() => delete globalThis.requestAnimationFrame);
  return { waiting, next: () => waiting.splice(0).forEach((f) => f()) };
};

test("with frame, messages come in one go per animation frame", async (t) => {
  const frames = mockFrames(t);
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a", { frame: true });
  const messages = collect(chat);
  await peer.subscribed("a");
  await chat.ready;
  assert.equal(frames.waiting.length, 0);
  for (const offset of [1, 2, 3]) peer.message("a", offset);
  await until(() => frames.waiting.length === 1);
  await settle();
  assert.equal(frames.waiting.length, 1);
  assert.deepEqual(messages, Object.assign([], { done: messages.done }));
  frames.next();
  await until(() => messages.length === 3);
  peer.message("a", 4);
  await until(() => frames.waiting.length === 1);
  assert.equal(messages.length, 3);
  frames.next();
  await until(() => messages.length === 4);
});

test("with frame, an overflow makes nothing due that came after the frame", async (t) => {
  const frames = mockFrames(t);
  const { bus, peer } = await startBoth(t);
  const chat = bus.subscribe("a", { frame: true });
  const gaps = [];
  chat.ongap = (gap) => gaps.push(gap);
  await peer.subscribed("a");
  for (let offset = 1; offset <= 1000; offset++) peer.message("a", offset);
  await until(() => frames.waiting.length === 1);
  await settle();
  frames.next();
  peer.message("a", 1001);
  await until(() => gaps.length === 1);
  const messages = collect(chat);
  await settle();
  assert.equal(messages.at(-1).offset, 1000);
  frames.next();
  await until(() => messages.at(-1).offset === 1001);
});

test("with frame, the state is told once per frame", async (t) => {
  const frames = mockFrames(t);
  const { bus, peer } = await startBoth(t);
  const game = bus.subscribe("game/1", { frame: true });
  const states = watchState(game);
  await peer.subscribed("game/1", KEYED);
  peer.say({ type: "state-end", topic: "game/1", offset: 9 });
  for (let offset = 10; offset < 60; offset++) peer.message("game/1", offset, offset, { key: "a" });
  await until(() => frames.waiting.length === 1);
  await settle();
  frames.next();
  assert.deepEqual(states, ["a=59"]);
  frames.next();
  assert.equal(states.length, 1);
});

test("without animation frames, or in a hidden page, a frame takes 16 ms", async (t) => {
  const frames = mockFrames(t);
  globalThis.document = { hidden: true };
  t.after(() => delete globalThis.document);
  const { bus, peer } = await startBoth(t);
  const messages = collect(bus.subscribe("a", { frame: true }));
  await peer.subscribed("a");
  peer.message("a", 1);
  await until(() => messages.length === 1);
  delete globalThis.requestAnimationFrame;
  peer.message("a", 2);
  await until(() => messages.length === 2);
  assert.equal(frames.waiting.length, 0);
});
