#!/usr/bin/env bash
# Runs the unit under a real systemd and talks to the broker it starts: on io_uring; on epoll where the unit forbids
# io_uring; through `systemctl reload`, which refuses nobody, and `systemctl restart`, with a thousand pages connected; and
# down again by `systemctl stop`.
#
#   bash deploy/systemd/boot-test.sh RINGYARD
#
# The systemd is this machine's, started as the first process of namespaces of its own: processes, mounts, network, host
# name, control groups. It sees this machine's files under a layer that is thrown away, and nothing of its services.
# Needs root and unified control groups (cgroup2); says so and succeeds where it has not got them.
set -euo pipefail

if [[ ${1:-} != inside ]]; then
    ringyard=$(realpath "$1")
    here=$(realpath "$(dirname "$0")")
    groups=/sys/fs/cgroup
    [[ -e $groups/cgroup.procs ]] || groups=$groups/unified
    group=$groups/ringyard-boot-test-$$
    if ! unshare --mount --pid --fork --uts --ipc --net --cgroup true 2>/dev/null || ! mkdir "$group" 2>/dev/null; then
        echo 'not run, for want of namespaces or a control group of its own (root has them): the unit under systemd'
        exit 0
    fi
    out=$(mktemp -d)
    clear_up() {
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
        rm -rf "$out"
    }
    trap clear_up EXIT
    # What systemd says: it is opened from both sides, so that nobody waits for the other.
    mkfifo "$out/log.pipe"
    exec 3<>"$out/log.pipe"
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        exec timeout --kill-after=5 120 unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup \
            bash "$here/boot-test.sh" inside "$here" "$ringyard" "$out" >"$out/start" 2>&1
    ) || true
    timeout 1 cat <&3 >"$out/log" || true
    if grep -q '^all is well$' "$out/said" 2>/dev/null; then
        grep ' pages without a broker' "$out/said"
        exit 0
    fi
    echo 'The unit does not do under systemd what it should:'
    cat "$out/start" "$out/said" 2>/dev/null || true
    echo 'What the broker said:'
    tail -n 40 "$out/broker" 2>/dev/null || true
    echo 'What systemd said:'
    cut -c1-200 "$out/log"
    exit 1
fi

# ---- inside: a root directory like that of a machine that boots

here=$2 ringyard=$3 out=$4
mount --make-rprivate /
layer=$out/layer
mkdir "$layer"
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
root=$layer/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for folder in run tmp dev; do
    mount -t tmpfs tmpfs "$root/$folder"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
touch "$root/dev/kmsg"
mount --bind "$out/log.pipe" "$root/dev/kmsg"
mkdir "$root/tmp/out"
mount --bind "$out" "$root/tmp/out"

# Of all units, the broker's and one that tries it.
rm -rf "$root/etc/systemd/system"
mkdir -p "$root/etc/systemd/system" "$root/etc/ringyard"
# Nothing else is up: neither the targets that units wait for by default, nor a network that has to come.
sed 's/^\[Unit\]/&\nDefaultDependencies=no/; /^\(Wants\|After\)=/d
    s|^\[Service\]|&\nStandardError=append:/tmp/out/broker\nStandardOutput=append:/tmp/out/broker|' "$here/ringyard.service" \
    >"$root/etc/systemd/system/ringyard.service"
cp "$here/ringyard.env" "$root/etc/ringyard/"
install -m 755 "$ringyard" "$root/usr/local/bin/ringyard"
cp "$here/../checks/gaps.py" "$root/tmp/"
cat >"$root/etc/systemd/system/try.service" <<'UNIT'
[Unit]
DefaultDependencies=no

[Service]
Type=oneshot
ExecStart=/bin/bash /tmp/try.sh
StandardOutput=file:/tmp/out/said
StandardError=inherit
ExecStopPost=/bin/systemctl exit --force 0
UNIT
cat >"$root/tmp/try.sh" <<'TRY'
set -euo pipefail
ip link set lo up
# runs DRIVER: the broker answers, on that driver, with what the unit leaves it.
runs() {
    systemctl start ringyard
    local health= pid
    for _ in {1..100}; do
        ! health=$(curl -fsS http://127.0.0.1:8080/healthz 2>&1) || break
        sleep 0.1
    done
    [[ $health == *"\"$1\""* ]] || { echo "not on $1: $health"; systemctl status --no-pager ringyard | cat; return 1; }
    curl -fsS -d hello http://127.0.0.1:8080/pub/demo
    pid=$(systemctl show -p MainPID --value ringyard)
    # User, capabilities, no new privileges, filter: lines of its own that say what they are.
    grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$pid/status"
    ! grep -qE '^(Uid|Gid):\s0\s|^Cap(Eff|Bnd):\s.*[1-9a-f]|^(NoNewPrivs|Seccomp):\s0$' "/proc/$pid/status" ||
        { echo 'it has more rights than it should'; return 1; }
    python3 /tmp/gaps.py 8080 1000 no-refusals systemctl reload ringyard
    [[ $(systemctl show -p MainPID --value ringyard) != "$pid" ]] || { echo 'the successor is not the main process'; return 1; }
    # What does not start takes nothing over, and says so.
    sed -i 's/^RINGYARD_LISTEN=/RINGYARD_SHARDS=1000000\n&/' /etc/ringyard/ringyard.env
    ! systemctl reload ringyard || { echo 'a reload with a wrong option succeeded'; return 1; }
    sed -i '/^RINGYARD_SHARDS=/d' /etc/ringyard/ringyard.env
    python3 /tmp/gaps.py 8080 1000 refusals systemctl restart ringyard
    systemctl stop ringyard
    [[ $(systemctl show -p Result -p ExecMainStatus --value ringyard | tr '\n' ' ') == 'success 0 ' ]] ||
        { echo 'systemctl stop does not end it well'; systemctl status --no-pager ringyard | cat; return 1; }
}
runs io_uring
mkdir /etc/systemd/system/ringyard.service.d
printf '[Service]\nSystemCallFilter=~io_uring_setup\n' >/etc/systemd/system/ringyard.service.d/no-io_uring.conf
systemctl daemon-reload
runs epoll
echo 'all is well'
TRY

mkdir "$root/old"
cd "$root"
pivot_root . old
umount -l /old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=try.service --log-target=kmsg --log-level=info
