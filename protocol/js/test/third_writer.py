"""Edits a document of Yjs with pycrdt, over the sub-protocol `ringyard.v1`, until the text ends with THE END; then says the text.

    python third_writer.py URL TOPIC EDITS
"""

import asyncio
import base64
import json
import random
import sys

from pycrdt import Doc, Text
from websockets.asyncio.client import connect


async def main(url, topic, edits):
    doc = Doc()
    text = doc.get("", type=Text)
    outgoing = []
    applying = False
    done = asyncio.Event()

    def observe(event):
        if not applying:
            outgoing.append(event.update)

    doc.observe(observe)
    async with connect(url, subprotocols=["ringyard.v1"]) as socket:

        async def say(**command):
            await socket.send(json.dumps(command))

        async def read():
            nonlocal applying
            async for frame in socket:
                message = json.loads(frame)
                if message["type"] == "error":
                    raise RuntimeError(message)
                if message["type"] != "message":
                    continue
                applying = True
                doc.apply_update(base64.b64decode(message["data"]))
                applying = False
                if str(text).endswith("THE END"):
                    done.set()
                    return

        await say(type="subscribe", id=1, topic=topic, last=1000)
        reader = asyncio.create_task(read())
        chance = random.Random(7)
        for i in range(edits):
            at = chance.randint(0, len(str(text).encode()))
            if chance.random() < 0.2 and at + 1 < len(str(text)):
                del text[at : at + 1]
            else:
                text.insert(at, f"py{i} ")
            for update in outgoing:
                data = base64.b64encode(update).decode()
                await say(type="publish", id=i + 2, topic=topic, data=data, encoding="base64")
            outgoing.clear()
            await asyncio.sleep(chance.random() / 100)
        waiter = asyncio.create_task(done.wait())
        finished, _ = await asyncio.wait({reader, waiter}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        for task in finished:
            task.result()
        assert done.is_set(), "the end did not come"
        waiter.cancel()
    print(json.dumps(str(text)))


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
