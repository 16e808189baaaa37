/**
 * For pages whose WebSockets are blocked, by a proxy for example: takes the place of the WebSocket class in ringyard.js, and
 * speaks `ringyard.v1` with the client as a WebSocket would, but subscribes by server-sent events and publishes by `POST`.
 *
 *     connect(url, { fallback: () => import("/ringyard-sse.js") })
 *
 * The client loads it when it has failed three times in a row. A socket of `fallback(WebSocket)` first tries a WebSocket. If that
 * does not open in time, or several ended right after they had opened, and the broker answers over HTTP all the same, it is
 * blocked: this socket and the next ones go without. About once a minute a WebSocket is tried beside. If that is answered, the
 * socket closes, and the client comes back over a WebSocket. If HTTP does not answer either, the broker is away, and the next
 * socket tries a WebSocket first.
 *
 * Nothing is lost between the two: the client subscribes with its positions, as after every break. What HTTP cannot do is
 * answered `unsupported`.
 *
 * Times are milliseconds. A stream costs one connection, so a socket has at most `STREAMS` of them: over HTTP/1.1 a browser has
 * six for a host. Publishes that wait go out together, one request after the other, in their order.
 */

const OPEN_TIMEOUT = 5000; // a WebSocket that has not opened by then is blocked
const SHORT = 10000; // one that broke within this time of its opening may have been cut on purpose
const SHORT_MAX = 2; // more in a row, and they are blocked
const PROBE = 60000; // between two tries whether WebSockets work again
const SILENCE = 50000; // the broker sends something at least every 20 s
const STREAMS = 4;
const BATCH = 100; // publishes of a request
const SEEN = 5000; // messages that several streams may bring

const made = new WeakSet(); // the classes of `fallback`

/** `topic` as the path of a URL. */
const pathOf = (topic) => topic.split("/").map(encodeURIComponent).join("/");

/** A class in place of `WebSocket`, or the same again if it is one. */
export const fallback = (WebSocket) => {
  if (made.has(WebSocket)) return WebSocket;
  const shared = { _isBlocked: false, _short: 0 };
  class Replacement {
    constructor(url, protocol) {
      return createSocket(WebSocket, shared, url, protocol);
    }
  }
  made.add(Replacement);
  return Replacement;
};

const createSocket = (WebSocket, shared, url, protocol) => {
  const streams = new Map(); // by topic: what ends it
  const outbox = []; // publish commands
  const seen = new Map(); // "topic offset" of messages, oldest first: as the how manyth it was said
  let said = 0; // messages
  const timers = new Set();
  let posting; // the request under way
  let inner; // the WebSocket, while it is one, or while one is tried
  let token;
  let closed;

  const at = (path) => {
    const address = new URL(path, new URL(url, globalThis.location?.href));
    address.protocol = address.protocol.replace("ws", "http");
    return address;
  };

  const later = (f, ms) => {
    const timer = setTimeout(() => timers.delete(timer) && f(), ms);
    timers.add(timer);
    return timer;
  };

  const request = (path, options) =>
    fetch(at(path), {
      cache: "no-store",
      ...options,
      headers: { ...options?.headers, ...(token && { authorization: `Bearer ${token}` }) },
    });

  /** Ends it all. Nothing is said afterwards. */
  const close = () => {
    closed = true;
    for (const timer of timers) clearTimeout(timer);
    for (const stop of streams.values()) stop();
    streams.clear();
    letGo();
  };

  const letGo = () => {
    if (inner) inner.onopen = inner.onmessage = inner.onclose = null;
    inner?.close();
    inner = undefined;
  };

  const end = (code, reason) => {
    if (closed) return;
    close();
    socket.onclose?.({ code, reason });
  };

  /** As if the broker had said it, but never while the client is still speaking. */
  const say = (message) =>
    queueMicrotask(() => closed || socket.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) }));

  const refuse = (id, code, reason, more) => say({ ...more, type: "error", id, code, reason });

  const overWebSocket = () => {
    let openedAt;
    const blocked = () => {
      letGo();
      overHttp();
    };
    inner = new WebSocket(url, protocol);
    const timer = later(blocked, OPEN_TIMEOUT);
    inner.onopen = (event) => {
      clearTimeout(timer);
      openedAt = Date.now();
      socket.onopen?.(event);
    };
    inner.onmessage = (event) => socket.onmessage?.(event);
    inner.onerror = () => {}; // `close` follows
    inner.onclose = ({ code, reason }) => {
      clearTimeout(timer);
      if (!openedAt) return blocked();
      shared._short = code === 1006 && Date.now() - openedAt < SHORT ? shared._short + 1 : 0;
      if (shared._short > SHORT_MAX) shared._isBlocked = true;
      end(code, reason);
    };
  };

  /** Is open as soon as the broker answers. Where a proxy does not pass that path on, its 404 shows that HTTP works, too. */
  const overHttp = async () => {
    const { status } = await request("readyz").catch(() => ({}));
    if (closed) return;
    shared._isBlocked = status < 500;
    if (!shared._isBlocked) return end(1006, "neither a WebSocket nor HTTP");
    socket.transport = "sse";
    socket.onopen?.({});
    probeLater();
  };

  const probeLater = () => later(probe, PROBE * (0.5 + Math.random()));

  /** Whether WebSockets work again: one is opened beside, and has to be answered. */
  const probe = () => {
    const failed = () => {
      clearTimeout(timer);
      letGo();
      if (!closed) probeLater();
    };
    inner = new WebSocket(url, protocol);
    const timer = later(failed, OPEN_TIMEOUT);
    inner.onopen = () => inner.send('{"type":"ping"}');
    inner.onclose = failed;
    inner.onerror = () => {};
    inner.onmessage = async () => {
      clearTimeout(timer);
      letGo();
      await posting;
      shared._isBlocked = false;
      shared._short = SHORT_MAX; // once more is enough
      end(1006, "WebSockets work again");
    };
  };

  const subscribe = async ({ id, topic, since, last, state }) => {
    if (streams.size >= STREAMS) return refuse(id, "limit", `over server-sent events there are at most ${STREAMS} subscriptions`);
    const controller = new AbortController();
    streams.set(topic, () => controller.abort());
    const isOurs = () => !closed && !controller.signal.aborted;
    const query = ["envelope=1"];
    if (since) query.push(`since=${since.epoch}:${since.offset}`);
    else if (last) query.push(`last=${last}`);
    if (state !== false) query.push("state=1");
    try {
      const answer = await request(`sub/${pathOf(topic)}?${query.join("&")}`, {
        headers: { accept: "text/event-stream" },
        signal: controller.signal,
      });
      if (answer.status !== 200) return await refused(answer, id, topic);
      const stream = {}; // its beginning: how many messages had been said
      await read(answer.body, (name, data) => isOurs() && take(stream, name, data, id, topic));
      if (isOurs()) end(1012, "the stream ended");
    } catch {
      if (isOurs()) end(1006, "the stream broke");
    }
  };

  const refused = async (answer, id, topic) => {
    streams.delete(topic);
    if (answer.status === 401) return end(4401, "no valid token");
    if (answer.status >= 500) return end(1013, `status ${answer.status}`);
    const { code, detail } = await answer.json().catch(() => ({}));
    refuse(id, code ?? (answer.status === 403 ? "forbidden" : "bad-command"), detail ?? `status ${answer.status}`);
  };

  /** Reads events until the stream ends; one that is silent breaks. HTML standard, 9.2.6; the broker ends lines with LF. */
  const read = async (body, takeEvent) => {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timers.delete(timer);
    };
    try {
      for (;;) {
        timer = later(() => end(1006, "no sign of life"), SILENCE);
        const { value, done } = await reader.read();
        heard();
        if (done) return;
        const events = (text + decoder.decode(value, { stream: true })).split("\n\n");
        text = events.pop();
        for (const event of events) {
          let name = "message";
          const data = [];
          for (const line of event.split("\n")) {
            if (line.startsWith("event: ")) name = line.slice(7);
            if (line.startsWith("data: ")) data.push(line.slice(6));
          }
          if (data.length) takeEvent(name, data.join("\n"));
        }
      }
    } finally {
      heard();
    }
  };

  /** An event is what `ringyard.v1` would say, but for the first and for the end of the right to have it. */
  const take = (stream, name, text, id, topic) => {
    const data = JSON.parse(text);
    if (name === "position") {
      if (!data.envelope) {
        streams.get(topic)?.();
        streams.delete(topic);
        return refuse(id, "unsupported", "this broker's events do not say enough");
      }
      stream.from = said;
      say({ type: "ok", id, topics: [{ ...data, topic, offset: data.offset + 1 }] });
    } else if (name === "expired") {
      if (data.code === 4401) return end(4401, data.reason);
      streams.get(topic)?.();
      streams.delete(topic);
      say({ type: "ended", topic, code: "forbidden", reason: data.reason });
    } else if (name !== "message" || isNew(stream, data)) {
      say(text);
    }
  };

  /**
   * The client expects each message once, however many of its subscriptions match. One that was said before this stream had begun
   * is said again: the client could not give it to this subscription then.
   */
  const isNew = (stream, { topic, offset, state }) => {
    const key = `${topic} ${offset}`;
    if (state || streams.size < 2) return ++said;
    if (seen.get(key) > stream.from) return false;
    seen.set(key, ++said);
    if (seen.size > SEEN) seen.delete(seen.keys().next().value);
    return true;
  };

  const post = async () => {
    while (outbox.length && !closed) {
      const batch = outbox.splice(0, BATCH);
      const messages = batch.map(({ type, id, ...item }) => item);
      const answer = await request("pub", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ messages }),
      });
      if (answer.status === 401) return end(4401, "no valid token");
      const fallen = { code: answer.status === 403 ? "forbidden" : "busy", detail: `status ${answer.status}` };
      const { results, code, detail } = await answer.json().catch(() => fallen); // a proxy answers something else
      batch.forEach(({ id }, index) => {
        const { type, title, status, topic, detail: reason, ...result } = results?.[index] ?? { code, detail };
        if (result.code) refuse(id, result.code, reason, result);
        else say({ type: "ok", id, ...result });
      });
    }
  };

  const commands = {
    connect: (command) => {
      token = command.token;
      say({ type: "ok", id: command.id });
      if (command.will) refuse(undefined, "unsupported", "a last will needs a WebSocket");
    },
    ping: () => say({ type: "pong" }),
    pong: () => {},
    disconnect: () => {},
    subscribe,
    unsubscribe: ({ topic }) => {
      streams.get(topic)?.();
      streams.delete(topic);
    },
    publish: (command) => {
      outbox.push(command);
      posting ??= post()
        .catch(() => end(1006, "a request failed"))
        .finally(() => (posting = undefined));
    },
  };

  const socket = {
    transport: "websocket",
    onopen: null,
    onmessage: null,
    onclose: null,
    onerror: null,
    close,
    send: (text) => {
      if (socket.transport === "websocket") return inner.send(text);
      const command = JSON.parse(text);
      const carryOut = commands[command.type];
      if (carryOut) carryOut(command);
      else refuse(command.id, "unsupported", `"${command.type}" needs a WebSocket, which is blocked`);
    },
  };

  if (shared._isBlocked) overHttp();
  else overWebSocket();
  return socket;
};
