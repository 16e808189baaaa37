// Checked by tsc, never run: what the types allow and, by `@ts-expect-error`, what they refuse.

import { connect, type Bus, type Gap, type Message, type Published, type RingyardError, type Subscription } from "ringyard";
import { connect as fromBuild } from "ringyard/min";
import "ringyard/script";

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
// @ts-expect-error: there are no sessions yet
connect("wss://host/ws", { session: true });
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
  // @ts-expect-error: there are no leases yet
  await bus.publish("chat/7", 1, { lease: 1 });
};
run();

const off = bus.on("state", ({ state, delay }) => [state === "open", delay?.toFixed()]);
check<Equal<typeof off, () => void>>();
bus.on("error", (error) => check<Equal<typeof error, RingyardError>>());
// @ts-expect-error
bus.on("goaway", () => {});
// @ts-expect-error
bus.state = "open";
bus.close();
