#!/usr/bin/env bash
# Every check of the JavaScript client: installs what it needs with npm, then runs all tests against the source and against
# the committed build. RINGYARD names the broker's binary; without it the tests against the real broker are skipped.
set -euo pipefail
cd "$(dirname "$0")"

npm ci --no-audit --no-fund

# Most of them wait for what others send.
node --test --test-concurrency=3 test/*.test.js
RINGYARD_CLIENT=../ringyard.min.mjs node --test --test-concurrency=3 test/*.test.js
npx tsc --project test
npx publint --strict
