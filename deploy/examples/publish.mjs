// Publishes a message from Node 18 or newer, without a library: node publish.mjs TOPIC TEXT
//
// BROKER is the broker's URL, http://127.0.0.1:8080 by default. BROKER_KEY is one of the broker's keys ([[key]]), if it
// asks for one.
import { pathToFileURL } from 'node:url';

const broker = process.env.BROKER ?? 'http://127.0.0.1:8080';
const key = process.env.BROKER_KEY;

/** Publishes a value as JSON. The answer has topic, epoch and offset; what is refused throws an Error. */
export async function publish(topic, value, attempts = 5) {
  const path = topic.split('/').map(encodeURIComponent).join('/');
  const headers = { 'Content-Type': 'application/json', ...(key && { Authorization: `Bearer ${key}` }) };
  for (let left = attempts - 1; ; left -= 1) {
    const answer = await fetch(`${broker}/pub/${path}`, {
      method: 'POST', headers, body: JSON.stringify(value), signal: AbortSignal.timeout(10_000),
    });
    if (answer.ok) return answer.json();
    // 503 and 429: not now. The answer says in how many seconds to come back.
    if (left === 0 || ![503, 429].includes(answer.status)) throw new Error(`${answer.status}: ${await answer.text()}`);
    await new Promise((resolve) => setTimeout(resolve, 1000 * Number(answer.headers.get('Retry-After') ?? 1)));
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [topic, text] = process.argv.slice(2);
  try {
    console.log(await publish(topic, { text }));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
