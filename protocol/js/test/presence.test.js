// Presence: what is entered once is entered on every connection that needs it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { mockClock } from "./clock.js";
import { EPOCH, noDelay, settle, startBoth, startSession, until } from "./fake.js";

/** Sends what `f` does, answers it, and returns the command without its id. */
const answered = async (peer, type, f) => {
  const promise = f();
  const { id, ...command } = await peer.next(type);
  peer.ok({ id });
  await promise;
  return command;
};

/** The connection ends, and the next one is there. With `isOver`, the session is, too. */
const reconnect = async ({ fake, answer, bus, states }, peer, isOver) => {
  if (isOver) answer.known.clear();
  peer.cut();
  const next = await fake.accept();
  await until(() => states.at(-1).state === "open" && bus.state === "open" && next.closed === null);
  await settle();
  return next;
};

const types = ({ commands }) => commands.map(({ type, topic, info }) => [type, topic, info]);

test("enter, update and leave have the names of the wire", async (t) => {
  const { bus, peer } = await startBoth(t);
  assert.deepEqual(await answered(peer, "enter", () => bus.enter("chat/7")), { type: "enter", topic: "chat/7" });
  const info = { name: "Ada" };
  assert.deepEqual(await answered(peer, "enter", () => bus.enter("chat/7", info)), { type: "enter", topic: "chat/7", info });
  assert.deepEqual(await answered(peer, "update", () => bus.update("chat/7", null)), { type: "update", topic: "chat/7", info: null });
  assert.deepEqual(await answered(peer, "leave", () => bus.leave("chat/7")), { type: "leave", topic: "chat/7" });
});

test("members resolves to what the broker lists", async (t) => {
  const { bus, peer } = await startBoth(t);
  const asked = bus.members("chat/7", { limit: 2 });
  const { id, ...command } = await peer.next("members");
  assert.deepEqual(command, { type: "members", topic: "chat/7", limit: 2 });
  const list = { count: 3, members: [{ member: "ada", info: 1, connections: 2 }, { member: "bob", connections: 1 }], more: true };
  peer.ok({ id }, list);
  assert.deepEqual(await asked, list);
  const refused = bus.members("chat/8");
  peer.error(await peer.next("members"), "unsupported");
  await assert.rejects(refused, { code: "unsupported" });
  await assert.rejects(bus.members("a", { last: 1 }), { name: "TypeError" });
});

test("what is refused rejects, is told, and is not repeated", async (t) => {
  noDelay(t);
  const started = await startSession(t);
  const { bus, peer, errors } = started;
  const entered = bus.enter("chat/7", "x".repeat(2000));
  peer.error(await peer.next("enter"), "too-big");
  await assert.rejects(entered, { code: "too-big" });
  bus.update("chat/7", 1); // nobody waits for it
  peer.error(await peer.next("update"), "not-found");
  await until(() => errors.length === 2);
  assert.deepEqual(errors.map(({ code }) => code), ["too-big", "not-found"]);
  assert.deepEqual(types(await reconnect(started, peer, true)), []);
});

test("who has left already has left", async (t) => {
  const { bus, peer, errors } = await startBoth(t);
  const left = bus.leave("chat/7");
  peer.error(await peer.next("leave"), "not-found");
  await left;
  assert.deepEqual(errors, []);
});

test("a session that is still there keeps who is present; a new one enters again, as last updated", async (t) => {
  noDelay(t);
  const started = await startSession(t);
  const { bus, peer } = started;
  await answered(peer, "enter", () => bus.enter("a", 1));
  await answered(peer, "enter", () => bus.enter("b", 1));
  await answered(peer, "update", () => bus.update("b", 2));
  await answered(peer, "enter", () => bus.enter("c", 1));
  await answered(peer, "leave", () => bus.leave("c"));
  const second = await reconnect(started, peer);
  assert.deepEqual(types(second), []);
  const third = await reconnect(started, second, true);
  assert.deepEqual(types(third), [["enter", "a", 1], ["enter", "b", 2]]);
  const fourth = await reconnect(started, third);
  assert.deepEqual(types(fourth), [["enter", "a", 1], ["enter", "b", 2]], "they had not been answered");
});

test("without a session, each connection enters again", async (t) => {
  noDelay(t);
  const started = await startBoth(t);
  const { bus, peer } = started;
  await answered(peer, "enter", () => bus.enter("a", 1));
  assert.deepEqual(types(await reconnect(started, peer)), [["enter", "a", 1]]);
});

test("what is done while away is done on the next connection, in its last form", async (t) => {
  noDelay(t);
  for (const isOver of [false, true]) {
    const started = await startSession(t);
    const { bus, peer, states, errors } = started;
    await answered(peer, "enter", () => bus.enter("a", 1));
    await answered(peer, "enter", () => bus.enter("b", 1));
    peer.cut();
    if (isOver) started.answer.known.clear();
    await until(() => states.at(-1).state === "connecting");
    const done = [bus.update("a", 2), bus.update("a", 3), bus.leave("b"), bus.enter("c")];
    const second = await started.fake.accept();
    await settle();
    const again = isOver ? "enter" : "update";
    assert.deepEqual(types(second), [[again, "a", 3], ["leave", "b", undefined], ["enter", "c", undefined]]);
    for (const command of second.commands) {
      if (isOver && command.type === "leave") second.error(command, "not-found");
      else second.ok(command);
    }
    await Promise.all(done);
    assert.deepEqual(errors, []);
  }
});

test("the end of the subscription ends the presence that goes with it", async (t) => {
  noDelay(t);
  const started = await startSession(t);
  const { bus, peer } = started;
  const [a, b] = [bus.subscribe("a"), bus.subscribe("b")];
  await peer.subscribed("a");
  await peer.subscribed("b");
  await answered(peer, "enter", () => bus.enter("a"));
  a.close();
  peer.ok(await peer.next("leave"));
  await peer.next("unsubscribe");
  b.close();
  await peer.next("unsubscribe");
  assert.deepEqual(types(peer), []);
  await settle();
  assert.deepEqual(types(await reconnect(started, peer, true)), []);
});

test("a broker that is busy is asked again after a second", async (t) => {
  const clock = mockClock(t);
  const { bus, peer, errors } = await startBoth(t);
  const entered = bus.enter("a");
  peer.error(await peer.next("enter"), "busy");
  await settle();
  clock.tick(999);
  await settle();
  assert.deepEqual(peer.commands, []);
  clock.tick(1);
  peer.ok(await peer.next("enter"));
  await entered;
  assert.deepEqual(errors, []);
});

test("what was replaced while the broker was busy is not said again", async (t) => {
  const clock = mockClock(t);
  const { bus, peer } = await startBoth(t);
  const before = bus.enter("a", 1);
  peer.error(await peer.next("enter"), "busy");
  await settle();
  const after = bus.enter("a", 2);
  const command = await peer.next("enter");
  clock.tick(1000);
  await settle();
  assert.deepEqual(peer.commands, []);
  peer.ok(command);
  await Promise.all([before, after]);
});

test("close rejects what was not answered", async (t) => {
  const { bus, peer } = await startBoth(t);
  const entered = bus.enter("a");
  await peer.next("enter");
  bus.close();
  await assert.rejects(entered, { code: "closed" });
  assert.throws(() => bus.leave("a"), { code: "closed" });
});

test("subscriptions come before presence, so that we see ourselves enter", async (t) => {
  noDelay(t);
  const started = await startSession(t);
  const { bus, peer, fake } = started;
  await answered(peer, "enter", () => bus.enter("a"));
  bus.subscribe("$presence/a");
  await peer.subscribed("$presence/a", { epoch: EPOCH, offset: 1, history: "keyed" });
  started.answer.known.clear();
  peer.cut();
  const second = await fake.accept();
  await until(() => second.commands.length === 2);
  assert.deepEqual(second.commands.map(({ type }) => type), ["subscribe", "enter"]);
});
