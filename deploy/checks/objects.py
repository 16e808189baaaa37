"""Kubernetes' objects as YAML has them, and the broker's among them."""

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
