// A page with a session in Chromium, against the scripted broker: what survives a reload, and what a duplicated tab does. These
// are the browser's own storage and locks. Skipped without chromium.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { chromium, openPage } from "./chromium.js";
import { sessions, settle, startFake, until } from "./fake.js";

/** The page does what the broker's `message` says, as long as it is there. */
const page = async (url) => {
  const { connect } = await import("/ringyard.min.mjs");
  const bus = connect(url, { session: true });
  bus.subscribe("orders").onmessage = ({ data }) => {
    if (data === "reload") location.reload();
    if (data === "duplicate") open(location.href); // with a copy of sessionStorage, as the browser's own command does
  };
};

/** A web server for the page; resolves to its address. */
const serve = async (t, url) => {
  const server = http.createServer(async (request, response) => {
    const isScript = request.url === "/ringyard.min.mjs";
    response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
    const html = `<!doctype html><title>ringyard</title><script type="module">(${page})(${JSON.stringify(url)});</script>`;
    response.end(isScript ? await readFile(new URL("../ringyard.min.mjs", import.meta.url)) : html);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.closeAllConnections());
  t.after(() => server.close());
  return `http://127.0.0.1:${server.address().port}/`;
};

test("reloads keep the session; a duplicate gets its own", { skip: !chromium && "there is no chromium", timeout: 60_000 }, async (t) => {
  const answer = sessions();
  const fake = await startFake(t, answer);
  const address = await serve(t, fake.url);
  await openPage(t, address);
  /** The next page, once it listens. */
  const accept = async () => {
    // A browser takes its time to start.
    if (fake.peers.length === fake.accepted) await once(fake.server, "connection");
    const peer = await fake.accept();
    await peer.subscribed("orders");
    return peer;
  };
  const asked = () => answer.hellos.map(({ session }) => session);

  let peer = await accept();
  for (let i = 0; i < 5; i++) {
    peer.message("orders", 1, "reload");
    const next = await accept();
    await until(() => peer.closed !== null);
    peer = next;
  }
  assert.deepEqual(asked(), [true, "s1", "s1", "s1", "s1", "s1"]);

  peer.message("orders", 2, "duplicate");
  const copy = await accept();
  assert.deepEqual(asked().slice(6), [true]);
  await settle();
  assert.deepEqual([peer.closed, copy.closed], [null, null]);
  copy.message("orders", 1, "reload");
  const copyAgain = await accept();
  peer.message("orders", 3, "reload");
  await accept();
  assert.deepEqual(asked().slice(7), ["s2", "s1"]);
  assert.equal(copyAgain.closed, null);
});
