#!/usr/bin/env bash
# Sends what /api/openapi.json describes, and what it forbids, to a broker, and holds the answers against it (schemathesis).
#
#   bash deploy/checks/openapi.sh [RINGYARD]
#
# RINGYARD is the program, target/release/ringyard by default. Needs python3 with venv, curl, and PyPI. Takes less than a
# minute, on loopback. Exits with 0 if every answer is as described.
#
# Not checked: whether all that the schema allows is accepted and all else refused. The grammar of topics is no JSON Schema,
# a plain GET of a WebSocket's path is refused, and what is wrong with an item is in its result.
set -euo pipefail
cd "$(dirname "$0")/../.."

ringyard=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/ringyard}")
[[ -x $ringyard ]] || { printf '%s is not there: cargo build --release -p ringyard-broker\n' "$ringyard"; exit 1; }

work=$(mktemp -d)
broker=
finish() {
    [[ -z $broker ]] || { kill "$broker" && wait "$broker" || true; } 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check schemathesis==4.32.5

"$ringyard" --listen 127.0.0.1:0 --admin-listen public --shards 2 --log-level warn >"$work/log" 2>&1 &
broker=$!
address=
for _ in {1..100}; do
    address=$(grep -om1 '127\.0\.0\.1:[0-9]*' "$work/log" || true)
    [[ -z $address ]] || break
    sleep 0.1
done
[[ -n $address ]] || { cat "$work/log"; exit 1; }

cd "$work"
# 501 is what a topic does not provide for, such as a retained message where its rule forbids one.
cat >schemathesis.toml <<'CONFIG'
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501"]
CONFIG
timeout 180 venv/bin/schemathesis run "http://$address/api/openapi.json" --phases examples,coverage,fuzzing \
    --exclude-checks positive_data_acceptance,negative_data_rejection --max-examples 30 --max-time 25 --seed 1 \
    --request-timeout 10 --no-color --generation-database none >said 2>&1 || { cut -c1-600 said | tail -n 200; exit 1; }
tail -n 6 said
