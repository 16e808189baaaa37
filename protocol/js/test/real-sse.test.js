// The fallback against the real broker, behind a proxy that blocks WebSockets. RINGYARD names the broker's binary; without it these tests
// are skipped.

import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { test as testOf } from "node:test";
import { WebSocket } from "ws";
import { BROKER, startBroker } from "./broker.js";
import { collect, connect, noDelay, offsets, until } from "./fake.js";

const test = (name, f) => testOf(name, { skip: BROKER ? false : "RINGYARD names no broker" }, f);
const load = () => import(process.env.RINGYARD_CLIENT ? "../ringyard-sse.min.mjs" : "../ringyard-sse.js");

/** A broker, and a proxy before it that passes on everything but WebSockets; `cut` ends what is under way. */
const start = async (t) => {
  const broker = await startBroker(t, { rules: true });
  const server = createServer((from, answer) => {
    const { method, url, headers } = from;
    const onward = request({ port: broker.port, host: "127.0.0.1", method, path: url, headers }, (got) => {
      answer.writeHead(got.statusCode, got.headers);
      got.pipe(answer);
    });
    onward.on("error", () => answer.destroy());
    answer.on("close", () => onward.destroy());
    from.pipe(onward);
  });
  server.on("upgrade", (from, socket) => socket.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n"));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const bus = connect(`ws://127.0.0.1:${server.address().port}/ws`, { WebSocket, fallback: load });
  t.after(() => bus.close());
  const other = connect(`ws://127.0.0.1:${broker.port}/ws`, { WebSocket });
  t.after(() => other.close());
  return { bus, other, cut: () => server.closeAllConnections() };
};

test("messages of any kind come as they were published, and recovery leaves nothing out", async (t) => {
  noDelay(t);
  const { bus, other, cut } = await start(t);
  const room = bus.subscribe("room");
  const messages = collect(room);
  await room.ready;
  assert.equal(bus.transport, "sse");
  const all = ["42", 42, "two\nlines", { a: [null, "\u2028"] }, Uint8Array.of(0, 255), ""];
  for (const data of all) await other.publish("room", data);
  await until(() => messages.length === all.length);
  assert.deepEqual(messages.map(({ data }) => data), all);
  cut();
  for (let n = 0; n < 20; n++) await other.publish("room", n);
  await until(() => messages.length === all.length + 20);
  assert.deepEqual(offsets(messages), messages.map((_, index) => index + 1));
});

test("a filter tells topics apart, keyed topics have their state, and what is published arrives in order", async (t) => {
  noDelay(t);
  const { bus, other } = await start(t);
  await other.publish("keyed/a", 1, { key: "x" });
  const some = bus.subscribe("rooms/+");
  const messages = collect(some);
  const keyed = bus.subscribe("keyed/a");
  let state;
  keyed.onstate = (map) => (state = [...map].map(([key, { data }]) => [key, data]));
  await Promise.all([some.ready, keyed.ready]);
  await until(() => state?.length === 1);
  assert.deepEqual(state, [["x", 1]]);
  await bus.publish("keyed/a", 2, { key: "y" });
  await until(() => state.length === 2);
  await bus.publish("keyed/a", null, { key: "x", removed: true });
  await until(() => state.length === 1);
  const published = await Promise.all(Array.from({ length: 200 }, (_, n) => bus.publish(`rooms/${n % 2}`, n)));
  assert.equal(published.at(-1).offset, 100);
  await until(() => messages.length === 200);
  for (const room of [0, 1]) {
    const of = messages.filter(({ topic }) => topic === `rooms/${room}`).map(({ data }) => data);
    assert.deepEqual(of, Array.from({ length: 100 }, (_, n) => 2 * n + room));
  }
});
