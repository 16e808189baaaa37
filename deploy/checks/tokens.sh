#!/usr/bin/env bash
# Runs the samples of broker/SECURITY.md that sign tokens, make keys and check both, as they stand there: Python with PyJWT, Node with
# jose. The broker has to accept what they sign, and to refuse what they do not allow.
#
#   bash deploy/checks/tokens.sh [RINGYARD]
#
# RINGYARD is the program, target/release/ringyard by default. Needs openssl, node with npm, python3 with venv, npm and PyPI. Takes a few
# seconds. Exits with 0 if every sample does what the page says.
set -euo pipefail
cd "$(dirname "$0")/../.."

ringyard=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/ringyard}")
[[ -x $ringyard ]] || { printf '%s is not there: cargo build --release\n' "$ringyard"; exit 1; }
sample=("$PWD/deploy/checks/samples.py" "$PWD/broker/SECURITY.md")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# The samples call it by its name.
mkdir bin
ln -s "$ringyard" bin/ringyard
export PATH=$PWD/bin:$PATH

npm init --yes >/dev/null
npm install --silent --no-audit --no-fund jose@6.2.17
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check PyJWT==2.15.1

# check STATUS ARGUMENT...: the token in $TOKEN gets this exit status, and is not printed.
check() {
    local wanted=$1 status=0
    shift
    ringyard auth check --config ringyard.toml --token-file - "$@" <<<"$TOKEN" >said 2>&1 || status=$?
    if ((status != wanted)) || grep --quiet --fixed-strings "$TOKEN" said; then
        printf 'auth check %s: status %s, not %s:\n' "$*" "$status" "$wanted"
        cat said
        exit 1
    fi
}

# The secret, by the command in the sample of the configuration.
python3 "${sample[@]}" toml 'hs-secret-file = "/run' >sample.toml
bash -c "$(sed -n 's/.*# \(openssl rand .*\)/\1/p' sample.toml)"
sed "s|/run/secrets/hs-secret|$work/hs-secret|" sample.toml >ringyard.toml
ringyard config check --config ringyard.toml >/dev/null

python3 "${sample[@]}" python 'import pathlib, time, jwt' >sign.py
python3 "${sample[@]}" js 'import { SignJWT }' >sign.mjs
python3 "${sample[@]}" sh 'ringyard auth check' >check.sh
for signer in 'venv/bin/python sign.py' 'node sign.mjs'; do
    TOKEN=$($signer)
    export TOKEN
    bash check.sh >said
    grep --quiet 'allowed: subscribe chat/7' said
    check 0 --subscribe chat/7 --publish chat/7
    check 0 --subscribe user/alice/inbox
    check 1 --subscribe user/bob/inbox
    check 1 --publish news
    printf 'ok: %s\n' "$signer"
done

# A pair of keys, the private one for the back end only, and a token signed with it as the sample's last line says.
python3 "${sample[@]}" js 'generateKeyPair' >pair.mjs
node pair.mjs
pem=$(ls ./*.pem)
[[ $(stat --format %a "$pem") == 600 ]] || { printf 'everybody may read %s\n' "$pem"; exit 1; }
cat >sign-es256.mjs <<'EOF'
import { readFile } from "node:fs/promises";
import { SignJWT, importPKCS8 } from "jose";
const [name] = process.argv.slice(2);
const kid = name.replace(/^.*\//, "").replace(/\.pem$/, "");
const key = await importPKCS8(await readFile(name, "utf8"), "ES256");
const token = new SignJWT({ topics: { subscribe: ["chat/7"] } }).setProtectedHeader({ alg: "ES256", kid });
console.log(await token.setSubject("alice").setExpirationTime("10m").sign(key));
EOF
printf '[auth]\nkeys-file = "%s/jwks.json"\nalgorithms = ["ES256"]\n' "$work" >ringyard.toml
TOKEN=$(node sign-es256.mjs "$pem")
check 0 --subscribe chat/7
check 1 --publish chat/7
# With another pair under the same name nothing is good.
rm "$pem"
mv jwks.json old.json
node pair.mjs
mv old.json jwks.json
TOKEN=$(node sign-es256.mjs "$pem")
check 1 --subscribe chat/7
printf 'ok: node pair.mjs\n'

# An API key, and the table that is printed with it.
python3 "${sample[@]}" sh 'ringyard key new' | sed -n 's/^\$ //p' >key.sh
bash key.sh >made
TOKEN=$(grep --only-matching 'rk_[A-Za-z0-9_-]*' made)
cp made ringyard.toml
check 0 --publish orders/17
check 1 --subscribe orders/17
TOKEN=${TOKEN%?}
check 1 --publish orders/17
printf 'ok: ringyard key new\n'
