// Tokens: when one is fetched, when it is sent, what waits for the broker's answer, and what each refusal leads to.

import assert from "node:assert/strict";
import { test } from "node:test";
import { WebSocket } from "ws";
import { mockClock, mockPage } from "./clock.js";
import { collect, connect, EPOCH, noDelay, offsets, settle, startBus, startFake, until } from "./fake.js";

const MOST = 0.999999;

/** A token function that the test answers: `calls` has its open calls, `count` how many there were. */
const manualToken = () => {
  const token = ({ signal }) => {
    token.count++;
    token.most = Math.max(token.most, token.calls.size + 1);
    return new Promise((resolve, reject) => {
      const call = {};
      const settled = (f) => (value) => {
        token.calls.delete(call);
        f(value);
      };
      Object.assign(call, { signal, resolve: settled(resolve), reject: settled(reject) });
      token.calls.add(call);
    });
  };
  Object.assign(token, { calls: new Set(), count: 0, most: 0 });
  token.next = async () => {
    await until(() => token.calls.size, "a call of the token function");
    return [...token.calls][0];
  };
  return token;
};

/** Tokens t1, t2, ...; `count` is how many were fetched. */
const numbered = () => {
  const token = async () => `t${++token.count}`;
  token.count = 0;
  return token;
};

/** A fake broker that leaves `connect` to the test, and a bus with this token. */
const start = async (t, token) => {
  const fake = await startFake(t, null);
  return { fake, ...startBus(t, fake, { token }) };
};

/** The same, with the first connection accepted. */
const startAccepted = async (t, token) => {
  const started = await start(t, token);
  const peer = await started.fake.accept();
  const hello = await accept(peer);
  await until(() => started.bus.state === "open", "open");
  return { peer, hello, ...started };
};

const accept = async (peer) => {
  const command = await peer.next("connect");
  peer.ok(command, { ping: 25000 });
  return command;
};

const refuse = async (peer, code, close) => {
  const command = await peer.next("connect");
  peer.error(command, code);
  if (close) peer.close(close, code);
  return command;
};

const codes = (errors) => errors.map(({ code }) => code);

test("a token is text or a function", () => {
  for (const token of [null, 7, true, "", {}]) {
    assert.throws(() => connect("ws://127.0.0.1:1/ws", { WebSocket, token }), {
      name: "TypeError",
      message: "token is a string or a function",
    });
  }
});

test("without one, connect has no token, and nothing waits for its answer", async (t) => {
  const { fake, bus } = await start(t);
  bus.subscribe("a");
  const peer = await fake.accept();
  assert.equal("token" in (await peer.next("connect")), false);
  await peer.next("subscribe");
});

test("the token goes first; subscriptions and publishes wait until the broker has accepted it", async (t) => {
  const { fake, bus, states, errors } = await start(t, "secret");
  const chat = collect(bus.subscribe("a"));
  const published = bus.publish("a", 1);
  const peer = await fake.accept();
  const hello = await peer.next("connect");
  assert.deepEqual([hello.token, hello.ping], ["secret", "message"]);
  bus.subscribe("b");
  await settle();
  assert.deepEqual(peer.commands, []);
  assert.deepEqual([bus.state, states], ["connecting", []]);
  peer.ok(hello);
  await peer.subscribed("a");
  await peer.subscribed("b");
  assert.equal(bus.state, "open");
  peer.ok(await peer.next("publish"), { epoch: EPOCH, offset: 1 });
  assert.equal((await published).offset, 1);
  peer.message("a", 1);
  await until(() => chat.length === 1);
  assert.deepEqual(errors, []);
});

test("the function is asked before the WebSocket is opened, and may return text at once", async (t) => {
  const token = manualToken();
  const { fake } = await start(t, token);
  const call = await token.next();
  await settle();
  assert.equal(fake.peers.length, 0, "the broker waits for a token only so long");
  call.resolve("late");
  assert.equal((await (await fake.accept()).next("connect")).token, "late");

  const other = await startFake(t, null);
  startBus(t, other, { token: () => "now" });
  assert.equal((await (await other.accept()).next("connect")).token, "now");
});

test("after a drop the same token is used again, and subscriptions wait for its acceptance again", async (t) => {
  noDelay(t);
  const token = numbered();
  const { fake, bus, peer } = await startAccepted(t, token);
  const messages = collect(bus.subscribe("a"));
  await peer.subscribed("a");
  peer.message("a", 1);
  await settle();
  peer.cut();
  const second = await fake.accept();
  const hello = await second.next("connect");
  assert.equal(hello.token, "t1");
  await settle();
  assert.deepEqual(second.commands, []);
  second.ok(hello);
  const { since } = await second.subscribed("a", { epoch: EPOCH, offset: 2, recovered: true });
  assert.deepEqual(since, { epoch: EPOCH, offset: 1 });
  second.message("a", 2);
  await until(() => messages.length === 2);
  assert.deepEqual(offsets(messages), [1, 2]);
  assert.equal(token.count, 1);
});

test("refresh: another token goes over the open connection, which goes on", async (t) => {
  noDelay(t);
  const token = numbered();
  const { fake, bus, peer, states, errors } = await startAccepted(t, token);
  const messages = collect(bus.subscribe("a"));
  await peer.subscribed("a");
  peer.say({ type: "refresh", in: 60_000 });
  assert.equal((await accept(peer)).token, "t2");
  peer.message("a", 1);
  await until(() => messages.length === 1);
  assert.deepEqual(peer.commands, [], "nothing is subscribed to a second time");
  assert.deepEqual([fake.peers.length, states.length, errors], [1, 1, []]);
  peer.cut();
  assert.equal((await (await fake.accept()).next("connect")).token, "t2", "later connections use it too");
});

test("refresh is asked for twice, and the token is fetched once", async (t) => {
  const token = manualToken();
  const { fake } = await start(t, token);
  (await token.next()).resolve("t1");
  const peer = await fake.accept();
  await accept(peer);
  peer.say({ type: "refresh", in: 60_000 });
  peer.say({ type: "refresh", in: 50_000 });
  const call = await token.next();
  await settle();
  assert.deepEqual([token.count, token.most], [2, 1]);
  call.resolve("t2");
  assert.equal((await accept(peer)).token, "t2");
  await settle();
  assert.deepEqual([token.count, peer.commands], [2, []]);
});

test("refresh with a fixed token is an error event, once", async (t) => {
  const { bus, peer, errors } = await startAccepted(t, "fixed");
  peer.say({ type: "refresh", in: 60_000 });
  peer.say({ type: "refresh", in: 1000 });
  await settle();
  assert.deepEqual(codes(errors), ["token"]);
  assert.match(errors[0].message, /no function/);
  assert.deepEqual([bus.state, peer.commands], ["open", []]);
});

test("bad-token at a refresh: an error event, the connection goes on, and a fresh token is tried after a while", async (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => MOST);
  const token = numbered();
  const { fake, bus, peer, errors } = await startAccepted(t, token);
  const messages = collect(bus.subscribe("a"));
  await peer.subscribed("a");
  peer.say({ type: "refresh", in: 60_000 });
  assert.equal((await refuse(peer, "bad-token")).token, "t2");
  await until(() => errors.length === 1);
  assert.deepEqual(codes(errors), ["bad-token"]);
  peer.message("a", 1);
  await until(() => messages.length === 1);
  for (const [ms, name] of [[500, "t3"], [1000, "t4"]]) {
    clock.tick(ms - 1);
    await settle();
    assert.deepEqual(peer.commands, []);
    clock.tick(1);
    assert.equal((await refuse(peer, "bad-token")).token, name);
    await settle();
  }
  clock.tick(2000);
  assert.equal((await accept(peer)).token, "t5");
  await settle();
  // Accepted: the next failure begins with the shortest delay again.
  peer.say({ type: "refresh", in: 60_000 });
  await refuse(peer, "bad-token");
  await settle();
  clock.tick(500);
  assert.equal((await accept(peer)).token, "t7");
  assert.deepEqual([fake.peers.length, bus.state], [1, "open"]);
});

test("bad-token that comes while the next token is fetched already: this one is waited for", async (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => MOST);
  const token = manualToken();
  const { fake, errors } = await start(t, token);
  (await token.next()).resolve("t1");
  const peer = await fake.accept();
  await accept(peer);
  peer.say({ type: "refresh", in: 60_000 });
  (await token.next()).resolve("t2");
  await until(() => peer.commands.length === 1);
  peer.say({ type: "refresh", in: 60_000 });
  const call = await token.next();
  await refuse(peer, "bad-token");
  await until(() => errors.length === 1);
  clock.tick(9999);
  await settle();
  assert.deepEqual([token.count, call.signal.aborted], [3, false]);
  clock.tick(1);
  assert.equal(call.signal.aborted, true, "it still has its time limit");
  clock.tick(500);
  assert.equal(token.count, 4);
});

test("4401: another token is fetched, and the client is back at once", async (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => MOST);
  const token = numbered();
  const { fake, bus, peer, states, errors } = await startAccepted(t, token);
  bus.subscribe("a");
  await peer.subscribed("a");
  clock.tick(10_000);
  peer.close(4401, "expired");
  await until(() => states.length === 2);
  assert.deepEqual(states.at(-1), { state: "connecting", code: 4401, reason: "expired", delay: 0 });
  clock.tick(0);
  const second = await fake.accept();
  assert.equal((await accept(second)).token, "t2");
  await second.subscribed("a", { epoch: EPOCH, offset: 1, recovered: true });
  assert.deepEqual(errors, []);
});

test("4401 again and again, as with clocks that differ, is answered with longer and longer delays", async (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => MOST);
  const token = numbered();
  const { fake, states } = await start(t, token);
  const delays = [];
  for (let i = 1; i <= 5; i++) {
    const peer = await fake.accept();
    assert.equal((await refuse(peer, "bad-token", 4401)).token, `t${i}`);
    await until(() => states.length === i);
    const { delay } = states.at(-1);
    delays.push(Math.round(delay));
    clock.tick(delay);
  }
  assert.deepEqual(delays, [0, 1000, 2000, 4000, 8000]);
});

test("4401 is answered at once also after other attempts, if the token was an old one", async (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => MOST);
  const token = numbered();
  const { fake, peer, states } = await startAccepted(t, token);
  peer.cut();
  await until(() => states.length === 2);
  clock.tick(500);
  const second = await fake.accept();
  assert.equal((await refuse(second, "bad-token", 4401)).token, "t1");
  await until(() => states.length === 3);
  assert.equal(states.at(-1).delay, 0);
  clock.tick(0);
  assert.equal((await accept(await fake.accept())).token, "t2");
});

test("4401 with a fixed token, or without one, is final", async (t) => {
  for (const token of ["fixed", undefined]) {
    const { fake, bus, peer, states } = await startAccepted(t, token);
    peer.close(4401, "expired");
    await until(() => bus.state === "closed");
    assert.deepEqual(states.at(-1), { state: "closed", code: 4401, reason: "expired" });
    await settle();
    assert.equal(fake.peers.length, 1);
  }
});

for (const [code, reason] of [[4400, "bad token"], [4403, "no longer allowed"], [4408, "no token in time"], [4409, "taken over"]]) {
  test(`${code} is final, with code and reason`, async (t) => {
    const token = numbered();
    const { fake, bus, states } = await start(t, token);
    const messages = collect(bus.subscribe("a"));
    const peer = await fake.accept();
    await peer.next("connect");
    peer.close(code, reason);
    await assert.rejects(messages.done, { code: "closed", message: `the broker closed with ${code}: ${reason}` });
    assert.deepEqual(states, [{ state: "closed", code, reason }]);
    assert.equal(bus.state, "closed");
    await settle();
    assert.deepEqual([fake.peers.length, token.count], [1, 1]);
  });
}

test("4400 for a token from an earlier connection is answered with another one, then it is final", async (t) => {
  noDelay(t);
  const token = numbered();
  const { fake, bus, peer, states } = await startAccepted(t, token);
  peer.cut();
  const second = await fake.accept();
  assert.equal((await refuse(second, "bad-token", 4400)).token, "t1");
  const third = await fake.accept();
  assert.equal((await refuse(third, "bad-token", 4400)).token, "t2");
  await until(() => bus.state === "closed");
  assert.equal(states.at(-1).code, 4400);
  assert.equal(token.count, 2);
});

test("a refusal of the first connect is told, and nothing is subscribed to", async (t) => {
  const { fake, bus, errors } = await start(t, "secret");
  bus.subscribe("a");
  bus.publish("a", 1).catch(() => {});
  const peer = await fake.accept();
  await refuse(peer, "unsupported");
  await until(() => errors.length === 1);
  await settle();
  assert.deepEqual(codes(errors), ["unsupported"]);
  assert.deepEqual([bus.state, peer.commands], ["connecting", []]);
});

test("a broker that never answers connect is given up", async (t) => {
  noDelay(t);
  const clock = mockClock(t);
  const { fake, states } = await start(t, "secret");
  await (await fake.accept()).next("connect");
  clock.tick(25_000);
  assert.equal(states.at(-1).reason, "no sign of life");
  clock.tick(0);
  assert.equal((await (await fake.accept()).next("connect")).token, "secret");
});

test("a token function that throws, rejects or returns no text is called again, after longer and longer delays", async (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => MOST);
  const answers = [
    () => { throw new Error("thrown"); },
    () => Promise.reject(new Error("rejected")),
    () => undefined,
    async () => "",
    () => "at last",
  ];
  let count = 0;
  const { fake, errors } = await start(t, () => answers[count++]());
  for (const [i, ms] of [500, 1000, 2000, 4000].entries()) {
    await until(() => errors.length === i + 1);
    clock.tick(ms - 1);
    await settle();
    assert.equal(count, i + 1);
    clock.tick(1);
    assert.equal(count, i + 2);
  }
  assert.equal((await (await fake.accept()).next("connect")).token, "at last");
  assert.deepEqual(codes(errors), ["token", "token", "token", "token"]);
  assert.deepEqual(errors.map(({ message }) => message), [
    "the token function failed: Error: thrown",
    "the token function failed: Error: rejected",
    "the token function failed: it returned no text",
    "the token function failed: it returned no text",
  ]);
});

test("a token function that hangs is aborted after 10 s, and what it returns later is not used", async (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => MOST);
  const token = manualToken();
  const { fake, errors } = await start(t, token);
  const first = await token.next();
  clock.tick(9999);
  assert.deepEqual([first.signal.aborted, errors], [false, []]);
  clock.tick(1);
  assert.equal(first.signal.aborted, true);
  assert.equal(errors[0].message, "the token function failed: it took too long");
  first.resolve("too late");
  await settle();
  assert.equal(fake.peers.length, 0);
  assert.equal(token.count, 1);
  clock.tick(500);
  (await token.next()).resolve("in time");
  assert.equal((await (await fake.accept()).next("connect")).token, "in time");
  assert.deepEqual([token.count, token.most], [2, 1]);
  clock.tick(9000);
  await settle();
  assert.equal(errors.length, 1);
});

test("a token function that fails at a refresh is tried again, and the connection goes on", async (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => MOST);
  const token = manualToken();
  const { fake, bus, errors } = await start(t, token);
  (await token.next()).resolve("t1");
  const peer = await fake.accept();
  await accept(peer);
  peer.say({ type: "refresh", in: 60_000 });
  (await token.next()).reject("down");
  await until(() => errors.length === 1);
  assert.equal(errors[0].message, "the token function failed: down");
  assert.equal(bus.state, "open");
  clock.tick(500);
  (await token.next()).resolve("t2");
  assert.equal((await accept(peer)).token, "t2");
  assert.equal(fake.peers.length, 1);
});

test("a connection that ends during a refresh: the client waits for that token, and does not fetch a second one", async (t) => {
  noDelay(t);
  const token = manualToken();
  const { fake, states } = await start(t, token);
  (await token.next()).resolve("t1");
  const peer = await fake.accept();
  await accept(peer);
  peer.say({ type: "refresh", in: 60_000 });
  const call = await token.next();
  peer.cut();
  await until(() => states.at(-1)?.state === "connecting");
  await settle();
  assert.deepEqual([fake.peers.length, token.count], [1, 2]);
  call.resolve("t2");
  const second = await fake.accept();
  assert.equal((await accept(second)).token, "t2");
  await settle();
  assert.deepEqual([fake.peers.length, token.count, token.most, second.commands], [2, 2, 1, []]);
});

test("a token that comes before the delay of the next attempt is over does not shorten it", async (t) => {
  const clock = mockClock(t);
  t.mock.method(Math, "random", () => MOST);
  const token = manualToken();
  const { fake, states } = await start(t, token);
  (await token.next()).resolve("t1");
  const peer = await fake.accept();
  await accept(peer);
  peer.say({ type: "refresh", in: 60_000 });
  const call = await token.next();
  peer.close(1013, "overload");
  await until(() => states.at(-1).code === 1013);
  call.resolve("t2");
  await settle();
  assert.equal(fake.peers.length, 1);
  clock.tick(1500);
  assert.equal((await (await fake.accept()).next("connect")).token, "t2");
  await settle();
  assert.equal(fake.peers.length, 2);
});

test("a page that wakes up while a token is fetched does not fetch a second one", async (t) => {
  const clock = mockClock(t);
  const page = mockPage(t);
  const token = manualToken();
  const { fake, bus } = await start(t, token);
  const call = await token.next();
  clock.sleep(60_000);
  page.dispatchEvent(new Event("online"));
  assert.equal(token.count, 1);
  call.resolve("t1");
  await accept(await fake.accept());
  await until(() => bus.state === "open");
  assert.deepEqual([fake.peers.length, token.count], [1, 1]);
});

test("close while a token is fetched: the call is aborted, and nothing follows", async (t) => {
  const token = manualToken();
  const { fake, bus, errors } = await start(t, token);
  const call = await token.next();
  bus.close();
  assert.equal(call.signal.aborted, true);
  call.resolve("late");
  await settle();
  assert.deepEqual([bus.state, fake.peers.length, errors, token.count], ["closed", 0, [], 1]);
});

test("close between two attempts to fetch a token ends them", async (t) => {
  const clock = mockClock(t);
  let count = 0;
  const { bus, errors } = await start(t, () => void count++);
  await until(() => errors.length === 1);
  bus.close();
  clock.tick(60_000);
  await settle();
  assert.equal(count, 1);
});

test("ended: what came before is delivered, the iterator throws, and it is not subscribed to again", async (t) => {
  noDelay(t);
  const { fake, bus, peer, errors } = await startAccepted(t, "secret");
  const a = collect(bus.subscribe("a"));
  const b = collect(bus.subscribe("b/+"));
  await peer.subscribed("a");
  await peer.subscribed("b/+", {});
  peer.message("a", 1);
  peer.say({ type: "ended", topic: "a", code: "forbidden" });
  await assert.rejects(a.done, { code: "forbidden", message: "the broker ended the subscription to a" });
  assert.deepEqual(offsets(a), [1]);
  assert.deepEqual(codes(errors), ["forbidden"]);
  peer.say({ type: "ended", topic: "b/+", code: "forbidden", reason: "no longer granted" });
  await assert.rejects(b.done, { code: "forbidden", message: "no longer granted" });
  await settle();
  assert.deepEqual(peer.commands, [], "the broker knows that they have ended");
  peer.cut();
  const second = await fake.accept();
  await accept(second);
  await settle();
  assert.deepEqual(second.commands, []);
  bus.subscribe("a");
  await second.subscribed("a");
});

test("ended is not taken for a subscription that was begun after the one it speaks of", async (t) => {
  const { bus, peer, errors } = await startAccepted(t, "secret");
  const first = bus.subscribe("a");
  await peer.subscribed("a");
  await first.ready;
  first.close();
  const second = collect(bus.subscribe("a"));
  await peer.next("unsubscribe");
  peer.say({ type: "ended", topic: "a", code: "forbidden" });
  peer.say({ type: "ended", topic: "never", code: "forbidden" });
  await peer.subscribed("a");
  peer.message("a", 1);
  await until(() => second.length === 1);
  assert.deepEqual(errors, []);
});

test("unauthorized and forbidden reject what they answer, with their code", async (t) => {
  const { fake, bus } = await start(t);
  const peer = await fake.accept();
  await accept(peer);
  for (const code of ["unauthorized", "forbidden"]) {
    const published = assert.rejects(bus.publish("a", 1), { code, message: `it is ${code}` });
    peer.error(await peer.next("publish"), code);
    await published;
    const chat = bus.subscribe("a");
    peer.error(await peer.next("subscribe"), code);
    await assert.rejects(chat.ready, { code });
    await assert.rejects(collect(chat).done, { code });
  }
});
