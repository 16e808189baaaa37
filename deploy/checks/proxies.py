"""Runs each proxy of deploy/proxy, before a broker and before a recorder, and talks to it through TLS.

Called by manifests-test.sh in a network of its own (`unshare --net`), where every port is free and clients can have
addresses of their own: 192.0.2.1 is the proxy's, 192.0.2.2 and 192.0.2.3 are clients'. The proxies' files are used as
they are, but for the certificates; the broker is told what their heads say. Prints each thing that goes wrong.

- Before a broker: pages subscribe and cannot publish, a back end with a key publishes, addresses are counted.
- Before a recorder, which keeps the path of each request: what is open arrives as it was sent, and nothing else does. The
  same with all that the heads say how to open.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

# Not websockets.sync: its thread reads the TLS socket while the caller writes it, which OpenSSL does not allow. About
# one handshake in a thousand was lost.
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

DEPLOY = Path(__file__).resolve().parent.parent
NAME = "broker.example.org"
PROXY, CLIENT, OTHER = "192.0.2.1", "192.0.2.2", "192.0.2.3"
# A back end beside the broker. Not the proxy's address: from there the broker expects the PROXY protocol's header.
BACK_END = "127.0.0.2"
KEY = "rk_a-key-of-this-test-alone"
# Connections of one address: few, so that the test soon meets the limit.
PER_ADDRESS = 2

ALWAYS_OPEN = ["/sub/news", "/sub/a/+/%23?x=/pub/", "/sub/a%2Fb", "/sub/pub/x", "/sub?topic=a&topic=b", "/ws", "/ws?x=1"]
ALWAYS_OPEN += ["/ringyard.js", "/ringyard.min.js", "/ringyard.js?v=1", "/ringyard-sse.js", "/ringyard-yjs.js", "/yjs.js"]
SCRIPTS = [f"/page{part}.js" for part in ("", "-absence", "-facts", "-feed", "-link", "-token", "-values")]
DOCUMENTS = ["/README.md", "/protocol/js/README.md", "/protocol/RINGYARD-V1.md", "/protocol/vectors/v1.json"]
DEMOS = ["chat", "editor", "game", "status", "railway"]
DEMO_FILES = [f"/demos/{name}" for name in ["", "demos.css", "editor.css", "ringyard.toml", *DEMOS]]
DEMO_FILES += [f"/demos/{name}.js" for name in [*DEMOS, "ask", "demo", "plot", "steer"]]
COMPARE = [f"/compare{part}" for part in ("", ".css", ".js", "-ways.js", "-uses.js", ".json")]
PAGE = ["/", "/?x=/pub/", "/page.css", *SCRIPTS, "/icon.svg", "/healthz", *DOCUMENTS, *COMPARE, *DEMO_FILES]
TO_BE_OPENED = ["/pub", "/pub/x", "/pub/a/b%20c", "/bus/x", "/request/x", "/request/a/b%20c?timeout=1s", *PAGE]
NEVER_OPEN = ["/readyz", "/metrics", "/api/stats", "/api/topics?match=%23", "/wsx", "/ws/", "/subx/y", "/request", "/x"]
NEVER_OPEN += ["/ringyardxjs", "/ringyard.js/", "/ringyard.min.mjs"]
# Paths that one program takes for open and the next for something else.
TRICKS = [
    "/sub/../pub/x",
    "/sub/%2e%2e/pub/x",
    "/sub/%2E./pub/x",
    "/sub/..%2fpub/x",
    "/sub/a/./../../pub/x",
    "/sub/../metrics",
    "/ws/../pub/x",
    "/pub/../sub/x",
    "/pub/%2e%2e/sub/x",
    "/pub/..%2fsub/x",
    "/pub/x/../../ws",
    "/metrics/../sub/x",
    "/metrics?/sub/x",
    "/ringyard.js/../metrics",
    "/pub/../ringyard.js",
    "/metrics%3f/../sub/x",
    "//pub/x",
    "//sub/x",
    "/./pub/x",
    "/%70ub/x",
    "/%73ub/x",
    "/%2Fsub/x",
    "/PUB/x",
    "/SUB/x",
    "/Ws",
    f"https://{NAME}/metrics",
    f"https://{NAME}/sub/../pub/x",
]
REFUSED = (403, 404)


class Way:
    """A way in: how its proxy is started, and the options of the broker, as the head of the proxy's file has it."""

    def __init__(self, name, file, command, with_proxy_protocol=False):
        self.name, self.command = name, command
        head = (DEPLOY / "proxy" / file).read_text()
        if not with_proxy_protocol:
            head = re.split(r"^# And besides, if the PROXY protocol", head, flags=re.M)[0]
        self.variables = dict(re.findall(r"^#   (RINGYARD_\w+)=(.*)$", head, re.M))
        assert ("RINGYARD_PROXY_PROTOCOL" in self.variables) == with_proxy_protocol, f"the head of {file} reads otherwise"


class Page:
    """A client with an address, talking TLS to the proxy."""

    def __init__(self, work, address):
        self.address = address
        self.tls = ssl.create_default_context(cafile=work / "certificates/fullchain.pem")

    def dial(self):
        return socket.create_connection((PROXY, 443), timeout=10, source_address=(self.address, 0))

    def ask(self, *heads):
        """The status of each answer, all from one connection, as long as the proxy keeps it."""
        statuses = []
        with self.tls.wrap_socket(self.dial(), server_hostname=NAME) as link:
            answers = link.makefile("rb")
            for head in heads:
                link.sendall(f"{head}Host: {NAME}\r\n\r\n".encode())
                if not (line := answers.readline()):
                    break
                statuses.append(int(line.split()[1]))
                fields = dict(field.lower().split(b": ", 1) for field in iter(answers.readline, b"\r\n") if field)
                answers.read(int(fields.get(b"content-length", 0)))
        return statuses

    def open(self, path, **more):
        return connect(
            f"wss://{NAME}{path}",
            sock=self.dial(),
            ssl=self.tls,
            origin=f"https://{NAME}",
            compression=None,
            open_timeout=10,
            close_timeout=5,
            **more,
        )

    def handshake(self, path, origin=f"https://{NAME}", forged=None):
        """The status that a WebSocket's handshake gets: 101, or why not."""
        head = (
            f"GET {path} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {origin}\r\n"
        )
        return self.ask(head + (f"X-Forwarded-For: {forged}\r\n" if forged else ""))[0]


    def heard(self, path, after):
        """What comes on a stream of events, which goes on: the lines up to one that the publisher `after` sends."""
        until = time.monotonic() + 5
        while True:
            with self.tls.wrap_socket(self.dial(), server_hostname=NAME) as link:
                link.sendall(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nAccept: text/event-stream\r\n\r\n".encode())
                lines, answer = [], link.makefile("rb")
                while (line := answer.readline()) and line != b"event: position\n":
                    lines.append(line)
                if not line and time.monotonic() < until:
                    time.sleep(0.05)
                    continue
                data = after()
                while line and not line.startswith(b"data: " + data):
                    line = answer.readline()
                    lines.append(line)
                return lines

    def handshake_in_time(self, path, **more):
        """The same, but a connection that has ended may count for a moment longer: after 429 it is tried again."""
        until = time.monotonic() + 5
        while (status := self.handshake(path, **more)) == 429 and time.monotonic() < until:
            time.sleep(0.05)
        return status


def publish(topic, text, key=""):
    """A back end publishes to the broker without the proxy. The status."""
    with socket.create_connection(("127.0.0.1", 8080), timeout=10, source_address=(BACK_END, 0)) as link:
        link.sendall(
            f"POST /pub/{topic} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: text/plain\r\n"
            f"Authorization: Bearer {key}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()
        )
        return int(link.makefile("rb").readline().split()[1])


def listening(address, port, until):
    """Waits until somebody takes connections there."""
    while time.monotonic() < until:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nobody listens at {address}:{port}")


async def talk(work):
    """What pages, a publisher and a crowd do. The complaints."""
    page, other = Page(work, CLIENT), Page(work, OTHER)
    complaints = []
    async with page.open("/sub/news") as raw, other.open("/ws", subprotocols=["ringyard.v1"]) as session:
        await session.send(json.dumps({"type": "subscribe", "id": 1, "topic": "+"}))
        # First the answer, then the state of every topic that matches: there is none.
        while json.loads(await asyncio.wait_for(session.recv(), 10))["type"] != "state-end":
            pass
        status = await asyncio.to_thread(publish, "news", "hello", "wrong" + KEY)
        if status != 401:
            complaints.append(f"who publishes with a wrong key gets {status}, not 401")
        await session.send(json.dumps({"type": "publish", "id": 2, "topic": "news", "data": "from a page"}))
        if '"forbidden"' not in (answer := await asyncio.wait_for(session.recv(), 10)):
            complaints.append(f"a page that publishes on /ws gets {answer}")
        status = await asyncio.to_thread(publish, "news", "hello", KEY)
        if status != 200:
            return [f"POST is answered with {status}"]
        if (heard := await asyncio.wait_for(raw.recv(), 10)) not in ("hello", b"hello"):
            complaints.append(f"'hello' arrives as {heard!r}")
        if "hello" not in (heard := await asyncio.wait_for(session.recv(), 10)):
            complaints.append(f"'hello' arrives at /ws as {heard!r}")
        status = await asyncio.to_thread(other.handshake_in_time, "/sub/news", origin="https://elsewhere.example")
        if status != 403:
            complaints.append(f"a foreign page gets {status}, not 403")
        async with page.open("/sub/news"):
            # Both places of this address are taken, whatever it says of itself; another has its own.
            for forged in (None, "198.51.100.7"):
                status = await asyncio.to_thread(page.handshake, "/sub/news", forged=forged)
                if status != 429:
                    complaints.append(f"one connection too many (X-Forwarded-For: {forged}) gets {status}, not 429")
            status = await asyncio.to_thread(other.handshake_in_time, "/sub/news")
            if status != 101:
                complaints.append(f"another address gets {status}: the broker takes all for one")
    # A proxy that held an answer back until it ended, or until there was enough of it, would time out here.
    try:
        lines = await asyncio.to_thread(other.heard, "/sub/news", lambda: publish("news", "streamed", KEY) and b"streamed")
        if not lines or not lines[-1].startswith(b"data: streamed"):
            complaints.append(f"a stream of events brings {lines}")
    except TimeoutError:
        complaints.append("a stream of events is held back")
    return complaints


class Recorder(socketserver.ThreadingTCPServer):
    """In the broker's place: answers each request with 200 and keeps what its first line asks for."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        self.targets = []
        super().__init__(("127.0.0.1", 8080), Recorded)

    def taken(self):
        """What came since the last time. Not /readyz, which the proxies themselves ask for."""
        taken = [target for target in self.targets if target != "/readyz"]
        self.targets.clear()
        return taken


class Recorded(socketserver.StreamRequestHandler):
    """One connection, with one request."""

    timeout = 10

    def handle(self):
        # A header of the PROXY protocol may come before it.
        line = self.rfile.readline()
        while line and not (request := re.search(rb"[A-Z]+ (\S+) HTTP/1\.[01]\r\n$", line)):
            line = self.rfile.readline()
        if not line:
            return
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        self.server.targets.append(request[1].decode())
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def try_paths(work, recorder, is_opened):
    """What is open arrives as it was sent, all else is refused and does not arrive. The complaints."""
    page = Page(work, CLIENT)
    complaints = []
    is_open = ALWAYS_OPEN + (TO_BE_OPENED if is_opened else [])
    is_closed = NEVER_OPEN + TRICKS + ([] if is_opened else TO_BE_OPENED)
    for method in ("GET", "POST"):
        for path in is_open + is_closed:
            recorder.taken()
            length = "Content-Length: 0\r\n" if method == "POST" else ""
            status = page.ask(f"{method} {path} HTTP/1.1\r\n{length}Connection: close\r\n")[0]
            arrived = recorder.taken()
            if path in is_open and (status != 200 or arrived != [path]):
                complaints.append(f"{method} {path} is open, but gets {status} and arrives as {arrived}")
            elif path in is_closed and (status not in REFUSED or arrived):
                complaints.append(f"{method} {path} is closed, but gets {status} and arrives as {arrived}")
    # A connection is not judged by its first request.
    statuses = page.ask("GET /sub/x HTTP/1.1\r\n", "GET /metrics HTTP/1.1\r\n", "GET /ws HTTP/1.1\r\n")
    if statuses[:2] != [200, 403] or recorder.taken() not in (["/sub/x"], ["/sub/x", "/ws"]):
        complaints.append(f"/sub/x, /metrics and /ws on one connection get {statuses}")
    return complaints


@contextmanager
def running(command, log, environment):
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def proxy(work, way, folder, log):
    """The proxy, once it sends requests on: HAProxy and Caddy ask first whether the broker is ready."""
    home = {"PATH": os.environ["PATH"], "HOME": str(work), "XDG_DATA_HOME": str(work), "XDG_CONFIG_HOME": str(work)}
    until = time.monotonic() + 20
    with running([word.format(work / folder) for word in way.command], log, home):
        listening(PROXY, 443, until)
        while (status := Page(work, PROXY).ask("GET /sub/ready HTTP/1.1\r\nConnection: close\r\n")[0]) >= 500:
            if time.monotonic() > until:
                raise RuntimeError(f"the proxy answers with {status}")
            time.sleep(0.1)
        yield


def tables():
    """The tables of HOST.md, with the digest of our key."""
    text = re.search(r"^```toml\n(\[auth\].*?)^```", (DEPLOY / "HOST.md").read_text(), re.M | re.S)[1]
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    text, keys = re.subn(r'^sha256 = "[0-9a-f]{64}"', f'sha256 = "{digest}"', text, flags=re.M)
    assert keys == 1, "HOST.md has one [[key]]"
    return text


def before_broker(work, way, log, binary):
    environment = {
        "PATH": os.environ["PATH"],
        "RINGYARD_MAX_CONNECTIONS": "1000",
        "RINGYARD_MAX_CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
        "RINGYARD_DRAIN_WINDOW": "0s",
        **way.variables,
        "RINGYARD_CONFIG": str(work / "ringyard.toml"),
    }
    with running([binary], log, environment):
        listening("127.0.0.1", 8080, time.monotonic() + 20)
        with proxy(work, way, "as-they-are", log):
            return asyncio.run(talk(work))


def before_recorder(work, way, log, is_opened):
    with Recorder() as recorder:
        threading.Thread(target=recorder.serve_forever, daemon=True).start()
        try:
            with proxy(work, way, "opened" if is_opened else "as-they-are", log):
                return try_paths(work, recorder, is_opened)
        finally:
            recorder.shutdown()


def report(work, name, what, run):
    """Runs it, and prints what it complains of. Whether it does."""
    with open(work / "proxy.log", "w+b") as log:
        try:
            complaints = run(log)
        except (OSError, RuntimeError, WebSocketException, IndexError) as error:
            complaints = [f"{type(error).__name__}: {error}"]
        print(f"{'FAILED' if complaints else 'ok'}: {name}: {what}")
        if complaints:
            log.seek(0)
            said = log.read().decode(errors="replace").splitlines()[-20:]
            print("".join(f"    {one}\n" for one in complaints) + "".join(f"    | {line}\n" for line in said), end="")
    return bool(complaints)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--work", required=True, type=Path, help="folder with the proxies' files and certificates")
    arguments = parser.parse_args()
    work, binary = arguments.work, arguments.binary
    (work / "ringyard.toml").write_text(tables())
    for command in (
        ["ip", "link", "set", "lo", "up"],
        *(["ip", "address", "add", f"{address}/32", "dev", "lo"] for address in (PROXY, CLIENT, OTHER)),
    ):
        subprocess.run(command, check=True)
    ways = [
        Way("nginx", "nginx.conf", ["nginx", "-c", "{}/nginx.conf", "-g", "daemon off;"]),
        Way("haproxy", "haproxy.cfg", ["haproxy", "-db", "-f", "{}/haproxy.cfg"]),
        Way("haproxy, PROXY protocol", "haproxy.cfg", ["haproxy", "-db", "-f", "{}/haproxy-proxy-protocol.cfg"], True),
        Way("caddy", "Caddyfile", ["caddy", "run", "--adapter", "caddyfile", "--config", "{}/Caddyfile"]),
    ]
    failed = False
    for way in ways:
        steps = [
            ("pages and addresses pass, a back end publishes", lambda log: before_broker(work, way, log, binary)),
            ("/sub/ and /ws are open, nothing else", lambda log: before_recorder(work, way, log, False)),
            ("what its head says how to open is open besides", lambda log: before_recorder(work, way, log, True)),
        ]
        for what, run in steps:
            failed |= report(work, way.name, what, run)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
