/** The real broker, which the environment variable RINGYARD names, and a proxy in front of it that cuts connections. */

import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const BROKER = process.env.RINGYARD;

/** Topics of these tests whose history is not the default; a broker without tables `[[topic]]` does not start with it. */
const RULES = `
[[topic]]
match = "keyed/#"
history = "keyed"
`;

/** Below those that the system gives out by itself: nobody takes it while a broker that is stopped comes back. */
const anyPort = () => randomInt(20_000, 32_000);

class Broker {
  constructor(args, admin) {
    this.args = args;
    this.adminListen = admin ? "127.0.0.1:0" : "off";
    this.port = 0;
  }

  /** Starts it: where it was or, for the first time, where nobody is. */
  async start() {
    if (this.port !== 0) return this.launch(this.port);
    for (let tries = 20; ; tries--) {
      try {
        return await this.launch(anyPort());
      } catch (error) {
        if (tries === 0 || !/in use/.test(error)) throw error;
      }
    }
  }

  async launch(port) {
    const listen = ["--listen", `127.0.0.1:${port}`, "--admin-listen", this.adminListen];
    const args = [...listen, "--shards", "2", ...this.args];
    this.child = spawn(BROKER, args, { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    this.child.stderr.on("data", (data) => (said += data));
    const exit = once(this.child, "exit").then(() => {
      throw new Error(`the broker does not start: ${said}`);
    });
    const address = (async () => {
      let text = "";
      for await (const data of this.child.stdout) {
        text += data;
        const found = /http:\/\/127\.0\.0\.1:\d+\/(?:, operators: (http:\/\/[^/]+))?/.exec(text);
        if (!found) continue;
        this.admin = found[1];
        return;
      }
      await exit;
    })();
    exit.catch(() => {});
    await Promise.race([address, exit]);
    this.child.stdout.resume();
    this.port = port;
    return this;
  }

  async stop(signal = "SIGTERM") {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exit = once(this.child, "exit");
    this.child.kill(signal);
    await exit;
  }
}

/**
 * A broker that ends with the test. With `rules`, topics have these, or with `true` the rules above. With `admin`, it has the
 * operators' port, at the address `admin`.
 */
export const startBroker = async (t, { rules = false, admin = false, args: more = [] } = {}) => {
  const folder = await mkdtemp(join(tmpdir(), "ringyard-js-"));
  t.after(() => rm(folder, { recursive: true }));
  const args = [...more];
  if (rules) {
    const file = join(folder, "ringyard.toml");
    await writeFile(file, rules === true ? RULES : rules);
    args.push("--config", file);
  }
  const broker = await new Broker(args, admin).start();
  t.after(() => broker.stop("SIGKILL"));
  return broker;
};

/** Stands between client and broker. */
class Proxy {
  constructor(server) {
    this.server = server;
    this.pairs = new Set();
    this.url = `ws://127.0.0.1:${server.address().port}/ws`;
    this.refuses = false;
    this.blocksAnswers = false;
  }

  /** Ends all connections; with `refuses` set, new ones too. */
  cut() {
    for (const pair of this.pairs) for (const socket of pair) socket.destroy();
  }
}

export const startProxy = async (t, broker) => {
  const server = net.createServer((client) => {
    if (proxy.refuses) return client.destroy();
    const upstream = net.connect(broker.port, "127.0.0.1");
    const pair = [client, upstream];
    proxy.pairs.add(pair);
    client.on("data", (data) => upstream.write(data));
    // With `blocksAnswers` set, nothing of what the broker says arrives.
    upstream.on("data", (data) => proxy.blocksAnswers || client.write(data));
    for (const socket of pair) {
      socket.on("error", () => {});
      socket.on("close", () => {
        for (const other of pair) other.destroy();
        proxy.pairs.delete(pair);
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const proxy = new Proxy(server);
  t.after(() => {
    server.close();
    proxy.cut();
  });
  return proxy;
};
