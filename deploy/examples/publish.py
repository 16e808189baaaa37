"""Publishes a message from Python, without a library: python3 publish.py TOPIC TEXT

BROKER is the broker's URL, http://127.0.0.1:8080 by default. BROKER_KEY is one of the broker's keys ([[key]]), if it
asks for one.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

BROKER = os.environ.get("BROKER", "http://127.0.0.1:8080")
KEY = os.environ.get("BROKER_KEY")


def publish(topic, value, attempts=5):
    """Publishes a value as JSON. The answer has topic, epoch and offset; what is refused raises HTTPError."""
    headers = {"Content-Type": "application/json"}
    if KEY:
        headers["Authorization"] = f"Bearer {KEY}"
    url = f"{BROKER}/pub/{urllib.parse.quote(topic)}"
    request = urllib.request.Request(url, json.dumps(value).encode(), headers)
    for left in reversed(range(attempts)):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            # 503 and 429: not now. The answer says in how many seconds to come back.
            if left == 0 or error.code not in (503, 429):
                raise
            time.sleep(int(error.headers.get("Retry-After", "1")))


if __name__ == "__main__":
    try:
        print(publish(sys.argv[1], {"text": sys.argv[2]}))
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {error.read().decode()}")
