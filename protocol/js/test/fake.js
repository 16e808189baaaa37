/**
 * A scripted broker for the tests: it says only what a test tells it to, over real WebSockets of the package `ws`. It
 * answers nothing by itself but `connect`.
 */

import { WebSocket, WebSocketServer } from "ws";

/** The client under test: the source, or one of its builds. */
export const { connect } = await import(process.env.RINGYARD_CLIENT ?? "../ringyard.js");

const MAX_WAIT = 5000;

/** Waits, in real time, until `condition` holds. Timers may be mocked meanwhile. */
export const until = async (condition, what = condition) => {
  const begun = performance.now();
  while (!condition()) {
    if (performance.now() - begun > MAX_WAIT) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
};

/**
 * Lets everything that is on its way in this process arrive: many turns of the event loop, because each polls the sockets,
 * and some time, however busy the machine is.
 */
export const settle = async () => {
  const begun = performance.now();
  for (let turns = 0; turns < 50 || performance.now() - begun < 30; turns++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
};

/** One connection, as the broker sees it. */
class Peer {
  constructor(socket) {
    this.socket = socket;
    this.commands = [];
    this.closed = null;
    socket.on("close", (code) => (this.closed = code));
  }

  /** The next command of this type; those of other types stay where they are. */
  async next(type) {
    const find = () => this.commands.findIndex((command) => command.type === type);
    await until(() => find() >= 0, `a command ${type}, only ${JSON.stringify(this.commands)}`);
    return this.commands.splice(find(), 1)[0];
  }

  say(message) {
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message));
  }

  ok(command, members) {
    this.say({ type: "ok", id: command.id, ...members });
  }

  error(command, code, members) {
    this.say({ type: "error", id: command.id, code, reason: `it is ${code}`, ...members });
  }

  message(topic, offset, data = `m${offset}`, members) {
    this.say({ type: "message", topic, offset, data, ...members });
  }

  /** Answers the next subscribe, which must be to this topic; returns it. */
  async subscribed(topic, members = { epoch: EPOCH, offset: 1 }) {
    const command = await this.next("subscribe");
    if (command.topic !== topic) throw new Error(`subscribed to ${command.topic}, not to ${topic}`);
    this.ok(command, { topics: [{ topic, ...members }] });
    return command;
  }

  close(code, reason) {
    this.socket.close(code, reason);
  }

  /** Ends the connection without a word. */
  cut() {
    this.socket.terminate();
  }
}

export const EPOCH = "00000000000000aa";
export const OTHER_EPOCH = "00000000000000bb";

class Fake {
  /** `connectAnswer(command)` is what `connect` is answered with; null: nothing. */
  constructor(server, connectAnswer) {
    this.url = `ws://127.0.0.1:${server.address().port}/ws`;
    this.server = server;
    this.peers = [];
    this.accepted = 0;
    server.on("connection", (socket) => {
      const peer = new Peer(socket);
      socket.on("message", (data) => {
        const command = JSON.parse(data);
        const answer = command.type === "connect" && connectAnswer?.(command);
        if (answer) peer.say(answer);
        else peer.commands.push(command);
      });
      this.peers.push(peer);
    });
  }

  /** The next connection. */
  async accept() {
    await until(() => this.peers.length > this.accepted, "another connection");
    return this.peers[this.accepted++];
  }

  stop() {
    for (const peer of this.peers) peer.cut();
    this.server.close();
  }
}

/** Answers of brokers to `connect`. */
export const pings = (ping) => ({ id }) => ({ type: "ok", id, ping });
export const older = ({ id }) => ({ type: "error", id, code: "bad-command", reason: 'unknown member "ping"' });

/**
 * Answers `connect` as a broker with sessions does: `known` has those that are still there, `hellos` the commands. Each
 * new session is numbered.
 */
export const sessions = () => {
  let last = 0;
  const answer = (command) => {
    const { id, session } = command;
    answer.hellos.push(command);
    const ok = { type: "ok", id, member: "ada", ping: 25000, server: "ringyard/0" };
    if (!session) return ok;
    if (answer.known.has(session)) return { ...ok, session, resumed: true };
    answer.known.add(`s${++last}`);
    return { ...ok, session: `s${last}`, resumed: false };
  };
  return Object.assign(answer, { hellos: [], known: new Set() });
};

/** Starts a fake broker that ends with the test. */
export const startFake = async (t, connectAnswer = pings(25000)) => {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await new Promise((resolve) => server.on("listening", resolve));
  const fake = new Fake(server, connectAnswer);
  t.after(() => fake.stop());
  return fake;
};

/** A bus on a fake broker, which ends with the test, and all that it said about itself. */
export const startBus = (t, fake, options) => {
  const bus = connect(fake.url, { WebSocket, ...options });
  const states = [];
  const errors = [];
  bus.on("state", (event) => states.push(event));
  bus.on("error", (error) => errors.push(error));
  t.after(() => bus.close());
  return { bus, states, errors };
};

/** A bus with a session at a fake broker that keeps sessions. */
export const startSession = async (t, options) => {
  const answer = sessions();
  return { answer, ...(await startBoth(t, answer, { session: true, ...options })) };
};

/** A fake broker and a bus that is connected to it. */
export const startBoth = async (t, connectAnswer, options) => {
  const fake = await startFake(t, connectAnswer);
  const started = startBus(t, fake, options);
  const peer = await fake.accept();
  await until(() => started.bus.state === "open", "open");
  return { fake, peer, ...started };
};

/** Reads messages of a subscription into a list. */
export const collect = (subscription) => {
  const messages = [];
  messages.done = (async () => {
    for await (const message of subscription) messages.push(message);
  })();
  messages.done.catch(() => {});
  return messages;
};

/** Reconnects happen at once. */
export const noDelay = (t) => t.mock.method(Math, "random", () => 0);

export const offsets = (messages) => messages.map(({ offset }) => offset);
