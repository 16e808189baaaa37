#!/usr/bin/env python3
"""How long pages are without a broker while a command restarts it, and whether anything that was accepted is lost.

    gaps.py PORT PAGES refusals|no-refusals COMMAND...

PAGES WebSockets subscribe, and connect again as the broker's own page does: after 0.25 s, doubling to 10 s, with jitter.
Beside them newcomers come, one after the other, and something is published all the time. After a second the command runs.
Fails if a page is without a broker for more than 3 s, or half of them for more than 1 s; if a page misses a message that was
accepted for it; and, with `no-refusals`, if anybody is refused.

Lost is: a message accepted before the command that a connected page did not get, or a hole between two that it got.
"""

import asyncio
import json
import random
import statistics
import sys
import time

LONGEST_S, MEDIAN_S, PATIENCE_S = 3.0, 1.0, 40.0
UPGRADE = (
    "GET /sub/gaps HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CLOSE = bytes([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9])


class Trial:
    """All pages and publishers of one restart."""

    def __init__(self, port, pages):
        self.port, self.pages = port, pages
        # Number of each accepted message: its epoch, its offset, and when its answer came.
        self.accepted = {}
        # Of each connection: when it was open, and the numbers that it got.
        self.connections = []
        self.gaps, self.refused, self.connected, self.restarted = [], [], 0, None
        self.stop = asyncio.Event()

    async def request(self, head, body=b""):
        """The status and the body of an answer on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
        status, _, rest = answer.partition(b"\r\n")
        return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]

    async def publish(self):
        number = 0
        while not self.stop.is_set():
            number += 1
            try:
                status, body = await self.request("POST /pub/gaps HTTP/1.1", str(number).encode())
                if status == 200:
                    answer = json.loads(body)
                    self.accepted[number] = (answer["epoch"], answer["offset"], time.monotonic())
                else:
                    self.refused.append(f"a publisher by {status}")
            except (OSError, IndexError, asyncio.TimeoutError) as error:
                self.refused.append(f"a publisher: {error!r}")
            await asyncio.sleep(0.01)

    async def come(self):
        while not self.stop.is_set():
            try:
                status, _ = await self.request("GET /healthz HTTP/1.1")
                if status != 200:
                    self.refused.append(f"a newcomer by {status}")
            except (OSError, IndexError, asyncio.TimeoutError) as error:
                self.refused.append(f"a newcomer: {error!r}")
            await asyncio.sleep(0.01)

    async def page(self):
        lost, tries = None, 0
        while not self.stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(UPGRADE.encode())
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                if b" 101 " not in head[:16]:
                    raise ConnectionError(head[:12].decode())
            except (OSError, EOFError, asyncio.TimeoutError) as error:
                self.refused.append(f"a page: {error!r}")
            else:
                if lost:
                    self.gaps.append(time.monotonic() - lost)
                self.connected += 1
                tries = 0
                connection = (time.monotonic(), [])
                self.connections.append(connection)
                await self.read(reader, writer, connection[1])
                writer.close()
                self.connected -= 1
                lost = time.monotonic()
            await asyncio.sleep(min(10, 0.25 * 2**tries) * (0.5 + random.random() / 2))
            tries += 1

    async def read(self, reader, writer, numbers):
        """Reads small frames until the broker closes."""
        try:
            while True:
                first, length = await reader.readexactly(2)
                payload = await reader.readexactly(length)
                if first == 0x88:
                    writer.write(CLOSE)
                    return
                if first in (0x81, 0x82):
                    numbers.append(int(payload))
        except (OSError, EOFError):
            return

    def lost(self):
        """What a page should have got and did not, as sentences."""
        complaints = []
        for since, numbers in self.connections:
            places = [self.accepted[number][:2] for number in numbers if number in self.accepted]
            for before, after in zip(places, places[1:]):
                if before[0] != after[0] or after[1] != before[1] + 1:
                    complaints.append(f"{after} came behind {before}")
            owed = [n for n, (_, _, at) in self.accepted.items() if since < at - 1 and at < self.restarted]
            missing = set(owed) - set(numbers)
            if since < self.restarted and missing:
                complaints.append(f"accepted before the restart and never delivered: {sorted(missing)}")
        return complaints

    async def run(self, command):
        tasks = [asyncio.create_task(self.page()) for _ in range(self.pages)]
        while self.connected < self.pages:
            await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(self.publish()), asyncio.create_task(self.come())]
        await asyncio.sleep(2.5)
        self.refused.clear()
        self.restarted = time.monotonic()
        restart = await asyncio.create_subprocess_exec(*command)
        status = await restart.wait()
        deadline = self.restarted + PATIENCE_S
        while status == 0 and time.monotonic() < deadline and (
            len(self.gaps) < self.pages or self.connected < self.pages
        ):
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        self.stop.set()
        for task in tasks:
            task.cancel()
        return status


def main():
    port, pages, may_refuse, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "refusals", sys.argv[4:]
    trial = Trial(port, pages)
    status = asyncio.run(trial.run(command))
    gaps, complaints = sorted(trial.gaps), trial.lost()
    if status != 0:
        complaints.append(f"{' '.join(command)} ended with {status}")
    if len(gaps) < pages or trial.connected < pages:
        complaints.append(f"{len(gaps)} of {pages} pages came back, {trial.connected} are connected")
    if gaps and (statistics.median(gaps) > MEDIAN_S or gaps[-1] > LONGEST_S):
        complaints.append(f"longer than {MEDIAN_S:.0f} s for half of the pages, or than {LONGEST_S:.0f} s for one")
    if trial.refused and not may_refuse:
        complaints.append(f"{len(trial.refused)} were refused, the first of them {trial.refused[0]}")
    if gaps:
        print(
            f"{pages} pages without a broker: median {statistics.median(gaps):.2f} s, longest {gaps[-1]:.2f} s; "
            f"{len(trial.refused)} attempts refused; {len(trial.accepted)} messages accepted, "
            f"{len({epoch for epoch, _, _ in trial.accepted.values()})} brokers"
        )
    for complaint in complaints[:10]:
        print(f"WRONG: {complaint}")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
