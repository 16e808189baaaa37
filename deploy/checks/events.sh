#!/usr/bin/env bash
# Has clients that are not ours read streams of server-sent events: curl, eventsource and reconnecting-eventsource (npm), httpx-sse and sseclient-py (PyPI); and
# the load generator, which checks every message.
#
#   bash deploy/checks/events.sh [RINGYARD [LOADGEN]]
#
# RINGYARD and LOADGEN are the programs, those of target/release by default. Needs curl, node with npm, python3 with venv, npm and PyPI.
# Takes less than a minute, on loopback. Exits with 0 if every client got everything, once and in order.
set -euo pipefail
cd "$(dirname "$0")/../.."

release=${CARGO_TARGET_DIR:-target}/release
ringyard=$(realpath "${1:-$release/ringyard}")
loadgen=$(realpath "${2:-$release/ringyard-loadgen}")
for program in "$ringyard" "$loadgen"; do
    [[ -x $program ]] || { printf '%s is not there: cargo build --release --workspace\n' "$program"; exit 1; }
done
checks=$PWD/deploy/checks

work=$(mktemp -d)
broker=
finish() {
    [[ -z $broker ]] || { kill "$broker" && wait "$broker" || true; } 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
cd "$work"

# start OPTION...: a broker, whose address is in $address from then on.
start() {
    "$ringyard" --listen 127.0.0.1:0 --admin-listen public --shards 2 --log-level warn "$@" >log 2>&1 &
    broker=$!
    address=
    for _ in {1..100}; do
        address=$(grep -om1 '127\.0\.0\.1:[0-9]*' log || true)
        [[ -z $address ]] || return 0
        sleep 0.1
    done
    cat log
    return 1
}

stop() {
    kill "$broker"
    wait "$broker"
    broker=
}

npm init --yes >/dev/null
npm install --silent --no-audit --no-fund eventsource@5.1.5 reconnecting-eventsource@1.6.5
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check httpx==0.28.1 httpx-sse==0.4.3 sseclient-py==1.9.0
cp "$checks/events.mjs" .

for io in auto epoll; do
    start --io "$io"
    curl --silent --no-buffer --max-time 3 --header 'Accept: text/event-stream' "http://$address/sub/curl" >heard &
    curl=$!
    until grep --quiet 'event: position' heard; do sleep 0.05; done
    curl --silent --fail --data $'two\nlines' "http://$address/pub/curl" >/dev/null
    wait "$curl" || true
    # It is there at once, not when the answer ends.
    grep --quiet --line-regexp 'data: lines' heard || { printf 'curl heard:\n'; cat heard; exit 1; }
    printf 'ok: curl, %s\n' "$io"
    timeout 60 venv/bin/python "$checks/events.py" "$address"
    timeout 60 node events.mjs "$address"
    timeout 60 "$loadgen" --url "ws://$address" --protocol sse --clients 200 --topics 4 --rate 400 --duration 3 --warmup 1 \
        --quiet >loaded 2>&1 || { tail -n 40 loaded; exit 1; }
    printf 'ok: ringyard-loadgen, %s\n' "$io"
    stop
done
