"""Kubernetes' objects as YAML has them, and the broker's among them."""

import re

import yaml


class Strict(yaml.SafeLoader):
    """YAML as Kubernetes reads it, except that a key that stands twice is a mistake."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(text):
    """All documents of a YAML text that are not empty."""
    return [document for document in yaml.load_all(text, Strict) if document]


def check_yaml_files(folder):
    """Every YAML file below the folder can be read."""
    complaints = []
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        if "node_modules" in path.parts:
            continue
        try:
            load(path.read_text())
        except yaml.YAMLError as error:
            complaints.append(f"{path.relative_to(folder)} is no YAML: {error}")
    return complaints


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def named(document):
    return f"{document['kind']} {document['metadata']['name']}"


def containers(workload):
    spec = workload["spec"]["template"]["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def variables_of(documents, deployment):
    """The options in the environment that the broker's container gets."""
    return {name: value for name, value in environment(documents, deployment).items() if name.startswith("RINGYARD_")}


def arguments_of(documents, deployment):
    """The command line that the broker's container gets: $(NAME) is a variable of its environment, if it has it."""
    variables = environment(documents, deployment)
    return [
        re.sub(r"\$\((\w+)\)", lambda name: variables.get(name[1], name[0]), argument)
        for argument in deployment["spec"]["template"]["spec"]["containers"][0].get("args", [])
    ]


def environment(documents, deployment):
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    variables = {}
    for source in container.get("envFrom", []):
        name = source["configMapRef"]["name"]
        found = [map for map in of_kind(documents, "ConfigMap") if map["metadata"]["name"] == name]
        variables.update(found[0]["data"] if found else {})
    for entry in container.get("env", []):
        path = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        is_namespace = path == "metadata.namespace"
        variables[entry["name"]] = deployment["metadata"]["namespace"] if is_namespace else entry.get("value", "")
    return variables


def files_of(deployment):
    """The paths at which the broker's container finds files of Secrets: of the mounted folders."""
    spec = deployment["spec"]["template"]["spec"]
    secrets = {volume["name"] for volume in spec.get("volumes", []) if "secret" in volume}
    return [mount["mountPath"] for mount in spec["containers"][0].get("volumeMounts", []) if mount["name"] in secrets]


def hosts_inside(documents):
    """What other pods may call the broker: every name of each Service that leads to it. The last takes the domain that
    clusters have by default."""
    names = []
    for service in of_kind(documents, "Service"):
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        names += [name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]
    return names


def hosts_outside(documents):
    """What clients outside call the broker."""
    names = [rule["host"] for ingress in of_kind(documents, "Ingress") for rule in ingress["spec"]["rules"]]
    return names + [name for route in of_kind(documents, "HTTPRoute") for name in route["spec"]["hostnames"]]


def open_paths(documents):
    """What an Ingress or HTTPRoute lets in: its name, and (path, how it is compared) of each path."""
    for ingress in of_kind(documents, "Ingress"):
        paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
        yield named(ingress), {(path["path"], path["pathType"]) for path in paths}
    for route in of_kind(documents, "HTTPRoute"):
        # A rule without a match takes every path.
        matches = [match for rule in route["spec"]["rules"] for match in rule.get("matches", [{}])]
        paths = [match.get("path", {"value": "/", "type": "PathPrefix"}) for match in matches]
        yield named(route), {(path["value"], path["type"].removeprefix("Path")) for path in paths}


def brokers(documents):
    return [document for document in of_kind(documents, "Deployment") if document["metadata"]["name"] == "ringyard"]
