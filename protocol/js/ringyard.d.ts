/** The latest message that a client has of one topic: `EPOCH:OFFSET`. It may be stored. */
export type Position = string;

export interface Message<T = any> {
  topic: string;
  /** The place in the topic. A snapshot has `upTo` in its place. */
  offset: number;
  /** Text, any JSON value, or a `Uint8Array` if the publisher sent bytes. */
  data: T;
  /** The entry of a keyed topic. */
  key?: string;
  /** The entry, or the retained message, was removed. */
  removed?: true;
  /** Part of the state that a newcomer begins with, not news. */
  state?: true;
  /** A snapshot that stands for all messages up to this offset. */
  upTo?: number;
  /** The offset of the message before, if that is not `offset - 1`. */
  prev?: number;
  /** When it was published, in ms since 1970, if the topic's rule says so. */
  time?: number;
  /** Who published it, if the topic's rule says so. */
  from?: string;
}

/**
 * Messages that did not come and will not come.
 *
 * - `overflow`: the reader was too slow, and the queue of the subscription dropped them;
 * - `reconnect`: the connection was lost, and what a filter missed meanwhile is not known (no offsets);
 * - `unrecovered`: the broker does not have everything after the position any more;
 * - `epoch`: the topic began anew; offsets are those of the new epoch, and the end of the old one is lost too. If `to`
 *   is below `from`, nothing of the new epoch is missing;
 * - `missing`: the broker skipped them without a word;
 * - any other reason is the broker's: `slow-consumer`, `evicted`, `expired`, or of a reset `purged`, `storage`, `moved`.
 */
export interface Gap {
  /** The topic; of a filter without offsets, the filter. */
  topic: string;
  from?: number;
  to?: number;
  reason:
    | "overflow"
    | "reconnect"
    | "unrecovered"
    | "epoch"
    | "missing"
    | "slow-consumer"
    | "evicted"
    | "expired"
    | "purged"
    | "storage"
    | "moved"
    | (string & {});
  /** What the broker still has. */
  available?: { from: number; to: number };
}

export interface Ready {
  /** With `since`: whether everything after it came or comes. Without: undefined. */
  recovered?: boolean;
  /** Undefined for a filter with wildcards. */
  position?: Position;
  available?: { from: number; to: number };
  /** What the topic remembers. */
  history?: "window" | "keyed" | (string & {});
}

/** `oldest` drops a quarter of the queue, `newest` the message that came last, `close` ends the subscription. */
export type OverflowChoice = "oldest" | "newest" | "close" | void;

export interface SubscribeOptions {
  /** Continue after this position. Excludes `last`. */
  since?: Position;
  /** Begin with the newest `last` messages that the topic remembers. */
  last?: number;
  /** `false`: no retained message and no state. */
  state?: boolean;
  /** Least time between two deliveries, in ms: an integer from 0 to 5000. The broker may make it longer. */
  throttle?: number;
  /** Deliver at most once per animation frame: all messages of the frame, and the state once. */
  frame?: boolean;
  /** Called when 1,000 messages or 1 MiB wait for a reader; says what is dropped. Default: `oldest`. */
  onoverflow?: (subscription: Subscription) => OverflowChoice;
}

/** An iterator over the messages. Leaving a `for await` loop closes the subscription. */
export interface Subscription<T = any> extends AsyncIterable<Message<T>> {
  readonly topic: string;
  /** Settled by the first answer of the broker. */
  readonly ready: Promise<Ready>;
  /** What the application has been given so far. Undefined for a filter, and before the first answer. */
  readonly position: Position | undefined;
  /** Gets the messages in place of the iterator. */
  onmessage: ((message: Message<T>) => void) | null | undefined;
  /** Of a keyed topic: called with the newest message of each key when the state has come and after each change. */
  onstate: ((state: ReadonlyMap<string, Message<T>>) => void) | null;
  ongap: ((gap: Gap) => void) | null;
  /** Unsubscribes, and ends the iterator. */
  close(): void;
  [Symbol.asyncIterator](): AsyncIterator<Message<T>, undefined>;
}

export interface PublishOptions {
  /** The entry of a keyed topic, and what `slow-consumer = "latest"` conflates by. */
  key?: string;
  /** How long newcomers get the message, in ms. */
  ttl?: number;
  /** The message becomes the retained one. */
  retain?: boolean;
  /** Removes the key or, with `retain`, the retained message. */
  removed?: boolean;
  /** At most 64 bytes. A second publish with it is a duplicate. */
  idempotencyKey?: string;
  /** Publish only if this is the offset of the key or of the topic's newest message. */
  ifOffset?: number | "absent";
  /** Where only the holder of the lease may publish: the lease, or its number. */
  lease?: Lease | number;
  signal?: AbortSignal;
  /** When to give up, in ms. Default: 30,000. */
  timeout?: number;
}

export interface Published {
  epoch: string;
  offset: number;
  /** It had been published before, at this position. */
  duplicate?: true;
  subscribers?: number;
}

/** Who is present in a topic. */
export interface Member<I = any> {
  /** The user of its token, else a random name. */
  member: string;
  /** What it said of itself when it entered. */
  info?: I;
  /** How many connections it is present with. */
  connections: number;
}

export interface Members<I = any> {
  /** How many there are, listed or not. */
  count: number;
  members: Member<I>[];
  /** There are more than these. */
  more: boolean;
}

export interface MembersOptions {
  /** How many to list at most: 1 to 1000. Default: 100. */
  limit?: number;
}

export interface RequestOptions {
  /** How long the broker waits for the answer, in ms: 10 to 60,000. Default: 5,000. */
  timeout?: number;
  /** Only this member may answer. */
  to?: string;
  /** Giving up does not take back what was sent. */
  signal?: AbortSignal;
}

/** What a request resolves to. */
export interface Answer<T = any> {
  /** Text, any JSON value, or a `Uint8Array` if the responder returned bytes. */
  data: T;
  /** The member who answered, if the broker knows it. */
  from?: string;
}

/** What a responder gets. */
export interface Request<T = any> {
  topic: string;
  data: T;
  /** The member who asks, if the broker knows it. */
  from?: string;
  /** For how long the other side waits, in ms. */
  timeout: number;
}

/**
 * Returns the answer: what `JSON.stringify` takes, or bytes. What it throws is the other side's `responder-error`, with the
 * `code` of the error and its message.
 */
export type Responder<T = any> = (request: Request<T>) => unknown;

export interface LeaseOptions {
  /** How long the lease lasts without a renewal, in ms: 1,000 to 600,000. Default: 10,000. */
  ttl?: number;
  /** How long to wait for it, in ms, if another client has it. */
  wait?: number;
  /** Ends the wait. */
  signal?: AbortSignal;
}

/** `closed`: the broker ended it, or the bus was closed. */
export type LeaseLoss = "expired" | "taken" | "closed" | (string & {});

/** A lease that this client holds. It is renewed while there is a connection. */
export interface Lease {
  readonly topic: string;
  /** Its number, which rises with each holder of the topic. */
  readonly lease: number;
  /** How long it lasts without a renewal, in ms. */
  readonly ttl: number;
  /** Settled when it is lost; never if it was released. */
  readonly lost: Promise<LeaseLoss>;
  /** Gives it up. */
  release(): void;
}

/** What the broker publishes when the connection ends without `close`. */
export interface Will {
  topic: string;
  data: unknown;
  key?: string;
  ttl?: number;
  retain?: boolean;
  /** How long to wait whether the session comes back, in ms: 0 to 60,000. */
  delay?: number;
}

/**
 * What all of this fails with, and what `bus.on("error")` gets. `code` is the broker's (`unauthorized`, `bad-token`, `forbidden`,
 * `conflict`, `limit`, `no-responder`, `responder-lost`, `responder-error`, `held`, `not-holder`, `not-found`, …) or the client's:
 * `timeout`, `offline` (100 commands wait already), `disconnected` (the outcome is unknown), `closed`, `overflow`,
 * `already-subscribed`, `token` (none could be fetched). Either may find `too-big` (longer than the broker allows), `bad-json` (text
 * with half a surrogate pair) and `unsupported` (for the client: an encoding that it does not know, or what needs
 * a WebSocket while the transport is `sse`).
 */
export interface RingyardError extends Error {
  code: string;
  /** With `conflict`: the offset that was found. */
  offset?: number;
  /** With `held`: the member who has the lease, and for how long at least, in ms. */
  by?: string;
  ttl?: number;
  /** With `responder-error`: what the responder said. */
  error?: { code: string; reason: string };
}

export type State = "connecting" | "open" | "closed";

export interface StateEvent {
  state: State;
  /** The code with which the WebSocket closed; 1006 if it just ended. */
  code?: number;
  reason?: string;
  /** While connecting: ms until the next attempt. */
  delay?: number;
}

export interface GoawayEvent {
  /** How long to stay away at most, in ms. */
  retry: number;
}

export interface Bus {
  readonly state: State;
  /** How messages come. It changes between two states; `sse` only with the option `fallback`. */
  readonly transport: "websocket" | "sse";
  /** Who we are in presence and leases. Known when the broker has answered. */
  readonly member: string | undefined;
  /** Throws if there is a subscription to the same topic or filter already. */
  subscribe<T = any>(topic: string, options?: SubscribeOptions): Subscription<T>;
  publish(topic: string, data: unknown, options?: PublishOptions): Promise<Published>;
  /** Stores what stands for all messages of the topic up to and with this position; these leave its window. */
  snapshot(topic: string, upTo: Position, data: unknown): Promise<void>;
  /**
   * Is present in the topic, on each connection, until `leave` or the end of our subscription to it. A refusal rejects and is an
   * error event, so nobody has to wait for it.
   */
  enter(topic: string, info?: unknown): Promise<void>;
  /** Changes what `enter` said. */
  update(topic: string, info: unknown): Promise<void>;
  leave(topic: string): Promise<void>;
  members<I = any>(topic: string, options?: MembersOptions): Promise<Members<I>>;
  /** Asks whoever responds to the topic. */
  request<T = any>(topic: string, data: unknown, options?: RequestOptions): Promise<Answer<T>>;
  /** Answers requests, on each connection. Returns a function that ends that. Throws if this filter has a responder. */
  respond<T = any>(filter: string, responder: Responder<T>): () => void;
  /** Rejects with `held` if another client holds it, and still does after `wait`. */
  lease(topic: string, options?: LeaseOptions): Promise<Lease>;
  /** Sets or replaces the last will, or ends it. */
  will(will: Will | null): Promise<void>;
  /** Returns a function that removes the listener. */
  on(event: "state", listener: (event: StateEvent) => void): () => void;
  on(event: "error", listener: (error: RingyardError) => void): () => void;
  /** The broker is about to close the connection. */
  on(event: "goaway", listener: (event: GoawayEvent) => void): () => void;
  /**
   * Ends the connection, the session and all subscriptions, on purpose: no will, and others see us leave at once. What has no
   * answer rejects.
   */
  close(): void;
}

/**
 * Returns a token, for example from your back end. It is called before the first connection, when the broker says that the
 * token ends soon, and when it has ended; never twice at once. After 10 s it is given up, and `signal` aborts.
 */
export type TokenFunction = (how: { signal: AbortSignal }) => string | Promise<string>;

export interface ConnectOptions {
  /** Who this is: a JWT or a key, sent in `connect`. With text that never changes, the bus closes when the token ends. */
  token?: string | TokenFunction;
  /** Keep presence, leases and the will over a reconnect, and in a page over a reload. One bus of a page and URL may. */
  session?: boolean;
  /** What the broker publishes when the connection ends without `close`. */
  will?: Will;
  /** For Node before 22: the class `WebSocket` of the package `ws`. */
  WebSocket?: WebSocketConstructor;
  /**
   * For where WebSockets are blocked: `() => import("/ringyard-sse.js")`. Called when attempts have failed more than twice in a row;
   * what it loads subscribes by server-sent events and publishes by HTTP.
   */
  fallback?: () => Promise<{ fallback(WebSocket: WebSocketConstructor): WebSocketConstructor }>;
}

/** What the client needs of a WebSocket class; those of browsers, Node, `ws` and undici have it. */
export type WebSocketConstructor = new (
  url: string,
  protocol: string,
) => {
  onopen: any;
  onmessage: any;
  onclose: any;
  onerror: any;
  send(text: string): void;
  close(): void;
};

/** Connects, and stays connected until `close` or until the broker says not to come back. */
export function connect(url: string, options?: ConnectOptions): Bus;
