// Checked by tsc, never run: what the types allow and, by `@ts-expect-error`, what they refuse.

import {
  connect,
  type Answer,
  type Bus,
  type Gap,
  type Lease,
  type LeaseLoss,
  type Members,
  type Message,
  type Published,
  type Request,
  type RingyardError,
  type Subscription,
} from "ringyard";
import { connect as fromBuild } from "ringyard/min";
import "ringyard/script";
import { fallback } from "ringyard/sse";
import { RingyardProvider } from "ringyard/yjs";
import { RingyardProvider as ProviderFromBuild } from "ringyard/yjs.min";
import { Doc } from "yjs";
import { Awareness } from "y-protocols/awareness";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const check = <_ extends true>(): void => {};

const bus = connect("wss://host/ws");
check<Equal<typeof bus, Bus>>();
check<Equal<typeof connect, typeof fromBuild>>();
check<Equal<typeof connect, typeof ringyard.connect>>();
connect("wss://host/ws", { WebSocket });
connect("wss://host/ws", { token: "t" });
connect("wss://host/ws", { token: () => "t" });
connect("wss://host/ws", { token: async ({ signal }) => (await fetch("/token", { signal })).text() });
// @ts-expect-error: a token is text
connect("wss://host/ws", { token: async () => 7 });
connect("wss://host/ws", { session: true, will: { topic: "loco/12", data: { speed: 0 }, retain: true, delay: 0 } });
// @ts-expect-error: the client keeps the session
connect("wss://host/ws", { session: "secret" });
// @ts-expect-error
connect("wss://host/ws", { will: { topic: "loco/12" } });
connect("wss://host/ws", { fallback: () => import("ringyard/sse") });
connect("wss://host/ws", { fallback: () => import("ringyard/sse.min") });
// @ts-expect-error: what loads it, not what it exports
connect("wss://host/ws", { fallback });
check<Equal<typeof bus.transport, "websocket" | "sse">>();
// @ts-expect-error
connect();

const chat = bus.subscribe<{ text: string }>("chat/7", { last: 50, frame: true, onoverflow: () => "newest" });
check<Equal<typeof chat, Subscription<{ text: string }>>>();
bus.subscribe("a", { since: "00000000000000aa:1", state: false, throttle: 100, onoverflow: () => {} });
// @ts-expect-error
bus.subscribe("a", { onoverflow: () => "none" });
// @ts-expect-error: positions are one string
bus.subscribe("a", { since: { epoch: "00000000000000aa", offset: 1 } });
// @ts-expect-error
chat.position = "00000000000000aa:1";
check<Equal<ReturnType<typeof bus.snapshot>, Promise<void>>>();
bus.snapshot("doc/x", chat.position!, Uint8Array.of(1));
// @ts-expect-error: where it ends must be said
bus.snapshot("doc/x", undefined, "text");

chat.onstate = (map) => check<Equal<typeof map, ReadonlyMap<string, Message<{ text: string }>>>>();
chat.ongap = (gap) => check<Equal<typeof gap, Gap>>();
chat.onmessage = ({ data }) => data.text.length;
chat.onmessage = null;

const run = async (): Promise<void> => {
  for await (const message of chat) {
    check<Equal<typeof message, Message<{ text: string }>>>();
    message.data.text.length;
  }
  const { recovered, position } = await chat.ready;
  check<Equal<typeof recovered, boolean | undefined>>();
  check<Equal<typeof position, string | undefined>>();
  const published = await bus.publish("chat/7", new Uint8Array(4), {
    key: "k",
    ttl: 1,
    retain: true,
    removed: true,
    idempotencyKey: "i",
    ifOffset: "absent",
    signal: new AbortController().signal,
    timeout: 1,
  });
  check<Equal<typeof published, Published>>();
  // @ts-expect-error
  await bus.publish("chat/7", 1, { ifOffset: "none" });
  await bus.publish("chat/7", 1, { lease: 1 });
  await bus.publish("chat/7", 1, { lease: await bus.lease("chat/7") });
  // @ts-expect-error
  await bus.publish("chat/7", 1, { lease: "1" });
};
run();

const people = async (): Promise<void> => {
  await bus.enter("chat/7");
  await bus.enter("chat/7", { name: "Ada" });
  await bus.update("chat/7", { name: "Ada" });
  // @ts-expect-error
  await bus.update("chat/7");
  await bus.leave("chat/7");
  const list = await bus.members<{ name: string }>("chat/7", { limit: 10 });
  check<Equal<typeof list, Members<{ name: string }>>>();
  list.members[0]?.info?.name.length;
  check<Equal<typeof bus.member, string | undefined>>();

  const answer = await bus.request<number>("a", 1, { timeout: 500, to: "ada", signal: AbortSignal.timeout(1) });
  check<Equal<typeof answer, Answer<number>>>();
  const stop = bus.respond<{ to: string }>("points/+", async (request) => {
    check<Equal<typeof request, Request<{ to: string }>>>();
    return request.data.to;
  });
  stop();

  const lease = await bus.lease("loco/12", { ttl: 1000, wait: 1000, signal: AbortSignal.timeout(1) });
  check<Equal<typeof lease, Lease>>();
  const loss = await lease.lost;
  check<Equal<typeof loss, LeaseLoss>>();
  lease.release();
  await bus.will({ topic: "loco/12", data: new Uint8Array(1) });
  await bus.will(null);
  // @ts-expect-error
  await bus.will({ data: 1 });
};
people();

const off = bus.on("state", ({ state, delay }) => [state === "open", delay?.toFixed()]);
check<Equal<typeof off, () => void>>();
bus.on("error", (error) => check<Equal<typeof error, RingyardError>>());
bus.on("goaway", ({ retry }) => retry.toFixed());
// @ts-expect-error
bus.on("message", () => {});
// @ts-expect-error
bus.state = "open";
bus.close();

const provider = new RingyardProvider(bus, "doc/x", new Doc(), { awareness: new Awareness(new Doc()), connect: false });
check<Equal<typeof RingyardProvider, typeof ProviderFromBuild>>();
check<Equal<typeof provider.awareness, Awareness>>();
provider.on("status", ({ status }) => check<Equal<typeof status, "connecting" | "connected" | "disconnected">>());
provider.on("synced", (synced) => check<Equal<typeof synced, boolean>>());
provider.once("unsaved", (unsaved) => check<Equal<typeof unsaved, boolean>>());
// @ts-expect-error: there is no such event
provider.on("sinked", () => {});
// @ts-expect-error: a topic is needed
new RingyardProvider(bus, new Doc());
