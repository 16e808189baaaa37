/**
 * Virtual time for one test: timers and `Date.now` move only with `tick`. (Those of `node:test` in Node 20 lose timers
 * when one that has fired is cleared.)
 */
export const mockClock = (t) => {
  const saved = {};
  let now = 1e12;
  const timers = new Map();
  const add = (f, ms, every) => {
    // As Node's, which its own `fetch` asks not to keep the process.
    const id = { unref: () => id, ref: () => id, refresh: () => timers.has(id) && (timers.get(id).at = now + ms) && id };
    timers.set(id, { f, at: now + Math.max(0, ms), every });
    return id;
  };
  const mocks = {
    setTimeout: (f, ms = 0, ...given) => add(() => f(...given), ms),
    setInterval: (f, ms) => add(f, ms, ms),
    // Timers from before this test are real.
    clearTimeout: (id) => timers.delete(id) || saved.clearTimeout(id),
    clearInterval: (id) => timers.delete(id) || saved.clearInterval(id),
  };
  for (const [name, mock] of Object.entries(mocks)) {
    saved[name] = globalThis[name];
    globalThis[name] = mock;
  }
  t.mock.method(Date, "now", () => now);
  t.after(() => Object.assign(globalThis, saved));

  return {
    /** Time passes, and what is due happens, in order and on time. */
    tick(ms) {
      const end = now + ms;
      for (;;) {
        const due = [...timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
        if (!due) break;
        const [id, timer] = due;
        now = Math.max(now, timer.at);
        if (timer.every) timer.at = now + timer.every;
        else timers.delete(id);
        timer.f();
      }
      now = end;
    },
    /** Time passes, but no timer runs until the next `tick`, as on a machine that sleeps. */
    sleep(ms) {
      now += ms;
    },
  };
};

/** The events of a page, for one test: what listens on the window listens to them. */
export const mockPage = (t) => {
  const page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  return page;
};
