// The request that a click is, without a WebSocket: by one HTTP request, and as a page with long poll does it.

const ANSWER_MS = 2000;

const post = (topic, to) => fetch(`../request/${topic}?timeout=${ANSWER_MS}ms`, {
  method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ to }),
});

/** Whoever answers is asked, and the answer is that of the request. Resolves to the time that took, in ms. */
export async function overHttp(topic, to) {
  const begun = performance.now();
  const answer = await post(topic, to);
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  await answer.json();
  return performance.now() - begun;
}

/**
 * A request waits for changes of `state`, as it always does in such a page. The click is another one, and what became of it is known when
 * that of `key` comes. Resolves to the time in between, in ms.
 */
export async function overLongPoll(topic, to, state, key) {
  const poll = async (query) => {
    const answer = await fetch(`../sub/${state}${query}`, { cache: 'no-store' });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  };
  let at = await poll('');
  const more = () => poll(`?since=${at.epoch}:${at.offset}&wait=${ANSWER_MS}ms`);
  let change = more();
  const begun = performance.now();
  post(topic, to).catch(() => {}); // then no change comes
  while (performance.now() - begun < ANSWER_MS) {
    at = await change;
    if (at.messages.some((message) => message.key === key && message.data?.is === to)) return performance.now() - begun;
    change = more();
  }
  throw new Error('no change came');
}
