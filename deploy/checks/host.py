"""Files for one machine: the systemd unit, its options and drop-ins, the sysctl file, compose.access.yaml; and all
options that any file names."""

import re
import subprocess
from pathlib import Path

from .facts import DEPLOY, drain_seconds, memory_bytes, quantity
from .files import StandIn, paths_in
from .objects import load


def unit_settings(text):
    """Each setting with all its values, in order. Only what stands below [Service]."""
    settings = {}
    section = text.split("[Service]")[1].split("[Install]")[0]
    for name, value in re.findall(r"^(\w+)=(.*)$", section, re.M):
        settings.setdefault(name, []).append(value)
    return settings


def expanded(names):
    """The system calls of systemd's sets."""
    calls, sets, seen = set(), list(names), set()
    while sets:
        name = sets.pop()
        if not name.startswith("@"):
            calls.add(name)
        elif name not in seen:
            seen.add(name)
            listed = subprocess.run(
                ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, timeout=20, check=True
            ).stdout
            sets += [line.strip() for line in listed.splitlines()[1:] if line.strip() and "#" not in line]
    return calls


def check_unit(facts, unit, drop_ins, options, file):
    """`file` is the text of ringyard.toml. The unit lets the broker drain, and lets it call all that it calls. The broker takes its file of options, as it
    is and with all that it offers."""
    complaints = []
    settings = unit_settings(unit)
    chosen = dict(re.findall(r"^(RINGYARD_\w+)=(.*)$", options, re.M))
    offered = dict(re.findall(r"^#?(RINGYARD_\w+)=(.*)$", options, re.M))
    # The file that one of them names is not on this machine.
    offered.pop("RINGYARD_CONFIG", None)
    for variables in (chosen, offered):
        if refusal := facts.refusal(variables):
            complaints.append(f"the broker does not take the options of ringyard.env: {refusal}")
    for text in [None, *drop_ins]:
        merged = {**settings, **(unit_settings(text) if text else {})}
        variables = dict(value.split("=", 1) for value in merged.get("Environment", []))
        drain, stop = drain_seconds(facts, variables), int(merged["TimeoutStopSec"][-1])
        if stop <= drain:
            complaints.append(f"TimeoutStopSec is {stop}, but draining takes up to {drain:.0f} s")
        complaints += [f"{name} is no option of the broker" for name in sorted(set(variables) - facts.variables)]
        with StandIn(file) as stand_in:
            if "RINGYARD_CONFIG" in variables:
                variables["RINGYARD_CONFIG"] = stand_in.path
            if refusal := facts.refusal({**chosen, **variables}):
                complaints.append(f"the broker does not take the options of the unit: {refusal}")
        handed = {"/run/credentials/ringyard.service/" + one.split(":")[0] for one in merged.get("LoadCredential", [])}
        if "RINGYARD_CONFIG" in variables and (missing := sorted(set(paths_in(file)) - handed)):
            complaints.append(f"ringyard.toml names files that no LoadCredential brings: {' '.join(missing)}")
        if "MemoryMax" in merged:
            limit = quantity(merged["MemoryMax"][-1].replace("G", "Gi"))
            needed = memory_bytes(facts, variables)
            if needed > limit:
                complaints.append(f"MemoryMax is below the {needed} bytes that its clients need")
    # Not in the sets of every version of systemd.
    named_calls = {name for value in settings["SystemCallFilter"] for name in value.split()}
    for call in ("io_uring_setup", "io_uring_enter", "io_uring_register"):
        if call not in named_calls:
            complaints.append(f"SystemCallFilter does not allow {call} by name")
    allowed = set()
    for value in settings["SystemCallFilter"]:
        calls = expanded(value.removeprefix("~").split())
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    # It does without these where they are refused; and LimitNOFILE has raised that limit already.
    wanted = facts.calls & expanded(["@known"]) - {"setrlimit", "setpriority"}
    missing = sorted(wanted - allowed)
    if missing:
        complaints.append(
            f"SystemCallFilter forbids what the broker calls (seccomp/syscalls.toml): {' '.join(missing)}"
        )
    return complaints


def check_compose(facts, compose, file):
    """compose.access.yaml, with `file`, the text of compose.access.toml: the broker takes its options and its file, and all
    files that this one names are mounted secrets."""
    [services] = [document["services"] for document in load(compose)]
    variables, complaints = dict(services["ringyard"]["environment"]), []
    mounted = {f"/run/secrets/{name}" for name in services["ringyard"]["secrets"]}
    complaints += [f"{name} is no option of the broker" for name in sorted(set(variables) - facts.variables)]
    if missing := sorted(set(paths_in(file)) - mounted):
        complaints.append(f"compose.access.toml names files that are no secrets of its service: {' '.join(missing)}")
    with StandIn(file) as stand_in:
        variables |= {"RINGYARD_LISTEN": "[::]:8080", "RINGYARD_CONFIG": stand_in.path}
        if refusal := facts.refusal(variables):
            complaints.append(f"the broker does not take the options of compose.access.yaml: {refusal}")
    return complaints


def check_variables_in_texts(facts):
    """No file for operators names an option that the broker does not have."""
    complaints = []
    for folder in ("kubernetes", "systemd", "sysctl", "proxy"):
        for path in sorted((DEPLOY / folder).rglob("*")):
            if path.is_file():
                unknown = set(re.findall(r"RINGYARD_[A-Z_]*[A-Z]", path.read_text())) - facts.variables
                complaints += [f"{path.relative_to(DEPLOY)} names {name}, no option" for name in sorted(unknown)]
    return complaints


def sysctl_lines(text):
    """Key, value, and whether the key may be missing."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith(("#", ";")):
            key, _, value = line.partition("=")
            yield key.strip().removeprefix("-"), value.split(), key.lstrip().startswith("-")


def check_sysctl(text):
    """Each key is one that the kernel has, with as many numbers as it has."""
    complaints = []
    for key, value, may_miss in sysctl_lines(text):
        path = Path("/proc/sys") / key.replace(".", "/")
        if not path.exists():
            if not may_miss or not key.startswith("net.netfilter."):
                complaints.append(f"the kernel has no {key}")
            continue
        current = path.read_text().split()
        # The list of reserved ports may be empty.
        if key != "net.ipv4.ip_local_reserved_ports" and len(current) != len(value):
            complaints.append(f"{key} takes {len(current)} values, not {len(value)}")
        if not all(re.fullmatch(r"\d+(-\d+)?", one) for one in value) or not value:
            complaints.append(f"{key} is set to {' '.join(value) or 'nothing'}")
    return complaints
