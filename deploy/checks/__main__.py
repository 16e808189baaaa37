"""Checks of what operators install outside the image: Kubernetes manifests, systemd units, sysctl files.

`python -m checks`, called by manifests-test.sh, which brings the tools and renders the manifests. Each check is a
function that returns complaints, one sentence each; none means that all is well. What the files say is compared with
what the broker says (`ringyard --help`, a broker started with the manifests' options), with the image (Dockerfile,
seccomp) and with the schemas of Kubernetes, so that nothing goes stale unnoticed.

Of compose.access.yaml they check the options. Not responsible for compose.yaml, the image and the alert rules, which have tests of their own, nor for the proxies
(proxies.py).
"""

import argparse
import re
import sys
from pathlib import Path

from .facts import DEPLOY, Facts
from .host import check_compose, check_sysctl, check_unit, check_variables_in_texts
from .manifests import (
    check_adapter_rule,
    check_open_paths,
    check_options,
    check_profile,
    check_security,
    check_shutdown,
)
from .mistakes import check_the_checks
from .objects import check_yaml_files, load
from .references import check_names, check_schemas
from .running import check_running

CHECKS = [
    check_schemas,
    check_names,
    check_options,
    check_open_paths,
    check_shutdown,
    check_security,
    check_profile,
    check_running,
]


def main():
    parser = argparse.ArgumentParser(prog="checks", description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the program ringyard")
    parser.add_argument("rendered", nargs="+", help="name=FILE of rendered manifests")
    arguments = parser.parse_args()
    facts = Facts(arguments.binary)
    sets = {}
    for argument in arguments.rendered:
        name, _, path = argument.partition("=")
        sets[name] = load(Path(path).read_text())
    unit = (DEPLOY / "systemd/ringyard.service").read_text()
    drop_ins = [path.read_text() for path in sorted((DEPLOY / "systemd").glob("*.conf"))]
    options = (DEPLOY / "systemd/ringyard.env").read_text()
    file = (DEPLOY / "systemd/ringyard.toml").read_text()
    sysctl = (DEPLOY / "sysctl/60-ringyard.conf").read_text()
    compose = [(DEPLOY / f"compose.access.{kind}").read_text() for kind in ("yaml", "toml")]

    complaints = [("YAML", one) for one in check_yaml_files(DEPLOY)]
    for name, documents in sets.items():
        before = len(complaints)
        for check in CHECKS:
            complaints += [(name, one) for one in check(documents, facts)]
        complaints += [(name, one) for one in check_adapter_rule(documents)]
        print(f"{name}: {len(documents)} objects, {len(complaints) - before} complaints")
    complaints += [("systemd", one) for one in check_unit(facts, unit, drop_ins, options, file)]
    complaints += [("compose", one) for one in check_compose(facts, *compose)]
    complaints += [("sysctl", one) for one in check_sysctl(sysctl)]
    complaints += [("sysctl, 1,000,000", one) for one in check_sysctl(re.sub("^#1m ", "", sysctl, flags=re.M))]
    complaints += [("texts", one) for one in check_variables_in_texts(facts)]
    if not complaints:
        blind, mistakes = check_the_checks(sets, facts, unit, drop_ins, options, file, sysctl, compose)
        complaints += [("the checks", one) for one in blind]
        print(f"the checks: {mistakes} mistakes made on purpose, {mistakes - len(blind)} found")
    for where, complaint in complaints:
        print(f"{where}: {complaint}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
