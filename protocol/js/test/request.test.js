// Requests: one side asks, another one answers, and each failure has its code.

import assert from "node:assert/strict";
import { test } from "node:test";
import { mockClock } from "./clock.js";
import { EPOCH, noDelay, settle, startBoth, startBus, startFake, startSession, until } from "./fake.js";

const lone = "\ud83d";

test("a request resolves to the answer and who gave it", async (t) => {
  const { bus, peer } = await startBoth(t);
  const asked = bus.request("points/3", { to: "left" }, { timeout: 500, to: "ada" });
  const { id, ...command } = await peer.next("request");
  assert.deepEqual(command, { type: "request", topic: "points/3", data: { to: "left" }, timeout: 500, to: "ada" });
  peer.ok({ id }, { data: "done", from: "ada" });
  assert.deepEqual(await asked, { data: "done", from: "ada" });
});

test("bytes go and come as bytes; the broker waits 5 s unless told", async (t) => {
  const { bus, peer } = await startBoth(t);
  const asked = bus.request("a", Uint8Array.of(0, 1));
  const { id, ...command } = await peer.next("request");
  assert.deepEqual(command, { type: "request", topic: "a", data: "AAE=", encoding: "base64", timeout: 5000 });
  peer.ok({ id }, { data: "AAE=", encoding: "base64" });
  assert.deepEqual((await asked).data, Uint8Array.of(0, 1));
});

test("an answer in an encoding that is unknown rejects", async (t) => {
  const { bus, peer } = await startBoth(t);
  const asked = bus.request("a", 1);
  peer.ok(await peer.next("request"), { data: "x", encoding: "zstd" });
  await assert.rejects(asked, { code: "unsupported", message: 'unknown encoding "zstd"' });
});

for (const code of ["no-responder", "responder-lost", "busy", "timeout", "forbidden"]) {
  test(`${code} rejects with that code`, async (t) => {
    const { bus, peer, errors } = await startBoth(t);
    const asked = bus.request("a", 1);
    peer.error(await peer.next("request"), code);
    await assert.rejects(asked, { code });
    assert.deepEqual(errors, []);
  });
}

test("the responder's own error comes with it", async (t) => {
  const { bus, peer } = await startBoth(t);
  const asked = bus.request("a", 1);
  const error = { code: "stuck", reason: "the blade" };
  peer.error(await peer.next("request"), "responder-error", { error });
  await assert.rejects(asked, { code: "responder-error", error });
});

test("options that are unknown, and data that is no JSON, reject", async (t) => {
  const { bus, peer } = await startBoth(t);
  await assert.rejects(bus.request("a", 1, { retries: 3 }), { name: "TypeError", message: 'unknown option "retries"' });
  await assert.rejects(bus.request("a", 1n), { name: "TypeError" });
  await assert.rejects(bus.request("a", lone), { code: "bad-json" });
  await settle();
  assert.deepEqual(peer.commands, []);
});

test("a signal ends the wait, and what comes later is nobody's", async (t) => {
  const { bus, peer, errors } = await startBoth(t);
  await assert.rejects(bus.request("a", 1, { signal: AbortSignal.abort("at once") }), (reason) => reason === "at once");
  const controller = new AbortController();
  const asked = bus.request("a", 1, { signal: controller.signal });
  const command = await peer.next("request");
  controller.abort(new Error("enough"));
  await assert.rejects(asked, { message: "enough" });
  peer.ok(command, { data: 1 });
  await settle();
  assert.deepEqual([errors, peer.commands], [[], []]);
});

test("on an open connection the broker's clock decides; a second later we give up", async (t) => {
  const clock = mockClock(t);
  const { bus, peer } = await startBoth(t);
  await settle();
  let ended;
  const asked = bus.request("a", 1, { timeout: 500 });
  asked.catch(() => (ended = true));
  await peer.next("request");
  clock.tick(1499);
  await settle();
  assert.equal(ended, undefined);
  clock.tick(1);
  await assert.rejects(asked, { code: "timeout" });
});

test("without a connection our clock decides; one that begins in time gets the request", async (t) => {
  noDelay(t);
  const clock = mockClock(t);
  const { fake, bus, peer, states } = await startBoth(t);
  peer.cut();
  await until(() => states.at(-1).state === "connecting");
  const short = bus.request("a", "short", { timeout: 500 });
  const long = bus.request("a", "long");
  clock.sleep(500);
  const given = assert.rejects(short, { code: "timeout" });
  clock.tick(0);
  await given;
  const second = await fake.accept();
  const command = await second.next("request");
  assert.equal(command.data, "long");
  second.ok(command, { data: 1 });
  await long;
});

test("a request that was not sent waits through attempts that fail", async (t) => {
  noDelay(t);
  const fake = await startFake(t, null);
  const { bus } = startBus(t, fake, { session: true });
  const asked = bus.request("a", 1);
  for (let i = 0; i < 3; i++) {
    const peer = await fake.accept();
    await peer.next("connect");
    peer.cut();
  }
  const peer = await fake.accept();
  peer.ok(await peer.next("connect"), { session: "s1" });
  peer.ok(await peer.next("request"), { data: 2 });
  assert.equal((await asked).data, 2);
});

test("a request whose connection ends rejects, and is not sent again", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startBoth(t);
  const asked = bus.request("a", 1);
  await peer.next("request");
  peer.cut();
  await assert.rejects(asked, { code: "disconnected" });
  const second = await fake.accept();
  await until(() => bus.state === "open");
  await settle();
  assert.deepEqual(second.commands, []);
});

/** A bus that responds to `filter` with `f`, and a function that sends it a request and returns the reply. */
const startResponder = async (t, filter, f) => {
  const started = await startBoth(t);
  const { bus, peer } = started;
  const end = bus.respond(filter, f);
  const { id, ...command } = await peer.next("respond");
  assert.deepEqual(command, { type: "respond", topic: filter });
  peer.ok({ id });
  let last = 0;
  const ask = async (topic, data, members) => {
    peer.say({ type: "request", topic, data, reply: ++last, timeout: 5000, ...members });
    const { id, type, reply, ...rest } = await peer.next("reply");
    assert.equal(reply, last);
    peer.ok({ id });
    return rest;
  };
  return { ask, end, ...started };
};

test("a responder gets the request, and what it returns is the reply", async (t) => {
  const seen = [];
  const { ask } = await startResponder(t, "points/+", async (request) => {
    seen.push(request);
    return { at: request.data.to };
  });
  assert.deepEqual(await ask("points/3", { to: "left" }, { from: "ada" }), { data: { at: "left" } });
  assert.deepEqual(seen, [{ topic: "points/3", data: { to: "left" }, from: "ada", timeout: 5000 }]);
});

test("a responder may return at once, nothing, or bytes", async (t) => {
  const answers = [1, undefined, Uint8Array.of(7)];
  const { ask } = await startResponder(t, "a", ({ data }) => answers[data]);
  assert.deepEqual(await ask("a", 0), { data: 1 });
  assert.deepEqual(await ask("a", 1), { data: null });
  assert.deepEqual(await ask("a", 2), { data: "Bw==", encoding: "base64" });
});

test("a responder gets bytes as bytes; an encoding that is unknown is its error, and it is not called", async (t) => {
  const seen = [];
  const { ask } = await startResponder(t, "a", ({ data }) => seen.push(data));
  assert.deepEqual(await ask("a", "AAE=", { encoding: "base64" }), { data: 1 });
  const { error } = await ask("a", "x", { encoding: "zstd" });
  assert.deepEqual(error, { code: "unsupported", reason: 'unknown encoding "zstd"' });
  assert.deepEqual(seen, [Uint8Array.of(0, 1)]);
});

test("a responder that throws, or returns no JSON, replies with an error", async (t) => {
  const throwing = [
    () => { throw Object.assign(new Error("the blade"), { code: "stuck" }); },
    async () => { throw new Error("later"); },
    () => { throw "text"; },
    () => { throw undefined; },
    () => { throw new DOMException("too slow", "TimeoutError"); },
    () => { throw new Error("x".repeat(2000)); },
    () => lone,
  ];
  const { ask, errors } = await startResponder(t, "a", ({ data }) => throwing[data]());
  assert.deepEqual(await ask("a", 0), { error: { code: "stuck", reason: "the blade" } });
  assert.deepEqual(await ask("a", 1), { error: { code: "error", reason: "later" } });
  assert.deepEqual(await ask("a", 2), { error: { code: "error", reason: "text" } });
  assert.deepEqual(await ask("a", 3), { error: { code: "error", reason: "undefined" } });
  assert.deepEqual(await ask("a", 4), { error: { code: "error", reason: "too slow" } });
  assert.equal((await ask("a", 5)).error.reason.length, 340);
  assert.deepEqual((await ask("a", 6)).error.code, "bad-json");
  assert.deepEqual(errors, []);
});

test("the most specific responder is called", async (t) => {
  const { ask, bus } = await startResponder(t, "#", () => "#");
  for (const filter of ["+/3", "points/#", "points/3/#", "points/+", "points/3", "!/+", "!/!"]) bus.respond(filter, () => filter);
  const called = async (topic) => (await ask(topic, 1)).data;
  assert.equal(await called("points/3"), "points/3");
  assert.equal(await called("points/4"), "points/+");
  assert.equal(await called("points/3/a"), "points/3/#");
  assert.equal(await called("points/4/a"), "points/#");
  assert.equal(await called("loco/3"), "+/3");
  assert.equal(await called("loco/4"), "#");
  assert.equal(await called("!/!"), "!/!");
});

test("a filter has one responder; ending it says so once, and what comes late is told that it has ended", async (t) => {
  const { ask, bus, peer, end } = await startResponder(t, "points/+", () => "first");
  assert.throws(() => bus.respond("points/+", () => {}), { code: "already-subscribed" });
  end();
  end();
  const { id, ...command } = await peer.next("respond");
  assert.deepEqual(command, { type: "respond", topic: "points/+", end: true });
  assert.equal((await ask("points/3", 1)).error.code, "no-responder");
  bus.respond("points/+", () => "second");
  await peer.next("respond");
  end();
  assert.deepEqual(await ask("points/3", 1), { data: "second" });
  assert.deepEqual(peer.commands, []);
});

test("responders register on each connection, before what was held is sent", async (t) => {
  noDelay(t);
  const fake = await startFake(t);
  const { bus, states } = startBus(t, fake);
  const end = bus.respond("a", () => 1);
  bus.respond("b", () => 1);
  const peer = await fake.accept();
  for (const topic of ["a", "b"]) {
    const command = await peer.next("respond");
    assert.equal(command.topic, topic);
    peer.ok(command);
  }
  await settle();
  peer.cut();
  await until(() => states.at(-1).state === "connecting");
  end();
  bus.publish("b", 1).catch(() => {});
  const second = await fake.accept();
  await until(() => second.commands.length === 2);
  assert.deepEqual(second.commands.map(({ type, topic }) => [type, topic]), [["respond", "b"], ["publish", "b"]]);
});

test("a session that is still there knows no responders: they belong to the connection", async (t) => {
  noDelay(t);
  const { fake, bus, peer } = await startSession(t);
  bus.respond("a", () => 1);
  peer.ok(await peer.next("respond"));
  await settle();
  peer.cut();
  const second = await fake.accept();
  assert.equal((await second.next("respond")).topic, "a");
});

test("a registration that is refused, or ended by the broker, is told and not repeated", async (t) => {
  noDelay(t);
  const { fake, bus, peer, errors } = await startBoth(t);
  bus.respond("a", () => 1);
  peer.error(await peer.next("respond"), "forbidden");
  bus.respond("b/+", () => 1);
  peer.ok(await peer.next("respond"));
  peer.say({ type: "ended", topic: "b/+", code: "forbidden", respond: true });
  await until(() => errors.length === 2);
  assert.deepEqual(errors.map(({ code }) => code), ["forbidden", "forbidden"]);
  peer.cut();
  const second = await fake.accept();
  await until(() => bus.state === "open");
  await settle();
  assert.deepEqual(second.commands, []);
});

test("an answer that is ready after the connection has ended is not sent over the next one", async (t) => {
  noDelay(t);
  let finish;
  const { fake, bus, peer, errors } = await startResponder(t, "a", () => new Promise((resolve) => (finish = resolve)));
  peer.say({ type: "request", topic: "a", data: 1, reply: 1, timeout: 5000 });
  await until(() => finish);
  peer.cut();
  const second = await fake.accept();
  await until(() => bus.state === "open");
  finish(1);
  await settle();
  assert.deepEqual(second.commands.map(({ type }) => type), ["respond"]);
  assert.deepEqual(errors, []);
});

test("a reply that came too late is nothing to tell; one that is refused is", async (t) => {
  const { peer, errors } = await startResponder(t, "a", () => 1);
  for (const [i, code] of ["not-found", "too-big"].entries()) {
    peer.say({ type: "request", topic: "a", data: 1, reply: 10 + i, timeout: 5000 });
    peer.error(await peer.next("reply"), code);
  }
  await until(() => errors.length === 1);
  assert.equal(errors[0].code, "too-big");
});

test("requests are held until the subscriptions have begun, as publishes are", async (t) => {
  const fake = await startFake(t);
  const { bus } = startBus(t, fake);
  bus.subscribe("a");
  bus.request("b", 1).catch(() => {});
  const peer = await fake.accept();
  const subscribe = await peer.next("subscribe");
  await settle();
  assert.deepEqual(peer.commands, []);
  peer.ok(subscribe, { topics: [{ topic: "a", epoch: EPOCH, offset: 1 }] });
  await peer.next("request");
});
