"""Publishes what a Wi-Fi router says of itself, twice a second, for the demo of a status page: python3 wifi.py

BROKER is the broker's URL, http://127.0.0.1:8080 by default. BROKER_KEY is one of the broker's keys ([[key]]), if it asks for
one. The values are made up; with your own in place of `measure`, it is a publisher for your own status page. Needs Python 3
and its standard library.
"""

import http.client
import json
import math
import os
import random
import sys
import time
import urllib.parse

BROKER = urllib.parse.urlsplit(os.environ.get("BROKER", "http://127.0.0.1:8080"))
KEY = os.environ.get("BROKER_KEY")
INTERVAL_S = 0.5

# name: unit, typical value, how far it strays, smallest value
VALUES = {
    "signal": ("dBm", -58, 9, -95),
    "noise": ("dBm", -91, 2.5, -100),
    "clients": ("", 14, 5, 0),
    "rate-tx": ("Mbit/s", 612, 180, 6),
    "rate-rx": ("Mbit/s", 540, 160, 6),
    "traffic-in": ("Mbit/s", 48, 40, 0),
    "traffic-out": ("Mbit/s", 7, 6, 0),
    "channel-busy": ("%", 31, 20, 0),
    "retries": ("%", 4, 4, 0),
    "crc-errors": ("/s", 2, 3, 0),
    "beacon-loss": ("%", 0.4, 0.5, 0),
    "tx-power": ("dBm", 20, 0.5, 1),
    "temperature-soc": ("°C", 61, 4, 20),
    "temperature-radio": ("°C", 54, 5, 20),
    "load": ("", 0.6, 0.5, 0),
    "memory-free": ("MB", 212, 12, 0),
    "connections": ("", 830, 240, 0),
    "dns-time": ("ms", 11, 6, 1),
    "ping": ("ms", 9, 4, 1),
    "ping-loss": ("%", 0.1, 0.3, 0),
    "dhcp-leases": ("", 31, 3, 0),
    "voltage": ("V", 12.1, 0.15, 0),
}


def measure(at, strays):
    """All values at a time, in seconds. `strays` holds the random part of each, which changes slowly."""
    for number, (name, (unit, typical, far, least)) in enumerate(VALUES.items()):
        strays[name] = 0.9 * strays.get(name, 0.0) + random.gauss(0, 0.15)
        wave = math.sin(at / (17 + 3 * number) + number)
        value = max(least, typical + far * (0.5 * wave + strays[name]))
        is_count = name in ("clients", "connections", "dhcp-leases")
        yield name, {"value": round(value) if is_count else round(value, 2), "unit": unit}


def publish(connection, values):
    """One request for all of them; what the broker refuses raises ValueError."""
    messages = [{"topic": f"demos/status/{name}", "data": data} for name, data in values]
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {KEY}"} if KEY else {})}
    connection.request("POST", "/pub", json.dumps({"messages": messages}), headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    if answer.status in (429, 503):
        raise ConnectionError(f"not now ({answer.status})")
    if answer.status != 200:
        raise ValueError(f"{answer.status}: {body}")


def main():
    kind = http.client.HTTPSConnection if BROKER.scheme == "https" else http.client.HTTPConnection
    connection = kind(BROKER.hostname, BROKER.port, timeout=10)
    strays = {}
    print(f"{len(VALUES)} values to {BROKER.geturl()}, twice a second; Ctrl-C ends it", flush=True)
    while True:
        try:
            publish(connection, measure(time.monotonic(), strays))
        except (OSError, http.client.HTTPException) as error:
            print(f"{error}; again in a second", file=sys.stderr)
            connection.close()
            time.sleep(1)
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"refused: {error}")
    except KeyboardInterrupt:
        pass
