#!/usr/bin/env python3
"""The seccomp profile: made of `syscalls.toml`, and checked against what the broker does under strace.

    profile.py write                                  makes ../seccomp.json of syscalls.toml, and its copy for Kubernetes
    profile.py check --broker FILE --loadgen FILE     looks that the two agree, runs the broker under strace, and compares
    profile.py trace [--output FILE] COMMAND...       prints the system calls of every `ringyard` that the command starts

`check` runs the broker on both drivers through what it does in its life: start-up, a name to listen on, pages, publishes,
WebSockets in hundreds that come, read slowly and go, the admin listener, the health check, doctor, a bad option, drain; and
the load generator that plays the clients. It fails when the broker makes a call that the profile does not allow, when a call
listed as made is not made, and when the profile is not what syscalls.toml says.

Not responsible for trying the profile itself: deploy/container-test.sh runs the broker under it.
"""

import argparse
import http.client
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = pathlib.Path(__file__).parent
TABLE = HERE / "syscalls.toml"
PROFILE = HERE.parent / "seccomp.json"
# A copy for Kubernetes: kustomize reads no file outside its folder.
FOR_NODES = HERE.parent / "kubernetes/components/seccomp/seccomp.json"
# Of whatever is waited for: strace makes every system call several times as long.
PATIENCE_S = 60
PROGRAMS = ("ringyard", "ringyard-loadgen")


def fail(sentence):
    sys.exit(f"profile.py: {sentence}")


# ---- The profile ---------------------------------------------------------------------------------------------------


def table():
    """What syscalls.toml says: the groups of allowed calls, restricted arguments, refused calls."""
    read = tomllib.loads(TABLE.read_text())
    groups = {name: read[name] for name in ("made", "kept", "runtime")}
    seen = {}
    for group, calls in groups.items():
        for call in calls:
            if call in seen:
                fail(f"{TABLE.name}: {call} is listed under {seen[call]} and under {group}")
            seen[call] = group
    for call in list(read["arguments"]) + list(read["refused"]):
        if (call in seen) != (call in read["arguments"]):
            fail(f"{TABLE.name}: {call} must be allowed to have its arguments restricted, and not allowed to be refused")
    return groups, read["arguments"], read["refused"]


def rendered():
    """The profile, in the form that Docker, Podman, containerd and CRI-O read alike: the runtime specification's."""
    groups, arguments, refused = table()
    allowed = sorted({call for calls in groups.values() for call in calls} - set(arguments))
    rules = [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]
    for call, alternatives in sorted(arguments.items()):
        # Conditions of one rule hold together, those of several rules alternatively.
        for condition in alternatives["any"]:
            rules.append({"names": [call], "action": "SCMP_ACT_ALLOW", "args": [condition]})
    for call, refusal in sorted(refused.items()):
        rules.append({"names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": refusal["errno"]})
    return json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "syscalls": rules,
        },
        indent=2,
    ) + "\n"


# ---- The trace -----------------------------------------------------------------------------------------------------

CALL = re.compile(r"^(\d+) +(\w+)\((.*)")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>")
CHILD = re.compile(r"= (\d+)$")
ENDED = re.compile(r"^(\d+) +\+\+\+")
# Calls that never come back.
LAST = ("exit", "exit_group")


def calls_of_programs(lines):
    """The names of the system calls that each program's processes and their threads made. From `strace -f`.

    A process counts from the `execve` that made it the program; a thread or a child, from its parent's `clone`."""
    program_of, found = {}, {program: set() for program in PROGRAMS}
    # A child may be seen to run before its parent's call is seen to end.
    orphans = {}
    for line in lines:
        line = line.rstrip()
        if ended := ENDED.match(line):
            # Its number may be another's soon.
            program_of.pop(ended[1], None)
            orphans.pop(ended[1], None)
            continue
        call = CALL.match(line)
        seen = call or RESUMED.match(line)
        if not seen:
            continue
        pid, name = seen.group(1), seen.group(2)
        if call and name == "execve":
            program = pathlib.Path((re.match(r'"([^"]*)"', call.group(3)) or [None, ""])[1]).name
            if program in PROGRAMS:
                program_of[pid] = program
            elif line.endswith("= 0"):
                program_of.pop(pid, None)
        child = CHILD.search(line) if name in ("clone", "clone3", "fork", "vfork") else None
        if child and pid in program_of:
            program_of[child[1]] = program_of[pid]
            found[program_of[pid]] |= orphans.pop(child[1], set())
        # A call counts when it is over. Of a thread that is killed strace may show one that it did not make: `= ?`.
        if name in LAST or not line.endswith(("<unfinished ...>", "= ?")):
            (found[program_of[pid]] if pid in program_of else orphans.setdefault(pid, set())).add(name)
    return found


class Traced:
    """A program under strace. The tracer is the program's child's child (`-D`), so that signals reach the program, and
    ends with it."""

    started = []

    def __init__(self, folder, program, *arguments):
        self.output = folder / f"{program.name}-{len(list(folder.iterdir()))}.strace"
        self.said = self.output.with_suffix(".said")
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                ["strace", "-D", "-f", "-q", "--signal=none", "-s", "200", "-o", self.output, program, *arguments],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )
        self.started.append(self.process)

    def addresses(self):
        """Of a broker, once it says them: the public one, and the operators'."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self.process.poll() is None:
            found = list(dict.fromkeys(re.findall(r"127\.0\.0\.1:\d+\b", self.said.read_text().rpartition("\n")[0])))
            if len(found) >= 2:
                return found[:2]
            time.sleep(0.05)
        fail(f"the broker does not name its addresses; it said:\n{self.said.read_text()}")

    def ended(self, *statuses):
        """Waits for the end, which must be one of these; and until the tracer has written everything."""
        try:
            status = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            fail(f"{self.process.args[8:]} does not end; it said:\n{self.said.read_text()}")
        if status not in statuses:
            fail(f"{self.process.args[8:]} ended with {status}; it said:\n{self.said.read_text()}")
        end = time.monotonic() + PATIENCE_S
        over = re.compile(rf"^{self.process.pid} +\+\+\+", re.MULTILINE)
        while not over.search(text := self.output.read_text(errors="replace")):
            if time.monotonic() > end:
                fail(f"the trace {self.output} has no end")
            time.sleep(0.05)
        return text.splitlines()


def ask(address, method, path, body=None, expect=(200,)):
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
    connection.request(method, path, body)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status not in expect:
        fail(f"{method} {path} was answered with {answer.status}")


def life(folder, broker, loadgen, io):
    """One broker from start to drain on this driver, with clients of every kind. The lines of all traces."""
    lines = []
    server = Traced(
        folder, broker, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--io", io, "--shards", "2",
        "--drain-window", "1s", "--ping-interval", "1s", "--max-lag", "1m", "--log-level", "debug",
    )  # fmt: skip
    public, admin = server.addresses()
    for path in ("/", "/page.js", "/healthz", "/readyz"):
        ask(public, "GET", path)
    ask(public, "GET", "/nowhere", expect=(404,))
    ask(public, "POST", "/pub/seccomp", 500_000 * b"x")
    for path in ("/metrics", "/api/stats", "/healthz", "/readyz"):
        ask(admin, "GET", path)
    scenarios = (
        ("fan-out", "--clients", "300", "--protocol", "v1", "--outstanding", "4"),
        ("mixed-sizes", "--clients", "100", "--topics", "10"),
        ("slow-consumers", "--clients", "50", "--payload", "16384"),
        ("churn", "--clients", "200", "--reconnect"),
        ("chat", "--clients", "200"),
    )
    for scenario, *options in scenarios:
        client = Traced(
            folder, loadgen, "--url", f"ws://{public}", "--scenario", scenario, *options, "--warmup", "0",
            "--duration", "1", "--drain-timeout", "5", "--quiet",
        )  # fmt: skip
        # What the load generator finds wrong is another test's matter: here everything is slow.
        lines += client.ended(0, 1)
    lines += Traced(folder, broker, "healthcheck", "--url", f"http://{admin}/readyz").ended(0)
    lines += Traced(folder, broker, "doctor").ended(0, 1)
    # A successor takes over, and is asked to end.
    successor = Traced(
        folder, broker, "--listen", public, "--admin-listen", admin, "--io", io, "--shards", "2", "--take-over",
    )  # fmt: skip
    successor.addresses()
    lines += server.ended(0)
    ask(public, "POST", "/pub/seccomp", b"x")
    successor.process.send_signal(signal.SIGTERM)
    return lines + successor.ended(0)


# ---- The comparison ------------------------------------------------------------------------------------------------


def compare(found):
    """Fails for a call that was made and is not allowed. clone3 is refused in a way that has the C library use clone."""
    groups, _, refused = table()
    allowed = {call for calls in groups.values() for call in calls}
    forbidden = sorted(found - allowed - set(refused))
    if forbidden:
        fail(f"made, but not allowed: {', '.join(forbidden)}; if the broker needs it, list it in {TABLE.name}")
    return groups


def write(_arguments):
    for file in (PROFILE, FOR_NODES):
        file.write_text(rendered())


def check(arguments):
    for file in (PROFILE, FOR_NODES):
        if file.read_text() != rendered():
            fail(f"{file.relative_to(HERE.parent)} is not what {TABLE.name} says: run profile.py write")
    found = {program: set() for program in PROGRAMS}
    broker, loadgen = arguments.broker.resolve(), arguments.loadgen.resolve()
    try:
        with tempfile.TemporaryDirectory(prefix="ringyard-seccomp.") as folder:
            for io in ("uring", "epoll"):
                for program, calls in calls_of_programs(life(pathlib.Path(folder), broker, loadgen, io)).items():
                    found[program] |= calls
    finally:
        for process in Traced.started:
            if process.poll() is None:
                process.kill()
    everything = set().union(*found.values())
    groups = compare(everything)
    idle = sorted(set(groups["made"]) - everything)
    if idle:
        fail(f"allowed, but never made: {', '.join(idle)}; strike it from {TABLE.name}, or say there why it is kept")
    for program in PROGRAMS:
        print(f"{program} made {len(found[program])} different calls")
    print(f"{sum(map(len, groups.values()))} calls are allowed; kept although not seen to be made here:")
    for group in ("kept", "runtime"):
        for call in sorted(set(groups[group]) - everything):
            print(f"  {call}: {groups[group][call]}")


def trace(arguments):
    with tempfile.TemporaryDirectory(prefix="ringyard-seccomp.") as folder:
        output = arguments.output or pathlib.Path(folder) / "trace"
        status = subprocess.call(["strace", "-f", "-q", "--signal=none", "-s", "200", "-o", output, *arguments.command])
        with open(output, errors="replace") as lines:
            found = calls_of_programs(lines)
    for program in PROGRAMS:
        print(f"{program}: {' '.join(sorted(found[program])) or 'was not started'}")
    if not found["ringyard"]:
        fail("the command started no broker")
    compare(found["ringyard"])
    sys.exit(status)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("write")
    command.set_defaults(run=write)
    command = commands.add_parser("check")
    command.add_argument("--broker", type=pathlib.Path, required=True)
    command.add_argument("--loadgen", type=pathlib.Path, required=True)
    command.set_defaults(run=check)
    command = commands.add_parser("trace")
    command.add_argument("--output", type=pathlib.Path)
    command.add_argument("command", nargs=argparse.REMAINDER)
    command.set_defaults(run=trace)
    arguments = parser.parse_args()
    # Ended early, it ends what it started: an exit runs what `finally` says.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments.run(arguments)


if __name__ == "__main__":
    main()
