import type { Bus, RingyardError } from "./ringyard.js";
import type { Doc } from "yjs";
import type { Awareness } from "y-protocols/awareness";

export interface RingyardProviderOptions {
  /** Who else is here, and where. Default: one of its own. */
  awareness?: Awareness;
  /** `false`: begin with `connect()`. */
  connect?: boolean;
}

export type ProviderStatus = "connecting" | "connected" | "disconnected";

export interface RingyardProviderEvents {
  /** The connection to the broker. */
  status: (event: { status: ProviderStatus }) => void;
  /** The document has everything that the broker has; or it is not known any more whether it has. */
  synced: (synced: boolean) => void;
  /** The same. */
  sync: (synced: boolean) => void;
  /** The document has changes that the broker has not acknowledged; or it has none any more. */
  unsaved: (unsaved: boolean) => void;
  /**
   * Something on the topics is no update, and was left out; or the broker refuses what the provider asks for. The first one is
   * also written to the console.
   */
  error: (error: Error | RingyardError) => void;
}

/** Keeps a document of Yjs, and who is at it, in step with the topic at the broker. */
export class RingyardProvider {
  /** Throws if the bus is subscribed to the topic already, or is closed. */
  constructor(bus: Bus, topic: string, doc: Doc, options?: RingyardProviderOptions);
  readonly doc: Doc;
  readonly awareness: Awareness;
  readonly status: ProviderStatus;
  readonly synced: boolean;
  /** While it is true, the page asks before it is left. */
  readonly unsaved: boolean;
  /** Joins, unless it has. */
  connect(): void;
  /** Leaves the topic. The document stays, and what changes in it is published after the next `connect`. */
  disconnect(): void;
  /** Disconnects for good. The bus, the document and the awareness stay. */
  destroy(): void;
  on<E extends keyof RingyardProviderEvents>(event: E, listener: RingyardProviderEvents[E]): RingyardProviderEvents[E];
  once<E extends keyof RingyardProviderEvents>(event: E, listener: RingyardProviderEvents[E]): RingyardProviderEvents[E];
  off<E extends keyof RingyardProviderEvents>(event: E, listener: RingyardProviderEvents[E]): void;
}
