#!/usr/bin/env bash
# The container images, built and run the way operators do, with Debian's buildah, podman and runc: what is in them, that
# they start on epoll under the engine's own seccomp profile and on io_uring under seccomp.json, that messages go
# through, and that SIGTERM drains.
#
#
#   bash deploy/container-test.sh [RINGYARD]
#
# Needs root (it asks sudo) and no image registry: the image to build in is an empty one that the machine's own /usr and
# Rust toolchain are mounted into. It is built with the profile `quick`; RINGYARD, target/release/ringyard by default, is
# what the size of the released image is computed from. Everything lies in one temporary folder, which is gone afterwards;
# ports are free ones.
set -euo pipefail
cd "$(dirname "$0")/.."
released=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/ringyard}")
[[ -x $released ]] || { printf '%s is not there: cargo build --release\n' "$released"; exit 1; }
[[ $EUID -eq 0 ]] || exec sudo --preserve-env=PATH,CARGO_HOME,HOME,TMPDIR bash "$PWD/deploy/container-test.sh" "$released"

profile=$PWD/deploy/seccomp.json
# Debian's own, which has python3-websockets.
python=/usr/bin/python3

work=$(mktemp -d -t ringyard-container.XXXXXX)
containers=()
cleanup() {
    local status=$? name
    trap - EXIT INT TERM
    set +e
    for name in "${containers[@]}"; do
        ((status == 0)) || { printf '\n--- log of %s\n' "$name"; podman logs "$name" 2>&1 | tail -50; }
        podman rm --force --time 0 --ignore "$name" >"$work/removed" 2>&1 || cat "$work/removed"
    done
    # What an interrupted engine left mounted.
    grep -oE " $work/[^ ]+" /proc/self/mounts | sort -r | while read -r name; do umount -l "$name"; done
    rm -rf "$work"
    ((status == 0)) || printf 'container-test: FAILED (status %d)\n' "$status"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
fail() { printf 'container-test: %s\n' "$*" >&2; exit 1; }
# has TEXT FILE WHAT
has() { grep -qF -- "$1" "$2" || { cat "$2" >&2; fail "$3: no \"$1\""; }; }
has_not() { ! grep -qF -- "$1" "$2" || { cat "$2" >&2; fail "$3: \"$1\""; }; }

storage=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
buildah() { timeout 400 buildah "${storage[@]}" "$@"; }
podman() {
    timeout 60 podman "${storage[@]}" --tmpdir "$work/tmp" --runtime runc --cgroup-manager cgroupfs --events-backend file "$@"
}

# ---- The images ----------------------------------------------------------------------------------------------------

# An image with the places that the machine's folders are mounted at, and nothing in them.
stand_in() {
    mkdir -p "$work/stand-in/root"/{usr,tmp,cargo/registry,opt/rust,etc/ssl,etc/alternatives}
    local folder
    for folder in bin lib lib64; do ln -s "usr/$folder" "$work/stand-in/root/$folder"; done
    tar -C "$work/stand-in/root" -cf "$work/stand-in/root.tar" .
    cat >"$work/stand-in/Dockerfile" <<-'END'
		FROM scratch
		ADD root.tar /
		ENV PATH=/opt/rust/bin:/usr/bin:/bin CARGO_HOME=/cargo
	END
    buildah bud --quiet --tag localhost/build-stand-in "$work/stand-in" >"$work/stand-in.log" 2>&1 ||
        { cat "$work/stand-in.log"; fail 'the image to build in cannot be made'; }
}

# documented COMMAND: the words after it in the line of README.md that begins with it.
documented() {
    local words
    words=$(sed -n "s/^$1 \([^#]*\).*/\1/p" deploy/README.md | head -1)
    [[ -n $words ]] || fail "deploy/README.md has no line that begins with \"$1\""
    printf '%s\n' "$words"
}

# build LOG WORDS...: `podman build` with these words, but for the image to build in and a profile of cargo that is quick.
registry=${CARGO_HOME:-$HOME/.cargo}/registry
mkdir -p "$registry"
build() {
    local log=$1
    shift
    (cd "$work/source" && timeout 800 podman "${storage[@]}" --tmpdir "$work/tmp" --runtime runc --cgroup-manager cgroupfs \
        build --isolation chroot --network host --pull=never \
        --build-arg BUILD_IMAGE=localhost/build-stand-in --build-arg RUNTIME_IMAGE=scratch --build-arg PROFILE=quick \
        --build-arg REVISION=tested \
        --volume /usr:/usr:ro --volume /etc/ssl:/etc/ssl:ro --volume /etc/alternatives:/etc/alternatives:ro \
        --volume "$(rustc --print sysroot)":/opt/rust:ro --volume "$registry":/cargo/registry "$@") >"$log" 2>&1 ||
        { tail -60 "$log"; fail "no image is built with: $*"; }
}

# image_is_small TAG PROGRAM: user, labels, and that the program is all there is, in files and in bytes.
image_is_small() {
    local tag=$1 program=$2 size files bytes
    size=$(podman image inspect --format '{{.Size}}' "$tag")
    podman image inspect --format '{{.User}} {{.Config.Labels}} {{.Config.Entrypoint}} {{.Config.StopSignal}}' "$tag" \
        >"$work/inspect"
    has '65532:65532 ' "$work/inspect" "$tag: user"
    has 'org.opencontainers.image.revision:tested' "$work/inspect" "$tag: labels"
    has "[/$program]" "$work/inspect" "$tag: entry point"
    containers+=("$program-files")
    podman create --name "$program-files" "$tag" >"$work/created"
    files=$(podman export "$program-files" | tar -t | grep -v '/$' | tr '\n' ' ')
    # What the engine puts there for name resolution is no file of the image's.
    [[ $files == "$program " ]] || fail "$tag holds more than its program: $files"
    bytes=$(podman export "$program-files" | tar -tv "$program" | awk '{print $3}')
    ((size < bytes + 100000)) || fail "$tag has $size bytes, its program $bytes"
    say "$tag: $size bytes, one file"
}

# The size of the released image, which would take minutes to build: that of its program, so of the released program
# without symbols, and what the static C library adds, as a small program that looks names up too tells.
released_size() {
    local linked
    cat >"$work/lookup.rs" <<-'END'
		use std::net::ToSocketAddrs;
		fn main() { println!("{:?}", ("localhost", 0).to_socket_addrs().map(|mut found| found.next())); }
	END
    for linked in -crt-static +crt-static; do
        rustc -O -C target-feature=$linked -o "$work/lookup$linked" "$work/lookup.rs" && strip "$work/lookup$linked"
    done
    strip -o "$work/released" "$released"
    echo $(($(stat -c %s "$work/released") + $(stat -c %s "$work/lookup+crt-static") - $(stat -c %s "$work/lookup-crt-static")))
}

say 'copying the sources'
mkdir "$work/source"
git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard |
    xargs -0 sh -c 'for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' sh |
    tar --null -T - -cf - | tar -C "$work/source" -xf -
stand_in

# What a build is sent: nothing but sources.
mkdir -p "$work/source/target/release" "$work/source/broker/node_modules"
touch "$work/source/target/release/ringyard" "$work/source/broker/node_modules/x"
printf 'FROM scratch\nCOPY . /\n' >"$work/Everything"
buildah bud --quiet --format docker --ignorefile "$work/source/.dockerignore" --file "$work/Everything" \
    --tag localhost/everything "$work/source" >"$work/everything.log" 2>&1 || { cat "$work/everything.log"; fail 'no context'; }
containers+=(everything)
podman create --name everything localhost/everything x >"$work/created"
podman export everything | tar -t | grep -v '/$' | sort >"$work/everything"
has 'broker/src/main.rs' "$work/everything" 'the context'
! grep -E '^(target|deploy|bench/(results|src)|CHANGELOG|\.git)|node_modules|/tests/' "$work/everything" ||
    fail '.dockerignore lets that into the context'
say "a build is sent $(wc -l <"$work/everything") files"

say 'building the images'
read -ra words < <(documented 'podman build')
build "$work/build.log" "${words[@]}"
has 'broker v' "$work/build.log" 'the build of the broker'
# The load generator, and what it alone needs.
for package in loadgen indicatif hdrhistogram; do
    has_not "$package v" "$work/build.log" 'the build of the broker compiled the load generator'
done
build "$work/build-loadgen.log" --format docker -f deploy/Dockerfile -t ringyard-loadgen --target loadgen .
has 'loadgen v' "$work/build-loadgen.log" 'the build of the load generator'
for package in broker mimalloc; do
    has_not "$package v" "$work/build-loadgen.log" 'the build of the load generator compiled the broker again'
done
image_is_small localhost/ringyard ringyard
image_is_small localhost/ringyard-loadgen ringyard-loadgen
megabytes=$(grep -oP 'one static program of \K[0-9.]+(?= MB)' deploy/README.md) || fail 'deploy/README.md does not say how large the image is'
size=$(released_size)
awk -v said="$megabytes" -v size="$size" 'BEGIN { ratio = said * 1e6 / size; exit !(ratio > 0.9 && ratio < 1.1) }' ||
    fail "deploy/README.md says that the image has $megabytes MB, but a released one has $size bytes"
say "a released image has about $size bytes; deploy/README.md says $megabytes MB"
podman image inspect --format '{{.HealthCheck.Test}} {{.Config.ExposedPorts}}' localhost/ringyard >"$work/inspect"
has '[CMD /ringyard healthcheck]' "$work/inspect" 'health check'
has 'map[8080/tcp:{}]' "$work/inspect" 'exposed port'
# The documented start publishes that port on loopback and no other.
read -ra words < <(documented 'podman run')
containers+=(documented)
podman create --name documented "${words[@]}" >"$work/created" 2>&1 || { cat "$work/created"; fail "podman run ${words[*]}"; }
podman inspect --format '{{.HostConfig.PortBindings}}' documented >"$work/inspect"
has 'map[8080/tcp:[{127.0.0.1 8080}]]' "$work/inspect" 'what the documented start publishes'

# A source changes: what depends on it is compiled again, the dependencies are not.
echo '// Changed.' >>"$work/source/broker/src/main.rs"
build "$work/rebuild.log" --format docker -f deploy/Dockerfile -t ringyard-changed .
has 'broker v' "$work/rebuild.log" 'the build after a change'
has_not 'Compiling tokio' "$work/rebuild.log" 'the build after a change'
say 'a changed source left the dependencies as they were built'

# ---- The broker ----------------------------------------------------------------------------------------------------

# Two ports that are free now, above 20000 and outside the range that the kernel gives out.
free_ports() {
    "$python" - <<-'END'
		import random, socket
		ports = []
		while len(ports) < 2:
		    port = random.randrange(20000, 32000)
		    with socket.socket() as probe:
		        try:
		            probe.bind(("127.0.0.1", port))
		        except OSError:
		            continue
		    if port not in ports:
		        ports.append(port)
		print(*ports)
	END
}

descriptors=$(ulimit -Hn)
[[ $descriptors != unlimited ]] && ((descriptors < 19000)) || descriptors=19000
limits=(--ulimit nofile="$descriptors:$descriptors" --ulimit nproc=9000:9000)

# start NAME OPTIONS...: a broker on free ports (on $listen, if that is set), ready to serve. Sets host and admin.
start() {
    local port admin_port
    read -r port admin_port < <(free_ports)
    host=127.0.0.1:$port
    admin=127.0.0.1:$admin_port
    run "$@"
}

# run NAME OPTIONS...: a broker on $host and $admin.
run() {
    local name=$1 port=${host#*:} begun
    shift
    containers+=("$name")
    podman run --detach --name "$name" --network host --log-driver k8s-file \
        "${limits[@]}" --env RINGYARD_LISTEN="${listen:-0.0.0.0}:$port" --env RINGYARD_ADMIN_LISTEN="$admin" \
        --env RINGYARD_SHARDS=2 --env RINGYARD_DRAIN_WINDOW=2s "$@" >"$work/started" 2>&1 ||
        { cat "$work/started"; fail "$name cannot be started"; }
    begun=$SECONDS
    until curl -sf -m 2 "http://$host/readyz" >"$work/ready"; do
        [[ $(podman inspect --format '{{.State.Status}}' "$name") == running ]] || fail "$name ended at its start"
        ((SECONDS - begun < 20)) || fail "$name is not ready after 20 s"
        sleep 0.2
    done
}

# stop NAME: SIGTERM, with clients that must be told to go; exit status 0.
stop() {
    local name=$1 clients status begun
    : >"$work/stay"
    "$python" deploy/container/clients.py stay "$host" >"$work/stay" 2>&1 &
    clients=$!
    begun=$SECONDS
    until grep -qx open "$work/stay"; do
        kill -0 "$clients" && ((SECONDS - begun < 20)) || { cat "$work/stay"; fail 'clients cannot subscribe'; }
        sleep 0.1
    done
    podman kill --signal TERM "$name" >"$work/killed"
    # Clients are sent away over two seconds; meanwhile it is not ready any more.
    curl -s -m 2 -o "$work/draining" -w '%{http_code}' "http://$admin/readyz" >"$work/status" || fail 'it ended before it drained'
    has 503 "$work/status" 'readiness while draining'
    wait "$clients" || { cat "$work/stay"; fail 'clients were not told to go'; }
    status=$(podman wait "$name") || fail "$name does not end after SIGTERM"
    [[ $status == 0 ]] || fail "$name ended with status $status after SIGTERM"
    say "SIGTERM: $(tail -1 "$work/stay"), $name ended with 0"
}

# logged NAME: what it said, into a file.
logged() { podman logs "$1" >"$work/$1.log" 2>&1; }

start plain localhost/ringyard
logged plain
has 'running on epoll' "$work/plain.log" 'under the default seccomp profile'
has 'seccomp' "$work/plain.log" 'under the default seccomp profile'
curl -sf "http://$host/healthz" >"$work/health"
has '"epoll"' "$work/health" '/healthz'
say "under the default profile: $(grep -o 'running on epoll.*' "$work/plain.log" | cut -c1-150)"
"$python" deploy/container/clients.py talk "$host"
stop plain

hardened=(--read-only --read-only-tmpfs=false --user 65532:65532 --cap-drop all --security-opt no-new-privileges
    --security-opt "seccomp=$profile")
start hardened "${hardened[@]}" localhost/ringyard
logged hardened
has_not 'epoll' "$work/hardened.log" 'under seccomp.json'
curl -sf "http://$host/healthz" >"$work/health"
has '"io_uring"' "$work/health" '/healthz'
pid=$(podman inspect --format '{{.State.Pid}}' hardened)
cp "/proc/$pid/status" "$work/status"
for line in $'Uid:\t65532\t65532\t65532\t65532' $'Gid:\t65532\t65532\t65532\t65532' $'CapBnd:\t0000000000000000' \
    $'NoNewPrivs:\t1' $'Seccomp:\t2'; do
    has "$line" "$work/status" 'the broker'"'"'s process'
done
grep -qE '^NSpid:.*[[:space:]]1$' "$work/status" || fail 'the broker is not PID 1 of its container'
grep -qE ' / / ro[, ]' "/proc/$pid/mountinfo" || grep -qE ' / ro[, ]' "/proc/$pid/mountinfo" || fail 'the root file system is not read-only'
say 'under seccomp.json: io_uring, read-only, 65532:65532, no capability, PID 1'
"$python" deploy/container/clients.py talk "$host"
podman exec hardened /ringyard healthcheck
podman healthcheck run hardened 2>&1 | tail -3
podman exec hardened /ringyard doctor >"$work/doctor" 2>&1 || (($? == 1)) || { cat "$work/doctor"; fail 'doctor'; }
has 'io_uring' "$work/doctor" 'doctor'
has 'seccomp' "$work/doctor" 'doctor'
! podman exec hardened /bin/sh -c true 2>"$work/shell" || fail 'there is a shell in the image'
say 'health check and doctor answer, a shell does not'

podman run --rm --network host "${limits[@]}" "${hardened[@]}" \
    localhost/ringyard-loadgen --url "ws://$host" --clients 500 --payload 64..4096 --warmup 0 --duration 3 --quiet \
    >"$work/loadgen" 2>&1 || { cat "$work/loadgen"; fail 'the load generator found fault'; }
say 'the load generator, in its image, found no fault'
stop hardened
logged hardened
has_not 'panicked' "$work/hardened.log" 'under seccomp.json'

# A successor in a second container, as README.md says: nobody is refused, and the first container ends with 0.
start first "${hardened[@]}" localhost/ringyard
# gaps REFUSALS COMMANDS: what 300 pages notice of them, in which `podman` is this script's.
gaps() {
    (
        echo 'set -eu'
        declare -p storage work limits hardened
        declare -f podman
        echo "$2"
    ) >"$work/commands"
    "$python" deploy/checks/gaps.py "${host#*:}" 300 "$1" bash "$work/commands" >"$work/gaps" 2>&1
}
containers+=(second)
gaps no-refusals 'podman run --detach --name second --network host --log-driver k8s-file "${limits[@]}" "${hardened[@]}" \
    --env RINGYARD_LISTEN="0.0.0.0:'"${host#*:}"'" --env RINGYARD_ADMIN_LISTEN='"$admin"' --env RINGYARD_SHARDS=2 \
    localhost/ringyard --take-over >"$work/started" 2>&1 || { cat "$work/started"; exit 1; }' ||
    { cat "$work/gaps"; podman logs first 2>&1 | tail -5; podman logs second 2>&1 | tail -5; fail 'a second container does not take over'; }
[[ $(podman wait first) == 0 ]] || fail 'the first container does not end with 0'
say "a second container took over: $(head -1 "$work/gaps")"
# And without a successor: one is stopped, the next is started.
gaps refusals 'podman stop --time 35 second >"$work/stopped" 2>&1
    podman start second >"$work/started" 2>&1' ||
    { cat "$work/gaps"; fail 'stop and start of a container are an outage'; }
say "podman stop, podman start: $(head -1 "$work/gaps")"
podman kill --signal TERM second >"$work/killed"
[[ $(podman wait second) == 0 ]] || fail 'the second container does not end with 0'
logged second
has_not 'panicked' "$work/second.log" 'behind a successor'

# Without no-new-privileges the runtime loads the profile earlier, and needs calls of its own. And a name to listen on.
listen=localhost start named --security-opt "seccomp=$profile" --cap-drop all localhost/ringyard
logged named
has 'io_uring' "$work/named.log" 'without no-new-privileges'
stop named
say 'without no-new-privileges, listening on a name: the same'

# The sysctls of the compose file, which a container with a network of its own may set. It has loopback only, and is asked
# from inside: on the ports that the image says.
mapfile -t sysctls < <("$python" - <<-'END'
	import yaml
	services = yaml.safe_load(open("deploy/compose.yaml"))["services"].values()
	for name, value in {pair for service in services for pair in service.get("sysctls", {}).items()}:
	    print(f"--sysctl={name}={value}")
END
)
((${#sysctls[@]})) || fail 'compose.yaml sets no sysctl'
containers+=(apart)
podman run --detach --name apart --network none --log-driver k8s-file "${limits[@]}" "${hardened[@]}" "${sysctls[@]}" \
    localhost/ringyard >"$work/started" 2>&1 || { cat "$work/started"; fail 'compose.yaml sets what a container may not'; }
pid=$(podman inspect --format '{{.State.Pid}}' apart)
for option in "${sysctls[@]}"; do
    IFS== read -r _ name value <<<"$option"
    nsenter --target "$pid" --net cat "/proc/sys/${name//.//}" | tr '\t' ' ' >"$work/sysctl"
    has "$value" "$work/sysctl" "$name"
done
nsenter --target "$pid" --net curl -sf --retry 20 --retry-connrefused --retry-delay 1 -m 20 http://127.0.0.1:8080/readyz >"$work/ready" ||
    fail 'it does not serve on the ports that the image says'
podman exec apart /ringyard healthcheck
# With nobody to send away, it need not take its time.
begun=$SECONDS
podman kill --signal TERM apart >"$work/killed"
[[ $(podman wait apart) == 0 ]] || fail 'it does not end with 0 on SIGTERM'
say "with the sysctls of compose.yaml, on a network of its own: ended with 0 after $((SECONDS - begun)) s"

printf 'container-test: passed in %d s\n' "$SECONDS"
