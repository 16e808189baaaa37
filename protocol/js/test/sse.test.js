// Where WebSockets are blocked: the client goes on over server-sent events and HTTP, says so, and comes back.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { mockClock } from "./clock.js";
import { collect, connect, EPOCH, noDelay, offsets, settle, until } from "./fake.js";

const load = () => import(process.env.RINGYARD_CLIENT ? "../ringyard-sse.min.mjs" : "../ringyard-sse.js");

/** A broker over HTTP that says only what a test tells it to; its WebSockets are refused, cut or answered. */
class HttpFake {
  constructor(server) {
    this.server = server;
    this.url = `ws://127.0.0.1:${server.address().port}/ws`;
    this.ready = 200;
    this.upgrades = 0;
    this.sockets = "refuse"; // or "cut", "answer"
    this.streams = [];
    this.posts = [];
    this.subscribed = []; // over WebSockets
    this.accepted = 0;
    const sockets = new WebSocketServer({ noServer: true });
    server.on("upgrade", (request, socket, head) => {
      this.upgrades += 1;
      socket.on("error", () => {}); // the client may close first
      if (this.sockets === "refuse") return socket.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n");
      sockets.handleUpgrade(request, socket, head, (peer) => {
        if (this.sockets === "cut") return peer.terminate();
        peer.on("message", (data) => {
          const { type, id, topic, since } = JSON.parse(data);
          if (type === "ping") return peer.send('{"type":"pong"}');
          if (type !== "subscribe") return peer.send(JSON.stringify({ type: "ok", id }));
          this.subscribed.push({ topic, since });
          peer.send(JSON.stringify({ type: "ok", id, topics: [{ topic, epoch: EPOCH, offset: 3, recovered: true }] }));
        });
      });
    });
    server.on("request", (request, response) => this.answer(request, response));
  }

  async answer(request, response) {
    const url = new URL(request.url, "http://fake");
    if (url.pathname === "/readyz") return response.writeHead(this.ready).end();
    if (request.method === "GET") {
      response.writeHead(this.status ?? 200, { "content-type": "text/event-stream" });
      if (this.status) return response.end('{"code":"forbidden","detail":"not yours"}');
      response.flushHeaders();
      return this.streams.push({ url, headers: request.headers, response });
    }
    let body = "";
    for await (const part of request) body += part;
    const { messages } = JSON.parse(body);
    this.posts.push(messages);
    const results = messages.map(({ topic }, index) =>
      topic === "no" ? { type: "about:blank", title: "Forbidden", status: 403, code: "forbidden", detail: "not yours" } : { topic, epoch: EPOCH, offset: index + 1 },
    );
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ results }));
  }

  /** The next stream, which has its position. */
  async stream(position = { epoch: EPOCH, offset: 0 }) {
    await until(() => this.streams.length > this.accepted, "another stream");
    const stream = this.streams[this.accepted++];
    stream.say = (name, data) => stream.response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
    stream.message = (topic, offset, more) =>
      stream.response.write(`id: ${EPOCH}:${offset}\ndata: ${JSON.stringify({ type: "message", topic, offset, data: `m${offset}`, ...more })}\n\n`);
    stream.response.write("retry: 1000\n");
    stream.say("position", { ...position, ids: true, envelope: true });
    return stream;
  }
}

const start = async (t, options) => {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const fake = new HttpFake(server);
  const bus = connect(fake.url, { WebSocket, fallback: load, ...options });
  const errors = [];
  const transports = [];
  bus.on("error", (error) => errors.push(error.code));
  bus.on("state", ({ state }) => transports.push([state, bus.transport]));
  t.after(() => bus.close());
  return { fake, bus, errors, transports };
};

test("after three refused upgrades messages come by events, publishes go by POST, and the bus says so", async (t) => {
  noDelay(t);
  const { fake, bus, transports } = await start(t);
  assert.equal(bus.transport, "websocket");
  const chat = bus.subscribe("chat/ä 7");
  const messages = collect(chat);
  const stream = await fake.stream();
  assert.deepEqual(transports.at(-1), ["open", "sse"]);
  assert.equal(stream.url.pathname, `/sub/chat/${encodeURIComponent("ä 7")}`);
  assert.equal(stream.url.searchParams.get("envelope"), "1");
  assert.equal(stream.headers.accept, "text/event-stream");
  assert.equal((await chat.ready).position, `${EPOCH}:0`);
  stream.message("chat/ä 7", 1, { key: "k" });
  stream.response.write(`: a comment\n\nid: ${EPOCH}:2\ndata: {"type":"message","topic":"chat/ä 7","off`);
  stream.response.write('set":2,"data":{"a":"two\\nlines"}}\n\n');
  await until(() => messages.length === 2);
  assert.deepEqual(messages.map(({ offset, data, key }) => [offset, data, key]), [[1, "m1", "k"], [2, { a: "two\nlines" }, undefined]]);
  const published = [bus.publish("a", 1), bus.publish("b", 2, { ttl: 5 }), bus.publish("no", 3)];
  await assert.rejects(published[2], { code: "forbidden", message: "not yours" });
  assert.equal((await published[0]).epoch, EPOCH);
  assert.deepEqual(fake.posts.flat().map(({ topic, data, ttl }) => [topic, data, ttl]), [["a", 1, undefined], ["b", 2, 5], ["no", 3, undefined]]);
  assert.ok(fake.posts.flat().every((item) => !("type" in item) && !("id" in item)));
});

test("a stream that ends is continued after the last message, and a gap is reported", async (t) => {
  noDelay(t);
  const { fake, bus } = await start(t);
  const chat = bus.subscribe("a");
  const messages = collect(chat);
  const gaps = [];
  chat.ongap = (gap) => gaps.push(gap);
  const first = await fake.stream();
  first.message("a", 1);
  await until(() => messages.length === 1);
  first.response.end();
  const second = await fake.stream({ epoch: EPOCH, offset: 1, recovered: true });
  assert.equal(second.url.searchParams.get("since"), `${EPOCH}:1`);
  second.message("a", 2);
  second.say("gap", { type: "gap", topic: "a", from: 3, to: 4, reason: "slow-consumer" });
  second.message("a", 5);
  await until(() => messages.length === 3);
  assert.deepEqual(offsets(messages), [1, 2, 5]);
  assert.deepEqual(gaps.map(({ from, to, reason }) => [from, to, reason]), [[3, 4, "slow-consumer"]]);
});

test("what HTTP cannot do is refused as unsupported", async (t) => {
  noDelay(t);
  const { fake, bus, errors } = await start(t, { will: { topic: "a", data: 1 } });
  await until(() => bus.transport === "sse" && bus.state === "open", "open");
  const unsupported = { code: "unsupported" };
  await assert.rejects(bus.request("a", 1), unsupported);
  await assert.rejects(bus.enter("a"), unsupported);
  await assert.rejects(bus.members("a"), unsupported);
  await assert.rejects(bus.lease("a"), unsupported);
  assert.ok(errors.includes("unsupported"), "the will is not in force, and that is said");
  fake.status = 403;
  await assert.rejects(bus.subscribe("a").ready, { code: "forbidden", message: "not yours" });
  fake.status = undefined;
  for (const topic of ["b", "c", "d", "e"]) bus.subscribe(topic);
  await assert.rejects(bus.subscribe("f").ready, { code: "limit" });
});

test("a message that two streams bring comes once", async (t) => {
  noDelay(t);
  const { fake, bus } = await start(t);
  const [one, all] = ["a/b", "a/+"].map((topic) => collect(bus.subscribe(topic)));
  const streams = [await fake.stream(), await fake.stream({})];
  for (const offset of [1, 2]) for (const stream of streams) stream.message("a/b", offset);
  await until(() => one.length === 2 && all.length === 2);
  assert.deepEqual([offsets(one), offsets(all)], [[1, 2], [1, 2]]);
});

test("a token goes in a header; when it has ended, another one is fetched", async (t) => {
  noDelay(t);
  let tokens = 0;
  const { fake, bus } = await start(t, { token: () => `t${++tokens}` });
  bus.subscribe("a");
  const first = await fake.stream();
  assert.equal(first.headers.authorization, "Bearer t1");
  first.say("expired", { code: 4401, reason: "the token has ended" });
  const second = await fake.stream();
  assert.equal(second.headers.authorization, "Bearer t2");
  second.say("expired", { code: 4403, reason: "not any more" });
  await until(() => !second.response.writable || second.response.destroyed, "the end of the stream");
  assert.equal(bus.state, "open");
});

test("if HTTP does not answer either, the broker is away, and a WebSocket is tried first", async (t) => {
  noDelay(t);
  const { fake, bus } = await start(t);
  fake.ready = 503;
  await until(() => fake.upgrades >= 6, "more attempts");
  assert.equal(bus.transport, "websocket");
  fake.sockets = "answer";
  await until(() => bus.state === "open", "open");
  assert.equal(bus.transport, "websocket");
});

test("WebSockets that are cut as soon as they open are blocked, too", async (t) => {
  noDelay(t);
  const { fake, bus } = await start(t);
  fake.sockets = "cut";
  await until(() => bus.state === "open" && bus.transport === "sse", "events");
  assert.ok(fake.upgrades >= 6);
});

test("as soon as WebSockets work again, the bus goes back to them, and goes on where it was", async (t) => {
  const clock = mockClock(t);
  noDelay(t);
  const { fake, bus, transports } = await start(t);
  const messages = collect(bus.subscribe("a"));
  // Little time passes in each turn, so that nothing on its way is too late.
  const passes = (condition) => until(() => (clock.tick(1), condition()), condition);
  await passes(() => fake.streams.length === 1);
  const stream = await fake.stream();
  stream.message("a", 1);
  await until(() => messages.length === 1);
  const { upgrades } = fake;
  clock.tick(30_000);
  await until(() => fake.upgrades === upgrades + 1, "a try");
  await settle();
  assert.equal(bus.transport, "sse", "it is still blocked");
  stream.message("a", 2);
  await until(() => messages.length === 2);
  fake.sockets = "answer";
  clock.tick(30_000);
  await passes(() => bus.state === "open" && bus.transport === "websocket");
  assert.equal(fake.upgrades, upgrades + 3, "a try, and the connection");
  assert.deepEqual(transports.slice(-2).map(([state]) => state), ["connecting", "open"]);
  await until(() => fake.subscribed.length === 1);
  assert.deepEqual(fake.subscribed[0].since, { epoch: EPOCH, offset: 2 });
  await until(() => stream.response.destroyed, "the end of the stream");
});

test("a topic that was left takes nothing else with it", async (t) => {
  const clock = mockClock(t);
  noDelay(t);
  const { fake, bus } = await start(t);
  const [left, kept] = [bus.subscribe("left"), bus.subscribe("kept")];
  const messages = collect(kept);
  const passes = (condition) => until(() => (clock.tick(1), condition()), condition);
  await passes(() => fake.streams.length === 2);
  const streams = [await fake.stream(), await fake.stream()];
  await settle();
  left.close();
  await until(() => streams[0].response.destroyed, "the end of the stream");
  // Longer than a stream may be silent, were it still there.
  for (let second = 1; second < 60; second += 1) {
    clock.tick(1000);
    streams[1].message("kept", second);
    await until(() => messages.length === second);
  }
  assert.deepEqual([bus.state, fake.streams.length], ["open", 2]);
});

test("without the option, and before three failures, nothing is loaded", async (t) => {
  noDelay(t);
  const loads = [];
  const { fake, bus } = await start(t, { fallback: () => { loads.push(fake.upgrades); return load(); } });
  await until(() => loads.length > 0);
  assert.equal(loads[0], 3);
  bus.close();
  const other = connect(fake.url, { WebSocket });
  t.after(() => other.close());
  const before = fake.upgrades;
  await until(() => fake.upgrades >= before + 5, "more attempts");
  assert.equal(other.transport, "websocket");
});
