"""WebSocket clients that are not ours (Debian's python3-websockets), for the test of the container images.

    clients.py talk HOST:PORT     publishes with curl and over a WebSocket, and looks that every subscriber gets it
    clients.py stay HOST:PORT     subscribes, prints `open`, and looks that every subscriber is closed with 1001

Exit status 0: it was so. Every wait has a limit. Not responsible for starting or stopping the broker.
"""

import asyncio
import subprocess
import sys

import websockets

SUBSCRIBERS = 50
PATIENCE_S = 40


async def subscribers(host):
    return await asyncio.gather(*(websockets.connect(f"ws://{host}/sub/container") for _ in range(SUBSCRIBERS)))


def post(host, body):
    command = ["curl", "-sS", "--fail-with-body", "-m", "10", "-d", body, f"http://{host}/pub/container"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def talk(host):
    everybody = await subscribers(host)
    answer = await asyncio.to_thread(post, host, "by curl")
    assert '"offset":1' in answer.replace(" ", ""), f"the answer to POST is {answer}"
    large = "by WebSocket, " + 100_000 * "x"
    async with websockets.connect(f"ws://{host}/pub/container") as publisher:
        await publisher.send(large)
        await publisher.send(b"\x00binary")
    for number, subscriber in enumerate(everybody):
        got = [await subscriber.recv() for _ in range(3)]
        assert got == ["by curl", large, b"\x00binary"], f"subscriber {number} got {[part[:20] for part in got]}"
    await asyncio.gather(*(subscriber.close() for subscriber in everybody))
    print(f"{SUBSCRIBERS} subscribers got 3 messages each, in order")


async def stay(host):
    everybody = await subscribers(host)
    print("open", flush=True)
    await asyncio.gather(*(subscriber.wait_closed() for subscriber in everybody))
    codes = sorted({subscriber.close_code for subscriber in everybody})
    assert codes == [1001], f"close codes {codes}"
    print(f"{SUBSCRIBERS} subscribers were closed with 1001")


if __name__ == "__main__":
    what, host = sys.argv[1:]
    asyncio.run(asyncio.wait_for({"talk": talk, "stay": stay}[what](host), PATIENCE_S))
