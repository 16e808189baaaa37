// The examples that every client runs: ../../vectors/v1.json. Commands: the client sends those that it can send exactly as
// they stand there. Messages: it understands the broker's bytes.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { pings, settle, startBoth, startBus, startFake, until } from "./fake.js";

const vectors = JSON.parse(await readFile(new URL("../../vectors/v1.json", import.meta.url), "utf8"));

const OPTIONS = {
  key: "key",
  ttl: "ttl",
  retain: "retain",
  removed: "removed",
  idempotency_key: "idempotencyKey",
  if_offset: "ifOffset",
  lease: "lease",
};

/** A payload of a command as an application gives it. */
const payload = ({ data, encoding }) => (encoding ? new Uint8Array(Buffer.from(data, "base64")) : data);

/** What the application does to have a command of this type sent; nothing if it cannot have exactly this one. */
const calls = {
  enter: (bus, { topic, info }) => bus.enter(topic, info),
  update: (bus, { topic, info }) => bus.update(topic, info),
  leave: (bus, { topic }) => bus.leave(topic),
  members: (bus, { topic, limit }) => bus.members(topic, { limit }),
  request: (bus, { topic, timeout, to, ...data }) => bus.request(topic, payload(data), { timeout, to }),
  respond: (bus, { topic, end }) => {
    const stop = bus.respond(topic, () => {});
    if (end) stop();
  },
  lease: (bus, { topic, ttl, wait, lease }) => lease ?? bus.lease(topic, { ttl, wait }),
  will: (bus, { will }) => bus.will(will && { ...will, encoding: undefined, data: payload(will) }),
  disconnect: (bus) => bus.close(),
};

/** The options of the client for these members of a command; nothing if it has no such option. */
const publishOptions = ({ type, id, topic, data, encoding, ack, ...members }) => {
  const options = {};
  for (const [member, value] of Object.entries(members)) {
    if (!(member in OPTIONS)) return undefined;
    options[OPTIONS[member]] = value;
  }
  return options;
};

/** What a command says without what is the sender's to choose. */
const plain = (command) => {
  const { id, ack, ...rest } = command;
  for (const flag of ["retain", "removed", "end"]) if (rest[flag] === false) delete rest[flag];
  return rest;
};

for (const { name, send, is } of vectors.commands) {
  if (!is) continue; // the client does not send what is refused
  const command = JSON.parse(send);
  const { type } = command;
  const publishing = type === "publish" && publishOptions(command);
  if (publishing) {
    test(`command: ${name}`, async (t) => {
      const { bus, peer } = await startBoth(t);
      const data = payload(command);
      const options = "idempotencyKey" in publishing ? publishing : { ...publishing, idempotencyKey: "ours" };
      bus.publish(command.topic, data, options).catch(() => {});
      const sent = plain(await peer.next("publish"));
      if (!("idempotencyKey" in publishing)) delete sent.idempotency_key;
      assert.deepEqual(sent, plain(command));
    });
  }

  const { topic = command.topics?.length === 1 ? command.topics[0] : undefined, since, last, state } = command;
  if (type === "subscribe" && topic && !since?.positions) {
    test(`command: ${name}`, async (t) => {
      const { bus, peer } = await startBoth(t);
      const options = { last, state, throttle: command.throttle };
      if (since) options.since = `${since.epoch}:${since.offset}`;
      // A filter has no position; the client refuses what no broker recovers.
      if (since && /[+#]/.test(topic)) return assert.throws(() => bus.subscribe(topic, options), TypeError);
      bus.subscribe(topic, options);
      const { topics, ...expected } = plain(command);
      assert.deepEqual(plain(await peer.next("subscribe")), { ...expected, topic });
    });
  }

  if (calls[type] && !command.lease) {
    test(`command: ${name}`, async (t) => {
      const { bus, peer } = await startBoth(t);
      calls[type](bus, command)?.catch(() => {});
      if (command.end && type === "respond") await peer.next(type);
      // The client says how long it waits.
      const expected = type === "request" ? { timeout: 5000, ...plain(command) } : plain(command);
      assert.deepEqual(plain(await peer.next(type)), expected);
    });
  }

  if (type === "reply") {
    test(`command: ${name}`, async (t) => {
      const { bus, peer } = await startBoth(t);
      bus.respond("t", () => {
        const { code, reason } = command.error ?? {};
        if (code) throw Object.assign(new Error(reason), { code });
        return payload(command);
      });
      peer.ok(await peer.next("respond"));
      peer.say({ type: "request", topic: "t", data: 1, reply: command.reply, timeout: 5000 });
      assert.deepEqual(plain(await peer.next("reply")), plain(command));
    });
  }

  if (type === "unsubscribe" && topic) {
    test(`command: ${name}`, async (t) => {
      const { bus, peer } = await startBoth(t);
      const subscription = bus.subscribe(topic);
      await peer.subscribed(topic, { epoch: "00000000000000aa", offset: 1 });
      await subscription.ready;
      subscription.close();
      assert.deepEqual(await peer.next("unsubscribe"), { type: "unsubscribe", topic });
    });
  }
}

/** Subscribes to a topic whose first message is the one with this offset. */
const subscribed = async (t, topic, offset) => {
  const both = await startBoth(t);
  const subscription = both.bus.subscribe(topic);
  const seen = { messages: [], gaps: [] };
  subscription.onmessage = (message) => seen.messages.push(message);
  subscription.ongap = (gap) => seen.gaps.push(gap);
  await both.peer.subscribed(topic, { epoch: "00000000000000aa", offset });
  await subscription.ready;
  return { ...both, subscription, seen };
};

/** What the client must make of each type of message. */
const understands = {
  async message(t, bytes, { topic, offset, up_to, encoding, data, ...members }) {
    const { peer, seen } = await subscribed(t, topic, offset ?? up_to);
    peer.say(bytes);
    await until(() => seen.messages.length === 1);
    const [message] = seen.messages;
    assert.deepEqual(message.data, encoding ? new Uint8Array(Buffer.from(data, "base64")) : data);
    assert.equal(message.offset, offset);
    assert.equal(message.upTo, up_to);
    for (const name of ["key", "removed", "state", "time", "prev"]) assert.equal(message[name], members[name]);
  },

  async error(t, bytes, { id, code, reason, offset }) {
    const { bus, peer, errors } = await startBoth(t);
    if (id === undefined) {
      peer.say(bytes);
      await until(() => errors.length === 1);
      assert.deepEqual([errors[0].code, errors[0].message], [code, reason]);
    } else {
      const published = bus.publish("t", 1, { idempotencyKey: "k" });
      const command = await peer.next("publish");
      peer.say(JSON.stringify({ ...JSON.parse(bytes), id: command.id }));
      await assert.rejects(published, (error) => {
        assert.deepEqual([error.code, error.message, error.offset], [code, reason, offset]);
        return true;
      });
    }
  },

  async ok(t, bytes, { topics, messages, epoch, ...more }) {
    const { bus, peer, errors } = await startBoth(t);
    if (topics) {
      for (const answer of topics) {
        const since = answer.recovered === undefined ? undefined : `${answer.epoch}:${Math.max(0, answer.offset - 1)}`;
        const { ready } = bus.subscribe(answer.topic, since && !/[+#]/.test(answer.topic) ? { since } : {});
        await peer.subscribed(answer.topic, answer);
        const begun = await ready;
        assert.deepEqual([begun.recovered, begun.available, begun.history], [answer.recovered, answer.available, answer.history]);
      }
    } else if (epoch && !messages) {
      const published = bus.publish("t", 1);
      const command = await peer.next("publish");
      peer.say(JSON.stringify({ ...JSON.parse(bytes), id: command.id }));
      const { id, type, ...members } = more;
      assert.deepEqual(await published, { epoch, ...members });
    } else {
      // An answer to a command that this client does not send.
      await settle();
      peer.say(JSON.stringify({ ...JSON.parse(bytes), id: "none of ours" }));
      await settle();
      assert.deepEqual([bus.state, errors], ["open", []]);
    }
  },

  async pong(t, bytes) {
    const { bus, peer, errors } = await startBoth(t);
    peer.say(bytes);
    await settle();
    assert.deepEqual([bus.state, errors], ["open", []]);
  },

  async ping(t, bytes) {
    const { peer } = await startBoth(t);
    peer.say(bytes);
    assert.deepEqual(await peer.next("pong"), { type: "pong" });
  },

  async gap(t, bytes, { topic, from, to, reason }) {
    const { peer, seen } = await subscribed(t, topic, from);
    peer.say(bytes);
    await until(() => seen.gaps.length === 1);
    const [gap] = seen.gaps;
    assert.deepEqual([gap.topic, gap.from, gap.to, gap.reason], [topic, from, to, reason]);
  },

  async reset(t, bytes, { topic, epoch, offset, reason }) {
    const { peer, seen, subscription } = await subscribed(t, topic, 5);
    peer.say(bytes);
    await until(() => seen.gaps.length === 1);
    assert.equal(seen.gaps[0].reason, reason);
    if (!/[+#]/.test(topic)) assert.equal(subscription.position, `${epoch}:${offset}`);
  },

  async "state-end"(t, bytes, { topic, offset }) {
    const { bus, peer, errors } = await startBoth(t);
    const subscription = bus.subscribe(topic);
    let states = 0;
    subscription.onstate = () => states++;
    await peer.subscribed(topic, { epoch: "00000000000000aa", offset: (offset ?? 0) + 1, history: "keyed" });
    await subscription.ready;
    peer.say(bytes);
    await settle();
    assert.deepEqual([states, errors], [/[+#]/.test(topic) ? 0 : 1, []]);
  },

  /** Another token is fetched, and goes over the same connection. */
  async refresh(t, bytes) {
    const fake = await startFake(t, pings(25000));
    const tokens = ["first", "second"];
    const { bus, errors } = startBus(t, fake, { token: () => tokens.shift() });
    const peer = await fake.accept();
    await until(() => bus.state === "open");
    const sent = [];
    peer.socket.on("message", (data) => sent.push(JSON.parse(data)));
    peer.say(bytes);
    await until(() => sent.length === 1);
    assert.deepEqual([sent[0].type, sent[0].token, errors], ["connect", "second", []]);
  },

  async request(t, bytes, { topic, data, encoding, reply, from, timeout }) {
    const { bus, peer } = await startBoth(t);
    const seen = [];
    bus.respond(topic, (request) => {
      seen.push(request);
      return "done";
    });
    peer.ok(await peer.next("respond"));
    peer.say(bytes);
    assert.deepEqual(plain(await peer.next("reply")), { type: "reply", reply, data: "done" });
    const [request] = seen;
    assert.deepEqual([request.topic, request.from, request.timeout], [topic, from, timeout]);
    assert.deepEqual(request.data, payload({ data, encoding }));
  },

  async "lease-lost"(t, bytes, { topic, lease, reason }) {
    const { bus, peer } = await startBoth(t);
    const leased = bus.lease(topic);
    peer.ok(await peer.next("lease"), { lease, ttl: 10_000 });
    peer.say(bytes);
    assert.equal(await (await leased).lost, reason);
  },

  async goaway(t, bytes, { retry }) {
    const { bus, peer } = await startBoth(t);
    const heard = [];
    bus.on("goaway", (event) => heard.push(event.retry));
    peer.say(bytes);
    await until(() => heard.length === 1);
    assert.deepEqual(heard, [retry]);
  },

  async ended(t, bytes, { topic, code, respond }) {
    if (respond) {
      const { bus, peer, errors } = await startBoth(t);
      bus.respond(topic, () => {});
      peer.ok(await peer.next("respond"));
      peer.say(bytes);
      await until(() => errors.length === 1);
      assert.equal(errors[0].code, code);
      return;
    }
    const { peer, subscription, errors } = await subscribed(t, topic, 1);
    peer.say(bytes);
    await assert.rejects(subscription[Symbol.asyncIterator]().next(), { code });
    assert.deepEqual(errors.map((error) => error.code), [code]);
  },
};

for (const { name, bytes } of vectors.messages) {
  test(`message: ${name}`, async (t) => {
    const message = JSON.parse(bytes);
    assert.ok(understands[message.type], `what is a ${message.type}?`);
    await understands[message.type](t, bytes, message);
  });
}
