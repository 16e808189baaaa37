// Leases and wills of the client against the real broker. RINGYARD names its binary; without it these tests are skipped.

import assert from "node:assert/strict";
import { test as testOf } from "node:test";
import { WebSocket } from "ws";
import { BROKER, startBroker, startProxy } from "./broker.js";
import { collect, connect, noDelay, until } from "./fake.js";
import { enterTab, Locks, Storage } from "./tab.js";

const test = (name, f) => testOf(name, { skip: BROKER ? false : "RINGYARD names no broker" }, f);

const EXCLUSIVE = `
[[topic]]
match = "loco/#"
exclusive = true
`;

const start = async (t, grace = "20s") => {
  noDelay(t);
  const broker = await startBroker(t, { rules: EXCLUSIVE, args: ["--session-grace", grace] });
  return { broker, proxy: await startProxy(t, broker) };
};

/** A bus with a session, once it is open. */
const startBus = async (t, { url, port }, options) => {
  const bus = connect(url ?? `ws://127.0.0.1:${port}/ws`, { WebSocket, session: true, ...options });
  bus.errors = [];
  bus.on("error", (error) => bus.errors.push(error));
  t.after(() => bus.close());
  await until(() => bus.state === "open", "open");
  return bus;
};

test("one drives, others learn who, and get the lease in turn", async (t) => {
  const { broker } = await start(t);
  const [ada, bob] = [await startBus(t, broker), await startBus(t, broker)];
  const drivers = [];
  const watched = bob.subscribe("$lease/loco/12");
  watched.onmessage = ({ data }) => drivers.push(data?.by);
  await watched.ready;
  const lease = await ada.lease("loco/12", { ttl: 5000 });
  assert.ok(Math.abs(lease.lease - Date.now()) < 60_000, "numbers begin at the start of the broker");
  await assert.rejects(bob.lease("loco/12"), ({ code, by, ttl }) => code === "held" && by === ada.member && ttl <= 5000);
  assert.equal((await ada.publish("loco/12", { speed: 40 }, { lease })).offset, 1);
  await assert.rejects(bob.publish("loco/12", { speed: 90 }), { code: "not-holder" });
  const waiting = bob.lease("loco/12", { wait: 10_000 });
  lease.release();
  const next = await waiting;
  assert.ok(next.lease > lease.lease);
  await assert.rejects(ada.publish("loco/12", { speed: 50 }, { lease }), { code: "not-holder" });
  assert.equal((await bob.publish("loco/12", { speed: 0 }, { lease: next })).offset, 2);
  next.release();
  await until(() => drivers.at(-1) === undefined && drivers.length > 1);
  // Where her release was faster than his command, there was nobody for a moment.
  assert.deepEqual([...new Set(drivers.filter(Boolean))], [ada.member, bob.member]);
  assert.deepEqual([ada.errors, bob.errors], [[], []]);
});

test("it is renewed while there is a connection, and kept over drops", async (t) => {
  const { broker, proxy } = await start(t);
  const [ada, bob] = [await startBus(t, proxy), await startBus(t, broker)];
  const lease = await ada.lease("loco/12", { ttl: 1000 });
  let loss;
  lease.lost.then((reason) => (loss = reason));
  for (let i = 0; i < 4; i++) {
    // Longer than it lasts without a renewal; then longer than that without a connection.
    await new Promise((resolve) => setTimeout(resolve, 1300));
    await assert.rejects(bob.lease("loco/12"), { code: "held" });
    assert.ok((await ada.publish("loco/12", i, { lease })).offset);
    proxy.refuses = i % 2 === 0;
    proxy.cut();
    if (proxy.refuses) await new Promise((resolve) => setTimeout(resolve, 1300));
    proxy.refuses = false;
    await until(() => ada.state === "open", "open again");
  }
  assert.deepEqual([loss, ada.errors], [undefined, []]);
});

test("a page that is loaded again with its session has its lease", async (t) => {
  const { broker, proxy } = await start(t);
  enterTab(t, { storage: new Storage(), locks: new Locks() });
  let page = await startBus(t, proxy);
  const { lease: number } = await page.lease("loco/12", { ttl: 1000 });
  const { member } = page;
  const bob = await startBus(t, broker, { session: false });
  for (let i = 0; i < 3; i++) {
    // The page is gone before it can say anything.
    proxy.refuses = true;
    proxy.cut();
    page.close();
    await new Promise((resolve) => setTimeout(resolve, 1300));
    await assert.rejects(bob.lease("loco/12"), { code: "held", by: member });
    proxy.refuses = false;
    page = await startBus(t, proxy);
    assert.equal(page.member, member);
    const again = await page.lease("loco/12", { ttl: 1000 });
    assert.equal(again.lease, number);
    await page.publish("loco/12", i, { lease: again });
  }
});

test("a lease is lost when the broker knows the session no more, and when it lasted too short", async (t) => {
  const { broker, proxy } = await start(t, "1s");
  const [ada, bob] = [await startBus(t, proxy), await startBus(t, broker)];
  const lease = await ada.lease("loco/12");
  proxy.refuses = true;
  proxy.cut();
  const next = await bob.lease("loco/12", { wait: 10_000 });
  proxy.refuses = false;
  assert.equal(await lease.lost, "expired");
  await assert.rejects(ada.publish("loco/12", 1, { lease }), { code: "not-holder" });
  // Whether it would have got the lease, nobody knows.
  const waiting = assert.rejects(ada.lease("loco/12", { wait: 10_000 }), { code: "disconnected" });
  await broker.stop("SIGKILL");
  await waiting;
  await broker.start();
  assert.equal(await next.lost, "expired", "the broker was started again");
  const again = await ada.lease("loco/12", { wait: 5000 });
  assert.ok(again.lease > next.lease, "numbers rise over a restart");
});

test("a will comes after a destroyed socket, before the lease is free, and not after close", async (t) => {
  const { broker, proxy } = await start(t, "1s");
  const will = { topic: "loco/12", data: { speed: 0 } };
  const bob = await startBus(t, broker);
  const drive = bob.subscribe("loco/12");
  const messages = collect(drive);
  await drive.ready;
  const ada = await startBus(t, proxy, { will });
  const lease = await ada.lease("loco/12");
  await ada.publish("loco/12", { speed: 40 }, { lease });
  proxy.refuses = true;
  proxy.cut();
  const cut = performance.now();
  const waiting = bob.lease("loco/12", { wait: 10_000 });
  await until(() => messages.length === 2);
  assert.deepEqual(messages.map(({ data }) => data.speed), [40, 0]);
  assert.ok(performance.now() - cut < 900, "at once");
  const next = await waiting;
  assert.ok(performance.now() - cut >= 900, "after the session's grace");
  await bob.publish("loco/12", { speed: 20 }, { lease: next });
  proxy.refuses = false;
  next.release();

  // Another will takes its place; one who closes leaves none.
  const eve = await startBus(t, proxy, { will: { topic: "news", data: "first" } });
  const news = bob.subscribe("news");
  const said = collect(news);
  await news.ready;
  await eve.will({ topic: "news", data: "second", retain: true });
  proxy.cut();
  await until(() => said.length === 1);
  assert.equal(said[0].data, "second");
  await until(() => eve.state === "open", "open again");
  await eve.will(null);
  proxy.cut();
  await until(() => eve.state === "open", "open again");
  await eve.will({ topic: "news", data: "third" });
  eve.close();
  await bob.publish("news", "last");
  await until(() => said.length === 2);
  assert.deepEqual(said.map(({ data }) => data), ["second", "last"]);
});
