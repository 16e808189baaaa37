// A broadcaster with node's ws library. What comes in at /pub/TOPIC goes out to everybody at /sub/TOPIC.
//
//     node ws.mjs PORT
//
// Settings: https://github.com/websockets/ws/blob/master/doc/ws.md (no compression, nobody tracked twice) and the
// "opt-in for performance" of its README (bufferutil). ws sets TCP_NODELAY itself.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { WebSocket, WebSocketServer } from 'ws';

const port = process.argv[2];
if (port === '--versions') {
  const manifest = createRequire(import.meta.url).resolve('ws/package.json');
  console.log(`node ${process.version}, ws ${JSON.parse(readFileSync(manifest)).version}`);
  process.exit();
}

/** Subscribers by topic. */
const topics = new Map();

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(port),
  backlog: 4096,
  perMessageDeflate: false,
  clientTracking: false,
});

server.on('connection', (socket, request) => {
  const [, role, topic] = /^\/(sub|pub)\/(.+)$/.exec(request.url) ?? [];
  if (!role) return socket.close(1008, '/sub/TOPIC or /pub/TOPIC');
  if (!topics.has(topic)) topics.set(topic, new Set());
  const subscribers = topics.get(topic);
  socket.on('error', () => {});
  if (role === 'sub') {
    subscribers.add(socket);
    socket.on('close', () => subscribers.delete(socket));
    return;
  }
  socket.on('message', (data, isBinary) => {
    for (const subscriber of subscribers) {
      if (subscriber.readyState === WebSocket.OPEN) subscriber.send(data, { binary: isBinary });
    }
  });
});

server.on('listening', () => console.log(`listening on 127.0.0.1:${server.address().port}`));
