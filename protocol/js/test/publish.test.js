// Publishing: options, answers, what is held while disconnected and what is sent again.

import assert from "node:assert/strict";
import { test } from "node:test";
import { mockClock } from "./clock.js";
import { EPOCH, noDelay, settle, startBoth, startBus, startFake, until } from "./fake.js";

const KEY = /^[\d-]{20,64}$/;

test("a publish resolves to its position", async (t) => {
  const { bus, peer } = await startBoth(t);
  const published = bus.publish("chat/7", { text: "hi" });
  const { idempotency_key, ...command } = await peer.next("publish");
  assert.match(idempotency_key, KEY);
  assert.deepEqual(command, { type: "publish", id: command.id, topic: "chat/7", data: { text: "hi" } });
  peer.ok(command, { epoch: EPOCH, offset: 3, subscribers: 2 });
  assert.deepEqual(await published, { epoch: EPOCH, offset: 3, subscribers: 2 });
});

test("options have the names of the wire", async (t) => {
  const { bus, peer } = await startBoth(t);
  bus.publish("a", "x", { key: "k", ttl: 5000, retain: true, removed: true, idempotencyKey: "mine", ifOffset: 0 }).catch(() => {});
  const { id, ...command } = await peer.next("publish");
  assert.deepEqual(command, {
    type: "publish",
    topic: "a",
    data: "x",
    key: "k",
    ttl: 5000,
    retain: true,
    removed: true,
    idempotency_key: "mine",
    if_offset: 0,
  });
  bus.publish("a", null, { retain: false, removed: false, ifOffset: "absent" }).catch(() => {});
  const { id: _, idempotency_key, ...plain } = await peer.next("publish");
  assert.deepEqual(plain, { type: "publish", topic: "a", data: null, if_offset: "absent" });
});

test("bytes are sent as base64", async (t) => {
  const { bus, peer } = await startBoth(t);
  const bytes = Uint8Array.of(9, 0, 1, 255, 128, 9);
  for (const data of [bytes.subarray(1, 5), bytes.slice(1, 5).buffer, new DataView(bytes.buffer, 1, 4)]) {
    bus.publish("a", data).catch(() => {});
    const { data: sent, encoding } = await peer.next("publish");
    assert.deepEqual([sent, encoding], ["AAH/gA==", "base64"]);
  }
  bus.publish("a", new Uint8Array(300_000).fill(7)).catch(() => {});
  assert.deepEqual(Buffer.from((await peer.next("publish")).data, "base64"), Buffer.alloc(300_000, 7));
});

test("a refused publish rejects with code and offset", async (t) => {
  const { bus, peer } = await startBoth(t);
  const published = bus.publish("a", 1, { ifOffset: 3 });
  peer.error(await peer.next("publish"), "conflict", { offset: 5 });
  await assert.rejects(published, { name: "Error", code: "conflict", offset: 5, message: "it is conflict" });
});

test("options that are unknown, and data that is no JSON, reject", async (t) => {
  const { bus, peer } = await startBoth(t);
  await assert.rejects(bus.publish("a", 1, { lease: 4 }), { message: 'unknown option "lease"' });
  await assert.rejects(bus.publish("a", 1n), TypeError);
  const circle = {};
  circle.circle = circle;
  await assert.rejects(bus.publish("a", circle), TypeError);
  await settle();
  assert.deepEqual(peer.commands, []);
});

test("a publish gives up after its timeout", async (t) => {
  const clock = mockClock(t);
  const { bus, peer } = await startBoth(t);
  const published = bus.publish("a", 1);
  const short = bus.publish("a", 2, { timeout: 100 });
  await peer.next("publish");
  clock.tick(100);
  await assert.rejects(short, { code: "timeout" });
  clock.tick(29_899);
  let settled = false;
  published.catch(() => (settled = true));
  await settle();
  assert.equal(settled, false);
  clock.tick(1);
  await assert.rejects(published, { code: "timeout", message: "no answer within 30000 ms" });
});

test("a signal gives up a publish", async (t) => {
  const { bus, peer } = await startBoth(t);
  const controller = new AbortController();
  const published = bus.publish("a", 1, { signal: controller.signal });
  const command = await peer.next("publish");
  controller.abort();
  await assert.rejects(published, { name: "AbortError" });
  await assert.rejects(bus.publish("a", 1, { signal: controller.signal }), { name: "AbortError" });
  peer.ok(command, { epoch: EPOCH, offset: 1 });
  await settle();
  assert.equal(bus.state, "open");
});

test("while there is no connection 100 publishes are held, with keys, in order", async (t) => {
  const fake = await startFake(t);
  const { bus } = startBus(t, fake);
  const held = Array.from({ length: 100 }, (_, i) => bus.publish("a", i));
  held.push(assert.rejects(bus.publish("a", 100), { code: "offline" }));
  const peer = await fake.accept();
  const keys = new Set();
  for (let i = 0; i < 100; i++) {
    const command = await peer.next("publish");
    assert.equal(command.data, i);
    assert.match(command.idempotency_key, KEY);
    keys.add(command.idempotency_key);
    peer.ok(command, { epoch: EPOCH, offset: i + 1 });
  }
  assert.equal(keys.size, 100);
  assert.equal((await Promise.all(held))[99].offset, 100);
});

test("what was held is sent when the subscriptions have begun, and what comes meanwhile after it", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  bus.subscribe("a");
  await peer.subscribed("a");
  peer.cut();
  await until(() => bus.state === "connecting");
  bus.publish("a", "held").catch(() => {});
  const second = await fake.accept();
  const command = await second.next("subscribe");
  await until(() => bus.state === "open");
  bus.publish("a", "later").catch(() => {});
  await settle();
  assert.deepEqual(second.commands, []);
  second.ok(command, { topics: [{ topic: "a", epoch: EPOCH, offset: 1, recovered: true }] });
  assert.equal((await second.next("publish")).data, "held");
  assert.equal((await second.next("publish")).data, "later");
});

test("a publish whose answer was lost is sent again with the same key", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const published = bus.publish("a", "x");
  const own = bus.publish("a", "y", { idempotencyKey: "mine" });
  const first = await peer.next("publish");
  await peer.next("publish");
  peer.cut();
  const second = await fake.accept();
  const again = await second.next("publish");
  assert.equal(again.idempotency_key, first.idempotency_key);
  assert.equal(again.data, "x");
  assert.equal((await second.next("publish")).idempotency_key, "mine");
  second.ok(again, { epoch: EPOCH, offset: 1, duplicate: true });
  assert.deepEqual(await published, { epoch: EPOCH, offset: 1, duplicate: true });
  own.catch(() => {});
});

test("of many publishes in a second only some get keys; the others are not sent again", async (t) => {
  noDelay(t);
  let now = 1e12;
  t.mock.method(Date, "now", () => now);
  const { fake, bus, peer } = await startBoth(t);
  const published = Array.from({ length: 12 }, (_, i) => bus.publish("a", i));
  const outcomes = Promise.allSettled(published);
  const keyed = [];
  for (let i = 0; i < 12; i++) {
    const { data, idempotency_key } = await peer.next("publish");
    if (idempotency_key) keyed.push(data);
  }
  assert.deepEqual(keyed, [0, 1, 2, 3, 4]);
  now += 1001;
  bus.publish("a", "later").catch(() => {});
  assert.match((await peer.next("publish")).idempotency_key, KEY);
  peer.cut();
  const second = await fake.accept();
  for (let i = 0; i < 5; i++) second.ok(await second.next("publish"), { epoch: EPOCH, offset: i + 1 });
  const codes = (await outcomes).map(({ reason }) => reason?.code);
  assert.deepEqual(codes, [...Array(5).fill(undefined), ...Array(7).fill("disconnected")]);
});

for (const code of ["bad-command", "unsupported"]) {
  test(`a broker that knows no keys (${code}) is published to without`, async (t) => {
    const { bus, peer } = await startBoth(t);
    const published = bus.publish("a", "x");
    const first = await peer.next("publish");
    assert.match(first.idempotency_key, KEY);
    peer.error(first, code);
    const second = await peer.next("publish");
    assert.equal(second.idempotency_key, undefined);
    assert.equal(second.data, "x");
    peer.ok(second, { epoch: EPOCH, offset: 1 });
    await published;
    const next = bus.publish("a", "y");
    const third = await peer.next("publish");
    assert.equal(third.idempotency_key, undefined);
    peer.error(third, code);
    await assert.rejects(next, { code });
    // A publish that fails without the key, too, is not sent for ever.
    const { bus: another, peer: other } = await startBoth(t);
    const wrong = another.publish("a", "w");
    other.error(await other.next("publish"), code);
    other.error(await other.next("publish"), code);
    await assert.rejects(wrong, { code });
    // A key of the application's own is never left out.
    const own = bus.publish("a", "z", { idempotencyKey: "mine" });
    peer.error(await peer.next("publish"), code);
    await assert.rejects(own, { code });
    await settle();
    assert.deepEqual(peer.commands, []);
  });
}

test("closing the bus rejects what has no answer", async (t) => {
  const { bus } = await startBoth(t);
  const published = bus.publish("a", 1);
  await Promise.resolve();
  bus.close();
  await assert.rejects(published, { code: "closed" });
  await assert.rejects(bus.publish("a", 1), { code: "closed" });
  assert.throws(() => bus.subscribe("a"), { code: "closed" });
});
