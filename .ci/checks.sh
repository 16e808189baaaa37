#!/usr/bin/env bash
# Every check of the project, on a bare Debian machine with Rust, node and npm: installs what is missing,
# runs one step after the other, and says at the end how many passed.
set -euo pipefail
cd "$(dirname "$0")/.."
# Everything is built once: what incremental builds keep would be of no use.
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0 RUST_BACKTRACE=1 DEBIAN_FRONTEND=noninteractive

passed=0
failed=()
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT

# All steps together, in seconds: 45 to 65 minutes on two cores; this is for a machine that is slow.
budget=5000

# step SECONDS NAME COMMAND...: runs the command for at most that long. timeout(1) ends what it started. The end of what
# a failed one printed is printed again behind all the others.
step() {
    local limit=$1 name=$2 begun=$SECONDS
    shift 2
    ((limit <= budget - SECONDS)) || limit=$((budget - SECONDS))
    ((limit > 0)) || limit=1
    printf '\n=== %s\n' "$name"
    # Not a pipe: a process that the step leaves behind would keep it open.
    if timeout --kill-after=10 "$limit" "$@" > >(exec tee "$output/$name") 2>&1; then
        passed=$((passed + 1))
        printf -- '--- %s: passed in %d s\n' "$name" $((SECONDS - begun))
    else
        local status=$?
        failed+=("$name")
        printf -- '--- %s: FAILED (status %d) after %d s\n' "$name" "$status" $((SECONDS - begun))
    fi
}

install_packages() {
    local missing=()
    command -v chromium >/dev/null || missing+=(chromium)
    # Chromium's store of authorities.
    command -v certutil >/dev/null || missing+=(libnss3-tools)
    command -v cc >/dev/null || missing+=(build-essential)
    # What the load generator's adapters are tested against, and the broker compared with.
    command -v nats-server >/dev/null || missing+=(nats-server)
    command -v mosquitto >/dev/null || missing+=(mosquitto)
    [[ -e /usr/lib/nginx/modules/ngx_nchan_module.so ]] || missing+=(nginx libnginx-mod-nchan)
    # Its promtool checks metrics and alert rules.
    command -v promtool >/dev/null || missing+=(prometheus)
    # What the container images are built and run with, the compose file read with, and the seccomp profile checked with.
    local tool
    for tool in buildah podman runc docker-compose strace curl; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    /usr/bin/python3 -c 'import websockets' 2>/dev/null || missing+=(python3-websockets)
    # What the files for operators are checked with.
    for tool in haproxy caddy openssl; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    command -v sysctl >/dev/null || missing+=(procps)
    command -v ip >/dev/null || missing+=(iproute2)
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    if ((${#missing[@]})); then
        local sudo=()
        [[ $EUID -eq 0 ]] || sudo=(sudo)
        "${sudo[@]}" apt-get update -q
        "${sudo[@]}" apt-get install -qy --no-install-recommends "${missing[@]}"
    fi
    cargo fmt --version && cargo clippy --version || rustup component add rustfmt clippy
    (cd broker/tests/browser && npm ci --no-audit --no-fund)
}

documentation() {
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --document-private-items
}

# What others would use by itself, packed and built from the package alone.
packages() {
    local package
    for package in ringyard-protocol ringyard-ring; do
        cargo package --package "$package" --allow-dirty
    done
}

# Against the schema of the compose specification. The profile's path counts from the file's folder.
compose_file() {
    (cd deploy && docker-compose --file compose.yaml --profile stress config --quiet)
}

# Debian's own python: it has python3-websockets and a tomllib.
seccomp_profile() {
    /usr/bin/python3 deploy/seccomp/profile.py check --broker "$release/ringyard" --loadgen "$release/ringyard-loadgen"
}

# All but the integration tests. `--test` takes a glob.
tests() {
    cargo test --workspace --no-fail-fast --lib --bins --test '[!i]*'
    cargo test --workspace --no-fail-fast --doc
}

# Under strace: no system call may be made that the seccomp profile forbids.
integration_tests() {
    local apart=takeover::the_command_restarts_in_the_background
    cargo test --workspace --test integration --no-run
    /usr/bin/python3 deploy/seccomp/profile.py trace cargo test --workspace --test integration -- --skip "$apart"
    # `ringyard restart` starts a process beside the broker: in a container it cannot, and the profile forbids it.
    cargo test --workspace --test integration "$apart"
}

# Its tests stand beside it; those against the broker need its binary.
javascript_client() {
    RINGYARD=$(realpath "$release/ringyard") bash protocol/js/test.sh
}

# What it describes, and the streams that it does not.
http_api() {
    bash deploy/checks/openapi.sh
    bash deploy/checks/events.sh
}

export -f http_api install_packages documentation packages javascript_client compose_file seccomp_profile tests
export -f integration_tests

step 900 'What the tests need' bash -euo pipefail -c install_packages
step 60 'Format' cargo fmt --all --check
step 900 'Lints' cargo clippy --workspace --all-targets -- -D warnings
step 600 'Documentation' bash -euo pipefail -c documentation
step 300 'Packages: protocol, ring' bash -euo pipefail -c packages
export RINGYARD_PEERS=required
# Always the whole workspace: with the features of one package alone, cargo builds every dependency once more.
export release=${CARGO_TARGET_DIR:-target}/release
step 1500 'Tests: units, conformance' bash -euo pipefail -c tests
step 900 'Tests: integration, and their system calls' bash -euo pipefail -c integration_tests
step 900 'Tests on epoll: integration, conformance' env RINGYARD_IO=epoll cargo test --workspace --no-fail-fast --test integration --test conformance
step 300 'Conformance over TLS' env RINGYARD_CONFORMANCE_TLS=1 cargo test --workspace --test conformance -- --include-ignored
step 1500 'Release build' cargo build --workspace --release
step 1200 'Simulation: 2000 seeds' "$release/sim" --seeds 2000
step 480 'Figures, smoke run' "$release/bench" figures --quick
step 480 'Comparison, smoke run' "$release/bench" compare --quick
step 300 'Protocols, smoke run' "$release/bench" protocols --quick
step 300 'Scale, smoke run' "$release/bench" scale --quick
step 600 'Micro-benchmarks, smoke run' cargo bench --workspace --profile dev --bench protocol -- --test
step 400 'Abuse, short run' "$release/bench" abuse --quick
step 120 'Compose file' bash -euo pipefail -c compose_file
step 120 'Examples' /usr/bin/python3 deploy/examples/test.py
step 200 'Samples of SECURITY.md: tokens and keys' bash deploy/checks/tokens.sh
step 400 'HTTP API: its description, streams of events' bash -euo pipefail -c http_api
step 200 'TLS, as a scanner sees it' bash deploy/checks/tls_scan.sh
step 480 'Kubernetes, systemd, sysctl, proxies' bash deploy/manifests-test.sh
step 480 'Seccomp profile' bash -euo pipefail -c seccomp_profile
step 1200 'Container images' bash deploy/container-test.sh
step 480 'JavaScript client' bash -euo pipefail -c javascript_client
step 1000 'Browser' npm --prefix broker/tests/browser test
# How the page looks does not depend on the driver.
step 480 'Browser, on epoll: what goes over connections' env RINGYARD_IO=epoll npm --prefix broker/tests/browser run test:driver

printf '\nIn all %d s.\n' "$SECONDS"
for name in "${failed[@]}"; do
    printf '\n=== Failed: %s. The end of its output:\n' "$name"
    tail -n 60 "$output/$name"
done
for name in "${failed[@]}"; do
    printf 'Failed: %s\n' "$name"
done
printf '%d passed, %d failed\n' "$passed" "${#failed[@]}"
((${#failed[@]} == 0))
