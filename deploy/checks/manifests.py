"""Do the manifests fit the broker: its options, its memory, the time that it takes to drain, the user of its image, its
seccomp profile?

The security that is asked for is the Pod Security Standard `restricted`.
"""

import re

from .facts import DEPLOY, drain_seconds, memory_bytes, quantity, seconds
from .files import StandIn, file_of, paths_in
from .objects import arguments_of, brokers, containers, files_of, load, named, of_kind, open_paths, variables_of

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


def check_options(documents, facts):
    """The environment consists of options that the broker has, and fits the rest of the manifest."""
    complaints = []
    for deployment in brokers(documents):
        variables = variables_of(documents, deployment)
        unknown = sorted(set(variables) - facts.variables)
        complaints += [f"{name} is no option of the broker" for name in unknown]
        file = file_of(documents, deployment, variables)
        if "RINGYARD_CONFIG" in variables and file is None:
            complaints.append(f"RINGYARD_CONFIG is {variables['RINGYARD_CONFIG']}, where no ConfigMap is mounted")
            continue
        with StandIn(file or "") as stand_in:
            given = {**variables, "RINGYARD_CONFIG": stand_in.path} if file else variables
            if refusal := facts.refusal(given, arguments_of(documents, deployment)):
                complaints.append(f"the broker does not take these options: {refusal}")
        for path in paths_in(file or ""):
            if not any(path.startswith(f"{folder}/") for folder in files_of(deployment)):
                complaints.append(f"{path} is where no Secret is mounted")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        listeners = [("http", "RINGYARD_LISTEN"), ("admin", "RINGYARD_ADMIN_LISTEN")]
        if "https" in ports or "RINGYARD_TLS_LISTEN" in variables:
            listeners.append(("https", "RINGYARD_TLS_LISTEN"))
        for port, name in listeners:
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
        needed = memory_bytes(facts, variables)
        if not connections or not shards or needed > limit:
            complaints.append(
                f"{connections} connections on {shards} shards need {needed / (1 << 30):.1f} GiB, but the memory limit "
                f"is {resources['limits']['memory']}"
            )
        if resources["requests"]["memory"] != resources["limits"]["memory"]:
            complaints.append("the memory that is asked for is not its limit")
        if not shards - 2 <= quantity(resources["requests"]["cpu"]) <= shards:
            complaints.append(f"{shards} shards, but {resources['requests']['cpu']} cores are asked for")
        for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
            value = quantity(scaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"])
            if not 0.5 * connections <= value <= 0.8 * connections:
                complaints.append(f"the autoscaler aims at {value:.0f} of {connections} connections: not 50 to 80 %")
    return complaints


def check_open_paths(documents, _facts):
    """From outside pages can load the client and subscribe, and do nothing else."""
    scripts = ["ringyard.js", "ringyard.min.js", "ringyard-sse.js", "ringyard-yjs.js", "yjs.js"]
    wanted = {("/sub", "Prefix"), ("/ws", "Exact"), *((f"/{script}", "Exact") for script in scripts)}
    return [
        f"{name} opens {sorted(paths)}: not /sub/, /ws and the client alone"
        for name, paths in open_paths(documents)
        if paths != wanted
    ]


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
        # By default there is none: a pod has no successor that takes over, and clients would all come back at once.
        if seconds(variables.get("RINGYARD_DRAIN_WINDOW", "0s")) < 5:
            complaints.append("RINGYARD_DRAIN_WINDOW is too short for clients to come back spread out")
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
        if (
            brokers(documents)
            and namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted"
        ):
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
        paths = [
            volume["hostPath"]["path"] for volume in one["spec"]["template"]["spec"]["volumes"] if "hostPath" in volume
        ]
        if paths != ["/var/lib/kubelet/seccomp/ringyard"]:
            complaints.append(f"{named(one)} writes to {paths}, where no pod looks for ringyard/seccomp.json")
        data = [map["data"] for map in of_kind(documents, "ConfigMap")]
        if not any(facts.profile == text for map in data for text in map.values()):
            complaints.append(
                "components/seccomp/seccomp.json is another than deploy/seccomp.json: "
                "run deploy/seccomp/profile.py write"
            )
    return complaints


def check_adapter_rule(documents):
    """The rule gives the metric the name that the autoscaler asks for."""
    rules = load((DEPLOY / "kubernetes/components/scale-out/adapter-rules.yaml").read_text())[0]
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
