// A thousand clients of one process lose their broker at once, and find it again. RINGYARD names its binary. How long that
// takes is up to the delays before they try, which are spread over half a second, then over one.

import assert from "node:assert/strict";
import { test } from "node:test";
import { WebSocket } from "ws";
import { BROKER, startBroker } from "./broker.js";
import { connect, until } from "./fake.js";

const CLIENTS = 1000;

test("a thousand clients are back and whole after kill -9", { skip: BROKER ? false : "RINGYARD names no broker" }, async (t) => {
  const broker = await startBroker(t);
  const url = `ws://127.0.0.1:${broker.port}/ws`;
  const clients = Array.from({ length: CLIENTS }, () => {
    const bus = connect(url, { WebSocket });
    const client = { bus, errors: [], gaps: [], newest: undefined };
    bus.on("error", (error) => client.errors.push(error));
    const chat = bus.subscribe("chat/7", { state: false });
    chat.onmessage = ({ data }) => (client.newest = data);
    chat.ongap = (gap) => client.gaps.push(gap.reason);
    client.ready = chat.ready;
    return client;
  });
  t.after(() => clients.forEach(({ bus }) => bus.close()));
  await Promise.all(clients.map(({ ready }) => ready));
  const publisher = connect(url, { WebSocket });
  t.after(() => publisher.close());
  await publisher.publish("chat/7", "before");
  await until(() => clients.every(({ newest }) => newest === "before"));

  await broker.stop("SIGKILL");
  await until(() => clients.every(({ bus }) => bus.state === "connecting"));
  await broker.start();
  const began = performance.now();
  await publisher.publish("chat/7", "first");
  await until(() => clients.every(({ bus, gaps }) => bus.state === "open" && gaps.length > 0));
  const took = performance.now() - began;
  await publisher.publish("chat/7", "after");
  await until(() => clients.every(({ newest }) => newest === "after"));
  t.diagnostic(`${CLIENTS} clients were back ${took.toFixed(0)} ms after the broker was`);
  // Nothing that was published is missed silently: each learns that another epoch began.
  assert.ok(clients.every(({ gaps }) => gaps.length === 1 && gaps[0] === "epoch"));
  assert.ok(clients.every(({ errors }) => errors.length === 0));
});
