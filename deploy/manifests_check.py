"""Checks of what operators install outside the image: Kubernetes manifests, systemd units, sysctl files.

Called by manifests-test.sh, which brings the tools. Each check is a function that returns complaints, one sentence
each; none means that all is well. What the files say is compared with what the broker itself says (`ringyard --help`,
a broker that is started with the manifests' options), with the image (Dockerfile, seccomp.json) and with the schemas of
Kubernetes, so that nothing here goes stale unnoticed. At the end every check has to find a mistake that was made on
purpose: a check that cannot fail is none.

Not responsible for compose.yaml, the image and the alert rules: they have tests of their own.
"""

import argparse
import copy
import os
import re
import select
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

DEPLOY = Path(__file__).resolve().parent
# From the oldest that the manifests are for to the newest that the package knows.
KUBERNETES = [f"1.{minor}" for minor in range(30, int(kubernetes_validate.latest_version().split(".")[1]) + 1)]
# What a connection costs at most, in bytes (kubernetes/README.md), and what each shard may keep (--max-log).
CONNECTION_BYTES = 10_000
PROGRAM_BYTES = 128 << 20
# What the kubelet lets a pod set without being told to: Kubernetes' documentation, "Using sysctls", as of 1.32.
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
# Of the Prometheus operator's API, no more than the PodMonitor uses: its schema comes with no package.
POD_MONITOR = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "podMetricsEndpoints"],
            "properties": {
                "selector": {"type": "object"},
                "podMetricsEndpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["port"],
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
                        },
                    },
                },
            },
        }
    },
}


# ---- what the broker and its image say of themselves


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
        dockerfile = (DEPLOY / "Dockerfile").read_text()
        self.user, self.group = map(int, re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.M)[-1])
        self.exposed = {int(port) for port in re.findall(r"^EXPOSE (\d+)", dockerfile, re.M)}
        self.profile = (DEPLOY / "seccomp.json").read_text()
        table = tomllib.loads((DEPLOY / "seccomp/syscalls.toml").read_text())
        self.calls = set(table["made"]) | set(table["kept"])

    def option(self, variables, name):
        """What the broker would take the option for, with these variables."""
        return variables.get(name, self.defaults.get(name))


def seconds(time):
    """`25s`, `500ms`, `2m` as the broker writes them."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", time).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def quantity(text):
    """`2Gi`, `500m`, `16` as Kubernetes writes them."""
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(text)).groups()
    units = {"": 1, "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
    return float(number) * units[unit]


def drain_seconds(facts, variables):
    """The longest that a SIGTERM takes."""
    names = ("RINGYARD_DRAIN_DELAY", "RINGYARD_DRAIN_WINDOW", "RINGYARD_SHUTDOWN_GRACE")
    return sum(seconds(facts.option(variables, name)) for name in names)


# ---- YAML


class Strict(yaml.SafeLoader):
    """YAML as Kubernetes reads it, except that a key that stands twice is a mistake."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def check_yaml_files(folder):
    """Every YAML file below the folder can be read."""
    complaints = []
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        if "node_modules" in path.parts:
            continue
        try:
            list(yaml.load_all(path.read_text(), Strict))
        except yaml.YAMLError as error:
            complaints.append(f"{path.relative_to(folder)} is no YAML: {error}")
    return complaints


# ---- one rendered set of manifests


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def named(document):
    return f"{document['kind']} {document['metadata']['name']}"


def containers(workload):
    spec = workload["spec"]["template"]["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def variables_of(documents, deployment):
    """The environment that the broker's container gets."""
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    variables = {}
    for source in container.get("envFrom", []):
        name = source["configMapRef"]["name"]
        found = [map for map in of_kind(documents, "ConfigMap") if map["metadata"]["name"] == name]
        variables.update(found[0]["data"] if found else {})
    variables.update({entry["name"]: entry.get("value", "") for entry in container.get("env", [])})
    return variables


def brokers(documents):
    return [document for document in of_kind(documents, "Deployment") if document["metadata"]["name"] == "ringyard"]


def check_newest_schema(documents, facts):
    """The same as check_schemas, quicker."""
    return check_schemas(documents, facts, KUBERNETES[-1:])


def check_schemas(documents, _facts, versions=tuple(KUBERNETES)):
    """Kubernetes' own schemas, in which an unknown field is a mistake."""
    complaints = []
    for document in documents:
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            complaints += [
                f"{named(document)}: {error.message}"
                for error in jsonschema.Draft7Validator(POD_MONITOR).iter_errors(document)
            ]
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(map(str, error.path))
                complaints.append(f"{named(document)}, Kubernetes {version}: {where}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError as error:
                complaints.append(f"{named(document)}, Kubernetes {version}: {error.message}")
    return complaints


def check_names(documents, _facts):
    """Nothing is referred to that is not there."""
    complaints = []
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    for document in documents:
        if document["kind"] != "Namespace" and not document["metadata"].get("namespace"):
            complaints.append(f"{named(document)} is in no namespace")
    workloads = of_kind(documents, "Deployment") + of_kind(documents, "DaemonSet")
    pods = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads]

    def selects(selector, who):
        if not selector or not any(selector.items() <= labels.items() for labels in pods):
            complaints.append(f"{who} selects no pod: {selector}")

    ports = {
        port["name"]: port["containerPort"]
        for workload in workloads
        for container in containers(workload)
        for port in container.get("ports", [])
    }

    def port_is_there(name, who):
        if name not in ports:
            complaints.append(f"{who} means the port {name}, which no container has")

    for workload in workloads:
        selects(workload["spec"]["selector"]["matchLabels"], named(workload))
        spec = workload["spec"]["template"]["spec"]
        for spread in spec.get("topologySpreadConstraints", []):
            selects(spread["labelSelector"].get("matchLabels"), f"{named(workload)}, topology spread")
        for term in (
            spec.get("affinity", {}).get("podAntiAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", [])
        ):
            selects(term["labelSelector"].get("matchLabels"), f"{named(workload)}, anti-affinity")
        account = spec.get("serviceAccountName")
        if account and ("ServiceAccount", account) not in names:
            complaints.append(f"{named(workload)}: there is no ServiceAccount {account}")
        maps = [source["configMapRef"]["name"] for one in containers(workload) for source in one.get("envFrom", [])]
        maps += [volume["configMap"]["name"] for volume in spec.get("volumes", []) if "configMap" in volume]
        complaints += [
            f"{named(workload)}: there is no ConfigMap {name}" for name in maps if ("ConfigMap", name) not in names
        ]
    for service in of_kind(documents, "Service"):
        selects(service["spec"]["selector"], named(service))
        for port in service["spec"]["ports"]:
            port_is_there(port["targetPort"], named(service))
            if service["spec"].get("clusterIP") == "None" and ports.get(port["targetPort"]) != port["port"]:
                complaints.append(f"{named(service)} is headless: its port has to be the container's")
    for budget in of_kind(documents, "PodDisruptionBudget"):
        selects(budget["spec"]["selector"].get("matchLabels"), named(budget))
    for policy in of_kind(documents, "NetworkPolicy"):
        selects(policy["spec"]["podSelector"].get("matchLabels"), named(policy))
        for rule in policy["spec"].get("ingress", []):
            for port in rule.get("ports", [{"port": "all ports"}]):
                port_is_there(port["port"], named(policy))
                if port["port"] == "admin" and not rule.get("from"):
                    complaints.append(f"{named(policy)} lets everybody at the port admin")
    for monitor in of_kind(documents, "PodMonitor"):
        selects(monitor["spec"]["selector"].get("matchLabels"), named(monitor))
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            port_is_there(endpoint["port"], named(monitor))
    for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) not in names:
            complaints.append(f"{named(scaler)} scales {target['name']}, which is not there")
        if any("replicas" in deployment["spec"] for deployment in brokers(documents)):
            complaints.append(f"{named(scaler)}: the Deployment says how many replicas there are, too")
    for ingress in of_kind(documents, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                services = [one for one in of_kind(documents, "Service") if one["metadata"]["name"] == backend["name"]]
                if not any(port["name"] == backend["port"]["name"] for one in services for port in one["spec"]["ports"]):
                    complaints.append(f"{named(ingress)} leads to {backend['name']}, which is not there")
    return complaints


def check_options(documents, facts):
    """The environment consists of options that the broker has, and fits the rest of the manifest."""
    complaints = []
    for deployment in brokers(documents):
        variables = variables_of(documents, deployment)
        unknown = sorted(set(variables) - facts.variables)
        complaints += [f"{name} is no option of the broker" for name in unknown]
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for port, name in (("http", "RINGYARD_LISTEN"), ("admin", "RINGYARD_ADMIN_LISTEN")):
            if not variables.get(name, "").endswith(f":{ports.get(port)}"):
                complaints.append(f"the port {port} is {ports.get(port)}, but {name} is {variables.get(name)}")
        if ports.get("http") not in facts.exposed:
            complaints.append(f"the port http is {ports.get('http')}, but the image exposes {sorted(facts.exposed)}")
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        if annotations["prometheus.io/port"] != str(ports.get("admin")):
            complaints.append(f"prometheus.io/port is {annotations['prometheus.io/port']}, not the port admin")
        shards = int(variables.get("RINGYARD_SHARDS", 0))
        connections = int(variables.get("RINGYARD_MAX_CONNECTIONS", 0))
        resources = container["resources"]
        limit = quantity(resources["limits"]["memory"])
        needed = connections * CONNECTION_BYTES + shards * (256 << 20) + PROGRAM_BYTES
        if not connections or not shards or needed > limit:
            complaints.append(
                f"{connections} connections on {shards} shards need {needed / (1 << 30):.1f} GiB, but the memory limit is "
                f"{resources['limits']['memory']}"
            )
        if resources["requests"]["memory"] != resources["limits"]["memory"]:
            complaints.append("the memory that is asked for is not its limit")
        if not shards - 2 <= quantity(resources["requests"]["cpu"]) <= shards:
            complaints.append(f"{shards} shards, but {resources['requests']['cpu']} cores are asked for")
        for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
            value = quantity(scaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"])
            if not 0.5 * connections <= value <= 0.8 * connections:
                complaints.append(f"the autoscaler aims at {value:.0f} of {connections} connections: not 50 to 80 %")
        for ingress in of_kind(documents, "Ingress"):
            hosts = [rule["host"] for rule in ingress["spec"]["rules"]]
            if variables.get("RINGYARD_ALLOW_HOST", "").split(",") != hosts:
                complaints.append(f"the Ingress is for {hosts}, but RINGYARD_ALLOW_HOST is not")
    return complaints


def check_shutdown(documents, facts):
    """A broker is given the time that it takes to drain, and is never replaced before another is ready."""
    complaints = []
    for deployment in brokers(documents):
        spec = deployment["spec"]["template"]["spec"]
        grace = spec.get("terminationGracePeriodSeconds", 30)
        variables = variables_of(documents, deployment)
        drain = drain_seconds(facts, variables)
        if grace <= drain:
            complaints.append(f"terminationGracePeriodSeconds is {grace}, but draining takes up to {drain:.0f} s")
        if seconds(facts.option(variables, "RINGYARD_DRAIN_DELAY")) < 5:
            complaints.append("RINGYARD_DRAIN_DELAY is too short for the endpoints to be known everywhere")
        rolling = deployment["spec"]["strategy"].get("rollingUpdate", {})
        if rolling.get("maxUnavailable") != 0 or not rolling.get("maxSurge"):
            complaints.append("an update takes a broker away before the next one is ready")
    return complaints


def check_security(documents, facts):
    """The Pod Security Standard `restricted`, the image's user, and a root file system that nobody writes to."""
    complaints = []
    for deployment in brokers(documents):
        spec = deployment["spec"]["template"]["spec"]
        pod = spec.get("securityContext", {})
        if pod.get("runAsNonRoot") is not True:
            complaints.append("runAsNonRoot is not true")
        if (pod.get("runAsUser"), pod.get("runAsGroup")) != (facts.user, facts.group):
            complaints.append(f"runAsUser and runAsGroup are not the image's, {facts.user} and {facts.group}")
        if pod.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            complaints.append("seccompProfile is neither RuntimeDefault nor Localhost")
        for sysctl in pod.get("sysctls", []):
            if sysctl["name"] not in SAFE_SYSCTLS:
                complaints.append(f"the sysctl {sysctl['name']} is not safe: the kubelet would refuse the pod")
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                complaints.append(f"{key} is set")
        if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks") is not False:
            complaints.append("automountServiceAccountToken or enableServiceLinks is not false")
        for volume in spec.get("volumes", []):
            if not {"configMap", "emptyDir", "secret", "projected"} & set(volume):
                complaints.append(f"the volume {volume['name']} is of a kind that is forbidden")
        for container in containers(deployment):
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                complaints.append(f"{container['name']}: allowPrivilegeEscalation is not false")
            if own.get("readOnlyRootFilesystem") is not True:
                complaints.append(f"{container['name']}: readOnlyRootFilesystem is not true")
            if own.get("capabilities") != {"drop": ["ALL"]}:
                complaints.append(f"{container['name']}: not all capabilities are dropped, or some are added")
            if any("hostPort" in port for port in container.get("ports", [])):
                complaints.append(f"{container['name']}: hostPort is set")
    for namespace in of_kind(documents, "Namespace"):
        if brokers(documents) and namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
            complaints.append(f"{named(namespace)} does not enforce the standard `restricted`")
    return complaints


def check_profile(documents, facts):
    """The seccomp profile that goes to the nodes is the project's, and lands where the broker's pod looks for it."""
    complaints = []
    for deployment in brokers(documents):
        profile = deployment["spec"]["template"]["spec"]["securityContext"]["seccompProfile"]
        if profile["type"] == "Localhost" and profile.get("localhostProfile") != "ringyard/seccomp.json":
            complaints.append(f"the profile is {profile.get('localhostProfile')}, not what components/seccomp installs")
    for one in of_kind(documents, "DaemonSet"):
        paths = [volume["hostPath"]["path"] for volume in one["spec"]["template"]["spec"]["volumes"] if "hostPath" in volume]
        if paths != ["/var/lib/kubelet/seccomp/ringyard"]:
            complaints.append(f"{named(one)} writes to {paths}, where no pod looks for ringyard/seccomp.json")
        data = [map["data"] for map in of_kind(documents, "ConfigMap")]
        if not any(facts.profile == text for map in data for text in map.values()):
            complaints.append(
                "components/seccomp/seccomp.json is another than deploy/seccomp.json: "
                "cp deploy/seccomp.json deploy/kubernetes/components/seccomp/"
            )
    return complaints


class Broker:
    """A broker with a manifest's options, on loopback."""

    def __init__(self, facts, variables):
        # This machine's ports and descriptors; all else is the manifest's.
        own = {
            "RINGYARD_LISTEN": "127.0.0.1:0",
            "RINGYARD_ADMIN_LISTEN": "127.0.0.1:0",
            "RINGYARD_MAX_CONNECTIONS": "100",
            "RINGYARD_DRAIN_DELAY": "0s",
        }
        environment = {"PATH": os.environ["PATH"], **variables, **own}
        self.process = subprocess.Popen(
            [facts.binary], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.public = self.admin = None

    def __enter__(self):
        said = ""
        until = time.monotonic() + 20
        while time.monotonic() < until and len(re.findall(r"http://([\d.]+:\d+)/", said)) < 2:
            if select.select([self.process.stdout], [], [], 0.5)[0]:
                text = os.read(self.process.stdout.fileno(), 4096)
                if not text:
                    break
                said += text.decode()
        addresses = list(dict.fromkeys(re.findall(r"http://([\d.]+:\d+)/", said)))
        if len(addresses) == 2:
            self.public, self.admin = addresses
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.stdout.close()
        self.complaint = self.process.stderr.read().decode()
        self.process.stderr.close()

    def get(self, address, path):
        """Status and body."""
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""


def check_running(documents, facts):
    """The broker starts with these options, answers the probes, and has the metric that the autoscaler wants."""
    complaints = []
    for deployment in brokers(documents):
        template = deployment["spec"]["template"]
        container = template["spec"]["containers"][0]
        with Broker(facts, variables_of(documents, deployment)) as broker:
            if broker.admin:
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    wanted = container[probe]["httpGet"]
                    if wanted["port"] != "http":
                        complaints.append(f"{probe} asks at the port {wanted['port']}")
                    status, _ = broker.get(broker.public, wanted["path"])
                    if status != 200:
                        complaints.append(f"{probe}: the broker answers {wanted['path']} with {status}")
                status, metrics = broker.get(broker.admin, template["metadata"]["annotations"]["prometheus.io/path"])
                names = set(re.findall(r"^(\w+)", metrics, re.M))
                for monitor in of_kind(documents, "PodMonitor"):
                    status, metrics = broker.get(broker.admin, monitor["spec"]["podMetricsEndpoints"][0]["path"])
                    names &= set(re.findall(r"^(\w+)", metrics, re.M))
                for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
                    metric = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
                    if metric not in names:
                        complaints.append(f"{named(scaler)} wants {metric}, which the broker does not measure")
                if "ringyard_ready" not in names:
                    complaints.append("there are no metrics where Prometheus is told to ask")
        if not broker.admin:
            complaints.append(f"the broker does not start with these options: {broker.complaint.strip()}")
    return complaints


CHECKS = [check_schemas, check_names, check_options, check_shutdown, check_security, check_profile, check_running]


# ---- the Prometheus adapter's rule


def check_adapter_rule(documents):
    """The rule gives the metric the name that the autoscaler asks for."""
    rules = yaml.load((DEPLOY / "kubernetes/components/scale-out/adapter-rules.yaml").read_text(), Strict)
    complaints = []
    for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
        metric = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
        for rule in rules["rules"]["custom"]:
            series = re.match(r"\w+", rule["seriesQuery"])[0]
            if not re.search(rule["name"]["matches"], series) or rule["name"]["as"] != metric:
                complaints.append(f"the adapter's rule makes no {metric} of {series}")
            resources = {entry["resource"] for entry in rule["resources"]["overrides"].values()}
            if resources != {"namespace", "pod"}:
                complaints.append(f"the adapter's rule is for {sorted(resources)}, not for pods")
    return complaints


# ---- systemd


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


def check_unit(facts, unit, drop_ins):
    """The unit lets the broker drain, and lets it call all that it calls."""
    complaints = []
    settings = unit_settings(unit)
    for text in [None, *drop_ins]:
        merged = {**settings, **(unit_settings(text) if text else {})}
        variables = dict(value.split("=", 1) for value in merged.get("Environment", []))
        drain, stop = drain_seconds(facts, variables), int(merged["TimeoutStopSec"][-1])
        if stop <= drain:
            complaints.append(f"TimeoutStopSec is {stop}, but draining takes up to {drain:.0f} s")
        complaints += [f"{name} is no option of the broker" for name in sorted(set(variables) - facts.variables)]
        if "MemoryMax" in merged:
            limit = quantity(merged["MemoryMax"][-1].replace("G", "Gi"))
            needed = (
                int(variables.get("RINGYARD_MAX_CONNECTIONS", 0)) * CONNECTION_BYTES
                + int(variables.get("RINGYARD_SHARDS", 0)) * (256 << 20)
                + PROGRAM_BYTES
            )
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
    # It does without setrlimit where it is refused, and LimitNOFILE has raised that limit already.
    wanted = facts.calls & expanded(["@known"]) - {"setrlimit"}
    missing = sorted(wanted - allowed)
    if missing:
        complaints.append(f"SystemCallFilter forbids what the broker calls (seccomp/syscalls.toml): {' '.join(missing)}")
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


# ---- sysctl


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


# ---- every check finds something


def changed(documents, kind, change):
    """The same with a mistake in each object of a kind."""
    documents = copy.deepcopy(documents)
    for document in of_kind(documents, kind):
        change(document)
    return documents


def pod(document):
    return document["spec"]["template"]["spec"]


def first(document):
    return pod(document)["containers"][0]


# What is done wrong, the kind it is done to, how, and words of the complaint that has to follow.
MISTAKES = [
    (check_newest_schema, "Deployment", lambda d: d["spec"].update(replica=2), "replica"),
    (check_newest_schema, "Deployment", lambda d: first(d).update(readynessProbe={}), "readynessProbe"),
    (check_newest_schema, "Deployment", lambda d: pod(d).update(terminationGracePeriodSeconds="45s"), "terminationGracePeriod"),
    (check_newest_schema, "Deployment", lambda d: d["spec"].pop("selector"), "selector"),
    (check_newest_schema, "Deployment", lambda d: d.update(apiVersion="apps/v1beta2"), "apps/v1beta2"),
    (check_newest_schema, "NetworkPolicy", lambda d: d["spec"].update(ingress={}), "ingress"),
    (check_newest_schema, "Service", lambda d: d["spec"]["ports"][0].pop("port"), "port"),
    (check_newest_schema, "PodDisruptionBudget", lambda d: d["spec"].update(maxUnavailible=1), "maxUnavailible"),
    (check_newest_schema, "HorizontalPodAutoscaler", lambda d: d["spec"].pop("maxReplicas"), "maxReplicas"),
    (check_newest_schema, "PodMonitor", lambda d: d["spec"].update(endpoints=[]), "endpoints"),
    (check_names, "Service", lambda d: d["spec"]["selector"].update({"app.kubernetes.io/name": "other"}), "selects no pod"),
    (check_names, "Service", lambda d: d["spec"]["ports"][0].update(targetPort="web"), "the port web"),
    (check_names, "PodDisruptionBudget", lambda d: d["spec"].update(selector={}), "selects no pod"),
    (check_names, "NetworkPolicy", lambda d: d["spec"]["ingress"][1].pop("from"), "lets everybody"),
    (check_names, "NetworkPolicy", lambda d: d["spec"]["ingress"][0].pop("ports"), "all ports"),
    (check_names, "Deployment", lambda d: pod(d).update(serviceAccountName="other"), "no ServiceAccount other"),
    (check_names, "ConfigMap", lambda d: d["metadata"].update(name="other"), "no ConfigMap"),
    (check_names, "PodMonitor", lambda d: d["spec"]["podMetricsEndpoints"][0].update(port="web"), "the port web"),
    (check_names, "HorizontalPodAutoscaler", lambda d: d["spec"]["scaleTargetRef"].update(name="other"), "not there"),
    (check_names, "Deployment", lambda d: d["spec"].update(replicas=3), "how many replicas"),
    (check_names, "Ingress", lambda d: d["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].update(name="x"), "leads to x"),
    (check_options, "ConfigMap", lambda d: d["data"].update(RINGYARD_MAX_CONECTIONS="1"), "RINGYARD_MAX_CONECTIONS"),
    (check_options, "ConfigMap", lambda d: d["data"].update(RINGYARD_LISTEN="0.0.0.0:8000"), "RINGYARD_LISTEN"),
    (check_options, "ConfigMap", lambda d: d["data"].update(RINGYARD_MAX_CONNECTIONS="5000000"), "memory limit"),
    (check_options, "ConfigMap", lambda d: d["data"].update(RINGYARD_SHARDS="64"), "64 shards"),
    (check_options, "Deployment", lambda d: first(d)["ports"][0].update(containerPort=80), "the image exposes"),
    (check_options, "Deployment", lambda d: first(d)["ports"][1].update(containerPort=9090), "prometheus.io/port"),
    (check_options, "HorizontalPodAutoscaler", lambda d: d["spec"]["metrics"][0]["pods"]["target"].update(averageValue="1M"), "the autoscaler aims"),
    (check_options, "Ingress", lambda d: d["spec"]["rules"][0].update(host="other.example.org"), "RINGYARD_ALLOW_HOST"),
    (check_shutdown, "Deployment", lambda d: pod(d).update(terminationGracePeriodSeconds=30), "draining takes"),
    (check_shutdown, "ConfigMap", lambda d: d["data"].update(RINGYARD_DRAIN_WINDOW="10m"), "draining takes"),
    (check_shutdown, "ConfigMap", lambda d: d["data"].pop("RINGYARD_DRAIN_DELAY", None), "RINGYARD_DRAIN_DELAY"),
    (check_shutdown, "Deployment", lambda d: d["spec"].update(strategy={"type": "Recreate"}), "before the next one"),
    (check_security, "Deployment", lambda d: pod(d)["securityContext"].update(runAsUser=1000), "the image's"),
    (check_security, "Deployment", lambda d: pod(d)["securityContext"].pop("seccompProfile"), "seccompProfile"),
    (check_security, "Deployment", lambda d: pod(d).update(hostNetwork=True), "hostNetwork"),
    (check_security, "Deployment", lambda d: first(d)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]), "capabilities"),
    (check_security, "Deployment", lambda d: first(d)["securityContext"].pop("readOnlyRootFilesystem"), "readOnlyRootFilesystem"),
    (check_security, "Deployment", lambda d: pod(d)["securityContext"].update(sysctls=[{"name": "net.core.somaxconn", "value": "1"}]), "net.core.somaxconn"),
    (check_security, "Deployment", lambda d: pod(d).update(volumes=[{"name": "etc", "hostPath": {"path": "/etc"}}]), "the volume etc"),
    (check_security, "Namespace", lambda d: d["metadata"].update(labels={}), "restricted"),
    (check_profile, "Deployment", lambda d: pod(d)["securityContext"].update(seccompProfile={"type": "Localhost", "localhostProfile": "other.json"}), "other.json"),
    (check_profile, "DaemonSet", lambda d: pod(d)["volumes"][1]["hostPath"].update(path="/etc"), "/etc"),
    (check_profile, "ConfigMap", lambda d: d["data"].update({"seccomp.json": "{}"}), "another than"),
    (check_running, "Deployment", lambda d: first(d)["livenessProbe"]["httpGet"].update(path="/alive"), "/alive"),
    (check_running, "Deployment", lambda d: first(d)["readinessProbe"]["httpGet"].update(port="admin"), "the port admin"),
    (check_running, "ConfigMap", lambda d: d["data"].update(RINGYARD_PING_INTERVAL="25"), "does not start"),
    (check_running, "HorizontalPodAutoscaler", lambda d: d["spec"]["metrics"][0]["pods"]["metric"].update(name="other"), "does not measure"),
]


def check_the_checks(sets, facts, unit, drop_ins, sysctl):
    """Each mistake is made in a set of manifests that has what it is made to, and has to be found."""
    complaints = []
    for check, kind, change, words in MISTAKES:
        found = []
        for documents in sets.values():
            if of_kind(documents, kind) and not any(words in complaint for complaint in found):
                found += check(changed(documents, kind, change), facts)
        if not any(words in complaint for complaint in found):
            complaints.append(f"{check.__name__} does not notice a mistake in {kind} ({words}), but says: {found}")
    others = [
        (check_unit(facts, unit.replace("TimeoutStopSec=45", "TimeoutStopSec=20"), drop_ins), "TimeoutStopSec"),
        (check_unit(facts, unit.replace("=@system-service", "=@basic-io"), drop_ins), "forbids"),
        (check_unit(facts, unit.replace(" io_uring_enter", ""), drop_ins), "io_uring_enter by name"),
        (check_unit(facts, unit, [text.replace("MAX_CONN", "MAX_CON") for text in drop_ins]), "no option"),
        (check_unit(facts, unit, [text.replace("MemoryMax=16G", "MemoryMax=12G") for text in drop_ins]), "MemoryMax"),
        (check_sysctl(sysctl.replace("net.core.somaxconn", "net.core.somaxcon")), "net.core.somaxcon"),
        (check_sysctl(sysctl.replace("tcp_mem = 200000", "tcp_mem =")), "tcp_mem takes 3"),
        (check_sysctl(sysctl.replace("= 4096\n", "= many\n")), "many"),
    ]
    complaints += [f"a mistake is not noticed ({words}): {found}" for found, words in others if words not in str(found)]
    return complaints, len(MISTAKES) + len(others)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the program ringyard")
    parser.add_argument("rendered", nargs="+", help="name=FILE of rendered manifests")
    arguments = parser.parse_args()
    facts = Facts(arguments.binary)
    sets = {}
    for argument in arguments.rendered:
        name, _, path = argument.partition("=")
        sets[name] = [document for document in yaml.load_all(Path(path).read_text(), Strict) if document]
    unit = (DEPLOY / "systemd/ringyard.service").read_text()
    drop_ins = [path.read_text() for path in sorted((DEPLOY / "systemd").glob("*.conf"))]
    sysctl = (DEPLOY / "sysctl/60-ringyard.conf").read_text()

    complaints = [("YAML", one) for one in check_yaml_files(DEPLOY)]
    for name, documents in sets.items():
        before = len(complaints)
        for check in CHECKS:
            complaints += [(name, one) for one in check(documents, facts)]
        complaints += [(name, one) for one in check_adapter_rule(documents)]
        print(f"{name}: {len(documents)} objects, {len(complaints) - before} complaints")
    complaints += [("systemd", one) for one in check_unit(facts, unit, drop_ins)]
    complaints += [("sysctl", one) for one in check_sysctl(sysctl)]
    complaints += [("sysctl, 1,000,000", one) for one in check_sysctl(re.sub("^#1m ", "", sysctl, flags=re.M))]
    complaints += [("texts", one) for one in check_variables_in_texts(facts)]
    if not complaints:
        blind, mistakes = check_the_checks(sets, facts, unit, drop_ins, sysctl)
        complaints += [("the checks", one) for one in blind]
        print(f"the checks: {mistakes} mistakes made on purpose, {mistakes - len(blind)} found")
    for where, complaint in complaints:
        print(f"{where}: {complaint}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
