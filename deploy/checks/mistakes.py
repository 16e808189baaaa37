"""Mistakes made on purpose: each has to be found by the check that it is made for. A check that cannot fail is none."""

import copy

from .host import check_compose, check_sysctl, check_unit
from .manifests import check_open_paths, check_options, check_profile, check_security, check_shutdown
from .objects import of_kind
from .references import check_names, check_newest_schema
from .running import check_running


def changed(documents, kind, change):
    """The same with a mistake in each object of a kind."""
    documents = copy.deepcopy(documents)
    for document in of_kind(documents, kind):
        change(document)
    return documents


def pod(document):
    return document["spec"]["template"]["spec"]


def locks(document):
    """The pod's security context."""
    return pod(document)["securityContext"]


def first(document):
    """The broker's container."""
    return pod(document)["containers"][0]


def mounts(document, stay):
    """Takes the mounts away whose path may not stay."""
    first(document)["volumeMounts"] = [one for one in first(document).get("volumeMounts", []) if stay(one["mountPath"])]


def in_file(config_map, old, new):
    """Changes the broker's file, in the map that has it."""
    data = config_map["data"]
    data.update({name: text.replace(old, new) for name, text in data.items() if name == "ringyard.toml"})


def metric(scaler):
    return scaler["spec"]["metrics"][0]["pods"]


def path(ingress):
    return ingress["spec"]["rules"][0]["http"]["paths"][0]


def route(document):
    """The first rule of an HTTPRoute."""
    return document["spec"]["rules"][0]


# What is done wrong, the kind it is done to, how, and words of the complaint that has to follow.
MISTAKES = [
    (check_newest_schema, "Deployment", lambda d: d["spec"].update(replica=2), "replica"),
    (check_newest_schema, "Deployment", lambda d: first(d).update(readynessProbe={}), "readynessProbe"),
    (
        check_newest_schema,
        "Deployment",
        lambda d: pod(d).update(terminationGracePeriodSeconds="45s"),
        "terminationGracePeriod",
    ),
    (check_newest_schema, "Deployment", lambda d: d["spec"].pop("selector"), "selector"),
    (check_newest_schema, "Deployment", lambda d: d.update(apiVersion="apps/v1beta2"), "apps/v1beta2"),
    (check_newest_schema, "NetworkPolicy", lambda d: d["spec"].update(ingress={}), "ingress"),
    (check_newest_schema, "Service", lambda d: d["spec"]["ports"][0].pop("port"), "port"),
    (check_newest_schema, "PodDisruptionBudget", lambda d: d["spec"].update(maxUnavailible=1), "maxUnavailible"),
    (check_newest_schema, "HorizontalPodAutoscaler", lambda d: d["spec"].pop("maxReplicas"), "maxReplicas"),
    (check_newest_schema, "PodMonitor", lambda d: d["spec"].update(endpoints=[]), "endpoints"),
    (
        check_names,
        "Service",
        lambda d: d["spec"]["selector"].update({"app.kubernetes.io/name": "other"}),
        "selects no pod",
    ),
    (check_names, "Service", lambda d: d["spec"]["ports"][0].update(targetPort="web"), "the port web"),
    (check_names, "PodDisruptionBudget", lambda d: d["spec"].update(selector={}), "selects no pod"),
    (check_names, "NetworkPolicy", lambda d: d["spec"]["ingress"][1].pop("from"), "lets everybody"),
    (check_names, "NetworkPolicy", lambda d: d["spec"]["ingress"][0].pop("ports"), "all ports"),
    (check_names, "Deployment", lambda d: pod(d).update(serviceAccountName="other"), "no ServiceAccount other"),
    (check_names, "Deployment", lambda d: first(d).update(volumeMounts=[{"name": "x", "mountPath": "/x"}]), "volume x"),
    (check_names, "ConfigMap", lambda d: d["metadata"].update(name="other"), "no ConfigMap"),
    (check_names, "PodMonitor", lambda d: d["spec"]["podMetricsEndpoints"][0].update(port="web"), "the port web"),
    (check_names, "HorizontalPodAutoscaler", lambda d: d["spec"]["scaleTargetRef"].update(name="other"), "not there"),
    (check_names, "Deployment", lambda d: d["spec"].update(replicas=3), "how many replicas"),
    (check_names, "Ingress", lambda d: path(d)["backend"]["service"].update(name="x"), "leads to x"),
    (check_names, "HTTPRoute", lambda d: route(d)["backendRefs"][0].update(port=8080), "port 8080"),
    (check_newest_schema, "HTTPRoute", lambda d: route(d)["matches"][0]["path"].update(type="Prefix"), "Prefix"),
    (check_newest_schema, "HTTPRoute", lambda d: d["spec"].update(parentRef="public"), "parentRef"),
    (check_open_paths, "Ingress", lambda d: path(d).update(path="/"), "Ingress ringyard opens"),
    (check_open_paths, "Ingress", lambda d: path(d).update(path="/pub"), "Ingress ringyard opens"),
    (check_open_paths, "Ingress", lambda d: path(d).update(pathType="ImplementationSpecific"), "ringyard opens"),
    (check_open_paths, "HTTPRoute", lambda d: route(d).pop("matches"), "HTTPRoute ringyard opens"),
    (check_open_paths, "HTTPRoute", lambda d: route(d)["matches"].append({}), "HTTPRoute ringyard opens"),
    (check_open_paths, "HTTPRoute", lambda d: route(d)["matches"][0]["path"].update(value="/bus"), "ringyard opens"),
    (check_options, "ConfigMap", lambda d: d["data"].update(RINGYARD_MAX_CONECTIONS="1"), "RINGYARD_MAX_CONECTIONS"),
    (check_options, "ConfigMap", lambda d: d["data"].update(RINGYARD_LISTEN="0.0.0.0:8000"), "RINGYARD_LISTEN"),
    (check_options, "ConfigMap", lambda d: d["data"].update(RINGYARD_MAX_CONNECTIONS="5000000"), "memory limit"),
    (check_options, "ConfigMap", lambda d: d["data"].update(RINGYARD_SHARDS="64"), "64 shards"),
    (check_options, "Deployment", lambda d: first(d).pop("volumeMounts", None), "no ConfigMap is mounted"),
    (check_options, "Deployment", lambda d: mounts(d, lambda path: path != "/run/secrets/tls"), "no Secret is mounted"),
    (check_options, "ConfigMap", lambda d: in_file(d, 'principal = "user"', 'principal = "users"'), "does not take"),
    (check_options, "ConfigMap", lambda d: in_file(d, "publish = ", "publishes = "), "does not take"),
    (check_options, "ConfigMap", lambda d: d["data"].update(RINGYARD_TLS_LISTEN="[::]:443"), "the port https"),
    (
        check_newest_schema,
        "PodMonitor",
        lambda d: d["spec"]["podMetricsEndpoints"][0].update(authorization={"type": "Basic"}),
        "Bearer",
    ),
    (check_options, "Deployment", lambda d: first(d)["ports"][0].update(containerPort=80), "the image exposes"),
    (check_options, "Deployment", lambda d: first(d)["ports"][1].update(containerPort=9090), "prometheus.io/port"),
    (
        check_options,
        "HorizontalPodAutoscaler",
        lambda d: metric(d)["target"].update(averageValue="1M"),
        "the autoscaler aims",
    ),
    (check_options, "Deployment", lambda d: first(d)["args"].append("--allow-hosts=x"), "does not take"),
    (check_options, "ConfigMap", lambda d: d["data"].update(RINGYARD_PING_INTERVAL="25"), "does not take"),
    (check_shutdown, "Deployment", lambda d: pod(d).update(terminationGracePeriodSeconds=30), "draining takes"),
    (check_shutdown, "ConfigMap", lambda d: d["data"].update(RINGYARD_DRAIN_WINDOW="10m"), "draining takes"),
    (check_shutdown, "ConfigMap", lambda d: d["data"].pop("RINGYARD_DRAIN_DELAY", None), "RINGYARD_DRAIN_DELAY"),
    (check_shutdown, "ConfigMap", lambda d: d["data"].pop("RINGYARD_DRAIN_WINDOW", None), "spread out"),
    (check_shutdown, "Deployment", lambda d: d["spec"].update(strategy={"type": "Recreate"}), "before the next one"),
    (check_security, "Deployment", lambda d: locks(d).update(runAsUser=1000), "the image's"),
    (check_security, "Deployment", lambda d: locks(d).pop("seccompProfile"), "seccompProfile"),
    (check_security, "Deployment", lambda d: pod(d).update(hostNetwork=True), "hostNetwork"),
    (
        check_security,
        "Deployment",
        lambda d: first(d)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        "capabilities",
    ),
    (
        check_security,
        "Deployment",
        lambda d: first(d)["securityContext"].pop("readOnlyRootFilesystem"),
        "readOnlyRootFilesystem",
    ),
    (
        check_security,
        "Deployment",
        lambda d: locks(d).update(sysctls=[{"name": "net.core.somaxconn"}]),
        "net.core.somaxconn",
    ),
    (
        check_security,
        "Deployment",
        lambda d: pod(d).update(volumes=[{"name": "etc", "hostPath": {}}]),
        "the volume etc",
    ),
    (check_security, "Namespace", lambda d: d["metadata"].update(labels={}), "restricted"),
    (
        check_profile,
        "Deployment",
        lambda d: locks(d)["seccompProfile"].update(localhostProfile="other.json"),
        "other.json",
    ),
    (check_profile, "DaemonSet", lambda d: pod(d)["volumes"][1]["hostPath"].update(path="/etc"), "/etc"),
    (check_profile, "ConfigMap", lambda d: d["data"].update({"seccomp.json": "{}"}), "another than"),
    (check_running, "Deployment", lambda d: first(d)["livenessProbe"]["httpGet"].update(path="/alive"), "/alive"),
    (
        check_running,
        "Deployment",
        lambda d: first(d)["readinessProbe"]["httpGet"].update(port="http"),
        "asks at the port http",
    ),
    (check_running, "ConfigMap", lambda d: d["data"].update(RINGYARD_PING_INTERVAL="25"), "does not start"),
    (check_running, "Ingress", lambda d: d["spec"]["rules"][0].update(host="other.example.org"), "call it other.ex"),
    (check_running, "HTTPRoute", lambda d: d["spec"].update(hostnames=["a.example.org"]), "call it a.example.org"),
    (check_running, "Deployment", lambda d: first(d)["args"].pop(1), "publishes to ringyard.elsewhere gets 421"),
    (check_running, "Service", lambda d: d["metadata"].update(name="broker"), "publishes to broker.ringyard gets 421"),
    (check_running, "Deployment", lambda d: first(d)["args"].append("--allow-host=*"), "gets 200, not 421"),
    (check_running, "ConfigMap", lambda d: d["data"].update(RINGYARD_CLIENT_PUBLISH="yes"), "does not start"),
    (check_running, "ConfigMap", lambda d: in_file(d, 'publish = ["#"]', 'publish = ["y/#"]'), "gets 403"),
    (check_running, "ConfigMap", lambda d: in_file(d, 'api = ["metrics"]', 'publish = ["#"]'), "not 403"),
    (check_running, "HorizontalPodAutoscaler", lambda d: metric(d)["metric"].update(name="other"), "does not measure"),
]


def check_the_checks(sets, facts, unit, drop_ins, options, file, sysctl, compose):
    """Each mistake is made in a set of manifests that has what it is made to, and has to be found."""
    complaints = []
    for check, kind, change, words in MISTAKES:
        found = []
        for documents in sets.values():
            if of_kind(documents, kind) and not any(words in complaint for complaint in found):
                found += check(changed(documents, kind, change), facts)
        if not any(words in complaint for complaint in found):
            complaints.append(f"{check.__name__} does not notice a mistake in {kind} ({words}), but says: {found}")

    def of_unit(text=unit, changed_drop_ins=drop_ins, changed_options=options, changed_file=file):
        return check_unit(facts, text, changed_drop_ins, changed_options, changed_file)

    others = [
        (of_unit(unit.replace("TimeoutStopSec=45", "TimeoutStopSec=20")), "TimeoutStopSec"),
        (of_unit(unit.replace("=@system-service", "=@basic-io")), "forbids"),
        (of_unit(unit.replace(" io_uring_enter", "")), "io_uring_enter by name"),
        (of_unit(changed_drop_ins=[text.replace("MAX_CONN", "MAX_CON") for text in drop_ins]), "no option"),
        (of_unit(changed_drop_ins=[text.replace("MemoryMax=16G", "MemoryMax=10G") for text in drop_ins]), "MemoryMax"),
        (of_unit(changed_options=options.replace("=127.0.0.1:8080", "=[::]:8080")), "ringyard.env"),
        (of_unit(changed_file=file.replace('"HS256"', '"HS128"')), "does not take the options of the unit"),
        (of_unit(changed_drop_ins=[text.replace("=tls.key:", "=key:") for text in drop_ins]), "no LoadCredential"),
        (check_compose(facts, compose[0].replace(", tls.key]", "]"), compose[1]), "no secrets of its service"),
        (check_compose(facts, compose[0].replace("TLS_LISTEN", "TLS_LISTENS"), compose[1]), "no option"),
        (check_compose(facts, compose[0], compose[1].replace("[auth]", "[author]")), "does not take"),
        (check_sysctl(sysctl.replace("net.core.somaxconn", "net.core.somaxcon")), "net.core.somaxcon"),
        (check_sysctl(sysctl.replace("tcp_mem = 200000", "tcp_mem =")), "tcp_mem takes 3"),
        (check_sysctl(sysctl.replace("= 4096\n", "= many\n")), "many"),
    ]
    complaints += [f"a mistake is not noticed ({words}): {found}" for found, words in others if words not in str(found)]
    return complaints, len(MISTAKES) + len(others)
