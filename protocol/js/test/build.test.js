// The committed builds: made from this source, small, and usable as a module and as a script.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";
import { build } from "../build.js";

/** For everything: a third of what centrifuge.js has. There is one build; none leaves leases, requests and presence out. */
const SIZE_MAX = 6144;

const read = (name) => readFile(new URL(`../${name}`, import.meta.url), "utf8");

test("the committed builds are those of the source", async () => {
  for (const [name, text] of Object.entries(await build())) {
    assert.ok((await read(name)) === text, `${name} is old: npm run build`);
  }
});

test(`gzip -9 of a build is below ${SIZE_MAX} bytes`, async (t) => {
  for (const name of ["ringyard.min.mjs", "ringyard.min.js"]) {
    const size = execFileSync("gzip", ["-9c"], { input: await read(name) }).length;
    t.diagnostic(`${name}: ${size} bytes`);
    assert.ok(size < SIZE_MAX, `${name} has ${size} bytes`);
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

test("the source imports nothing", async () => {
  assert.doesNotMatch(await read("ringyard.js"), /\bimport\b|\brequire\(|\bprocess\b|\bBuffer\b/);
});
