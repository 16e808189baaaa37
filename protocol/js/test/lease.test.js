// Leases: who holds one renews it while there is a connection, and learns when it is lost.

import assert from "node:assert/strict";
import { test } from "node:test";
import { mockClock } from "./clock.js";
import { EPOCH, noDelay, settle, startBoth, startSession, until } from "./fake.js";

/** A lease of `loco/12`. */
const grant = async ({ bus, peer }, number = 7, options = undefined) => {
  const asked = bus.lease("loco/12", options);
  peer.ok(await peer.next("lease"), { lease: number, ttl: 9000 });
  return asked;
};

/** What a promise is settled with by now; `pending` if it is not. */
const now = (promise) => Promise.race([promise, settle().then(() => "pending")]);

test("a lease has its number, which publishes carry", async (t) => {
  const { bus, peer } = await startBoth(t);
  const asked = bus.lease("loco/12", { ttl: 9000, wait: 1000 });
  const { id, ...command } = await peer.next("lease");
  assert.deepEqual(command, { type: "lease", topic: "loco/12", ttl: 9000, wait: 1000 });
  peer.ok({ id }, { lease: 7, ttl: 9000 });
  const lease = await asked;
  const { lost, release, ...members } = lease;
  assert.deepEqual(members, { topic: "loco/12", lease: 7, ttl: 9000 });
  for (const [given, sent] of [[lease, 7], [8, 8], [undefined, undefined]]) {
    bus.publish("loco/12", { speed: 40 }, { lease: given }).catch(() => {});
    assert.equal((await peer.next("publish")).lease, sent);
  }
  assert.equal(await now(lost), "pending");
});

test("one that another client holds rejects, and says who has it", async (t) => {
  const { bus, peer } = await startBoth(t);
  const asked = bus.lease("loco/12");
  const command = await peer.next("lease");
  assert.deepEqual(Object.keys(command).sort(), ["id", "topic", "type"]);
  peer.error(command, "held", { by: "bob", ttl: 4000 });
  await assert.rejects(asked, { code: "held", by: "bob", ttl: 4000 });
  const published = bus.publish("loco/12", 1, { lease: 6, idempotencyKey: "k" });
  peer.error(await peer.next("publish"), "not-holder");
  await assert.rejects(published, { code: "not-holder" });
  await assert.rejects(bus.lease("loco/12", { timeout: 1 }), { name: "TypeError", message: 'unknown option "timeout"' });
});

test("it is renewed after each third of its time", async (t) => {
  const clock = mockClock(t);
  const { peer } = await startBoth(t).then(async (started) => (await grant(started), started));
  for (let i = 0; i < 5; i++) {
    clock.tick(2999);
    await settle();
    assert.deepEqual(peer.commands, []);
    clock.tick(1);
    const { id, ...command } = await peer.next("lease");
    assert.deepEqual(command, { type: "lease", topic: "loco/12", lease: 7, ttl: 9000 });
    if (i % 2) peer.error({ id }, "busy");
    else peer.ok({ id }, { lease: 7, ttl: 9000 });
  }
});

test("the broker may take it away", async (t) => {
  const clock = mockClock(t);
  const started = await startBoth(t);
  const { peer } = started;
  for (const [number, reason] of [[7, "expired"], [8, "taken"], [9, "closed"]]) {
    const lease = await grant(started, number);
    peer.say({ type: "lease-lost", topic: "loco/12", lease: number - 1, reason: "expired" });
    peer.say({ type: "lease-lost", topic: "loco/13", lease: number, reason: "expired" });
    assert.equal(await now(lease.lost), "pending");
    peer.say({ type: "lease-lost", topic: "loco/12", lease: number, reason });
    assert.equal(await lease.lost, reason);
    lease.release();
  }
  clock.tick(60_000);
  await settle();
  assert.deepEqual(peer.commands.map(({ type }) => type), ["ping"], "nothing is renewed or released");
});

test("a loss that comes with the grant is not missed", async (t) => {
  const { bus, peer } = await startBoth(t);
  const asked = bus.lease("loco/12");
  peer.ok(await peer.next("lease"), { lease: 7, ttl: 9000 });
  peer.say({ type: "lease-lost", topic: "loco/12", lease: 7, reason: "taken" });
  assert.equal(await (await asked).lost, "taken");
});

for (const code of ["not-found", "not-holder", "forbidden"]) {
  test(`a renewal that is answered with ${code}: the lease is lost`, async (t) => {
    const clock = mockClock(t);
    const started = await startBoth(t);
    const lease = await grant(started);
    clock.tick(3000);
    started.peer.error(await started.peer.next("lease"), code);
    assert.equal(await lease.lost, "expired");
    assert.deepEqual(started.errors, []);
  });
}

test("release ends it, once, and is no loss", async (t) => {
  const clock = mockClock(t);
  const started = await startBoth(t);
  const { peer } = started;
  const lease = await grant(started);
  clock.tick(3000);
  const renewal = await peer.next("lease");
  lease.release();
  lease.release();
  const { id, ...command } = await peer.next("lease");
  assert.deepEqual(command, { type: "lease", topic: "loco/12", lease: 7, end: true });
  peer.error(renewal, "not-found");
  clock.tick(10_000);
  assert.equal(await now(lease.lost), "pending");
  assert.deepEqual(peer.commands, []);
});

test("a session that is still there keeps it: it is renewed at once", async (t) => {
  noDelay(t);
  const started = await startSession(t);
  const lease = await grant(started);
  started.peer.cut();
  const second = await started.fake.accept();
  const { id, ...command } = await second.next("lease");
  assert.deepEqual(command, { type: "lease", topic: "loco/12", lease: 7, ttl: 9000 });
  second.ok({ id }, { lease: 7, ttl: 9000 });
  assert.equal(await now(lease.lost), "pending");
});

test("a broker that was restarted knows no session: who was present enters again, and leases are lost", async (t) => {
  noDelay(t);
  const started = await startSession(t);
  const { fake, answer, bus, peer } = started;
  bus.enter("chat/7", { name: "Ada" });
  peer.ok(await peer.next("enter"));
  const lease = await grant(started);
  await settle();
  answer.known.clear();
  peer.cut();
  const second = await fake.accept();
  assert.equal(await lease.lost, "expired");
  const { id, ...command } = await second.next("enter");
  assert.deepEqual(command, { type: "enter", topic: "chat/7", info: { name: "Ada" } });
  await settle();
  assert.deepEqual(second.commands, []);
  const again = await grant({ bus, peer: second }, 8);
  assert.equal(again.lease, 8);
});

test("without a session it is lost with the connection", async (t) => {
  noDelay(t);
  const started = await startBoth(t);
  const lease = await grant(started);
  started.peer.cut();
  assert.equal(await lease.lost, "expired");
});

test("while there is no connection nothing is renewed; what is released meanwhile is released after", async (t) => {
  const clock = mockClock(t);
  noDelay(t);
  for (const isOver of [false, true]) {
    const started = await startSession(t);
    const { fake, answer, bus, peer, states } = started;
    const [kept, released] = [await grant(started), await grant(started, 8)];
    if (isOver) answer.known.clear();
    peer.cut();
    await until(() => states.at(-1).state === "connecting");
    released.release();
    clock.tick(0);
    const second = await fake.accept();
    await until(() => bus.state === "open");
    await settle();
    assert.deepEqual(
      second.commands.map(({ lease, ttl, end }) => [lease, ttl, end]),
      isOver ? [] : [[7, 9000, undefined], [8, undefined, true]],
    );
    assert.equal(await now(kept.lost), isOver ? "expired" : "pending");
    assert.equal(await now(released.lost), "pending");
    bus.close();
  }
});

test("a lease that is granted after the caller gave up is released", async (t) => {
  const { bus, peer } = await startBoth(t);
  const controller = new AbortController();
  const asked = bus.lease("loco/12", { wait: 60_000, signal: controller.signal });
  const command = await peer.next("lease");
  controller.abort(new Error("enough"));
  await assert.rejects(asked, { message: "enough" });
  peer.ok(command, { lease: 7, ttl: 9000 });
  const { id, ...end } = await peer.next("lease");
  assert.deepEqual(end, { type: "lease", topic: "loco/12", lease: 7, end: true });
});

test("who waits for a lease waits 30 s longer than the broker", async (t) => {
  const clock = mockClock(t);
  const { bus, peer } = await startBoth(t, ({ id }) => ({ type: "ok", id, ping: 1e9 }));
  await settle();
  const asked = bus.lease("loco/12", { wait: 60_000 });
  await peer.next("lease");
  clock.tick(89_999);
  assert.equal(await now(asked), "pending");
  clock.tick(1);
  await assert.rejects(asked, { code: "timeout" });
});

test("a drop ends the wait", async (t) => {
  noDelay(t);
  const { bus, peer } = await startSession(t);
  const asked = bus.lease("loco/12", { wait: 60_000 });
  await peer.next("lease");
  peer.cut();
  await assert.rejects(asked, { code: "disconnected" });
});

test("close loses leases", async (t) => {
  const clock = mockClock(t);
  const started = await startBoth(t);
  const lease = await grant(started);
  started.bus.close();
  assert.equal(await lease.lost, "closed");
  lease.release();
  clock.tick(10_000);
  await settle();
  assert.deepEqual(started.peer.commands, [{ type: "disconnect" }]);
});

test("a publish with a lease that was held while away is sent with it", async (t) => {
  noDelay(t);
  const started = await startSession(t);
  const lease = await grant(started);
  started.peer.cut();
  await until(() => started.states.at(-1).state === "connecting");
  const published = started.bus.publish("loco/12", 1, { lease });
  const second = await started.fake.accept();
  const command = await second.next("publish");
  assert.equal(command.lease, 7);
  second.ok(command, { epoch: EPOCH, offset: 1 });
  await published;
});
