"""What the files for operators are held against: what the broker and its image say of themselves.

Units of Kubernetes, of systemd and of the broker's own options become numbers here.
"""

import json
import re
import subprocess
import tomllib
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent
# What a connection takes at most of kernel and broker together, in bytes (kubernetes/README.md).
CONNECTION_BYTES = 10_000
# --max-memory, where nobody says it and there is enough.
BUDGET_BYTES = 1 << 30


class Facts:
    """What the manifests are held against."""

    def __init__(self, binary):
        self.binary = binary
        help_text = subprocess.run([binary, "--help"], capture_output=True, text=True, timeout=20, check=True).stdout
        self.variables = set(re.findall(r"RINGYARD_[A-Z_]+", help_text))
        self.defaults = {}
        for block in re.split(r"\n(?= +(?:-\w, )?--[a-z])", help_text):
            name = re.search(r"--([a-z-]+)", block)
            default = re.search(r"\[default: ([^\]]*)\]", block)
            if name and default:
                self.defaults["RINGYARD_" + name[1].upper().replace("-", "_")] = default[1]
        self.program_bytes, self.shard_bytes = self.memory_parts()
        dockerfile = (DEPLOY / "Dockerfile").read_text()
        self.user, self.group = map(int, re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.M)[-1])
        self.exposed = {int(port) for port in re.findall(r"^EXPOSE (\d+)", dockerfile, re.M)}
        self.profile = (DEPLOY / "seccomp.json").read_text()
        table = tomllib.loads((DEPLOY / "seccomp/syscalls.toml").read_text())
        self.calls = set(table["made"]) | set(table["kept"])

    def memory_parts(self):
        """What the program and a shard take, as `ringyard doctor` explains its memory plan."""
        asked = subprocess.run(
            [self.binary, "doctor", "--json", "--shards", "1", "--max-connections", "1"],
            env={}, capture_output=True, text=True, timeout=20,
        )
        plan = next(one["value"] for one in json.loads(asked.stdout) if one["name"] == "memory plan")
        said = re.search(r"([\d.]+) MiB the program, ([\d.]+) MiB each of .*", plan)
        return tuple(int(float(part) * (1 << 20)) for part in said.groups())

    def option(self, variables, name):
        """What the broker would take the option for, with these variables."""
        return variables.get(name, self.defaults.get(name))

    def refusal(self, variables, arguments=()):
        """What `ringyard config check` says against these options, or None."""
        asked = subprocess.run(
            [self.binary, "config", "check", *arguments], env=variables, capture_output=True, text=True, timeout=20
        )
        return None if asked.returncode == 0 else " ".join((asked.stdout + asked.stderr).split())


def seconds(time):
    """`25s`, `500ms`, `2m` as the broker writes them."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", time).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def longest(text):
    """The longest time that a text names: a default may depend on how the broker ends."""
    return max(seconds(time) for time in re.findall(r"\b\d+(?:ms|s|m|h)\b", text))


def size(text):
    """`512m`, `2g`, `65536` as the broker writes them."""
    number, unit = re.fullmatch(r"(\d+)([kmg]?)", text).groups()
    return int(number) << {"": 0, "k": 10, "m": 20, "g": 30}[unit]


def quantity(text):
    """`2Gi`, `500m`, `16` as Kubernetes writes them."""
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(text)).groups()
    units = {"": 1, "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
    return float(number) * units[unit]


def memory_bytes(facts, variables):
    """What the broker takes at most with these options, and the kernel for its connections."""
    connections = int(variables.get("RINGYARD_MAX_CONNECTIONS", 0))
    shards = int(variables.get("RINGYARD_SHARDS", 0))
    held = size(variables["RINGYARD_MAX_MEMORY"]) if "RINGYARD_MAX_MEMORY" in variables else BUDGET_BYTES
    fixed = facts.program_bytes + shards * facts.shard_bytes
    # Half as much as what is held for what the allocator cannot use.
    return connections * CONNECTION_BYTES + fixed + held + held // 2


def drain_seconds(facts, variables):
    """The longest that a SIGTERM takes."""
    names = ("RINGYARD_DRAIN_DELAY", "RINGYARD_DRAIN_WINDOW", "RINGYARD_SHUTDOWN_GRACE")
    return sum(longest(facts.option(variables, name)) for name in names)
