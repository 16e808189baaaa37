// The Yjs provider against the real broker: documents converge whatever happens to the connections.

import assert from "node:assert/strict";
import * as Y from "yjs";
import { startBroker, startProxy } from "./broker.js";
import { converged, leasingBuses, newcomer, rules, startBus, startEditor, test, TOPIC, wait, watchWarnings } from "./editors.js";

const begin = (t, more) => startBroker(t, { rules: rules(more) });

/** How many messages the topic has had. */
const published = async (t, broker) => {
  const bus = startBus(t, broker);
  const { position } = await bus.subscribe(TOPIC, { state: false }).ready;
  bus.close();
  return Number(position.split(":")[1]);
};

test("two documents converge, and only what is new is published", async (t) => {
  const broker = await begin(t);
  const [one, two] = [startEditor(t, broker), startEditor(t, broker)];
  await converged([one, two], "");
  one.text.insert(0, "hello");
  await converged([one, two], "hello");
  two.text.insert(5, " world");
  two.text.delete(0, 1);
  two.text.insert(0, "H");
  await converged([one, two], "Hello world");
  const three = await newcomer(t, broker);
  await converged([one, two, three], "Hello world");
  // The first edit; of three in one turn, the first one, and the others merged.
  assert.equal(await published(t, broker), 3);
  for (const { said } of [one, two, three]) {
    assert.deepEqual([said.status, said.synced, said.error], [["connecting", "connected"], [true], []]);
    assert.equal(said.unsaved.at(-1) ?? false, false);
  }
});

test("updates are merged while one is unacknowledged", async (t) => {
  const broker = await begin(t);
  const proxy = await startProxy(t, broker);
  const [one, two] = [startEditor(t, proxy), startEditor(t, broker)];
  await converged([one, two], "");
  proxy.blocksAnswers = true;
  for (let i = 0; i < 500; i++) {
    one.text.insert(one.text.length, `${i % 10}`);
    if (i % 100 === 0) await wait(() => two.text.length > 0, "the first one arrives");
  }
  assert.equal(one.provider.unsaved, true);
  await wait(() => two.text.length === 1);
  proxy.blocksAnswers = false;
  proxy.cut(); // the answer is lost for good
  await converged([one, two]);
  assert.equal(two.text.length, 500);
  const count = await published(t, broker);
  assert.ok(count <= 3, `${count} messages`);
});

test("edits without a connection, on both sides, merge", async (t) => {
  const broker = await begin(t);
  const proxies = [await startProxy(t, broker), await startProxy(t, broker)];
  const [one, two] = proxies.map((proxy) => startEditor(t, proxy));
  const other = startEditor(t, broker);
  one.text.insert(0, "-");
  await converged([one, two, other], "-");
  for (const proxy of proxies) {
    proxy.refuses = true;
    proxy.cut();
  }
  await wait(() => one.provider.status === "connecting" && two.provider.status === "connecting");
  one.text.insert(0, "one");
  two.text.insert(1, "two");
  other.text.insert(1, "+");
  assert.equal(one.provider.unsaved, true);
  for (const proxy of proxies) proxy.refuses = false;
  await converged([one, two, other]);
  const text = `${one.text}`;
  for (const part of ["one", "-", "two", "+"]) assert.ok(text.includes(part), text);
  assert.deepEqual(one.said.status, ["connecting", "connected", "disconnected", "connecting", "connected"]);
  // What the broker recovers is not compared anew.
  assert.deepEqual(one.said.synced, [true]);
});

test("disconnect keeps the document, and connect publishes what changed", async (t) => {
  const broker = await begin(t);
  const [one, two] = [startEditor(t, broker), startEditor(t, broker)];
  one.text.insert(0, "base");
  await converged([one, two], "base");
  one.provider.disconnect();
  assert.deepEqual([one.provider.synced, one.provider.status], [false, "disconnected"]);
  one.text.delete(0, 2);
  two.text.insert(4, "!");
  assert.equal(one.provider.unsaved, true);
  one.provider.connect();
  await converged([one, two], "se!");
});

test("a document from elsewhere gives the broker what it lacks, also what was only deleted", async (t) => {
  const broker = await begin(t);
  const one = startEditor(t, broker);
  one.text.insert(0, "kept and removed");
  await converged([one]);
  const doc = new Y.Doc();
  Y.applyUpdate(doc, Y.encodeStateAsUpdate(one.doc));
  doc.getText().delete(4, 12);
  const two = startEditor(t, broker, { doc });
  await converged([one, two], "kept");
  assert.deepEqual(two.said.unsaved, [true, false]);
  // Who has nothing new publishes nothing.
  const before = await published(t, broker);
  const copy = new Y.Doc();
  Y.applyUpdate(copy, Y.encodeStateAsUpdate(one.doc));
  const three = startEditor(t, broker, { doc: copy });
  await converged([three], "kept");
  assert.deepEqual(three.said.unsaved, []);
  assert.equal(await published(t, broker), before);
});

test("everybody leaves, and a newcomer has the text from the window", async (t) => {
  const broker = await begin(t);
  const one = startEditor(t, broker);
  for (const word of ["all ", "of ", "it"]) {
    one.text.insert(one.text.length, word);
    await converged([one]);
  }
  one.provider.destroy();
  one.bus.close();
  const two = await newcomer(t, broker);
  assert.equal(`${two.text}`, "all of it");
});

test("everybody leaves, and a newcomer has the text from the snapshot and the window", async (t) => {
  const broker = await begin(t);
  const { make, snapshots } = await leasingBuses(t, broker);
  const [one, two] = [startEditor(t, broker, { bus: make() }), startEditor(t, broker, { bus: make() })];
  for (let i = 0; i < 520; i++) {
    one.text.insert(one.text.length, `${i % 10}`);
    await wait(() => !one.provider.unsaved);
  }
  await converged([one, two]);
  await wait(() => snapshots.length > 0, "a snapshot");
  // Both saw 500 updates; the other one found the lease held.
  assert.equal(snapshots.length, 1);
  // What came while the lease was asked for is in it, too.
  const upTo = Number(snapshots[0].upTo.split(":")[1]);
  assert.ok(upTo >= 500 && upTo <= 520, `${upTo}`);
  assert.deepEqual([one.said.error, two.said.error], [[], []]);
  const expected = `${one.text}`;
  for (const { bus, provider } of [one, two]) {
    provider.destroy();
    bus.close();
  }
  const three = await newcomer(t, broker);
  assert.equal(`${three.text}`, expected);
  assert.equal(await published(t, broker), 520);
});

test("256 KiB make a snapshot, and a newcomer right after it has the text", async (t) => {
  const broker = await begin(t);
  const { make, snapshots } = await leasingBuses(t, broker);
  const one = startEditor(t, broker, { bus: make() });
  for (let i = 0; i < 5; i++) {
    one.text.insert(one.text.length, `${i}`.repeat(60_000));
    await converged([one]);
  }
  await wait(() => snapshots.length === 1, "a snapshot");
  assert.match(snapshots[0].upTo, /:5$/); // nothing is in the window any more
  const two = await newcomer(t, broker);
  assert.deepEqual(two.said.unsaved, []);
  assert.equal(`${two.text}`, `${one.text}`);
});

test("a broker that makes no snapshots is reported to the application, and nothing else changes", async (t) => {
  const warnings = watchWarnings(t);
  const broker = await begin(t);
  const bus = Object.create(startBus(t, broker), {
    lease: { value: async () => Promise.reject(Object.assign(new Error("no such command"), { code: "bad-command" })) },
  });
  const one = startEditor(t, broker, { bus });
  for (let i = 0; i < 1010; i++) {
    one.text.insert(0, "x");
    await wait(() => !one.provider.unsaved);
  }
  assert.deepEqual(one.said.error.map(({ code }) => code), ["bad-command", "bad-command"]);
  assert.deepEqual(warnings, [[TOPIC, one.said.error[0]]]); // once
  const two = await newcomer(t, broker);
  await converged([one, two]);
});

test("the broker is restarted and has nothing: the clients publish what it lacks, but not each of them", async (t) => {
  const broker = await begin(t);
  const editors = [1, 2, 3, 4].map(() => startEditor(t, broker));
  const [one] = editors;
  one.text.insert(0, "survives");
  await converged(editors, "survives");
  await broker.stop("SIGKILL");
  await wait(() => editors.every(({ provider }) => provider.status === "connecting"));
  for (const [i, { text }] of editors.entries()) text.insert(0, `${i}`);
  await broker.start();
  await wait(() => editors.every(({ provider }) => provider.status === "connected"));
  await converged(editors);
  const text = `${one.text}`;
  assert.equal([...text].sort().join(""), [..."survives0123"].sort().join(""));
  await broker.stop("SIGKILL");
  await broker.start();
  await wait(() => editors.every(({ said }) => said.synced.filter(Boolean).length === 3));
  await converged(editors, text);
  const count = await published(t, broker);
  assert.ok(count <= 2, `${count} messages for the same text`);
  const five = await newcomer(t, broker);
  assert.equal(`${five.text}`, text);
});

test("a window too small for the absence: nothing of either side is lost", async (t) => {
  const broker = await begin(t, 20);
  const { make, snapshots } = await leasingBuses(t, broker);
  const proxy = await startProxy(t, broker);
  const away = startEditor(t, proxy, { bus: make(proxy) });
  const here = startEditor(t, broker, { bus: make() });
  here.text.insert(0, "begin");
  await converged([away, here], "begin");
  proxy.refuses = true;
  proxy.cut();
  await wait(() => away.provider.status === "connecting");
  away.text.insert(0, "<offline>");
  // A snapshot after 500 updates; then more than the window keeps.
  for (let i = 0; i < 530; i++) {
    here.text.insert(here.text.length, `${i % 10}`);
    await wait(() => !here.provider.unsaved);
  }
  await wait(() => snapshots.length === 1, "a snapshot");
  // What the window lost behind the snapshot, only `here` has: it publishes that because `away` misses it.
  proxy.refuses = false;
  await converged([away, here]);
  assert.ok(`${here.text}`.startsWith("<offline>begin0123"), `${here.text}`);
  assert.equal(here.text.length, "<offline>begin".length + 530);
  assert.deepEqual(away.said.synced.slice(0, 3), [true, false, true]);
});

test("a newcomer to a topic whose window lost the beginning is given it by who has it", async (t) => {
  const broker = await begin(t, 20);
  const { make, snapshots } = await leasingBuses(t, broker);
  const [one, two] = [startEditor(t, broker, { bus: make() }), startEditor(t, broker, { bus: make() })];
  for (let i = 0; i < 40; i++) {
    one.text.insert(one.text.length, `${i % 10}`);
    await wait(() => !one.provider.unsaved);
  }
  await converged([one, two]);
  const three = startEditor(t, broker, { bus: make() });
  await converged([one, two, three], "0123456789".repeat(4));
  // The newcomer asked; of the two that have it, the first one published it, perhaps both.
  const count = (await published(t, broker)) - 40;
  assert.ok(count <= 3, `${count} messages`);
  // The hole is gone for whoever comes later.
  await wait(() => snapshots.length > 0, "a snapshot");
  await converged([await newcomer(t, broker)], "0123456789".repeat(4));
  for (const { said } of [one, two, three]) assert.deepEqual(said.error, []);
});

test("who was away while somebody made a snapshot without what it has gives it to the others", async (t) => {
  const broker = await begin(t, 10);
  const { make, snapshots } = await leasingBuses(t, broker);
  const proxy = await startProxy(t, broker);
  const away = startEditor(t, proxy, { bus: make(proxy) });
  for (let i = 0; i < 30; i++) {
    away.text.insert(away.text.length, `${i % 10}`);
    await wait(() => !away.provider.unsaved);
  }
  proxy.refuses = true;
  proxy.cut();
  await wait(() => away.provider.status === "connecting");
  // Nobody answers the newcomer's question, and its snapshot takes the question's place.
  const here = startEditor(t, broker, { bus: make() });
  await wait(() => snapshots.length === 1, "a snapshot");
  // The 30 updates and its question; two, if the window went on while it was being read.
  assert.ok(Number(snapshots[0].upTo.split(":")[1]) >= 31, snapshots[0].upTo);
  proxy.refuses = false;
  await converged([away, here], "0123456789".repeat(3));
  await converged([await newcomer(t, broker)], "0123456789".repeat(3));
  for (const { said } of [away, here]) assert.deepEqual(said.error, []);
});

test("a question that a drop swallows is asked again", async (t) => {
  const broker = await begin(t, 10);
  const { make } = await leasingBuses(t, broker);
  const has = startEditor(t, broker, { bus: make() });
  for (let i = 0; i < 30; i++) {
    has.text.insert(has.text.length, `${i % 10}`);
    await wait(() => !has.provider.unsaved);
  }
  const proxy = await startProxy(t, broker);
  const bus = make(proxy);
  let swallowed;
  const publish = async (topic, data, options) => {
    if (topic !== TOPIC || swallowed) return bus.publish(topic, data, options);
    swallowed = true;
    // As a publish without an idempotency key ends.
    setTimeout(() => proxy.cut(), 20);
    await wait(() => bus.state !== "open");
    throw Object.assign(new Error("the connection ended"), { code: "disconnected" });
  };
  const lacks = startEditor(t, proxy, { bus: Object.create(bus, { publish: { value: publish } }) });
  await wait(() => swallowed, "a question");
  await converged([has, lacks], "0123456789".repeat(3));
});

test("a snapshot that is stored between a question and its answer hides nothing from who asked", async (t) => {
  const broker = await begin(t, 10);
  const proxy = await startProxy(t, broker);
  const { make } = await leasingBuses(t, broker);
  const bus = make(proxy);
  let store;
  const snapshot = (...args) => new Promise((resolve) => (store = () => resolve(bus.snapshot(...args))));
  const has = startEditor(t, proxy, { bus: Object.create(bus, { snapshot: { value: snapshot } }) });
  has.text.insert(0, "x".repeat(2 ** 18));
  await wait(() => store, "a snapshot");
  for (let i = 0; i < 20; i++) {
    has.text.insert(0, "y");
    await wait(() => !has.provider.unsaved);
  }
  // The question reaches it late, behind its own snapshot.
  const [[, fromBroker]] = proxy.pairs;
  fromBroker.pause();
  const lacks = startEditor(t, broker, { bus: make() });
  await wait(() => lacks.said.synced.length === 3, "the newcomer has asked and looked again");
  assert.equal(`${lacks.text}`, "");
  store();
  fromBroker.resume();
  await converged([has, lacks], "y".repeat(20) + "x".repeat(2 ** 18));
});

test("an update that was sent before a comparison acknowledges none that was sent after it", async (t) => {
  const broker = await begin(t);
  const bus = startBus(t, broker);
  const sent = [];
  const publish = (topic, ...args) =>
    topic === TOPIC ? new Promise((resolve) => sent.push(() => resolve(bus.publish(topic, ...args)))) : bus.publish(topic, ...args);
  const one = startEditor(t, broker, { bus: Object.create(bus, { publish: { value: publish } }) });
  await wait(() => one.provider.synced);
  one.text.insert(0, "a");
  await startBus(t, broker).publish(TOPIC, Uint8Array.of(0, 0)); // makes it compare
  await wait(() => sent.length === 2, "it is sent again");
  sent[0]();
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(one.provider.unsaved, true);
  sent[1]();
  await converged([one, await newcomer(t, broker)], "a");
});
