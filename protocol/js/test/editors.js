/** What the tests of the Yjs provider share: brokers with rules for documents, and clients that edit one. */

import { readFile } from "node:fs/promises";
import { test as testOf } from "node:test";
import { WebSocket } from "ws";
import * as Y from "yjs";
import { BROKER } from "./broker.js";
import { connect } from "./fake.js";

/** The provider under test: the source, or its build. */
const file = process.env.RINGYARD_CLIENT ? "../ringyard-yjs.min.mjs" : "../ringyard-yjs.js";
export const { RingyardProvider } = await import(file);

export const TOPIC = "doc/x";

/** Against the real broker; without one, the tests are skipped, and say so. */
export const test = (name, f, options) => testOf(name, { skip: BROKER ? false : "RINGYARD names no broker", ...options }, f);

const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");

/** What the README tells users to configure, or with a smaller window. */
export const rules = (messages = 2000) =>
  /```toml\n(.*?)```/s.exec(readme)[1].replace(/history-messages = \d+/, `history-messages = ${messages}`);

/** Waits in real time, for longer than `until` does: a provider may wait for a second by itself. */
export const wait = async (condition, what = `${condition}`, ms = 20_000) => {
  const begun = performance.now();
  while (!condition()) {
    if (performance.now() - begun > ms) throw new Error(`never: ${typeof what === "function" ? what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

export const startBus = (t, { url, port }) => {
  const bus = connect(url ?? `ws://127.0.0.1:${port}/ws`, { WebSocket });
  bus.on("error", () => {}); // of what some tests provoke; those look at the events of the provider
  t.after(() => bus.close());
  return bus;
};

/** A document with a text, its provider, and what the provider said. */
export const startEditor = (t, broker, { bus = startBus(t, broker), doc = new Y.Doc(), ...options } = {}) => {
  const provider = new RingyardProvider(bus, TOPIC, doc, options);
  const text = doc.getText();
  const said = { status: [], synced: [], unsaved: [], error: [] };
  for (const name of Object.keys(said)) provider.on(name, (value) => said[name].push(name === "status" ? value.status : value));
  t.after(() => {
    provider.destroy();
    provider.awareness.destroy();
  });
  return { bus, doc, text, provider, said };
};

/** All are joined, everything is acknowledged, and the texts are equal. */
export const converged = async (editors, expected) => {
  const texts = () => editors.map(({ text }) => `${text}`);
  const isDone = () =>
    editors.every(({ provider }) => provider.synced && !provider.unsaved) &&
    texts().every((text) => text === (expected ?? texts()[0]));
  await wait(isDone, () => `${editors.map(({ provider }) => [provider.synced, provider.unsaved])}: ${JSON.stringify(texts())}`);
};

/** The texts without a connection: what a newcomer to this broker would see. */
export const newcomer = async (t, broker) => {
  const editor = startEditor(t, broker);
  await wait(() => editor.provider.synced, "a newcomer is synced");
  return editor;
};

/** `console.warn` while the test runs. */
export const watchWarnings = (t) => {
  const warnings = [];
  t.mock.method(console, "warn", (...args) => warnings.push(args));
  return warnings;
};

/** Leases as the broker grants them, for a broker that does not know the command yet. */
const standIn = () => {
  let heldUntil = 0;
  return async (topic, { ttl }) => {
    if (performance.now() < heldUntil) throw Object.assign(new Error("it is held"), { code: "held" });
    heldUntil = performance.now() + ttl;
    return { release: () => (heldUntil = 0) };
  };
};

/** Makes buses that can take leases, whether or not the broker can. `snapshots` counts those that were stored. */
export const leasingBuses = async (t, broker) => {
  const probe = startBus(t, broker);
  const code = await probe.lease("probe").then(
    (lease) => lease.release(),
    ({ code }) => code,
  );
  const lease = code === "bad-command" && standIn();
  if (lease) t.diagnostic("this broker has no leases: the test grants them in its place");
  const snapshots = [];
  const make = (place = broker) => {
    const bus = startBus(t, place);
    return Object.create(bus, {
      ...(lease && { lease: { value: lease } }),
      snapshot: {
        value: async (topic, upTo, data) => {
          await bus.snapshot(topic, upTo, data);
          snapshots.push({ upTo, data });
        },
      },
    });
  };
  return { make, snapshots };
};
