// Both builds in Chromium, against the real broker: a page publishes, subscribes, and rides over a cut connection. Skipped
// without RINGYARD or without chromium.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { BROKER, startBroker, startProxy } from "./broker.js";
import { chromium, openPage } from "./chromium.js";

const skip = !BROKER ? "RINGYARD names no broker" : !chromium && "there is no chromium";

/** Runs in the page; what it returns, or throws, is sent to the test. */
const page = async (connect, url) => {
  const bus = connect(url);
  const chat = bus.subscribe("chat/7");
  const frames = bus.subscribe("chat/+", { frame: true });
  const gaps = [];
  chat.ongap = ({ reason }) => gaps.push(reason);
  const framed = [];
  frames.onmessage = ({ offset }) => framed.push(offset);
  await frames.ready;

  const payloads = [{ n: 1 }, "text", Uint8Array.of(0, 255)];
  for (const payload of payloads) await bus.publish("chat/7", payload);
  const iterator = chat[Symbol.asyncIterator]();
  const next = async () => (await iterator.next()).value;
  const got = [];
  for (let i = 0; i < 3; i++) got.push(await next());

  const back = new Promise((resolve) => {
    const off = bus.on("state", ({ state }) => {
      if (state !== "open") return;
      off();
      resolve();
    });
  });
  await fetch("/cut", { method: "POST" });
  const { offset } = await bus.publish("chat/7", "after the cut");
  await back;
  got.push(await next());
  while (framed.length < 4) await new Promise(requestAnimationFrame);
  const result = {
    data: got.map(({ data }) => (data instanceof Uint8Array ? [...data] : data)),
    offsets: got.map(({ offset }) => offset),
    framed,
    gaps,
    offset,
    position: chat.position.split(":")[1],
    secure: isSecureContext,
  };
  bus.close();
  return result;
};

const html = (load, url) => `<!doctype html><title>ringyard</title>${load}
<script type="module">
  const report = (result) => fetch("/result", { method: "POST", body: JSON.stringify(result) });
  try {
    const connect = globalThis.ringyard?.connect ?? (await import("/ringyard.min.mjs")).connect;
    await report(await (${page})(connect, ${JSON.stringify(url)}));
  } catch (error) {
    await report({ error: String(error?.stack ?? error) });
  }
</script>`;

/** A web server for the page; resolves to what the page reports. */
const serve = async (t, { load, url, cut }) => {
  let report;
  const reported = new Promise((resolve) => (report = resolve));
  const server = http.createServer(async (request, response) => {
    let body = "";
    for await (const data of request) body += data;
    const file = /^\/(ringyard\.min\.m?js)$/.exec(request.url)?.[1];
    if (request.url === "/result") report(JSON.parse(body));
    if (request.url === "/cut") cut();
    response.setHeader("Content-Type", file ? "text/javascript" : "text/html");
    response.end(file ? await readFile(new URL(`../${file}`, import.meta.url)) : html(load, url));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.closeAllConnections());
  t.after(() => server.close());
  return { address: `http://127.0.0.1:${server.address().port}/`, reported };
};

for (const [name, load] of [["module", ""], ["script", '<script src="/ringyard.min.js"></script>']]) {
  test(`the ${name} in Chromium`, { skip, timeout: 60_000 }, async (t) => {
    const broker = await startBroker(t, { args: ["--allow-origin", "http://127.0.0.1:*"] });
    const proxy = await startProxy(t, broker);
    const { address, reported } = await serve(t, { load, url: proxy.url, cut: () => proxy.cut() });
    await openPage(t, address);
    const result = await reported;
    assert.deepEqual(result, {
      data: [{ n: 1 }, "text", [0, 255], "after the cut"],
      offsets: [1, 2, 3, 4],
      framed: [1, 2, 3, 4],
      gaps: [],
      offset: 4,
      position: "4",
      secure: true,
    });
  });
}
