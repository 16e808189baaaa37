#!/usr/bin/env bash
# Scans the broker's port with TLS (sslyze), by default and with --tls-min 1.3, and fails on each finding.
#
#   bash deploy/checks/tls_scan.sh [RINGYARD]
#
# RINGYARD is the program, target/release/ringyard by default. Needs openssl, python3 with venv, and PyPI. Takes less than a
# minute, on loopback, with an authority of its own. What is expected is written in tls_scan.py.
set -euo pipefail
cd "$(dirname "$0")/../.."

ringyard=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/ringyard}")
[[ -x $ringyard ]] || { printf '%s is not there: cargo build --release -p ringyard-broker\n' "$ringyard"; exit 1; }
judge=$PWD/deploy/checks/tls_scan.py

work=$(mktemp -d)
broker=
stop_broker() {
    [[ -z $broker ]] || { kill "$broker" && wait "$broker" || true; } 2>/dev/null
    broker=
}
finish() {
    stop_broker
    rm -rf "$work"
}
trap finish EXIT
cd "$work"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sslyze==6.3.1

# As in broker/TLS.md.
make_certificate() {
    local ec=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    openssl req -x509 "${ec[@]}" -keyout ca.key -out ca.pem -days 30 -subj "/CN=Test authority" \
        -addext keyUsage=critical,keyCertSign,cRLSign
    openssl req "${ec[@]}" -keyout key.pem -out leaf.csr -subj "/CN=localhost"
    printf '%s\n' subjectAltName=DNS:localhost,IP:127.0.0.1 basicConstraints=CA:FALSE keyUsage=digitalSignature \
        extendedKeyUsage=serverAuth crlDistributionPoints=URI:http://localhost/ca.crl >extensions
    openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -days 90 -extfile extensions -out cert.pem
    printf '[[tls]]\ncert = "cert.pem"\nkey = "key.pem"\n' >ringyard.toml
}
make_certificate >said 2>&1 || { cat said; exit 1; }

# scan LEAST CONFIGURATION: with --tls-min LEAST, against Mozilla's configuration of this name.
scan() {
    local least=$1 configuration=$2 port=
    "$ringyard" --config ringyard.toml --listen 127.0.0.1:0 --admin-listen off --tls-listen 127.0.0.1:0 --tls-min "$least" \
        --shards 2 --log-level warn >log 2>&1 &
    broker=$!
    for _ in {1..100}; do
        port=$(grep -om1 'https://127\.0\.0\.1:[0-9]*' log | grep -o '[0-9]*$' || true)
        [[ -z $port ]] || break
        sleep 0.1
    done
    [[ -n $port ]] || { cat log; return 1; }
    local commands=(certinfo sslv2 sslv3 tlsv1 tlsv1_1 tlsv1_2 tlsv1_3 early_data elliptic_curves compression fallback)
    commands+=(heartbleed openssl_ccs robot reneg ems)
    timeout 120 venv/bin/sslyze "${commands[@]/#/--}" --mozilla_config "$configuration" --certinfo_ca_file ca.pem \
        --json_out scan.json "localhost:$port{127.0.0.1}" >said 2>&1 || { cat said; return 1; }
    venv/bin/python "$judge" scan.json "$least" || { cat said; return 1; }
    stop_broker
}
scan 1.2 intermediate
# A finding is found: that scan has TLS 1.2.
if venv/bin/python "$judge" scan.json 1.3 >said; then
    printf 'TLS 1.2 is not found where it should not be\n'
    exit 1
fi
grep -q '^tls_1_2: ' said || { cat said; exit 1; }
scan 1.3 modern
