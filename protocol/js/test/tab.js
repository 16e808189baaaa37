/** What a browser gives to pages beside timers and events: the storage of a tab, and locks that all tabs share. */

/** `sessionStorage`: one for each tab. Duplicating a tab copies it, closing the tab ends it. */
export class Storage {
  constructor(other) {
    this.items = new Map(other?.items);
  }

  getItem(key) {
    return this.items.get(key) ?? null;
  }

  setItem(key, value) {
    this.items.set(key, value);
  }
}

/** `navigator.locks`, as far as the client needs it. A lock is held until what the callback returned is settled. */
export class Locks {
  held = new Map();

  async request(name, { signal }, callback) {
    while (this.held.has(name)) {
      const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      await Promise.race([this.held.get(name), aborted]);
    }
    const done = Promise.resolve().then(callback);
    this.held.set(name, done);
    await done;
    this.held.delete(name);
  }
}

/** What runs from here on, in this test, runs in this tab. Either may be missing, as in Node and in insecure pages. */
export const enterTab = (t, { storage, locks }) => {
  const globals = { sessionStorage: storage, navigator: locks && { locks } };
  for (const [name, value] of Object.entries(globals)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => {
      if (before) Object.defineProperty(globalThis, name, before);
      else delete globalThis[name];
    });
  }
};
