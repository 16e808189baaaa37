/**
 * The Yjs provider of Ringyard: keeps a `Y.Doc` and its awareness in step with everybody else's, over a bus of ringyard.js.
 *
 * The topic `doc/x` carries updates as bytes, and remembers them in a window with a snapshot before it. Its companion
 * `doc/x/awareness` is keyed: the key is the client id of Yjs, the value an awareness update of that one client.
 *
 * Joining reads the snapshot and the window into `remote`, a document that has only what came from the broker, as well as into
 * the application's. What the latter has beyond `remote`, the broker lacks, and is published. A drop that the broker recovers
 * goes on with the same subscription; any gap joins anew, so what a broker has lost comes back from whoever has it. A drop that
 * is recovered by a snapshot, not by the messages themselves, compares the documents: who made it may have lacked what we have.
 *
 * If the past has a hole, because the window was too small and nobody made a snapshot, whoever finds it publishes an empty update,
 * the question. It makes all join anew, and the first one that has what is missing publishes it. Who asked joins anew, too: a
 * snapshot may have been stored that has what is missing, so that nobody would publish it. If the hole is still there, its own
 * snapshot ends it. Whoever stored a snapshot and was asked meanwhile asks again, since others may have looked before it came.
 *
 * Invariant: every local change is in `updates` or in the one update that is unacknowledged, until the broker has acknowledged
 * it; or the provider is not joined, and will compare the documents when it is.
 *
 * Invariant: a snapshot is sent only when joined, so the document has everything up to the position that it names.
 *
 * Garbage is refused before it reaches the document. Times are milliseconds. A message is decoded twice.
 */

import * as Y from "yjs";
import * as A from "y-protocols/awareness";

const SNAPSHOT_UPDATES = 500; // so many updates, or
const SNAPSHOT_BYTES = 2 ** 18; // so many bytes of them, make a snapshot worth its while
const SNAPSHOT_LEASE = 5000; // for so long, others do not make one as well
const RETRY = 1000;
const SPREAD = 1000; // when a broker has lost something, all that have it would say so at once: the first one does for all
const THROTTLE = 50;
const JOIN_TRIES = 4;
const EMPTY = Uint8Array.of(0, 0); // an update that changes nothing: who sees it looks whether the broker lacks something
const NOWHERE = "0000000000000000:0"; // a position of no epoch: the broker answers with what it has
const PASSING = /^(timeout|disconnected|offline|busy|limit)$/; // codes of what may work another time

export class RingyardProvider extends Y.AbstractConnector {
  constructor(bus, topic, doc, { awareness = new A.Awareness(doc), connect = true } = {}) {
    super(doc, awareness);
    const provider = this;
    const awarenessTopic = `${topic}/awareness`;
    const life = new AbortController(); // of what listens on the page
    let subscription, others; // to the topic and to its awareness, while connected
    let remote; // what came from the broker, until all is compared
    let end; // the offset up to which the past goes
    let covered, hole; // the offset up to which it came; something before that did not
    let asked; // the offset of the newest question since we joined
    let isAnswer; // we joined because of one
    let timer;
    let updates = []; // local changes that the broker lacks and was not sent
    let sending; // the update that is unacknowledged, or was refused for good
    let count = 0;
    let size = 0; // of what came since the snapshot
    let telling, changed; // our awareness was just published; it has changed since
    let warned;

    const emit = (event, value) => provider.emit(event, [value]);

    const report = (error) => {
      if (error.code === "closed") return; // the status says that
      if (!warned) console.warn(topic, error);
      warned = true;
      emit("error", error);
    };

    const setStatus = (status) => {
      if (status === provider.status) return;
      provider.status = status;
      emit("status", { status });
    };

    const setSynced = (synced) => {
      if (synced === provider.synced) return;
      provider.synced = synced;
      emit("synced", synced);
      emit("sync", synced);
    };

    const askToStay = (event) => event.preventDefault();

    const checkUnsaved = () => {
      const unsaved = !!(sending || updates.length);
      if (unsaved === provider.unsaved) return;
      provider.unsaved = unsaved;
      if (unsaved) globalThis.addEventListener?.("beforeunload", askToStay, life);
      else globalThis.removeEventListener?.("beforeunload", askToStay);
      emit("unsaved", unsaved);
    };

    /** Begins anew with all that the broker has; because of a question, or not. */
    const join = (answer) => {
      clearTimeout(timer);
      setSynced(false);
      remote = new Y.Doc();
      isAnswer = answer;
      hole = false;
      covered = asked = 0;
      subscribe(NOWHERE, JOIN_TRIES);
    };

    /** Subscribes after a position. What follows it goes up to the offset `head`, unless the broker says otherwise. */
    const subscribe = (since, tries, head) => {
      subscription?.close();
      const current = (subscription = bus.subscribe(topic, { since }));
      end = Infinity;
      current.onmessage = take;
      // Until all is here, gaps are found by their offsets.
      current.ongap = () => (remote && !provider.synced) || join();
      // Rejects when the broker ends the subscription.
      current[Symbol.asyncIterator]().next().catch((error) => {
        report(error);
        provider.disconnect();
      });
      current.ready.then(
        ({ recovered, position, available: { from, to } = { from: 1, to: 0 } }) => {
          if (current !== subscription) return;
          const [epoch, offset] = position.split(":");
          // With a snapshot, it and the window follow. Without, the broker is asked for the window.
          if (tries && !recovered && offset > 0 && offset >= to) {
            subscribe(`${epoch}:${from - 1}`, tries - 1, +offset);
          } else {
            end = recovered ? head : to;
            arrive();
          }
        },
        () => {},
      );
    };

    const take = ({ data, upTo, offset, prev = offset - 1 }) => {
      // A drop was recovered by a snapshot, and who made it may have lacked what we have.
      const begun = upTo && !remote && (remote = new Y.Doc());
      try {
        Y.decodeUpdate(data);
        if (remote) Y.applyUpdate(remote, data);
        Y.applyUpdate(doc, data, provider);
      } catch (error) {
        report(error);
      }
      count = upTo ? 0 : count + 1;
      size = upTo ? 0 : size + (data?.length ?? 0);
      hole ||= prev > covered;
      covered = upTo ?? offset;
      if (`${data}` === `${EMPTY}`) asked = offset;
      if (begun && begun === remote) {
        compare();
        settle();
      }
      arrive();
      considerSnapshot();
    };

    /** Everything of the past may be here. */
    const arrive = () => {
      const offset = subscription?.position.split(":")[1];
      if (!(offset >= end)) return;
      if (asked > end) return join(true);
      if (!remote || provider.synced) return;
      setSynced(true);
      compare();
      if (!hole && covered >= offset) return settle();
      if (!isAnswer) return ask();
      size = SNAPSHOT_BYTES;
      settle();
    };

    /** Publishes the question, which comes to us, too. Who may not ask goes on with the hole. */
    const ask = () => {
      const current = remote;
      bus.publish(topic, EMPTY).catch(({ code }) => {
        if (remote !== current) return;
        if (PASSING.test(code)) timer = setTimeout(join, RETRY);
        else settle();
      });
    };

    /** Ends joining, with what the broker lacks. */
    const settle = () => {
      timer = setTimeout(
        () => {
          compare();
          remote = undefined;
          sending = false;
          considerSnapshot();
          flush();
        },
        updates.length && Math.random() * SPREAD,
      );
    };

    /** What the document has and the broker lacks. An update has all deletions, so that of the broker's document has some, too. */
    const compare = () => {
      const vector = Y.encodeStateVector(remote);
      const update = Y.encodeStateAsUpdate(doc, vector);
      updates = `${update}` === `${Y.encodeStateAsUpdate(remote, vector)}` ? [] : [update];
      checkUnsaved();
    };

    const flush = () => {
      checkUnsaved();
      if (sending || remote || !subscription || !updates.length || bus.state !== "open") return;
      const update = Y.mergeUpdates(updates);
      updates = [];
      sending = update;
      bus.publish(topic, update).then(
        () => {
          if (sending === update) sending = false;
          flush();
        },
        (error) => {
          updates.unshift(update);
          if (PASSING.test(error.code)) {
            if (sending === update) sending = false;
            setTimeout(flush, RETRY);
          } else {
            report(error);
          }
        },
      );
    };

    const considerSnapshot = async () => {
      if (remote || (count < SNAPSHOT_UPDATES && size < SNAPSHOT_BYTES)) return;
      count = size = 0;
      try {
        const lease = await bus.lease(topic, { ttl: SNAPSHOT_LEASE });
        setTimeout(lease.release, SNAPSHOT_LEASE);
        const current = subscription;
        if (!current || remote) return;
        await bus.snapshot(topic, current.position, Y.encodeStateAsUpdate(doc));
        // We joined meanwhile, and saw in the snapshot what others may have looked for before.
        if (current !== subscription) await bus.publish(topic, EMPTY);
      } catch (error) {
        if (error.code !== "held") report(error);
      }
    };

    const onUpdate = (update, origin) => {
      if (origin === provider) return;
      updates.push(update);
      flush();
    };

    const takeAwareness = ({ key, data, removed }) => {
      if (+key === awareness.clientID) return;
      try {
        if (removed) A.removeAwarenessStates(awareness, [+key], provider);
        else A.applyAwarenessUpdate(awareness, data, provider);
      } catch (error) {
        report(error);
      }
    };

    /** Publishes our awareness, but not too soon after the last time. */
    const tell = () => {
      if (!subscription || bus.state !== "open") return;
      changed = telling;
      if (telling) return;
      telling = true;
      publishAwareness(awareness.getLocalState() && A.encodeAwarenessUpdate(awareness, [awareness.clientID]));
      setTimeout(() => {
        telling = false;
        if (changed) tell();
      }, THROTTLE);
    };

    const publishAwareness = (data) =>
      bus
        .publish(awarenessTopic, data, { key: `${awareness.clientID}`, ttl: A.outdatedTimeout, removed: !data })
        .catch(() => {});

    const onAwareness = ({ added, updated, removed }) => {
      if ([...added, ...updated, ...removed].includes(awareness.clientID)) tell();
    };

    const leave = () => {
      if (subscription && bus.state === "open") publishAwareness();
    };

    /** The bus has another state, or may have. */
    const follow = () => {
      if (!subscription) return;
      if (bus.state === "open") {
        setStatus("connected");
        // With a higher clock: others have forgotten us, or will not know us with the clock 0.
        awareness.setLocalState(awareness.getLocalState());
        flush();
      } else if (bus.state === "closed") {
        provider.disconnect();
      } else {
        if (provider.status === "connected") setStatus("disconnected");
        setStatus("connecting");
        if (remote) join();
      }
    };

    provider.status = "disconnected";
    provider.synced = provider.unsaved = false;

    provider.connect = () => {
      if (subscription) return;
      others = bus.subscribe(awarenessTopic, { throttle: THROTTLE });
      others.onmessage = takeAwareness;
      try {
        join();
      } catch (error) {
        others.close();
        throw error;
      }
      queueMicrotask(follow);
    };

    provider.disconnect = () => {
      if (!subscription) return;
      leave();
      subscription.close();
      others.close();
      clearTimeout(timer);
      subscription = remote = undefined;
      const ids = [...awareness.getStates().keys()].filter((id) => id !== awareness.clientID);
      A.removeAwarenessStates(awareness, ids, provider);
      setSynced(false);
      setStatus("disconnected");
    };

    const unfollow = bus.on("state", follow);
    provider.destroy = () => {
      provider.disconnect();
      unfollow();
      life.abort();
      doc.off("update", onUpdate);
      awareness.off("update", onAwareness);
      super.destroy();
    };

    doc.on("update", onUpdate);
    awareness.on("update", onAwareness);
    globalThis.addEventListener?.("pagehide", leave, life);
    if (connect) provider.connect();
  }
}
