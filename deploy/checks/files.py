"""The broker's file, as operators' examples have it, on a machine that has none of the files that it names.

`StandIn` is a folder with such a file: each secret, key and certificate that it names is made here, and each `[[key]]` gets
the digest of a key that the checks know. Everything else is as in the example.
"""

import hashlib
import re
import secrets
import subprocess
import tempfile
from pathlib import Path

from .objects import of_kind

# Settings whose value is the path of a file that is secret, or a certificate.
FILES = re.compile(r'^(hs-secret-file|hs-previous-secret-file|keys-file|cert|key) = "(.*)"$', re.M)


class StandIn:
    """Lives as long as the block of `with`. `path` is the file's, `keys` has the key of each [[key]] by its name."""

    def __init__(self, text):
        self.text = text
        self.keys = {}

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="ringyard-file-")
        folder = Path(self.folder.name)
        paths = {}
        for setting, path in FILES.findall(self.text):
            paths[path] = folder / f"{len(paths)}-{setting}"
            if setting.startswith("hs-"):
                paths[path].write_text(secrets.token_urlsafe(48))
        self.make_certificate(paths)
        text = FILES.sub(lambda found: f'{found[1]} = "{paths[found[2]]}"', self.text)
        text = re.sub(r'^(name = "(.*)"\nsha256 = )".*"$', self.with_known_key, text, flags=re.M)
        self.path = str(folder / "ringyard.toml")
        Path(self.path).write_text(text)
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def with_known_key(self, found):
        key = "rk_" + secrets.token_urlsafe(32)
        self.keys[found[2]] = key
        return f'{found[1]}"{hashlib.sha256(key.encode()).hexdigest()}"'

    def make_certificate(self, paths):
        cert, key = (next((one for one in paths.values() if one.name.endswith(f"-{name}")), None) for name in ("cert", "key"))
        if cert and key:
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                 "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
                capture_output=True, timeout=20, check=True,
            )  # fmt: skip


def file_of(documents, deployment, variables):
    """The text of the file that RINGYARD_CONFIG names, of the ConfigMap that is mounted there; None: there is no such."""
    path = variables.get("RINGYARD_CONFIG", "")
    spec = deployment["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0].get("volumeMounts", [])}
    for volume in spec.get("volumes", []):
        for one in of_kind(documents, "ConfigMap"):
            if volume.get("configMap", {}).get("name") == one["metadata"]["name"]:
                for name, text in one["data"].items():
                    if path == f"{mounts.get(volume['name'])}/{name}":
                        return text
    return None


def paths_in(text):
    """The paths of secrets, keys and certificates in a file of the broker."""
    return [path for _, path in FILES.findall(text)]
