"""Judges what sslyze found at a port with TLS. Called by tls_scan.sh: tls_scan.py SCAN.json LEAST_VERSION

Everything that the broker is to speak is listed here; all else is a finding, and so is a part of the scan that is missing.
Prints each finding, and exits with 1 if there is any.
"""

import json
import sys

SUITES = {
    "1.2": {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    },
    "1.3": {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
}
VERSIONS = {"ssl_2_0": None, "ssl_3_0": None, "tls_1_0": None, "tls_1_1": None, "tls_1_2": "1.2", "tls_1_3": "1.3"}
# Without ML-KEM, which the scanner does not know.
CURVES = {"X25519", "secp256r1", "secp384r1"}

# What is asked of every server, as the scanner names it.
ALWAYS = {
    ("tls_compression", "supports_compression"): False,
    ("tls_1_3_early_data", "supports_early_data"): False,
    ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection"): False,
    ("heartbleed", "is_vulnerable_to_heartbleed"): False,
    ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos"): False,
    ("robot", "robot_result"): "NOT_VULNERABLE_RSA_NOT_SUPPORTED",
}
# What is only asked of servers with TLS 1.2.
OLD = {
    ("session_renegotiation", "supports_secure_renegotiation"): True,
    ("tls_extended_master_secret", "supports_ems_extension"): True,
    ("tls_fallback_scsv", "supports_fallback_scsv"): True,
}


def findings(scan, least):
    def result(part):
        found = scan.get(part) or {}
        if found.get("status") != "COMPLETED":
            yield f"{part}: {found.get('status')}, {found.get('error_reason')}"
        else:
            yield found["result"]

    def judged(part, judge):
        for found in result(part):
            yield from [found] if isinstance(found, str) else judge(found)

    for part, version in VERSIONS.items():
        wanted = SUITES[version] if version and version >= least else set()
        yield from judged(f"{part}_cipher_suites", lambda found: unlike(part, accepted(found), wanted))
    yield from judged(
        "elliptic_curves", lambda found: unlike("curves", {curve["name"] for curve in found["supported_curves"]}, CURVES)
    )
    for (part, fact), wanted in {**ALWAYS, **(OLD if least == "1.2" else {})}.items():
        yield from judged(part, lambda found: unlike(f"{part}: {fact}", found[fact], wanted))
    yield from judged("certificate_info", trust)


def accepted(found):
    return {suite["cipher_suite"]["name"] for suite in found["accepted_cipher_suites"]}


def trust(found):
    for deployment in found["certificate_deployments"]:
        # One of them is that of --certinfo_ca_file. It says the same of names.
        if not any(path["was_validation_successful"] for path in deployment["path_validation_results"]):
            yield "certificate_info: the certificate is not trusted"
        if not deployment["received_chain_has_valid_order"]:
            yield "certificate_info: the chain is out of order"


def unlike(what, found, wanted):
    if found != wanted:
        shown = [sorted(value) if isinstance(value, set) else value for value in (found, wanted)]
        yield f"{what}: {shown[0]} in place of {shown[1]}"


def main():
    path, least = sys.argv[1:]
    with open(path) as file:
        results = json.load(file)["server_scan_results"]
    [server] = results
    if server["scan_status"] != "COMPLETED":
        sys.exit(f"the scan was not completed: {server['connectivity_error_trace']}")
    found = list(findings(server["scan_result"], least))
    for finding in found:
        print(finding)
    print(f"TLS {least} and newer: {len(found)} findings")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
