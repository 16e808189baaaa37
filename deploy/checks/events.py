"""Reads streams of server-sent events with httpx-sse and sseclient-py, as events.sh has it: `python events.py HOST:PORT`."""

import base64
import json
import sys

import httpx
import sseclient
from httpx_sse import connect_sse

SERVER = f"http://{sys.argv[1]}"
ACCEPT = {"Accept": "text/event-stream"}
# Line ends of every kind become LF, as in a page.
PUBLISHED = [b"plain", "räum 😀".encode(), b"", b" leading and trailing ", b"a\nb\r\nc\rd", b"\n\n", b": no comment", b"\xff\x00\xfe"]
EXPECTED = [
    ("binary", base64.b64encode(text).decode())
    if b"\xff" in text
    else ("message", text.decode().replace("\r\n", "\n").replace("\r", "\n"))
    for text in PUBLISHED
]


def publish(client, topic):
    for text in PUBLISHED:
        kind = "application/octet-stream" if b"\xff" in text else "text/plain"
        client.post(f"{SERVER}/pub/{topic}", content=text, headers={"Content-Type": kind}).raise_for_status()


def by_httpx_sse(client, topic, headers, wanted):
    """So many events behind the position, which comes first."""
    with connect_sse(client, "GET", f"{SERVER}/sub/{topic}", headers=headers) as source:
        events = source.iter_sse()
        first = next(events)
        assert first.event == "position" and 1000 <= first.retry <= 5000, first
        return first, [next(events) for _ in range(wanted)]


def by_sseclient(client, topic, headers, wanted):
    """The same."""
    with client.stream("GET", f"{SERVER}/sub/{topic}", headers={**ACCEPT, **headers}) as answer:
        assert answer.headers["content-type"] == "text/event-stream", answer.headers
        events = sseclient.SSEClient(answer.iter_bytes()).events()
        first = next(events)
        assert first.event == "position", first
        return first, [next(events) for _ in range(wanted)]


def main():
    with httpx.Client(timeout=10) as client:
        for name, read in (("httpx-sse", by_httpx_sse), ("sseclient-py", by_sseclient)):
            topic = f"python/{name}"
            first, _ = read(client, topic, {}, 0)
            publish(client, topic)
            # Wherever it was cut off, it goes on behind what it had.
            last, heard = first.id, []
            for part in (3, 1, len(PUBLISHED) - 4):
                position, events = read(client, topic, {"Last-Event-ID": last}, part)
                assert json.loads(position.data)["recovered"] is True, position
                assert position.id == last, (position, last)
                last = events[-1].id
                heard += [(event.event, event.data) for event in events]
            assert heard == EXPECTED, f"{name} heard {heard}, not {EXPECTED}"
            position, _ = read(client, topic, {"Last-Event-ID": "rubbish"}, 0)
            assert json.loads(position.data)["recovered"] is False, position
            print(f"ok: {name}")
        refused = client.get(f"{SERVER}/sub?topic=", headers=ACCEPT)
        assert refused.status_code == 400, refused


if __name__ == "__main__":
    main()
