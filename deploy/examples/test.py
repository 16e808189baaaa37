"""Runs the examples against a broker, and asks it what README.md says of origins.

    /usr/bin/python3 examples/test.py [RINGYARD]

RINGYARD is the program, target/release/ringyard by default. Needs node and Debian's python3-websockets. Exit status 0:
all is as it is said. Every wait has a limit.
"""

import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import websockets

HERE = Path(__file__).resolve().parent
PUBLISHERS = {
    "Python": [sys.executable, "-B", str(HERE / "publish.py")],
    "Node": ["node", str(HERE / "publish.mjs")],
}
PATIENCE_S = 20
# A topic that has to be encoded in a URL.
TOPIC = "a/räume 1?"

complaints = []


def check(is_so, what):
    if not is_so:
        complaints.append(what)


@contextmanager
def broker(binary, *options):
    """A broker on free ports; its host and port."""
    command = [binary, "--listen", "127.0.0.1:0", "--admin-listen", "off", "--shards", "1", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGYARD_")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        # Its first line has the address; without one it has ended.
        yield re.search(r"http://([\d.]+:\d+)/", process.stdout.readline())[1]
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def publish(name, url, topic, text, key=None):
    """Runs an example."""
    environment = {**os.environ, "BROKER": url, **({"BROKER_KEY": key} if key else {})}
    return subprocess.run(
        [*PUBLISHERS[name], topic, text], env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )


async def publishers_and_subscribers(host):
    """Both ways of subscribing get what each example publishes, with the topic on /ws alone."""
    async with (
        websockets.connect(f"ws://{host}/sub/a/+") as raw,
        websockets.connect(f"ws://{host}/ws", subprotocols=["ringyard.v1"]) as session,
    ):

        async def next_of(socket):
            return json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S))

        await session.send(json.dumps({"type": "subscribe", "id": 1, "topic": "a/+"}))
        while (await next_of(session))["type"] != "state-end":
            pass
        for number, name in enumerate(PUBLISHERS, 1):
            done = await asyncio.to_thread(publish, name, f"http://{host}", TOPIC, f"from {name}")
            check(done.returncode == 0, f"{name} cannot publish: {done.stderr}")
            if done.returncode:
                return
            said = re.search(r"""['"]?offset['"]?: (\d+)""", done.stdout)
            check(said and int(said[1]) == number, f"{name} prints {done.stdout}")
            heard = await next_of(raw)
            check(heard == {"text": f"from {name}"}, f"/sub/a/+ delivers {heard}")
            heard = await next_of(session)
            check((heard["type"], heard["topic"]) == ("message", TOPIC), f"/ws delivers {heard}")
            check(heard["data"] == {"text": f"from {name}"}, f"/ws delivers {heard}")
            done = await asyncio.to_thread(publish, name, f"http://{host}", "$sys/x", "not allowed")
            check(done.returncode == 1 and done.stderr.startswith("403: "), f"refused, {name} says: {done.stderr}")


class Reluctant(BaseHTTPRequestHandler):
    """A broker that restarts: 503 to the first request of each two."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Authorization"]))
        is_ready = len(self.server.seen) % 2 == 0
        body = b'{"topic":"x","epoch":"0000000000000000","offset":1}' if is_ready else b'{"type":"about:blank","status":503,"code":"busy","detail":"Later."}'
        self.send_response(200 if is_ready else 503)
        if not is_ready:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def retries():
    """What is answered with 503 is sent again, when the answer says; the key goes with it."""
    with HTTPServer(("127.0.0.1", 0), Reluctant) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in PUBLISHERS:
            server.seen = []
            begun = time.monotonic()
            done = publish(name, f"http://127.0.0.1:{server.server_port}", "x", "hello", key="a-secret-of-mine")
            check(done.returncode == 0, f"after a 503, {name} says: {done.stderr}")
            check(server.seen == [("/pub/x", "Bearer a-secret-of-mine")] * 2, f"{name} sends {server.seen}")
            check(time.monotonic() - begun >= 1, f"{name} does not wait for Retry-After")
        server.shutdown()


def handshake(address, host, origin):
    """The status that a page from `origin` gets which calls the broker `host`."""
    with socket.create_connection(address.split(":"), timeout=PATIENCE_S) as link:
        link.sendall(
            f"GET /sub/demo HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        return int(link.makefile("rb").readline().split()[1])


def origins(address, is_listed):
    """README.md, "A page of another origin" and "Vite". `is_listed`: the broker has the options that it names."""
    port = address.split(":")[1]
    vite = "http://localhost:5173"
    for host, origin, status in [
        (f"localhost:{port}", f"http://localhost:{port}", 101),
        (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}", 101),
        (f"127.0.0.1:{port}", f"http://localhost:{port}", 101 if is_listed else 403),
        (f"localhost:{port}", f"http://127.0.0.1:{port}", 403),
        # The development server passes Host on, or replaces it.
        ("localhost:5173", vite, 101),
        (f"127.0.0.1:{port}", vite, 101 if is_listed else 403),
        (f"localhost:{port}", "https://app.example.org", 101 if is_listed else 403),
        (f"localhost:{port}", "https://localhost:5173", 403),
        ("dev.example.org:5173", "http://dev.example.org:5173", 421),
    ]:
        got = handshake(address, host, origin)
        check(got == status, f"a page from {origin} that calls {host} gets {got}, not {status} (listed: {is_listed})")


def key(binary):
    """A key opens what is closed without."""
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            [binary, "key", "new", "example", "--publish", "x"], capture_output=True, text=True, timeout=PATIENCE_S, check=True
        ).stdout
        right = re.search(r"Bearer (rk_\S+)", made)[1]
        file = Path(folder) / "ringyard.toml"
        file.write_text(made[made.index("[[key]]") :])
        with broker(binary, "--config", str(file)) as address:
            for name in PUBLISHERS:
                for given, status in ((None, 401), ("rk_another", 401), (right, 0)):
                    done = publish(name, f"http://{address}", "x", "hello", given)
                    is_so = done.stderr.startswith(f"{status}: ") if status else done.returncode == 0
                    check(is_so, f"{name} with the key {given} says: {done.stdout}{done.stderr}")
                done = publish(name, f"http://{address}", "y", "hello", right)
                check(done.stderr.startswith("403: "), f"{name}, where the key does not count, says: {done.stderr}")


def vite():
    """The configuration passes every way in, with WebSockets, and leaves Host alone."""
    script = f"import config from '{HERE}/vite.config.mjs'; console.log(JSON.stringify(config))"
    asked = subprocess.run(
        ["node", "--input-type=module", "-e", script], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    proxies = json.loads(asked.stdout)["server"]["proxy"]
    check(sorted(proxies) == ["/bus", "/pub", "/sub", "/ws"], f"vite.config.mjs passes {sorted(proxies)}")
    for path, proxy in proxies.items():
        check(proxy == {"target": "http://127.0.0.1:8080", "ws": True}, f"vite.config.mjs, {path}: {proxy}")


def main():
    default = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target")) / "release/ringyard"
    binary = str(Path(sys.argv[1] if sys.argv[1:] else default).resolve())
    allowed = re.search(r"^ringyard (--allow-origin .*)$", (HERE / "README.md").read_text(), re.M)[1]
    with broker(binary) as address:
        asyncio.run(publishers_and_subscribers(address))
        origins(address, is_listed=False)
    with broker(binary, *shlex.split(allowed)) as address:
        origins(address, is_listed=True)
    key(binary)
    retries()
    vite()
    for complaint in complaints:
        print(complaint)
    print(f"examples: {f'{len(complaints)} complaints' if complaints else 'passed'}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
