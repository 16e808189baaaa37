/**
 * The JavaScript client of Ringyard: the sub-protocol `ringyard.v1` over one WebSocket, for browsers and for Node.
 *
 * `connect` makes a bus, which owns the WebSocket: it reconnects, finds dead connections, sends commands and hands
 * messages to the subscriptions. `createSubscription` makes what `bus.subscribe` returns: it knows its position in the
 * topic, tells gaps, keeps the state of a keyed topic and queues messages for a slow reader. `createRegistrations` tells the
 * broker, after each reconnect, where this client is present and what it responds to, and renews its leases.
 *
 * Invariant: of a topic and an epoch, a subscription delivers each offset at most once and in rising order, and what it
 * leaves out between two offsets was told to `ongap` before. Messages flagged `state` are exempt.
 *
 * Invariant: with a token, a session or a will, nothing but `connect` is sent on a connection before the broker has accepted
 * it. At most one call of the token function is in flight. While one is, or is due, `credential` is empty.
 *
 * Invariant: the reply to a request goes over the connection that the request came by, or not at all.
 *
 * Times are milliseconds. A subscription queues at most `QUEUE_MESSAGES` messages and `QUEUE_LENGTH` characters of their
 * JSON. A message costs one `JSON.parse`, one look-up by topic and one regular expression per filter with wildcards.
 *
 * Everything is in closures, because that compresses best and is private. What the bus and its subscriptions call of each
 * other begins with `_`; the builds shorten these names (build.js).
 */

const RETRY_MIN = 500;
const RETRY_MAX = 20000;
const RETRY_DRAIN = 5000; // after 1001 and 1012: the broker goes, and all its clients come back
const RETRY_OVERLOAD = 1000; // after 1013: at least this
const STABLE = 10000; // a connection that was open for so long resets the number of attempts
const HANDSHAKE = 20000;
const TOKEN_TIMEOUT = 10000;
const PING = 25000;
const ANSWER_TIMEOUT = 30000;
const REQUEST_TIMEOUT = 5000;
const LATE = 1000; // how much later than the broker we give a request up: its clock decides
const HELD = 100; // publishes, requests and the like that wait for a connection
const LOCK_TIMEOUT = 200; // a page that reloads may still have the lock of its session for a moment
const REASON = 340; // characters of a responder's reason; the broker takes 1024 bytes
const BUSY = 1000; // when to repeat what the broker was too busy for
const KEYS_PER_SECOND = 5; // idempotency keys of our own; the broker may refuse more than ten in any second
const QUEUE_MESSAGES = 1000;
const QUEUE_LENGTH = 2 ** 20;
const SEEN_TOPICS = 10000;
const THROTTLE_MAX = 5000;
const FALLBACK_ATTEMPTS = 2; // who failed more often in a row loads what replaces WebSockets
const WAKE_EVENTS = ["online", "visibilitychange", "pageshow"];

/**
 * An error with the broker's code, or one of ours: timeout, offline, disconnected, closed, overflow, token; and too-big and
 * bad-json, where the broker cannot say which command it means.
 */
const failure = (code, reason, more) => Object.assign(new Error(reason), { code, ...more });

const endReason = (topic) => `the broker ended the subscription to ${topic}`;

/** What is left of options when the known ones were taken. None is ignored. */
const refuse = (unknown) => {
  for (const name in unknown) throw new TypeError(`unknown option "${name}"`);
};

/** What a broker answers if it does not know a command, or a member of one. */
const isUnknown = (code) => code === "bad-command" || code === "unsupported";

/** Calls a function of the application. What it throws is reported, and does not stop the client. */
const call = (f, argument) => {
  try {
    return f?.(argument);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
};

/** How long to wait before attempt `n`, counted from 0: full jitter. */
const backoff = (n) => Math.random() * Math.min(RETRY_MAX, RETRY_MIN * 2 ** n);

// A hidden page has no animation frames.
const nextFrame = (f) =>
  globalThis.requestAnimationFrame && !globalThis.document?.hidden ? requestAnimationFrame(f) : setTimeout(f, 16);

/** What matches a filter with wildcards. A leading wildcard does not match topics that begin with `$`. */
const filterPattern = (filter) =>
  new RegExp(
    (/^[+#]/.test(filter) ? "^(?!\\$)" : "^") +
      filter
        .replace(/[^\w/+#]/g, "\\$&")
        .replace(/\+/g, "[^/]*")
        .replace(/(\/?)#$/, "($1.*)?") +
      "$",
  );

/**
 * Throws if a string in a command, or in what it carries, has half a surrogate pair, such as an emoji that was cut. The
 * broker takes none, and could not say whose it was. JSON escapes a half as it escapes no other character.
 */
const checkText = (members) => {
  if (/[^\\](\\\\)*\\ud/.test(JSON.stringify(members))) throw failure("bad-json", "half a surrogate pair");
};

const toBase64 = (bytes) => btoa(bytes.reduce((binary, byte) => binary + String.fromCharCode(byte), ""));

/** A payload as members of a publish command. */
const encode = (data) =>
  data instanceof ArrayBuffer || ArrayBuffer.isView(data)
    ? { data: toBase64(new Uint8Array(data.buffer ?? data, data.byteOffset, data.byteLength)), encoding: "base64" }
    : { data };

const decode = ({ data, encoding }) => {
  if (!encoding) return data;
  if (encoding !== "base64") throw failure("unsupported", `unknown encoding "${encoding}"`);
  return Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
};

/** A position as the broker wants it; without an epoch if the text is none. */
const parsePosition = (text) => {
  const [, epoch, offset] = /^([0-9a-f]{16}):(\d+)$/.exec(text) ?? [];
  return { epoch, offset: +offset };
};

/** A will as the broker wants it. */
const encodeWill = ({ data, ...options }) => ({ ...options, ...encode(data) });

/** Returns what the bus needs of a subscription, and as `_public` what the application gets. */
const createSubscription = (bus, topic, options) => {
  const { since: sinceText, last, state: wantsState, throttle, frame, onoverflow, ...unknown } = options;
  refuse(unknown);
  checkText({ topic });
  if (throttle !== undefined && (throttle >>> 0 !== throttle || throttle > THROTTLE_MAX)) {
    throw new TypeError(`throttle is an integer from 0 to ${THROTTLE_MAX}`);
  }

  const pattern = /[+#]/.test(topic) && filterPattern(topic);
  const seen = new Map(); // of a filter: the newest offset of each topic
  const map = new Map(); // of a keyed topic: the newest message of each key
  const waiters = []; // promises that iterators wait for
  let early; // [message, length] that came by a filter before the broker answered this subscription
  let queue = []; // [message or nothing, length, epoch, offset]
  let queueLength = 0;
  let due = frame ? 0 : Infinity; // how much of the queue may be delivered now
  let scheduled, stateChanged; // a frame will come; the state is to be told then

  let asked; // the broker has been sent our subscribe and has not answered it
  let active; // it has answered it, on this connection
  let again; // it has answered one, on any
  let ended, error;
  let epoch, newest; // the last message that came
  let delivered; // the last message that the application has been given: [epoch, offset]
  let keyed, conflated;
  let mapped; // it is keyed, and the application did not decline its state
  let live; // the state has come
  let onmessage, iterated;
  let begunAt; // the position that the application asked for

  if (sinceText != null) {
    begunAt = parsePosition(sinceText);
    if (!begunAt.epoch || pattern || last != null) {
      throw new TypeError("since is EPOCH:OFFSET of one topic, no last");
    }
    delivered = Object.values(begunAt);
  }

  /** Subscribes on a new connection: where we left off, or as the application asked at first. */
  const begin = () => {
    const since = epoch ? { epoch, offset: newest } : again ? undefined : begunAt;
    asked = true;
    early = [];
    bus._command(
      { type: "subscribe", topic, since, last: again ? undefined : last, state: wantsState, throttle },
      ({ code, reason, topics }) => {
        asked = false;
        if (ended) {
          bus._left(topic, code);
        } else if (code === "busy") {
          setTimeout(() => asked || active || ended || !bus._isOpen() || begin(), BUSY);
        } else if (again && since && isUnknown(code)) {
          epoch = undefined; // this broker recovers nothing
          begin();
        } else if (code) {
          end(failure(code, reason));
        } else {
          begun(topics[0], since);
        }
      },
    );
  };

  const begun = ({ epoch: epochNow, offset, recovered, available, history, slow_consumer }, since) => {
    active = true;
    if (again && !since) gap({ reason: "reconnect" });
    if (!pattern) {
      epoch = epochNow;
      keyed = history === "keyed";
      mapped = keyed && wantsState !== false;
      live = false;
      conflated = slow_consumer === "latest";
      if (!recovered) map.clear();
      newest = recovered ? since.offset : mapped ? 0 : offset - 1;
      push();
    }
    if (since && !recovered) {
      const same = since.epoch === epoch;
      bus._forget(topic);
      gap({
        from: same && since.offset < offset ? since.offset + 1 : 1,
        to: offset - 1,
        reason: same ? "unrecovered" : "epoch",
        available,
      });
    }
    again = true;
    resolveReady({ recovered, position: subscription.position, available, history });
    takeEarly(isNext);
  };

  const take = (message, length) => {
    if (!active) {
      if (asked && !pattern) early.push([message, length]);
      return;
    }
    takeEarly((first) => first.offset < message.offset);
    place(message, length);
    takeEarly(isNext);
  };

  /** The messages that the broker sent only once, by a filter, are delivered where they belong. */
  const takeEarly = (isDue) => {
    while (early.length && isDue(early[0][0])) place(...early.shift());
  };

  const isNext = ({ offset, prev = offset - 1 }) => prev <= newest;

  const place = (message, length) => {
    const { topic, offset, state, up_to, key = "" } = message;
    if (pattern) {
      // The same offset again: a subscription to the topic itself recovers what this one has had. Else: a new epoch.
      if (!state) {
        if (bus._has(topic) && offset <= seen.get(topic)) return;
        seen.set(topic, offset);
        if (seen.size > SEEN_TOPICS) seen.delete(seen.keys().next().value);
      }
    } else if (state) {
      newest = keyed ? offset : Math.max(newest, up_to ?? 0);
    } else {
      if (offset <= newest) return;
      if (!conflated && !isNext(message)) {
        gap({ from: newest + 1, to: message.prev ?? offset - 1, reason: "missing" });
      }
      newest = offset;
    }
    if (mapped) {
      if (message.removed) map.delete(key);
      else map.set(key, message);
      tellState();
      // Who only looks at the state reads no messages, so none wait.
      if (subscription.onstate && !onmessage && !iterated) message = null;
    }
    push(message, length);
  };

  const stateEnd = (offset) => {
    if (!keyed) return;
    newest = Math.max(newest, offset);
    live = true;
    push();
    tellState();
    takeEarly(isNext);
  };

  /** The broker says that messages will not come. */
  const brokerGap = (message) => {
    if (!active) return;
    // One that is told ahead of the messages before it does not hide these.
    if (message.from <= newest + 1) newest = Math.max(newest, message.to);
    gap(message);
    takeEarly(isNext);
  };

  /** The topic began anew under a live subscription. */
  const reset = ({ epoch: epochNow, offset, ...more }) => {
    if (!active) return;
    bus._forget(more.topic);
    if (!pattern) {
      epoch = epochNow;
      newest = offset;
      map.clear();
      push();
      tellState();
    }
    gap({ ...more, from: 1, to: offset });
  };

  /** The broker ended the subscription, because it is no longer granted. */
  const brokerEnd = ({ code, reason = endReason(topic) }) => {
    if (!active) return; // it is about one that was closed meanwhile
    active = false;
    end(failure(code, reason));
  };

  const gap = (what) => call(subscription.ongap, { topic, ...what });

  const tellState = () => {
    if (!live || !mapped) return;
    if (frame) {
      stateChanged = true;
      schedule();
    } else {
      call(subscription.onstate, map);
    }
  };

  /** Queues a message, or only the position, for the application. */
  const push = (message, length = 0) => {
    queue.push([message, length, epoch, newest]);
    queueLength += length;
    if (frame && message) schedule();
    pump();
    if (isOver(1)) overflow();
  };

  const isOver = (share) =>
    queue.length > QUEUE_MESSAGES * share || (queue.length > 1 && queueLength > QUEUE_LENGTH * share);

  const overflow = () => {
    const choice = call(onoverflow, subscription);
    const gaps = new Map();
    const drop = ([message, length]) => {
      queueLength -= length;
      if (!message) return;
      const { topic, offset: to = message.up_to } = message;
      gaps.set(topic, { from: to, ...gaps.get(topic), topic, to, reason: "overflow" });
    };
    if (choice === "close") {
      end(failure("overflow", "too slow"));
    } else if (choice === "newest") {
      drop(queue.pop());
    } else {
      // A quarter at once, so that a slow reader is told one gap and not hundreds.
      while (isOver(0.75)) {
        drop(queue.shift());
        if (due) due--;
      }
    }
    gaps.forEach(gap);
  };

  const schedule = () => {
    if (scheduled) return;
    scheduled = true;
    nextFrame(() => {
      scheduled = false;
      due = queue.length;
      pump();
      if (stateChanged) {
        stateChanged = false;
        call(subscription.onstate, map);
      }
    });
  };

  /** Gives what is queued, and due, to those that read. */
  const pump = () => {
    while (queue.length) {
      const [message, length, ...position] = queue[0];
      if (message && (!due || (!onmessage && !waiters.length))) return;
      queue.shift();
      queueLength -= length;
      if (due) due--;
      delivered = position;
      if (!message) continue;
      if (onmessage) call(onmessage, message);
      else waiters.shift()({ value: message });
    }
    if (ended) {
      for (const resolve of waiters.splice(0)) {
        resolve(error ? Promise.reject(error) : { value: undefined, done: true });
        error = null;
      }
    }
  };

  /** Ends the subscription. With an error, what is queued is still delivered, then the iterator throws. */
  const end = (why) => {
    if (ended) return;
    ended = true;
    error = why;
    due = Infinity;
    if (!error) queue = [];
    bus._leave(topic, asked, active);
    active = false;
    rejectReady(error || failure("closed", "it is closed"));
    if (error) bus._emit("error", error);
    pump();
  };

  let resolveReady, rejectReady;
  const ready = new Promise((resolve, reject) => {
    resolveReady = resolve;
    rejectReady = reject;
  });
  // Callers that do not wait for it learn of the error by the iterator and by the bus.
  ready.catch(() => {});

  const subscription = {
    topic,
    ready,
    onstate: null,
    ongap: null,
    /** Where the application is: what it has been given, which may be less than what came. */
    get position() {
      return delivered?.[0] && delivered.join(":");
    },
    get onmessage() {
      return onmessage;
    },
    set onmessage(f) {
      onmessage = f;
      pump();
    },
    close() {
      end();
    },
    [Symbol.asyncIterator]() {
      iterated = true;
      return {
        next: () =>
          new Promise((resolve) => {
            waiters.push(resolve);
            pump();
          }),
        return: async (value) => {
          end();
          return { value, done: true };
        },
      };
    },
  };

  const disconnected = () => {
    asked = active = false;
    // Without a subscription of its own, a topic may begin anew unnoticed.
    for (const name of seen.keys()) bus._has(name) || seen.delete(name);
  };

  return {
    _public: subscription,
    _pattern: pattern,
    _seen: seen,
    _begin: begin,
    _take: take,
    _gap: brokerGap,
    _reset: reset,
    _stateEnd: stateEnd,
    _brokerEnd: brokerEnd,
    _disconnected: disconnected,
    _end: end,
  };
};

/** Of two filters that match a topic, the more specific one sorts first: a level before "+", and that before "#". */
const responderKey = (filter) => `r${filter.replace(/\+/g, "\uffff").replace(/#/g, "\uffff\uffff")}`;

/**
 * What the broker registers for this client: where it is present, what it responds to, a will that was set later than
 * `connect`, and leases. All but leases is registered again on each connection that needs it.
 */
const createRegistrations = (bus) => {
  const entries = new Map(); // by kind and topic
  const leases = new Map(); // by what the application has: how to renew it, and what to do when it ends

  const register = (key, command, responder) => {
    bus._checkOpen();
    checkText(command);
    let entry;
    const promise = new Promise((resolve, reject) => {
      entry = { _command: command, _responder: responder, _resolve: resolve, _reject: reject };
    });
    // Callers that do not wait for it learn of the error by the bus.
    promise.catch(() => {});
    entries.get(key)?._resolve(promise);
    entries.set(key, entry);
    send(key, entry);
    return promise;
  };

  const send = (key, entry) => {
    if (!bus._isOpen() || entry._done || entries.get(key) !== entry) return;
    const { _command: command } = entry;
    const { type } = command;
    bus._command(command, ({ code, reason }) => {
      if (code === "busy") return setTimeout(() => send(key, entry), BUSY);
      const isOver = type === "leave" || type === "will";
      // Who was not present, for example since the session has ended, has left.
      const error = code && !(isOver && code === "not-found") && failure(code, reason);
      if ((error || isOver) && entries.get(key) === entry) entries.delete(key);
      entry._done = true;
      if (error) {
        entry._reject(error);
        bus._emit("error", error);
      }
      entry._resolve();
    });
  };

  /** A connection has begun. With `resumed`, the broker has kept what it knew, but for responders. */
  const begin = (resumed) => {
    for (const [key, entry] of entries) {
      const { _command: command } = entry;
      if (command.type === "respond" || !resumed) {
        entry._done = false;
        command.type = command.type.replace("update", "enter");
      }
      send(key, entry);
    }
    leases.forEach(([renew, end]) => (resumed ? renew() : end("expired")));
  };

  const end = (error) => {
    entries.forEach(({ _reject }) => _reject(error));
    entries.clear();
    leases.forEach(([, end]) => end("closed"));
  };

  /** Calls the most specific responder, and replies what it returns or throws. */
  const respond = async ({ type, reply, ...request }, send) => {
    let members;
    try {
      const [[, first] = []] = [...entries]
        .filter(([, entry]) => entry._responder && filterPattern(entry._command.topic).test(request.topic))
        .sort(); // by their keys
      if (!first) throw failure("no-responder", "the responder ended");
      members = encode((await first._responder({ ...request, data: decode(request) })) ?? null);
      checkText(members);
    } catch (error) {
      const { code, message } = error ?? {};
      const reason = `${message ?? error}`.slice(0, REASON);
      members = { error: { code: typeof code === "string" ? code : "error", reason } };
    }
    send({ type: "reply", reply, ...members });
  };

  /** What was granted, until it is released or lost. */
  const createLease = (topic, number, ttl) => {
    let lose; // nothing once it is released
    const lost = new Promise((resolve) => (lose = resolve));
    const renew = () => {
      if (!bus._isOpen()) return;
      if (!lose) leases.delete(lease);
      bus._command({ type: "lease", topic, lease: number, ...(lose ? { ttl } : { end: true }) }, ({ code }) => {
        if (code && code !== "busy") end("expired");
      });
    };
    const end = (reason) => {
      clearInterval(timer);
      leases.delete(lease);
      lose?.(reason);
    };
    const release = () => {
      if (!leases.has(lease)) return;
      lose = undefined;
      clearInterval(timer);
      renew();
    };
    const timer = setInterval(renew, ttl / 3);
    const lease = { topic, lease: number, ttl, lost, release };
    leases.set(lease, [renew, end]);
    return lease;
  };

  const present = (type) => (topic, info) => register(`p${topic}`, { type, topic, info });
  const leave = present("leave");

  return {
    _begin: begin,
    _respond: respond,
    _left: (topic) => entries.has(`p${topic}`) && leave(topic),
    _end: end,
    _ended: ({ topic, code }) => {
      entries.delete(responderKey(topic));
      bus._emit("error", failure(code, endReason(topic)));
    },
    _leaseLost: ({ topic, lease, reason }) => {
      for (const [held, [, end]] of leases) if (held.topic === topic && held.lease === lease) end(reason);
    },
    _will: (will) => register("w", { type: "will", ...(will ? { will } : { end: true }) }),
    _public: {
      enter: present("enter"),
      update: present("update"),
      leave,
      respond(topic, responder) {
        const key = responderKey(topic);
        if (entries.has(key)) throw failure("already-subscribed", `already subscribed to "${topic}"`);
        register(key, { type: "respond", topic }, responder);
        const entry = entries.get(key);
        return () => {
          if (entries.get(key) !== entry) return;
          entries.delete(key);
          if (bus._isOpen()) bus._command({ type: "respond", topic, end: true }, () => {});
        };
      },
      async lease(topic, { ttl, wait, signal, ...unknown } = {}) {
        refuse(unknown);
        return bus._ask({ type: "lease", topic, ttl, wait }, signal, (wait ?? 0) + ANSWER_TIMEOUT, (answer, isLate) => {
          const lease = createLease(topic, answer.lease, answer.ttl);
          if (isLate) lease.release();
          return lease;
        });
      },
    },
  };
};

export const connect = (url, options = {}) => {
  // `session` is its secret id, or true for a new one.
  let { WebSocket = globalThis.WebSocket, token, session, will, fallback, ...unknown } = options;
  const canFetch = typeof token === "function";
  refuse(unknown);
  if (token !== undefined && !canFetch && !(token && typeof token === "string")) {
    throw new TypeError("token is a string or a function");
  }
  if (will) checkText((will = encodeWill(will)));
  if (!WebSocket) throw new TypeError("there is no WebSocket; pass one");

  const listeners = { state: new Set(), error: new Set(), goaway: new Set() };
  const subscriptions = new Map(); // by topic or filter
  const filters = new Set(); // of the subscriptions, those with wildcards
  const leaving = new Set(); // filters that were closed before the broker answered
  const answers = new Map(); // what waits for an answer, by the id of the command
  const asks = new Set(); // publishes and other commands whose caller waits, oldest first
  const keyPrefix = crypto.getRandomValues(new Uint32Array(4)).join("-");
  let state = "connecting";
  let socket;
  let retryTimer, watcher;
  let lastId = 0;
  let attempts = 0;
  let keys, keysAt = 0; // how many keys of our own are left in this second, and when it began
  let isReady; // what is asked is sent at once, since all subscriptions of this connection have begun
  let unkeyed; // this broker knows no idempotency keys
  let begunAt, openedAt;
  let seenAt = Date.now(); // the last sign of life
  let credential = canFetch ? undefined : token;
  let fetching; // the token function has not answered yet: the controller that aborts it
  let tokenTimer, tokenAttempts = 0;
  let isFresh; // the token was fetched since the last connection ended
  let isTold; // the broker asked for another token, and there is no function
  let ping, patience, askedAt; // how often signs come; after which silence we ask for one, and when we did
  let unlock; // lets go of the lock that is named after the session
  let member; // who we are in presence
  let retry; // the broker said that it goes: how long to stay away at most

  const isOpen = () => state === "open";

  const emit = (event, value) => {
    if (event === "error" && !listeners.error.size) console.error(value);
    for (const f of [...listeners[event]]) call(f, value);
  };

  const report = ({ code, reason }) => code && emit("error", failure(code, reason));

  /** Sends a command. What waits for its answer remembers how it was sent, until then. */
  const write = (command, answer = {}) => socket.send((answer._text = JSON.stringify(command)));

  /** Sends a command; `answer` gets its `ok` or `error`, unless the connection ends before. */
  const command = (members, answer) => {
    answers.set(++lastId, answer);
    write({ ...members, id: lastId }, answer);
  };

  const open = () => {
    clearTimeout(retryTimer);
    retryTimer = 0;
    if (canFetch && !credential) return fetchToken();
    begunAt = Date.now();
    socket = new WebSocket(url, "ringyard.v1");
    socket.onopen = () => {
      seenAt = Date.now();
      unkeyed = false;
      hello();
      if (!isGuarded()) begin();
    };
    socket.onmessage = ({ data }) => receive(data);
    socket.onclose = ({ code, reason }) => lost(code, reason);
    socket.onerror = () => {}; // `close` follows and says more
    watch();
  };

  /** Commands wait for the answer to `connect`. */
  const isGuarded = () => token || session || will;

  /** Sends `connect`: first on a connection, and again with each new token. */
  const hello = () => {
    const first = isOpen() || { session: session || undefined, will: will || undefined };
    command({ type: "connect", ping: "message", token: credential, ...first }, (answer) => {
      const { code, ping } = answer;
      if (!code || (!isGuarded() && isUnknown(code))) {
        // A broker that does not send pings is asked for signs of life.
        watch(ping, true);
        tokenAttempts = 0;
        member = answer.member;
        useSession(answer.session);
        if (!isOpen()) begin(answer.resumed);
      } else {
        // At first, the broker ends the connection. At a refresh it goes on, until the old token ends.
        report(answer);
        if (token && isOpen()) fetchLater();
      }
    });
  };

  /** The session that this page, or the one before a reload, was given. */
  const useSession = (id) => {
    if (!id || id === session) return;
    session = id;
    try {
      sessionStorage.setItem(storageKey, id);
    } catch {
      // There is no storage, or this page may not use it: a reload draws a new session.
    }
    lock(id);
  };

  /**
   * Holds a lock that is named after the session: a duplicated tab has a copy of our storage, and finds that it is one.
   * Then it calls `then`, with the session if the lock was free. Browsers give locks to secure pages only.
   */
  const lock = (id, then) => {
    const locks = globalThis.navigator?.locks;
    unlock?.();
    if (!locks || !id) return then?.(id);
    const hold = () => {
      then?.(id);
      return state === "closed" || new Promise((resolve) => (unlock = resolve));
    };
    locks.request(`ringyard ${id}`, { signal: AbortSignal.timeout(LOCK_TIMEOUT) }, hold).catch(() => then?.());
  };

  /** The broker takes commands. With `resumed`, it has kept the session. */
  const begin = (resumed) => {
    openedAt = Date.now();
    state = "open";
    for (const { _begin } of subscriptions.values()) _begin();
    registrations._begin(resumed);
    if (!subscriptions.size) sendHeld();
    emit("state", { state });
  };

  /** Calls the token function, and uses what it returns as soon as there is a connection, or may be one. */
  const fetchToken = () => {
    if (fetching) return;
    clearTimeout(tokenTimer);
    credential = 0;
    const controller = (fetching = new AbortController());
    const settle = (value, why = "it returned no text") => {
      if (fetching !== controller) return;
      stopFetching();
      if (value && typeof value === "string") {
        credential = value;
        isFresh = true;
        if (isOpen()) hello();
        else if (!retryTimer) open();
      } else {
        emit("error", failure("token", `the token function failed: ${why}`));
        fetchLater();
      }
    };
    tokenTimer = setTimeout(() => {
      controller.abort();
      settle(0, "it took too long");
    }, TOKEN_TIMEOUT);
    (async () => token({ signal: controller.signal }))().then(settle, (error) => settle(0, error));
  };

  const fetchLater = () => {
    if (fetching) return;
    clearTimeout(tokenTimer);
    credential = 0;
    tokenTimer = setTimeout(fetchToken, backoff(tokenAttempts++));
  };

  const stopFetching = () => {
    clearTimeout(tokenTimer);
    fetching = undefined;
  };

  /** Sends what was held: after the subscriptions, which would miss it, have begun. */
  const sendHeld = () => {
    if (isReady || !isOpen()) return;
    isReady = true;
    for (const entry of asks) send(entry);
  };

  /**
   * Looks for signs of life. `every` is how often the broker sends one; without it, or if it is late, we ask. Only who
   * does not answer is dead: a page that was busy, or whose timers are throttled, looks late itself.
   */
  const watch = (every, answered) => {
    ping = every ?? PING;
    patience = answered && !every ? ping : 1.25 * ping;
    clearInterval(watcher);
    watcher = setInterval(() => {
      const now = Date.now();
      const unanswered = askedAt > seenAt;
      if (isOpen() ? unanswered && now - askedAt >= ping / 4 : now - begunAt > HANDSHAKE) {
        lost(1006, "no sign of life");
      } else if (isOpen() && !unanswered && now - seenAt >= patience) {
        askedAt = now;
        write({ type: "ping" });
      }
    }, ping / 4);
  };

  /** Lets go of the socket; nothing that it still says is heard. */
  const abandon = () => {
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    clearInterval(watcher);
    clearTimeout(retryTimer);
    answers.clear();
    leaving.clear();
  };

  /** The connection is gone: says so, and tries again later, unless the code is final. */
  const lost = (code, reason) => {
    // A token that served earlier connections may be too old. One that was just fetched is not, unless clocks differ.
    const wantsToken = canFetch && (code === 4401 || (code === 4400 && !isFresh));
    if (code === 1009) {
      // A command is longer than the broker allows, which does not say which. It answered none that is, so the longest one
      // without an answer is too long, whether or not others are. Those given up count, too: they were sent.
      const size = (answer) => new Blob([answer._text]).size;
      [...answers.values()].sort((a, b) => size(b) - size(a))[0]?.({ code: "too-big", reason });
    }
    abandon();
    if (code >= 4400 && code < 4500 && !wantsToken) return shut(code, reason);
    if (isOpen() && Date.now() - openedAt >= STABLE) attempts = 0;
    const isFirst = !attempts || !isFresh;
    let delay = backoff(attempts++);
    if (wantsToken) {
      credential = 0;
      if (isFirst) delay = 0;
    }
    isFresh = false;
    if (code === 1001 || code === 1012) delay = Math.random() * (retry ?? RETRY_DRAIN);
    retry = undefined;
    if (code === 1013) delay += RETRY_OVERLOAD;
    retryTimer = setTimeout(open, delay);
    if (attempts > FALLBACK_ATTEMPTS) fallback?.().then((module) => (WebSocket = module.fallback(WebSocket))).catch(() => {});
    state = "connecting";
    for (const { _disconnected } of subscriptions.values()) _disconnected();
    for (const { _members, _reject } of asks) {
      if (isReady && !_members.idempotency_key) {
        _reject(failure("disconnected", "the connection ended"));
      }
    }
    isReady = false;
    emit("state", { state, code, reason, delay });
  };

  const shut = (code, reason) => {
    abandon();
    fetching?.abort();
    stopFetching();
    WAKE_EVENTS.forEach((name) => globalThis.removeEventListener?.(name, wake));
    state = "closed";
    const error = code > 1000 && failure("closed", `the broker closed with ${code}: ${reason}`);
    unlock?.();
    const rejection = error || failure("closed", "the bus is closed");
    for (const { _reject } of asks) _reject(rejection);
    registrations._end(rejection);
    for (const { _end } of subscriptions.values()) _end(error);
    emit("state", { state, code, reason });
  };

  const wake = () => {
    if (Date.now() - seenAt > 1.5 * ping) {
      lost(1006, "woke up");
      open();
    }
  };

  const receive = (text) => {
    const message = JSON.parse(text);
    const { type, id } = message;
    const answer = answers.get(id);
    seenAt = Date.now();
    if (handlers[type]) {
      handlers[type](message, text.length);
    } else if (answer) {
      answers.delete(id);
      answer(message);
      if (!answers.size) sendHeld();
    } else {
      report(message);
    }
  };

  /** What is done with what is no answer, by its type. */
  const handlers = {
    message: (message, length) => {
      if (message.up_to) message.upTo = message.up_to;
      message.data = decode(message);
      dispatch(message.topic, ({ _take }) => _take(message, length));
    },
    ping: () => write({ type: "pong" }),
    gap: (message) => dispatch(message.topic, ({ _gap }) => _gap(message)),
    reset: (message) => dispatch(message.topic, ({ _reset }) => _reset(message)),
    "state-end": ({ topic, offset }) => subscriptions.get(topic)?._stateEnd(offset),
    ended: (message) => {
      if (message.respond) registrations._ended(message);
      else subscriptions.get(message.topic)?._brokerEnd(message);
    },
    request: (message) => {
      const asked = socket;
      registrations._respond(message, (members) => {
        if (!isOpen() || socket !== asked) return;
        // Not found: the broker has given the request up.
        command(members, (answer) => answer.code === "not-found" || report(answer));
      });
    },
    "lease-lost": (message) => registrations._leaseLost(message),
    goaway: (message) => {
      retry = message.retry;
      emit("goaway", message);
    },
    refresh: () => {
      if (canFetch) fetchToken();
      else if (!isTold) {
        isTold = true;
        emit("error", failure("token", "no function renews the token"));
      }
    },
  };

  const dispatch = (topic, f) => {
    const exact = subscriptions.get(topic);
    if (exact) f(exact);
    for (const filter of filters) {
      if (filter._pattern.test(topic)) f(filter);
    }
  };

  const send = (entry) => {
    const members = entry._members;
    command(members, ({ type, id, code, reason, ...more }) => {
      if (!code) {
        if (entry._stripped) unkeyed = true;
        entry._resolve(more);
      } else if (isUnknown(code) && entry._ours) {
        // This broker may know no idempotency keys, and the application did not ask for ours.
        entry._ours = false;
        entry._stripped = true;
        delete members.idempotency_key;
        send(entry);
      } else {
        entry._reject(failure(code, reason, more));
      }
    });
  };

  /**
   * Sends a command when the subscriptions have begun, now or on the next connection. `take` makes of the answer what
   * the promise resolves to; it is also called with one that comes after the caller gave up. `ours`: its key is ours.
   */
  const ask = (members, signal, timeout = ANSWER_TIMEOUT, take = (answer) => answer, ours) => {
    signal?.throwIfAborted();
    checkOpen();
    if (!isReady && asks.size >= HELD) throw failure("offline", `${HELD} wait already`);
    checkText(members); // also throws what is no JSON, now rather than when the connection is back
    return new Promise((resolve, reject) => {
      const settle = (f, value) => {
        asks.delete(entry);
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        f(value);
      };
      const fail = (error) => settle(reject, error);
      const abort = () => fail(signal.reason);
      const timer = setTimeout(() => fail(failure("timeout", `no answer within ${timeout} ms`)), timeout);
      const entry = {
        _members: members,
        _ours: ours,
        _resolve: (answer) => settle(resolve, take(answer, !asks.has(entry))),
        _reject: fail,
      };
      signal?.addEventListener("abort", abort);
      asks.add(entry);
      if (isReady) send(entry);
    });
  };

  const checkOpen = () => {
    if (state === "closed") throw failure("closed", "the bus is closed");
  };

  const mayAddKey = () => {
    const now = Date.now();
    if (now - keysAt > 1000) {
      keysAt = now;
      keys = KEYS_PER_SECOND;
    }
    return !unkeyed && keys-- > 0;
  };

  const bus = {
    _has: (topic) => subscriptions.has(topic),
    _isOpen: isOpen,
    _checkOpen: checkOpen,
    _command: command,
    _ask: ask,
    _emit: emit,

    /** A topic has a new epoch: its offsets say nothing about the old ones. */
    _forget: (topic) => {
      for (const { _seen } of filters) _seen.delete(topic);
    },

    /** The application has ended a subscription. */
    _leave: (topic, asked, active) => {
      filters.delete(subscriptions.get(topic));
      subscriptions.delete(topic);
      registrations._left(topic);
      if (active && isOpen()) write({ type: "unsubscribe", topic });
      if (asked) leaving.add(topic);
    },

    /** The broker has answered a subscription that had ended. Another one to the same topic may wait for that. */
    _left: (topic, code) => {
      if (!code) write({ type: "unsubscribe", topic });
      leaving.delete(topic);
      subscriptions.get(topic)?._begin();
    },
  };

  const registrations = createRegistrations(bus);

  const start = (found) => {
    if (state === "closed") return;
    session = found || session;
    open();
    WAKE_EVENTS.forEach((name) => globalThis.addEventListener?.(name, wake));
  };

  const storageKey = `ringyard ${url}`;
  let stored;
  try {
    stored = session && sessionStorage.getItem(storageKey);
  } catch {
    // As in `useSession`.
  }
  lock(stored, start);

  return {
    ...registrations._public,

    get state() {
      return state;
    },

    get member() {
      return member;
    },

    get transport() {
      return socket?.transport || "websocket";
    },

    subscribe(topic, options = {}) {
      checkOpen();
      if (subscriptions.has(topic)) throw failure("already-subscribed", `already subscribed to "${topic}"`);
      const subscription = createSubscription(bus, topic, options);
      subscriptions.set(topic, subscription);
      if (subscription._pattern) filters.add(subscription);
      if (isOpen() && !leaving.has(topic)) subscription._begin();
      return subscription._public;
    },

    async publish(topic, data, options = {}) {
      const {
        key,
        ttl,
        retain,
        removed,
        idempotencyKey,
        ifOffset,
        lease,
        signal,
        timeout,
        ...unknown
      } = options;
      refuse(unknown);
      const ours = idempotencyKey == null && (!isReady || mayAddKey());
      const members = {
        type: "publish",
        topic,
        ...encode(data),
        key,
        ttl,
        retain: retain || undefined,
        removed: removed || undefined,
        idempotency_key: ours ? `${keyPrefix}-${++lastId}` : idempotencyKey,
        if_offset: ifOffset,
        lease: lease?.lease ?? lease,
      };
      return ask(members, signal, timeout, undefined, ours);
    },

    async request(topic, data, { to, timeout = REQUEST_TIMEOUT, signal, ...unknown } = {}) {
      refuse(unknown);
      const members = { type: "request", topic, ...encode(data), timeout, to };
      const answer = await ask(members, signal, isReady ? timeout + LATE : timeout);
      return { ...answer, data: decode(answer) };
    },

    async members(topic, { limit, ...unknown } = {}) {
      refuse(unknown);
      return ask({ type: "members", topic, limit });
    },

    async snapshot(topic, upTo, data) {
      return ask({ type: "snapshot", topic, ...encode(data), up_to: parsePosition(upTo) });
    },

    will(options) {
      const before = will;
      const after = options && encodeWill(options);
      const set = registrations._will(after);
      will = after;
      // The next connection is not refused for a will that this one was refused.
      set.catch(() => (will = before));
      return set;
    },

    on(event, f) {
      const set = listeners[event];
      if (!set) throw new TypeError(`unknown event "${event}"`);
      set.add(f);
      return () => set.delete(f);
    },

    close() {
      if (state === "closed") return;
      if (isOpen()) write({ type: "disconnect" });
      shut(1000, "");
    },
  };
};
