// The Yjs provider under rough conditions, against the real broker: random drops, garbage, other implementations, refusals.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as Y from "yjs";
import { startBroker, startProxy } from "./broker.js";
import { converged, leasingBuses, newcomer, rules, startBus, startEditor, test, TOPIC, wait, watchWarnings } from "./editors.js";
import { noDelay } from "./fake.js";

const PYCRDT = "0.14.13";
const WEBSOCKETS = "17.4";

const begin = (t, more) => startBroker(t, { rules: rules(more) });

/** Random numbers that a seed repeats: mulberry32. */
const randomOf = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
  return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
};

/** One insertion or deletion, somewhere. */
const editAtRandom = ({ text }, random) => {
  const at = Math.floor(random() * (text.length + 1));
  if (random() < 0.3 && text.length > at) text.delete(at, Math.min(3, text.length - at));
  else text.insert(at, String.fromCharCode(97 + Math.floor(random() * 26)).repeat(1 + Math.floor(random() * 3)));
};

for (const messages of [2000, 10]) {
  test(`2,000 random edits of 3 documents with drops at random converge, with a window of ${messages} messages`, async (t) => {
    const seed = Number(process.env.SEED ?? Date.now() % 1e6);
    t.diagnostic(`SEED=${seed}`);
    const random = randomOf(seed);
    t.mock.method(Math, "random", () => 0.02); // reconnects come soon
    const broker = await begin(t, messages);
    const { make, snapshots } = await leasingBuses(t, broker);
    const proxies = [];
    const editors = [];
    for (let i = 0; i < 3; i++) {
      const proxy = await startProxy(t, broker);
      proxies.push(proxy);
      editors.push(startEditor(t, proxy, { bus: make(proxy) }));
    }
    await converged(editors, "");
    for (let i = 0; i < 2000; i++) {
      editAtRandom(editors[Math.floor(random() * 3)], random);
      const proxy = proxies[Math.floor(random() * 3)];
      proxy.refuses &&= random() < 0.9;
      if (random() < 0.02) {
        proxy.refuses = random() < 0.5;
        proxy.cut();
      }
      await new Promise((resolve) => setTimeout(resolve, random() * 3));
    }
    for (const proxy of proxies) proxy.refuses = false;
    await converged(editors);
    assert.ok(editors[0].text.length > 500);
    const joined = editors.map(({ said }) => said.synced.filter(Boolean).length);
    const dropped = editors.map(({ said }) => said.status.filter((status) => status === "disconnected").length);
    t.diagnostic(`${snapshots.length} snapshots, drops ${dropped}, joined ${joined}`);
    assert.ok(dropped.every((count) => count > 1));
    assert.equal(joined.every((count) => count > 1), messages === 10);
    const other = await newcomer(t, broker);
    await converged([other, ...editors]);
  }, { timeout: 60_000 });
}

test("an operator empties the topic: the clients publish it again, but not each of them", async (t) => {
  const broker = await startBroker(t, { rules: rules(), admin: true });
  const editors = Array.from({ length: 6 }, () => startEditor(t, broker));
  const [one] = editors;
  one.text.insert(0, "again");
  await converged(editors, "again");
  const topic = `${broker.admin}/api/topics/${encodeURIComponent(TOPIC)}`;
  const purged = await fetch(`${topic}/messages`, { method: "DELETE" });
  assert.ok(purged.ok, `${purged.status}`);
  await wait(() => editors.every(({ said }) => said.synced.length === 3));
  await converged(editors, "again");
  const three = await newcomer(t, broker);
  assert.equal(`${three.text}`, "again");
  const { position } = await startBus(t, broker).subscribe(TOPIC, { state: false }).ready;
  assert.ok(Number(position.split(":")[1]) <= 3, `${position}: all learn of it at the same time, the first one does for all`);
});

test("garbage on the topics hurts nobody, and is reported", async (t) => {
  const warnings = watchWarnings(t);
  const broker = await begin(t);
  const [one, two] = [startEditor(t, broker), startEditor(t, broker)];
  one.text.insert(0, "text");
  await converged([one, two], "text");
  const vandal = startBus(t, broker);
  const whole = Y.encodeStateAsUpdate(one.doc);
  // Its text can be read; it ends before the deletions.
  const stranger = new Y.Doc();
  stranger.getText().insert(0, "stranger");
  const cut = Y.encodeStateAsUpdate(stranger).slice(0, -1);
  const garbage = [
    "text", "", null, 7, {}, [1, 2, 3], new Uint8Array(0), Uint8Array.of(255), whole.subarray(0, whole.length - 1),
    cut, whole.subarray(0, 3), new Uint8Array(1000).fill(255), Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0x0f, 1),
  ];
  for (const data of garbage) await vandal.publish(TOPIC, data);
  await vandal.publish(`${TOPIC}/awareness`, "text", { key: "1" });
  await vandal.publish(`${TOPIC}/awareness`, Uint8Array.of(1, 2, 3), { key: "no number" });
  await vandal.publish(`${TOPIC}/awareness`, null, { removed: true, key: "no number" });
  await vandal.publish(`${TOPIC}/awareness`, null, { removed: true, key: `${one.doc.clientID}` });
  one.text.insert(4, "!");
  await converged([one, two], "text!");
  await wait(() => two.said.error.length === garbage.length + 2, () => `${two.said.error.length} of ${garbage.length + 2} errors`);
  assert.equal(warnings.length, 2); // one for each provider
  const three = await newcomer(t, broker);
  await converged([one, two, three], "text!");
  assert.deepEqual(one.provider.awareness.getLocalState(), {});
});

test("an update that the broker refuses for its length stays unsaved, and is sent no more until it fits", async (t) => {
  const warnings = watchWarnings(t);
  noDelay(t);
  const broker = await startBroker(t, { rules: rules(), args: ["--max-message", "20k"] });
  const [one, two] = [startEditor(t, broker), startEditor(t, broker)];
  await converged([one, two], "");
  one.text.insert(0, "x".repeat(30_000));
  await wait(() => one.said.error.length === 1);
  assert.equal(one.said.error[0].code, "too-big");
  one.text.insert(0, "y");
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.deepEqual([one.provider.unsaved, one.said.error.length, warnings.length], [true, 1, 1]);
  one.text.delete(1, 30_000);
  one.provider.disconnect();
  one.provider.connect();
  await converged([one, two], "y");
});

/** A folder with Python's pycrdt and websockets, made once for each version. */
const python = () => {
  const folder = join(tmpdir(), `ringyard-pycrdt-${PYCRDT}-${WEBSOCKETS}`);
  const program = join(folder, "bin", "python");
  if (!existsSync(join(folder, "done"))) {
    execFileSync("python3", ["-m", "venv", folder]);
    execFileSync(program, ["-m", "pip", "install", "--quiet", `pycrdt==${PYCRDT}`, `websockets==${WEBSOCKETS}`]);
    execFileSync("touch", [join(folder, "done")]);
  }
  return program;
};

test("pycrdt is a third writer", async (t) => {
  const broker = await begin(t);
  const proxy = await startProxy(t, broker);
  const [one, two] = [startEditor(t, proxy), startEditor(t, broker)];
  one.text.insert(0, "begin ");
  await converged([one, two], "begin ");
  const script = join(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "third_writer.py");
  const child = spawn(python(), [script, `ws://127.0.0.1:${broker.port}/ws`, TOPIC, "200"], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  const exit = once(child, "exit");
  let said = "";
  child.stdout.on("data", (data) => (said += data));
  const random = randomOf(7);
  await wait(() => `${two.text}`.includes("py"), "the first word of pycrdt");
  for (let i = 0; i < 200; i++) {
    editAtRandom([one, two][i % 2], random);
    if (i % 50 === 25) proxy.cut();
    await new Promise((resolve) => setTimeout(resolve, random() * 10));
  }
  await converged([one, two]);
  // It goes on until it has what we write last, and then says what it has.
  one.text.insert(one.text.length, "THE END");
  const [code] = await exit;
  assert.equal(code, 0);
  await converged([one, two]);
  assert.equal(JSON.parse(said), `${one.text}`);
  const other = await newcomer(t, broker);
  await converged([other, one, two]);
}, { timeout: 120_000 });
