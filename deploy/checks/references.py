"""Are the objects what Kubernetes takes, and is everything there that they refer to?"""

import jsonschema
import kubernetes_validate

from .objects import brokers, containers, named, of_kind

# From the oldest that the manifests are for to the newest that the package knows.
KUBERNETES = [f"1.{minor}" for minor in range(30, int(kubernetes_validate.latest_version().split(".")[1]) + 1)]
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
                            "authorization": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["credentials"],
                                "properties": {
                                    "type": {"const": "Bearer"},
                                    "credentials": {
                                        "type": "object",
                                        "additionalProperties": False,
                                        "required": ["name", "key"],
                                        "properties": {"name": {"type": "string"}, "key": {"type": "string"}},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}
# Of the Gateway API, whose schemas come with no package either, what the HTTPRoute uses.
HTTP_ROUTE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "gateway.networking.k8s.io/v1"},
        "kind": {"const": "HTTPRoute"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["parentRefs", "hostnames", "rules"],
            "properties": {
                "parentRefs": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name"],
                        "properties": {key: {"type": "string"} for key in ("name", "namespace", "sectionName")},
                    },
                },
                "hostnames": {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": r"^[a-z0-9.-]+$"}},
                "rules": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["backendRefs"],
                        "properties": {
                            "matches": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "properties": {
                                        "path": {
                                            "type": "object",
                                            "additionalProperties": False,
                                            "required": ["type", "value"],
                                            "properties": {
                                                "type": {"enum": ["Exact", "PathPrefix"]},
                                                "value": {"type": "string", "pattern": "^/"},
                                            },
                                        }
                                    },
                                },
                            },
                            "backendRefs": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "required": ["name", "port"],
                                    "properties": {"name": {"type": "string"}, "port": {"type": "integer"}},
                                },
                            },
                            "timeouts": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {
                                    "request": {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
OTHER_APIS = {"monitoring.coreos.com": POD_MONITOR, "gateway.networking.k8s.io": HTTP_ROUTE}


def check_newest_schema(documents, facts):
    """The same as check_schemas, quicker."""
    return check_schemas(documents, facts, KUBERNETES[-1:])


def check_schemas(documents, _facts, versions=tuple(KUBERNETES)):
    """Kubernetes' own schemas, in which an unknown field is a mistake."""
    complaints = []
    for document in documents:
        if schema := OTHER_APIS.get(document["apiVersion"].split("/")[0]):
            errors = jsonschema.Draft7Validator(schema).iter_errors(document)
            complaints += [f"{named(document)}: {error.message}" for error in errors]
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

    def leads_to(document, name, key, value):
        services = [one for one in of_kind(documents, "Service") if one["metadata"]["name"] == name]
        if not any(port[key] == value for one in services for port in one["spec"]["ports"]):
            complaints.append(f"{named(document)} leads to {name}, port {value}, which is not there")

    for workload in workloads:
        selects(workload["spec"]["selector"]["matchLabels"], named(workload))
        spec = workload["spec"]["template"]["spec"]
        for spread in spec.get("topologySpreadConstraints", []):
            selects(spread["labelSelector"].get("matchLabels"), f"{named(workload)}, topology spread")
        for term in (
            spec.get("affinity", {})
            .get("podAntiAffinity", {})
            .get("requiredDuringSchedulingIgnoredDuringExecution", [])
        ):
            selects(term["labelSelector"].get("matchLabels"), f"{named(workload)}, anti-affinity")
        account = spec.get("serviceAccountName")
        if account and ("ServiceAccount", account) not in names:
            complaints.append(f"{named(workload)}: there is no ServiceAccount {account}")
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        mounts = [mount["name"] for one in containers(workload) for mount in one.get("volumeMounts", [])]
        complaints += [f"{named(workload)}: there is no volume {name}" for name in mounts if name not in volumes]
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
                service = path["backend"]["service"]
                leads_to(ingress, service["name"], "name", service["port"]["name"])
    for route in of_kind(documents, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                leads_to(route, backend["name"], "port", backend["port"])
    return complaints
