// Sessions: what `connect` says, where the session is kept, who may use it, and how it ends. The last will goes with it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { mockClock } from "./clock.js";
import { EPOCH, noDelay, sessions, settle, startBoth, startBus, startFake, startSession, until } from "./fake.js";
import { enterTab, Locks, Storage } from "./tab.js";

const asked = ({ hellos }) => hellos.map(({ session }) => session);

/** A bus with a session in a tab, once it is open. */
const openIn = async (t, fake, tab) => {
  enterTab(t, tab);
  const started = startBus(t, fake, { session: true });
  await until(() => started.bus.state === "open", "open");
  return started;
};

/** The page of a bus is gone, and so are its locks; the tab stays. This broker takes no notice of `disconnect`. */
const unload = async (fake, { bus }) => {
  const peer = fake.peers.at(-1);
  bus.close();
  await until(() => peer.closed !== null);
};

test("connect asks for a session first, and nothing is sent before the answer", async (t) => {
  const fake = await startFake(t, null);
  const { bus } = startBus(t, fake, { session: true });
  bus.subscribe("a");
  bus.enter("a").catch(() => {});
  const published = bus.publish("a", 1);
  const peer = await fake.accept();
  const { id, ...hello } = await peer.next("connect");
  assert.deepEqual(hello, { type: "connect", ping: "message", session: true });
  await settle();
  assert.deepEqual([peer.commands, bus.state, bus.member], [[], "connecting", undefined]);
  peer.ok({ id }, { session: "s1", resumed: false, member: "ada", ping: 25000, server: "ringyard/0" });
  await peer.subscribed("a");
  peer.ok(await peer.next("enter"));
  peer.ok(await peer.next("publish"), { epoch: EPOCH, offset: 1 });
  await published;
  assert.equal(bus.member, "ada");
});

test("without the option nothing is asked for, and who we are is known all the same", async (t) => {
  const answer = sessions();
  const { bus } = await startBoth(t, answer, { session: false });
  await until(() => bus.member === "ada");
  assert.deepEqual(Object.keys(answer.hellos[0]).sort(), ["id", "ping", "type"]);
});

test("after a drop the session is named; a new one takes its place if it is over", async (t) => {
  noDelay(t);
  const { fake, answer, peer } = await startSession(t);
  peer.cut();
  const second = await fake.accept();
  await until(() => answer.hellos.length === 2);
  answer.known.clear();
  second.cut();
  const third = await fake.accept();
  await until(() => answer.hellos.length === 3);
  third.cut();
  await until(() => answer.hellos.length === 4);
  assert.deepEqual(asked(answer), [true, "s1", "s1", "s2"]);
});

test("a token that is renewed says nothing of the session", async (t) => {
  const answer = sessions();
  const tokens = ["t1", "t2"];
  const { peer } = await startBoth(t, answer, { session: true, will: { topic: "a", data: 1 }, token: () => tokens.shift() });
  peer.say({ type: "refresh", in: 60_000 });
  await until(() => answer.hellos.length === 2);
  const { id, ...hello } = answer.hellos[1];
  assert.deepEqual(hello, { type: "connect", ping: "message", token: "t2" });
});

test("a broker without sessions is an error event, and nothing is sent", async (t) => {
  const fake = await startFake(t, null);
  const { bus, errors } = startBus(t, fake, { session: true });
  bus.subscribe("a");
  const peer = await fake.accept();
  peer.error(await peer.next("connect"), "unsupported");
  await until(() => errors.length === 1);
  await settle();
  assert.deepEqual([errors[0].code, bus.state, peer.commands], ["unsupported", "connecting", []]);
});

test("a page that is loaded again goes on with its session and its lease", async (t) => {
  const answer = sessions();
  const fake = await startFake(t, answer);
  const tab = { storage: new Storage(), locks: new Locks() };
  const before = await openIn(t, fake, tab);
  assert.deepEqual([...tab.storage.items], [[`ringyard ${fake.url}`, "s1"]]);
  assert.deepEqual([...tab.locks.held.keys()], ["ringyard s1"]);
  const first = await fake.accept();
  const leased = before.bus.lease("loco/12");
  first.ok(await first.next("lease"), { lease: 7, ttl: 10_000 });
  assert.equal((await leased).lease, 7);

  await unload(fake, before);
  const { bus } = await openIn(t, fake, tab);
  assert.deepEqual(asked(answer), [true, "s1"]);
  const second = await fake.accept();
  const again = bus.lease("loco/12");
  second.ok(await second.next("lease"), { lease: 7, ttl: 10_000 });
  assert.equal((await again).lease, 7, "the broker knows whose it is");
});

test("a page whose predecessor lets go of the lock a moment later waits for it", async (t) => {
  const answer = sessions();
  const fake = await startFake(t, answer);
  const tab = { storage: new Storage(), locks: new Locks() };
  const before = await openIn(t, fake, tab);
  setTimeout(() => before.bus.close(), 50);
  await openIn(t, fake, tab);
  assert.deepEqual(asked(answer), [true, "s1"]);
});

test("a duplicated tab draws a session of its own, and keeps that", async (t) => {
  const answer = sessions();
  const fake = await startFake(t, answer);
  const locks = new Locks();
  const original = { storage: new Storage(), locks };
  const first = await openIn(t, fake, original);
  const copy = { storage: new Storage(original.storage), locks };
  const second = await openIn(t, fake, copy);
  assert.deepEqual(asked(answer), [true, true]);
  assert.equal(first.bus.state, "open");
  const key = `ringyard ${fake.url}`;
  assert.deepEqual([original.storage.getItem(key), copy.storage.getItem(key)], ["s1", "s2"]);
  await unload(fake, second);
  await openIn(t, fake, copy);
  assert.deepEqual(asked(answer), [true, true, "s2"]);
});

test("a bus that is closed while it waits for the lock does not connect, and leaves the lock", async (t) => {
  const answer = sessions();
  const fake = await startFake(t, answer);
  const tab = { storage: new Storage(), locks: new Locks() };
  const { bus } = await openIn(t, fake, tab);
  const waiting = startBus(t, fake, { session: true });
  waiting.bus.close();
  bus.close();
  await until(() => tab.locks.held.size === 0);
  await settle();
  assert.equal(answer.hellos.length, 1);
});

test("while a page waits for the lock, what it does is held", async (t) => {
  const fake = await startFake(t, sessions());
  const tab = { storage: new Storage(), locks: new Locks() };
  const { bus: first } = await openIn(t, fake, tab);
  await fake.accept();
  const { bus } = startBus(t, fake, { session: true });
  bus.subscribe("a");
  const published = bus.publish("a", 1);
  first.close();
  const peer = await fake.accept();
  await peer.subscribed("a");
  peer.ok(await peer.next("publish"), { epoch: EPOCH, offset: 1 });
  await published;
});

test("each address has its session", async (t) => {
  const tab = { storage: new Storage(), locks: new Locks() };
  const [one, other] = [await startFake(t, sessions()), await startFake(t, sessions())];
  await openIn(t, one, tab);
  await openIn(t, other, tab);
  assert.deepEqual([...tab.storage.items.keys()], [`ringyard ${one.url}`, `ringyard ${other.url}`]);
});

for (const [name, tab, expected] of [
  ["locks", { storage: new Storage() }, [true, "s1"]],
  ["storage", { locks: new Locks() }, [true, true]],
]) {
  test(`where there are no ${name} it works without`, async (t) => {
    const answer = sessions();
    const fake = await startFake(t, answer);
    await unload(fake, await openIn(t, fake, tab));
    await openIn(t, fake, tab);
    assert.deepEqual(asked(answer), expected);
  });
}

test("storage that a page may not use is done without", async (t) => {
  const refuse = () => {
    throw new DOMException("no", "SecurityError");
  };
  const fake = await startFake(t, sessions());
  await openIn(t, fake, { storage: { getItem: refuse, setItem: refuse } });
});

test("4409: the session goes on elsewhere; the bus is closed, with that code, and does not come back", async (t) => {
  noDelay(t);
  const { fake, bus, peer, states } = await startSession(t);
  const leased = bus.lease("loco/12");
  peer.ok(await peer.next("lease"), { lease: 7, ttl: 10_000 });
  const lease = await leased;
  peer.close(4409, "session taken over");
  await until(() => bus.state === "closed");
  assert.deepEqual(states.at(-1), { state: "closed", code: 4409, reason: "session taken over" });
  assert.equal(await lease.lost, "closed");
  await settle();
  assert.equal(fake.peers.length, 1);
  assert.throws(() => bus.enter("a"), { code: "closed" });
  await assert.rejects(bus.request("a", 1), { code: "closed" });
});

test("close says disconnect, then the socket closes; a drop says nothing", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startSession(t);
  peer.close(1001);
  const second = await fake.accept();
  await until(() => bus.state === "open");
  await settle();
  assert.deepEqual(peer.commands, []);
  bus.close();
  await until(() => second.closed !== null);
  assert.deepEqual(second.commands, [{ type: "disconnect" }]);
});

test("close while it connects sends nothing", async (t) => {
  const fake = await startFake(t, null);
  const { bus } = startBus(t, fake, { session: true });
  const peer = await fake.accept();
  await until(() => peer.commands.length === 1);
  bus.close();
  await until(() => peer.closed !== null);
  assert.deepEqual(peer.commands.map(({ type }) => type), ["connect"]);
});

test("goaway says how long to stay away at most, once", async (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => 0.5);
  const { fake, bus, peer, states } = await startBoth(t);
  const heard = [];
  bus.on("goaway", (event) => heard.push(event));
  peer.say({ type: "goaway", retry: 1200 });
  peer.close(1001);
  await until(() => states.at(-1).code === 1001);
  assert.deepEqual([heard.map(({ retry }) => retry), states.at(-1).delay], [[1200], 600]);
  clock.tick(600);
  const second = await fake.accept();
  await until(() => bus.state === "open");
  second.close(1001);
  await until(() => states.length === 4);
  assert.equal(states.at(-1).delay, 2500);
});

const WILL = { topic: "loco/12", data: { speed: 0 }, retain: true, delay: 0 };

test("a will goes with connect, each time", async (t) => {
  noDelay(t);
  const { fake, answer, peer } = await startSession(t, { will: { ...WILL, data: Uint8Array.of(0) } });
  peer.cut();
  await fake.accept();
  await until(() => answer.hellos.length === 2);
  for (const { will } of answer.hellos) assert.deepEqual(will, { ...WILL, data: "AA==", encoding: "base64" });
});

test("a will that is refused is an error event, and the client does not go on without", async (t) => {
  const fake = await startFake(t, null);
  const { bus, errors } = startBus(t, fake, { will: WILL });
  const peer = await fake.accept();
  peer.error(await peer.next("connect"), "forbidden");
  await until(() => errors.length === 1);
  assert.deepEqual([errors[0].code, bus.state], ["forbidden", "connecting"]);
});

test("a will can be set, replaced and ended later", async (t) => {
  noDelay(t);
  const { fake, answer, bus, peer } = await startSession(t);
  const set = bus.will(WILL);
  const command = await peer.next("will");
  assert.deepEqual(command, { type: "will", id: command.id, will: WILL });
  peer.ok(command);
  await set;
  peer.cut();
  const second = await fake.accept();
  await until(() => bus.state === "open");
  assert.deepEqual(answer.hellos[1].will, WILL);
  const ended = bus.will(null);
  const end = await second.next("will");
  assert.deepEqual(end, { type: "will", id: end.id, end: true });
  second.ok(end);
  await ended;
  second.cut();
  const third = await fake.accept();
  await until(() => bus.state === "open");
  await settle();
  assert.deepEqual([answer.hellos[2].will, third.commands], [undefined, []]);
});

test("a will that is ended while away is ended at the broker, which kept it", async (t) => {
  noDelay(t);
  const { fake, bus, peer, states } = await startSession(t, { will: WILL });
  peer.cut();
  await until(() => states.at(-1).state === "connecting");
  const ended = bus.will(null);
  const second = await fake.accept();
  const { id, ...end } = await second.next("will");
  assert.deepEqual(end, { type: "will", end: true });
  second.ok({ id });
  await ended;
});

test("a will that the broker refuses later rejects and is told", async (t) => {
  noDelay(t);
  const { answer, bus, peer, errors } = await startSession(t);
  const set = bus.will(WILL);
  peer.error(await peer.next("will"), "forbidden");
  await assert.rejects(set, { code: "forbidden" });
  assert.deepEqual(errors.map(({ code }) => code), ["forbidden"]);
  assert.throws(() => bus.will({ topic: "a", data: "\ud83d" }), { code: "bad-json" });
  peer.cut();
  await until(() => answer.hellos.length === 2);
  assert.equal(answer.hellos[1].will, undefined, "the next connection is not refused for it");
});

test("a hundred publishes that were held go out as before, each once, beside what the session repeats", async (t) => {
  noDelay(t);
  const { fake, answer, bus, peer, states } = await startSession(t);
  bus.enter("a");
  bus.respond("b", () => 1);
  peer.ok(await peer.next("enter"));
  peer.ok(await peer.next("respond"));
  await settle();
  answer.known.clear();
  peer.cut();
  await until(() => states.at(-1).state === "connecting");
  const published = Array.from({ length: 100 }, (_, i) => bus.publish("a", i));
  bus.enter("c");
  await assert.rejects(bus.publish("a", 100), { code: "offline" });
  const second = await fake.accept();
  for (const [i, promise] of published.entries()) {
    const command = await second.next("publish");
    assert.equal(command.data, i);
    second.ok(command, { epoch: EPOCH, offset: i + 1 });
    assert.equal((await promise).offset, i + 1);
  }
  assert.deepEqual(second.commands.map(({ type, topic }) => [type, topic]), [["enter", "a"], ["respond", "b"], ["enter", "c"]]);
});
