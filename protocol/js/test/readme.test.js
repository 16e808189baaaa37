// The examples in ../README.md for presence, requests and leases run as they stand there.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { WebSocket } from "ws";
import { connect, EPOCH, sessions, startBoth, startBus, startFake, until } from "./fake.js";

const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");

/** The examples under a heading, each as a function with these parameters. */
const examples = (heading, ...parameters) => {
  const section = readme.split("\n## ").find((text) => text.startsWith(`${heading}\n`));
  const blocks = [...section.matchAll(/```js\n(.*?)```/gs)].map(([, code]) => code);
  const AsyncFunction = (async () => {}).constructor;
  return blocks.map((code) => new AsyncFunction(...parameters, code));
};

/** A place that an example shows text in. */
const screen = () => {
  const show = (text) => show.shown.push(text);
  show.shown = [];
  show.until = (text) => until(() => show.shown.at(-1) === text, `"${text}", only ${JSON.stringify(show.shown)}`);
  return show;
};

test("presence: a chat shows who is here", async (t) => {
  const [chat] = examples("Presence", "bus", "show");
  const { bus, peer } = await startBoth(t);
  const show = screen();
  await chat(bus, show);
  const { id, ...enter } = await peer.next("enter");
  assert.deepEqual(enter, { type: "enter", topic: "chat/7", info: { name: "Ada" } });
  const topic = "$presence/chat/7";
  await peer.subscribed(topic, { epoch: EPOCH, offset: 3, history: "keyed" });
  const value = (name) => ({ info: { name }, connections: 1, since: 1e12 });
  peer.message(topic, 1, value("Bob"), { key: "bob", state: true });
  peer.message(topic, 2, value("Ada"), { key: "ada", state: true });
  peer.say({ type: "state-end", topic, offset: 2 });
  await show.until("here: Bob, Ada");
  peer.message(topic, 3, null, { key: "bob", removed: true });
  await show.until("here: Ada");
});

test("requests: a panel has points thrown", async (t) => {
  const [serve, ask] = examples("Requests", "bus", "show", "layout");
  const fake = await startFake(t);
  const [{ bus: computer }, { bus: panel }] = [startBus(t, fake), startBus(t, fake)];
  const [one, other] = [await fake.accept(), await fake.accept()];
  const show = screen();
  const thrown = [];
  const layout = {
    async throwPoints(topic, to) {
      if (thrown.length) throw new Error("the blade is stuck");
      thrown.push([topic, to]);
    },
  };
  const asked = ask(panel, show);
  const early = [one, other];
  await until(() => early.some(({ commands }) => commands.length));
  const panelPeer = early.find(({ commands }) => commands.length);
  const computerPeer = early.find((peer) => peer !== panelPeer);
  panelPeer.error(await panelPeer.next("request"), "no-responder");
  await asked;
  await show.until("not thrown: no-responder");

  await serve(computer, show, layout);
  computerPeer.ok(await computerPeer.next("respond"));
  for (const text of ["the points are left", "the blade is stuck"]) {
    const again = ask(panel, show);
    const { id, topic, data, timeout } = await panelPeer.next("request");
    assert.equal(timeout, 500);
    computerPeer.say({ type: "request", topic, data, reply: 1, timeout });
    const reply = await computerPeer.next("reply");
    if (reply.error) panelPeer.error({ id }, "responder-error", { error: reply.error });
    else panelPeer.ok({ id }, { data: reply.data });
    await again;
    await show.until(text);
  }
  assert.deepEqual(thrown, [["points/3", "left"]]);
});

test("leases: one drives, the others see who, and a restart of the broker takes the lease", async (t) => {
  const [drive] = examples("Leases", "connect", "url", "show", "slider");
  const answer = sessions();
  const fake = await startFake(t, answer);
  const show = screen();
  const slider = { value: 40 };
  const connectHere = (url, options) => {
    const bus = connect(url, { ...options, WebSocket });
    t.after(() => bus.close());
    return bus;
  };
  t.mock.method(Math, "random", () => 0);
  const driving = drive(connectHere, fake.url, show, slider);
  const peer = await fake.accept();
  const { session, will } = await until(() => answer.hellos.length === 1).then(() => answer.hellos[0]);
  assert.deepEqual([session, will], [true, { topic: "loco/12", data: { speed: 0 } }]);
  peer.ok(await peer.next("lease"), { lease: 7, ttl: 10_000 });
  await driving;
  const topic = "$lease/loco/12";
  await peer.subscribed(topic);
  peer.message(topic, 1, { by: "ada", lease: 7, until: 1e12 });
  await show.until("driver: ada");
  slider.oninput();
  const command = await peer.next("publish");
  assert.deepEqual([command.data, command.lease], [{ speed: 40 }, 7]);
  peer.error(command, "not-holder");
  await show.until("not sent: not-holder");

  answer.known.clear();
  peer.cut();
  const second = await fake.accept();
  await show.until("you do not drive any more: expired");
  await second.subscribed(topic, { epoch: EPOCH, offset: 2, recovered: true });
  second.message(topic, 2, null, { removed: true });
  await show.until("driver: nobody");

  const other = drive(connectHere, fake.url, show, slider);
  const third = await fake.accept();
  third.error(await third.next("lease"), "held", { by: "bob", ttl: 9000 });
  await other;
  await show.until("bob drives");
});
