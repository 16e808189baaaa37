// Reads a stream of server-sent events with eventsource and reconnecting-eventsource (npm), as events.sh has it:
// `node events.mjs HOST:PORT`. Its connection is cut again and again by a relay in between; nothing may be lost or come twice.
import assert from 'node:assert/strict';
import net from 'node:net';
import { EventSource } from 'eventsource';
import library from 'reconnecting-eventsource';

const ReconnectingEventSource = library.default ?? library;

const [host, port] = process.argv[2].split(':');
const MESSAGES = 60;
const CUTS = 3;

const links = new Set();
const relay = net.createServer((client) => {
  const server = net.connect(Number(port), host);
  for (const [one, other] of [[client, server], [server, client]]) {
    links.add(one);
    one.on('error', () => other.destroy());
    one.on('close', () => { links.delete(one); other.destroy(); });
    one.pipe(other);
  }
});
await new Promise((resolve) => relay.listen(0, '127.0.0.1', resolve));

const publish = async (topic, text) => {
  const answer = await fetch(`http://${host}:${port}/pub/${topic}`, { method: 'POST', body: text, headers: { 'Content-Type': 'text/plain' } });
  assert.equal(answer.status, 200);
};

// What a client hears whose connection is cut now and then.
const follow = async (topic, open) => {
  const heard = [];
  const positions = [];
  const events = open(`http://127.0.0.1:${relay.address().port}/sub/${topic}`);
  const whole = new Promise((resolve, reject) => {
    events.onmessage = ({ data }) => {
      heard.push(data);
      if (heard.length === MESSAGES) resolve();
    };
    setTimeout(() => reject(new Error(`${topic}: only ${heard.length} messages came`)), 40_000).unref();
  });
  await new Promise((resolve) => events.addEventListener('position', ({ data }) => {
    positions.push(JSON.parse(data));
    resolve();
  }));
  for (let number = 0; number < MESSAGES; number += 1) {
    await publish(topic, `line ${number}\nof two`);
    if (number % (MESSAGES / CUTS) === 5) for (const link of links) link.destroy();
  }
  await whole;
  assert.deepEqual(heard, Array.from({ length: MESSAGES }, (_, number) => `line ${number}\nof two`), topic);
  assert.ok(positions.length > 1, `${topic}: it came back`);
  assert.ok(positions.slice(1).every(({ recovered }) => recovered === true), JSON.stringify(positions));
  events.close();
  console.log(`ok: ${topic}`);
};

await follow('eventsource', (url) => new EventSource(url));
await follow('reconnecting-eventsource', (url) => new ReconnectingEventSource(url, { eventSourceClass: EventSource, max_retry_time: 300 }));

// A refusal is the last word, so it has to be one: 400 is.
const wrong = new EventSource(`http://${host}:${port}/sub?topic=`);
await new Promise((resolve) => { wrong.onerror = resolve; });
assert.equal(wrong.readyState, EventSource.CLOSED);
relay.close();
process.exit(0);
