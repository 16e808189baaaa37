// The Yjs provider in a page, and its awareness: who is here, what leaving asks, what a refusal does.

import assert from "node:assert/strict";
import { test as testOf } from "node:test";
import * as Y from "yjs";
import { Awareness } from "y-protocols/awareness";
import { startBroker, startProxy } from "./broker.js";
import { mockPage } from "./clock.js";
import { converged, newcomer, RingyardProvider, rules, startEditor, test, TOPIC, wait, watchWarnings } from "./editors.js";
import { EPOCH, startBoth, until } from "./fake.js";

const begin = (t) => startBroker(t, { rules: rules() });

const names = ({ provider }) => [...provider.awareness.getStates().values()].map(({ name }) => name).sort().join();

test("awareness appears, changes and goes", async (t) => {
  const broker = await begin(t);
  const [one, two] = [startEditor(t, broker), startEditor(t, broker)];
  one.provider.awareness.setLocalStateField("name", "Ada");
  two.provider.awareness.setLocalStateField("name", "Bob");
  await wait(() => names(one) === "Ada,Bob" && names(two) === "Ada,Bob");
  const three = await newcomer(t, broker);
  await wait(() => names(three) === "Ada,Bob,", () => names(three)); // its own has no name
  for (let i = 0; i < 200; i++) one.provider.awareness.setLocalStateField("name", `Ada ${i}`);
  await wait(() => names(two) === "Ada 199,Bob,");
  three.provider.destroy();
  await wait(() => names(two) === "Ada 199,Bob");
  one.provider.disconnect();
  await wait(() => names(two) === "Bob");
  assert.equal(names(one), "Ada 199");
  one.provider.connect();
  await wait(() => names(two) === "Ada 199,Bob" && names(one) === "Ada 199,Bob");
  one.provider.awareness.setLocalState(null);
  await wait(() => names(two) === "Bob");
  for (const { said } of [one, two, three]) assert.deepEqual(said.error, []);
});

test("awareness is published at most every 50 ms", async (t) => {
  const broker = await begin(t);
  const one = startEditor(t, broker);
  await converged([one]);
  const publish = t.mock.method(one.bus, "publish");
  for (let i = 0; i < 40; i++) {
    one.provider.awareness.setLocalStateField("at", i);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const count = publish.mock.callCount();
  assert.ok(count >= 3 && count <= 7, `${count} publishes in 0.2 s`);
});

test("awareness survives a drop, and an awareness of the application's own is used", async (t) => {
  const broker = await begin(t);
  const proxy = await startProxy(t, broker);
  const doc = new Y.Doc();
  const awareness = new Awareness(doc);
  awareness.setLocalState({ name: "Ada" });
  const [one, two] = [startEditor(t, proxy, { doc, awareness }), startEditor(t, broker)];
  assert.equal(one.provider.awareness, awareness);
  two.provider.awareness.setLocalStateField("name", "Bob");
  await wait(() => names(two) === "Ada,Bob" && names(one) === "Ada,Bob");
  proxy.cut();
  await wait(() => one.provider.status === "connecting");
  awareness.setLocalStateField("name", "Eve");
  await wait(() => names(two) === "Bob,Eve" && names(one) === "Bob,Eve");
});

test("a page asks before it is left while something is unsaved, and says goodbye", async (t) => {
  const page = mockPage(t);
  const broker = await begin(t);
  const proxy = await startProxy(t, broker);
  const [one, two] = [startEditor(t, proxy), startEditor(t, broker)];
  one.provider.awareness.setLocalStateField("name", "Ada");
  await converged([one, two], "");
  await wait(() => names(two).includes("Ada"));
  const asks = () => {
    const event = new Event("beforeunload", { cancelable: true });
    page.dispatchEvent(event);
    return event.defaultPrevented;
  };
  assert.equal(asks(), false);
  proxy.refuses = true;
  proxy.cut();
  await wait(() => one.provider.status === "connecting");
  one.text.insert(0, "x");
  assert.equal(asks(), true);
  proxy.refuses = false;
  await converged([one, two], "x");
  assert.equal(asks(), false);
  page.dispatchEvent(new Event("pagehide"));
  await wait(() => !names(two).includes("Ada"));
  one.provider.disconnect();
  one.text.insert(0, "y");
  assert.equal(asks(), true);
  one.provider.destroy();
  one.text.insert(0, "z");
  assert.equal(asks(), false);
});

testOf("a topic that is granted no more disconnects the provider, and connect tries again", async (t) => {
  const warnings = watchWarnings(t);
  const { bus, peer } = await startBoth(t);
  const provider = new RingyardProvider(bus, TOPIC, new Y.Doc());
  t.after(() => provider.awareness.destroy());
  const errors = [];
  provider.on("error", ({ code }) => errors.push(code));
  const join = async () => {
    await peer.subscribed(`${TOPIC}/awareness`, { epoch: EPOCH, offset: 1, history: "keyed" });
    const { since } = await peer.subscribed(TOPIC, { epoch: EPOCH, offset: 1, recovered: false, history: "window" });
    assert.deepEqual(since, { epoch: "0000000000000000", offset: 0 });
    await until(() => provider.synced);
  };
  await join();
  assert.equal(provider.status, "connected");
  peer.say({ type: "ended", topic: TOPIC, code: "forbidden" });
  await until(() => provider.status === "disconnected");
  assert.deepEqual([provider.synced, errors, warnings.length], [false, ["forbidden"], 1]);
  provider.connect();
  await join();
});

testOf("who cannot subscribe, because the application has, can connect later", async (t) => {
  const { bus } = await startBoth(t);
  const provider = new RingyardProvider(bus, TOPIC, new Y.Doc(), { connect: false });
  t.after(() => provider.awareness.destroy());
  for (const topic of [TOPIC, `${TOPIC}/awareness`]) {
    const own = bus.subscribe(topic);
    assert.throws(() => provider.connect(), { code: "already-subscribed" });
    assert.equal(provider.status, "disconnected");
    own.close();
  }
  provider.connect();
  await until(() => provider.status === "connected");
});
