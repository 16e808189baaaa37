"""Runs a broker behind each proxy of deploy/proxy and talks to it as pages do, through TLS.

Called by manifests-test.sh in a network of its own (`unshare --net`), where every port is free and clients can have
addresses of their own: 192.0.2.1 is the proxy's, 192.0.2.2 and 192.0.2.3 are clients'. The proxies' files are used as
they are, but for the certificates; the broker is told what their heads say. Prints each thing that goes wrong.
"""

import argparse
import asyncio
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

# Not websockets.sync: its thread reads the TLS socket while the caller writes it, which OpenSSL does not allow. About
# one handshake in a thousand was lost.
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

DEPLOY = Path(__file__).resolve().parent.parent
NAME = "broker.example.org"
PROXY, CLIENT, OTHER = "192.0.2.1", "192.0.2.2", "192.0.2.3"
# Connections of one address: few, so that the test soon meets the limit.
PER_ADDRESS = 2


class Way:
    """A way in: the proxy's command, its port, and what the broker is told, as the head of the proxy's file has it."""

    def __init__(self, name, file, command, port=443):
        self.name, self.command, self.port = name, command, port
        head = (DEPLOY / "proxy" / file).read_text()
        if port == 443:
            # What follows is for the other way.
            head = head.split("for the second besides")[0]
        self.variables = dict(re.findall(r"^#   (RINGYARD_\w+)=(.*)$", head, re.M))


class Page:
    """A client with an address, talking TLS to the proxy."""

    def __init__(self, work, way, address):
        self.way, self.address = way, address
        self.tls = ssl.create_default_context(cafile=work / "certificates/fullchain.pem")

    def dial(self):
        return socket.create_connection((PROXY, self.way.port), timeout=10, source_address=(self.address, 0))

    def authority(self):
        return NAME if self.way.port == 443 else f"{NAME}:{self.way.port}"

    def ask(self, head, body=""):
        """The status of the answer."""
        with self.tls.wrap_socket(self.dial(), server_hostname=NAME) as link:
            link.sendall(f"{head}Host: {self.authority()}\r\n\r\n{body}".encode())
            answer = b""
            while b"\r\n" not in answer and (part := link.recv(4096)):
                answer += part
        return int(answer.split()[1])

    def subscribe(self, topic):
        return connect(
            f"wss://{self.authority()}/sub/{topic}",
            sock=self.dial(),
            ssl=self.tls,
            origin=f"https://{self.authority()}",
            compression=None,
            open_timeout=10,
            close_timeout=5,
        )

    def handshake(self, topic, origin=None, forged=None):
        """The status that a WebSocket's handshake gets: 101, or why not."""
        head = (
            f"GET /sub/{topic} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {origin or f'https://{self.authority()}'}\r\n"
        )
        return self.ask(head + (f"X-Forwarded-For: {forged}\r\n" if forged else ""))

    def publish(self, topic, text):
        """The status that a POST gets."""
        head = f"POST /pub/{topic} HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
        return self.ask(f"{head}Connection: close\r\n", text)


def listening(port, until):
    """Waits until somebody takes connections there."""
    while time.monotonic() < until:
        try:
            socket.create_connection((PROXY if port != 8080 else "127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


async def talk(work, way):
    """What a page, a publisher and a crowd do."""
    page, other = Page(work, way, CLIENT), Page(work, way, OTHER)
    complaints = []
    async with page.subscribe("news") as first:
        status = await asyncio.to_thread(page.publish, "news", "hello")
        if status != 200:
            complaints.append(f"POST is answered with {status}")
        elif (heard := await asyncio.wait_for(first.recv(), 10)) not in ("hello", b"hello"):
            complaints.append(f"'hello' arrives as {heard!r}")
        status = await asyncio.to_thread(page.handshake, "news", origin="https://elsewhere.example")
        if status != 403:
            complaints.append(f"a foreign page gets {status}, not 403")
        async with page.subscribe("news"):
            # Both places of this address are taken, whatever it says of itself; another has its own.
            for forged in (None, "198.51.100.7"):
                status = await asyncio.to_thread(page.handshake, "news", forged=forged)
                if status != 429:
                    complaints.append(f"one connection too many (X-Forwarded-For: {forged}) gets {status}, not 429")
            status = await asyncio.to_thread(other.handshake, "news")
            if status != 101:
                complaints.append(f"another address gets {status}: the broker takes all for one")
    return complaints


def end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def check(work, binary, way):
    """Broker and proxy up, talk, down."""
    environment = {
        "PATH": os.environ["PATH"],
        "RINGYARD_MAX_CONNECTIONS": "1000",
        "RINGYARD_MAX_CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
        "RINGYARD_DRAIN_WINDOW": "0s",
        **way.variables,
    }
    log = open(work / f"{way.name}.log", "w+b")
    until = time.monotonic() + 20
    broker = subprocess.Popen([binary], env=environment, stdout=log, stderr=log)
    proxy = None
    try:
        if not listening(8080, until):
            raise RuntimeError("the broker does not listen")
        home = {"PATH": os.environ["PATH"], "HOME": str(work), "XDG_DATA_HOME": str(work), "XDG_CONFIG_HOME": str(work)}
        proxy = subprocess.Popen(way.command, env=home, stdout=log, stderr=log)
        if not listening(way.port, until):
            raise RuntimeError("the proxy does not listen")
        # HAProxy sends nobody on before its first health check.
        time.sleep(1)
        complaints = asyncio.run(talk(work, way))
    except (OSError, RuntimeError, WebSocketException) as error:
        complaints = [f"{type(error).__name__}: {error}"]
    finally:
        for process in filter(None, (proxy, broker)):
            end(process)
    log.seek(0)
    said = log.read().decode(errors="replace")
    log.close()
    return complaints, said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--work", required=True, type=Path, help="folder with the proxies' files and certificates")
    arguments = parser.parse_args()
    work = arguments.work
    for command in (
        ["ip", "link", "set", "lo", "up"],
        *(["ip", "address", "add", f"{address}/32", "dev", "lo"] for address in (PROXY, CLIENT, OTHER)),
    ):
        subprocess.run(command, check=True)
    haproxy = ["haproxy", "-db", "-f", str(work / "haproxy.cfg")]
    ways = [
        Way("nginx", "nginx.conf", ["nginx", "-c", str(work / "nginx.conf"), "-g", "daemon off;"]),
        Way("haproxy", "haproxy.cfg", haproxy),
        Way("haproxy, PROXY protocol", "haproxy.cfg", haproxy, 8443),
        Way("caddy", "Caddyfile", ["caddy", "run", "--adapter", "caddyfile", "--config", str(work / "Caddyfile")]),
    ]
    failed = False
    for way in ways:
        complaints, said = check(work, arguments.binary, way)
        print(f"{'FAILED' if complaints else 'ok'}: {way.name}: pages, publishers and addresses pass it")
        for complaint in complaints:
            print(f"    {complaint}")
        if complaints:
            print("".join(f"    | {line}\n" for line in said.splitlines()[-20:]), end="")
        failed |= bool(complaints)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
