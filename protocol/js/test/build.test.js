// The committed builds: made from this source, small, and usable as a module and as a script.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";
import { build } from "../build.js";

/** For everything: a third of what centrifuge.js has. There is one build; none leaves leases, requests and presence out. */
const SIZE_MAX = 6144;
/** For where WebSockets are blocked; loaded only then. */
const SSE_MAX = 2560;
/** The provider, without Yjs. */
const YJS_PROVIDER_MAX = 2048;
/** Yjs itself: bytes, not compressed, since the broker carries it. */
const YJS_MAX = 100_000;

const read = (name) => readFile(new URL(`../${name}`, import.meta.url), "utf8");

test("the committed builds are those of the source", async () => {
  for (const [name, text] of Object.entries(await build())) {
    assert.ok((await read(name)) === text, `${name} is old: npm run build`);
  }
});

test("gzip -9 of the builds is small", async (t) => {
  for (const [name, max] of [
    ["ringyard.min.mjs", SIZE_MAX],
    ["ringyard.min.js", SIZE_MAX],
    ["ringyard-sse.min.mjs", SSE_MAX],
    ["ringyard-yjs.min.mjs", YJS_PROVIDER_MAX],
  ]) {
    const size = execFileSync("gzip", ["-9c"], { input: await read(name) }).length;
    t.diagnostic(`${name}: ${size} bytes`);
    assert.ok(size < max, `${name} has ${size} bytes`);
  }
});

test("the build of Yjs is not too long, has its terms, and exports what the provider wants of both packages", async (t) => {
  const text = await read("vendor/yjs.min.mjs");
  t.diagnostic(`${text.length} bytes`);
  assert.ok(text.length < YJS_MAX);
  for (const name of ["yjs", "y-protocols", "lib0"]) assert.match(text, new RegExp(`^${name}:\nThe MIT License`, "m"));
  // In processes of their own: Yjs complains if there are two of it.
  const names = (modules) => {
    const script = `Promise.all(${JSON.stringify(modules)}.map((name) => import(name)))
      .then((all) => console.log(all.flatMap((module) => Object.keys(module)).sort().join()))`;
    return execFileSync(process.execPath, ["-e", script], { cwd: new URL("..", import.meta.url) }).toString();
  };
  assert.equal(names(["./vendor/yjs.min.mjs"]), names(["yjs", "y-protocols/awareness"]));
});

test("the provider imports its peers and nothing else", async () => {
  for (const name of ["ringyard-yjs.js", "ringyard-yjs.min.mjs"]) {
    const imports = [...(await read(name)).matchAll(/\bfrom ?"([^"]+)"/g)].map(([, from]) => from);
    assert.deepEqual(imports.sort(), ["y-protocols/awareness", "yjs"]);
  }
});

test("the script needs nothing of Node and leaves one global name", async () => {
  const made = [];
  const page = { crypto, setInterval, clearInterval, setTimeout, clearTimeout };
  const before = Object.keys(page);
  page.WebSocket = class {
    constructor(...args) {
      made.push(args);
    }
    close() {}
  };
  createContext(page);
  runInContext(await read("ringyard.min.js"), page);
  const bus = runInContext('ringyard.connect("wss://host/ws")', page);
  assert.deepEqual(made, [["wss://host/ws", "ringyard.v1"]]);
  assert.equal(bus.state, "connecting");
  bus.close();
  assert.equal(bus.state, "closed");
  assert.deepEqual(Object.keys(page), [...before, "WebSocket", "ringyard"]);
});

test("the sources import nothing", async () => {
  for (const name of ["ringyard.js", "ringyard-sse.js"]) {
    const code = (await read(name)).replace(/\/\*\*[^]*?\*\//g, "");
    assert.doesNotMatch(code, /\bimport\b|\brequire\(|\bprocess\b|\bBuffer\b/, name);
  }
});
