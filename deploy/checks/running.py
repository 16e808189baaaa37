"""Starts a broker with a manifest's options and asks it what publishers, the probes and Prometheus will ask."""

import os
import re
import select
import signal
import subprocess
import time
import urllib.error
import urllib.request

from .files import StandIn, file_of
from .objects import arguments_of, brokers, hosts_inside, hosts_outside, named, of_kind, variables_of


class Broker:
    """A broker with a manifest's options, on loopback."""

    def __init__(self, facts, variables, arguments, file):
        # This machine's ports and descriptors; all else is the manifest's.
        own = {
            "RINGYARD_LISTEN": "127.0.0.1:0",
            "RINGYARD_ADMIN_LISTEN": "127.0.0.1:0",
            "RINGYARD_MAX_CONNECTIONS": "100",
            "RINGYARD_DRAIN_DELAY": "0s",
        }
        if "RINGYARD_TLS_LISTEN" in variables:
            own["RINGYARD_TLS_LISTEN"] = "127.0.0.1:0"
        # The Secrets' files are not on this machine.
        self.file = StandIn(file or "").__enter__()
        self.key = self.file.keys.get("back-end", "")
        if file:
            own["RINGYARD_CONFIG"] = self.file.path
        environment = {"PATH": os.environ["PATH"], **variables, **own}
        self.process = subprocess.Popen(
            [facts.binary, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
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
        self.file.__exit__()

    def get(self, address, path, host=None):
        """Status and body. `host`: what the broker is called by the one who asks."""
        return self.ask(urllib.request.Request(f"http://{address}{path}", headers={"Host": host} if host else {}))

    def publish(self, host, key=""):
        """The status that a back end gets which calls the broker so."""
        headers = {"Host": host, **({"Authorization": f"Bearer {key}"} if key else {})}
        return self.ask(urllib.request.Request(f"http://{self.public}/pub/x", data=b"x", headers=headers))[0]

    def ask(self, request):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""


def check_running(documents, facts):
    """The broker starts with these options, answers to its names and the probes, and has the autoscaler's metric."""
    complaints = []
    for deployment in brokers(documents):
        template = deployment["spec"]["template"]
        container = template["spec"]["containers"][0]
        arguments = arguments_of(documents, deployment)
        variables = variables_of(documents, deployment)
        file = file_of(documents, deployment, variables)
        with Broker(facts, variables, arguments, file) as broker:
            if broker.admin:
                for host in hosts_inside(documents):
                    if (status := broker.publish(host, broker.key)) != 200:
                        complaints.append(f"who publishes to {host} gets {status}")
                if broker.key and (status := broker.publish("ringyard")) != 401:
                    complaints.append(f"who publishes without a key gets {status}, not 401")
                other = broker.file.keys.get("prometheus", "")
                if other and (status := broker.publish("ringyard", other)) != 403:
                    complaints.append(f"who publishes with the key of Prometheus gets {status}, not 403")
                for host in hosts_outside(documents):
                    if (status := broker.get(broker.public, "/readyz", host)[0]) != 200:
                        complaints.append(f"clients from outside, who call it {host}, get {status}")
                if (status := broker.get(broker.public, "/readyz", "elsewhere.example")[0]) != 421:
                    complaints.append(f"a request for elsewhere.example gets {status}, not 421")
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    wanted = container[probe]["httpGet"]
                    # The public port may be full of clients.
                    if wanted["port"] != "admin":
                        complaints.append(f"{probe} asks at the port {wanted['port']}")
                    status, _ = broker.get(broker.admin, wanted["path"])
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
