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

test("a snapshot names the position that it stands for", async (t) => {
  const { bus, peer } = await startBoth(t);
  const stored = bus.snapshot("doc/x", `${EPOCH}:12`, Uint8Array.of(1, 2));
  const { id, ...command } = await peer.next("snapshot");
  const upTo = { epoch: EPOCH, offset: 12 };
  assert.deepEqual(command, { type: "snapshot", topic: "doc/x", data: "AQI=", encoding: "base64", up_to: upTo });
  peer.ok({ id });
  await stored;
  const refused = bus.snapshot("doc/x", `${EPOCH}:13`, "text");
  peer.error(await peer.next("snapshot"), "conflict", { offset: 12 });
  await assert.rejects(refused, { code: "conflict", offset: 12 });
  const bad = bus.snapshot("doc/x", undefined, "text");
  const { up_to, ...asked } = await peer.next("snapshot");
  assert.equal(up_to.epoch, undefined);
  peer.error(asked, "bad-command");
  await assert.rejects(bad, { code: "bad-command" });
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
  await assert.rejects(bus.publish("a", 1, { leases: 4 }), { message: 'unknown option "leases"' });
  await assert.rejects(bus.publish("a", 1n), TypeError);
  const circle = {};
  circle.circle = circle;
  await assert.rejects(bus.publish("a", circle), TypeError);
  await settle();
  assert.deepEqual(peer.commands, []);
});

test("half a surrogate pair is refused before it is sent, wherever it is", async (t) => {
  const { bus, peer, errors } = await startBoth(t);
  const halves = ["\ud83d", "\ude00", "cut emoji \ud83d", "\ude00\ud83d", "\\\ud83d", '"\udfff'];
  for (const text of halves) {
    await assert.rejects(bus.publish("a", text), { code: "bad-json" });
    await assert.rejects(bus.publish("a", { list: [1, { text }] }), { code: "bad-json" });
    await assert.rejects(bus.publish("a", { [text]: 1 }), { code: "bad-json" });
    await assert.rejects(bus.publish(text, 1), { code: "bad-json" });
    await assert.rejects(bus.publish("a", 1, { key: text }), { code: "bad-json" });
    await assert.rejects(bus.publish("a", 1, { idempotencyKey: text }), { code: "bad-json" });
    assert.throws(() => bus.subscribe(text), { code: "bad-json" });
  }
  await settle();
  assert.deepEqual(peer.commands, []);
  // Whole pairs, what only looks like an escape, and the neighbours of the surrogates are text.
  for (const text of ["\ud83d\ude00", "\\ud83d", "\\\\ud83d", "\ud7ff\ue000\ufffd", "\u0000\ud83d\ude00\\"]) {
    const published = bus.publish("a", { [text]: text });
    const command = await peer.next("publish");
    assert.deepEqual(command.data, { [text]: text });
    peer.ok(command, { epoch: EPOCH, offset: 1 });
    await published;
  }
  assert.deepEqual(errors, []);
});

test("half a surrogate pair is refused while there is no connection, too", async (t) => {
  const fake = await startFake(t);
  const { bus } = startBus(t, fake);
  await assert.rejects(bus.publish("a", "\ud83d"), { code: "bad-json" });
  const held = bus.publish("a", "whole");
  const peer = await fake.accept();
  peer.ok(await peer.next("publish"), { epoch: EPOCH, offset: 1 });
  await held;
});

test("after 1009 the longest publish without an answer is too big, and the others are sent again", async (t) => {
  noDelay(t);
  const { fake, bus, peer, states, errors } = await startBoth(t);
  const longer = bus.publish("a", "x".repeat(400)); // answered, so the broker allows it
  peer.ok(await peer.next("publish"), { epoch: EPOCH, offset: 1 });
  await longer;
  // Bytes count, not characters: the second has fewer of these.
  const sent = ["x".repeat(250), "\u20ac".repeat(200), "small"].map((data) => bus.publish("a", data));
  const settled = Promise.allSettled(sent);
  for (const _ of sent) await peer.next("publish");
  peer.close(1009, "longer than 500 bytes");
  await assert.rejects(sent[1], { code: "too-big", message: "longer than 500 bytes" });

  const again = await fake.accept();
  for (const data of ["x".repeat(250), "small"]) {
    const command = await again.next("publish");
    assert.equal(command.data, data);
    again.ok(command, { epoch: EPOCH, offset: 2 });
  }
  assert.deepEqual((await settled).map(({ status }) => status), ["fulfilled", "rejected", "fulfilled"]);
  await settle();
  assert.deepEqual(again.commands, []);
  assert.deepEqual(states.map(({ state, code }) => [state, code]), [["open", undefined], ["connecting", 1009], ["open", undefined]]);
  assert.deepEqual(errors, []);
});

test("several publishes that are too big end one by one, also those that were held", async (t) => {
  noDelay(t);
  const fake = await startFake(t);
  const { bus } = startBus(t, fake);
  const sizes = [300, 10, 500, 400];
  const settled = Promise.allSettled(sizes.map((size) => bus.publish("a", "x".repeat(size))));
  for (const left of [[300, 10, 500, 400], [300, 10, 400], [300, 10]]) {
    const peer = await fake.accept();
    for (const size of left) assert.equal((await peer.next("publish")).data.length, size);
    peer.close(1009);
  }
  const peer = await fake.accept();
  peer.ok(await peer.next("publish"), { epoch: EPOCH, offset: 1 });
  assert.deepEqual((await settled).map(({ reason }) => reason?.code), ["too-big", undefined, "too-big", "too-big"]);
});

test("a publish without a key is too big rather than disconnected", async (t) => {
  noDelay(t);
  const { bus, peer } = await startBoth(t);
  const sizes = [1, 2, 3, 4, 5, 600, 7];
  const settled = Promise.allSettled(sizes.map((size) => bus.publish("a", "x".repeat(size))));
  for (const size of sizes) {
    const command = await peer.next("publish");
    assert.equal(command.idempotency_key === undefined, size > 5);
    if (size < 6) peer.ok(command, { epoch: EPOCH, offset: size });
  }
  peer.close(1009);
  const codes = (await settled).map(({ reason }) => reason?.code);
  assert.deepEqual(codes, [...Array(5).fill(undefined), "too-big", "disconnected"]);
});

test("a publish that was given up may be the one that was too big", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const controller = new AbortController();
  const big = bus.publish("a", "x".repeat(600), { signal: controller.signal });
  const small = bus.publish("a", "small");
  for (const _ of [big, small]) await peer.next("publish");
  controller.abort();
  await assert.rejects(big, { name: "AbortError" });
  peer.close(1009);
  const again = await fake.accept();
  const command = await again.next("publish");
  assert.equal(command.data, "small");
  again.ok(command, { epoch: EPOCH, offset: 1 });
  await small;
});

test("a subscription that is too big ends, and the others go on", async (t) => {
  noDelay(t);
  const { fake, bus, peer, errors } = await startBoth(t);
  const big = bus.subscribe("a".repeat(600));
  const chat = bus.subscribe("chat");
  for (const _ of [big, chat]) await peer.next("subscribe");
  peer.close(1009);
  await assert.rejects(big.ready, { code: "too-big" });
  const again = await fake.accept();
  await again.subscribed("chat");
  await chat.ready;
  assert.deepEqual(errors.map(({ code }) => code), ["too-big"]);
  await settle();
  assert.deepEqual(again.commands, []);
});

test("1009 without anything to blame is a drop like others", async (t) => {
  noDelay(t);
  const { fake, bus, peer, errors } = await startBoth(t);
  await settle(); // until `connect` is answered
  peer.close(1009);
  await fake.accept();
  await until(() => bus.state === "open");
  assert.deepEqual(errors, []);
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
