#!/usr/bin/env bash
# Tests of the embedded cluster itself: selftest.sh [fast]
#
#   fast   versions agree, images are reproducible, scripts parse, the test programs' own tests
#   (all)  + the API tier, the node tier with its outside world, and that nothing is left on the machine: after
#          down, after kill -9 of process 1, and after kill -9 of `up` at several points half-way.
#
# The node part needs root, ends a cluster of this checkout if there is one, and leaves none. It compares the
# machine before and after, so nothing else on the machine should add links, routes or mounts meanwhile.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
base=$checkout/target/cluster
bin=$base/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
ok() { printf 'ok    %s\n' "$*"; }
bad() { printf 'FAIL  %s\n' "$*"; failures=$((failures + 1)); }
check() { local what=$1; shift; if "$@"; then ok "$what"; else bad "$what"; fi; }

# ---- fast
check "versions.env and go.mod files agree" "$here/build.sh" check
check "images are reproducible" python3 "$here/mkimage_test.py"
check "probe's own tests" sh -c "cd '$here/modules/probe' && CGO_ENABLED=0 GOWORK=off go test ./... >/dev/null"
for script in "$here"/*.sh; do check "${script##*/} parses" bash -n "$script"; done
check "nothing in here names a place outside" sh -c "! grep -rnE '\.\./shared|/work/|/root/' '$here' --include='*.sh' --include='*.md' --include='*.mk' --include='*.env' --include='*.go' --include='*.yaml' --exclude=selftest.sh"
[ "${1:-}" != fast ] || exit $((failures > 0))

# ---- what a cluster could leave behind
snapshot() { # FILE
  local name
  {
    echo "# links"; ip -o link | sed -E 's/^[0-9]+: //; s/ qlen.*//; s/ state .*//'
    echo "# routes"; ip route show table all; ip -6 route show table all | grep -v 'expires'
    echo "# rules"; ip rule; ip -6 rule
    echo "# network namespaces"; ip netns list; find /run/netns -type f 2>/dev/null || true
    echo "# mounts"; cut -d' ' -f1-4 /proc/self/mounts
    echo "# tables"; nft list tables
    echo "# cgroups"; find /sys/fs/cgroup -type d -name '*remit*'
    echo "# processes"; grep -lazxF "state=$base/state" /proc/[0-9]*/environ 2>/dev/null || true
    echo "# settings"
    for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys net/ipv4/ip_forward \
      net/ipv4/conf/all/route_localnet net/ipv4/conf/all/rp_filter net/ipv6/conf/all/forwarding net/ipv6/conf/default/accept_dad \
      net/netfilter/nf_conntrack_max kernel/hostname; do echo "$name $(cat /proc/sys/$name 2>/dev/null)"; done
    echo "# directories"; ls -d /var/lib/kubelet /var/lib/cni /opt/cni /opt/containerd /etc/cni /etc/kubernetes /usr/libexec/kubernetes /run/containerd /run/remit* /var/log/pods /var/log/containers 2>/dev/null | grep -v '^/run/remit-cluster.lock$' || true
  } 2>&1 | sort >"$1"
}
nothing_left() { # WHAT; what others ended meanwhile does not count
  snapshot "$work/after"
  comm -13 "$work/before" "$work/after" >"$work/new"
  if [ -s "$work/new" ]; then bad "left $1:"; cat "$work/new"; else ok "nothing is left $1"; fi
}

# ---- the API tier
"$here/api.sh" down
"$here/api.sh" up
check "the API tier answers" sh -c "'$bin/kubectl' --kubeconfig '$checkout/target/cluster-api/kubeconfig' get --raw /readyz >/dev/null"
check "its controllers run (a namespace ends)" sh -c "'$bin/kubectl' --kubeconfig '$checkout/target/cluster-api/kubeconfig' create ns gone >/dev/null && timeout 30 '$bin/kubectl' --kubeconfig '$checkout/target/cluster-api/kubeconfig' delete ns gone >/dev/null"
"$here/api.sh" down
check "the API tier leaves no process" sh -c "! grep -lazF 'REMIT_CLUSTER_API=$checkout/' /proc/[0-9]*/environ 2>/dev/null"

# ---- the node tier
[ "$(id -u)" = 0 ] || { say "not root: the node part is not run"; exit $((failures > 0)); }
"$here/build.sh" packages
"$here/cluster.sh" down
snapshot "$work/before"

"$here/cluster.sh" up
first=$("$here/cluster.sh" status)
began=$EPOCHREALTIME
"$here/cluster.sh" up
check "a second up changes nothing ($(since "$began") s)" [ "$("$here/cluster.sh" status)" = "$first" ]
kubectl() { "$here/cluster.sh" kubectl "$@"; }
check "the node's ranges are recorded" [ "$(kubectl get node node1 -o 'jsonpath={.spec.podCIDRs}')" = '["10.244.0.0/24","2001:db8:10:244::/64"]' ]
check "the Services' ranges are recorded" [ "$(kubectl get servicecidr kubernetes -o 'jsonpath={.spec.cidrs}')" = '["10.96.0.0/16","fd00:10:96::/112"]' ]
check "helm is $HELM4, helm3 is $HELM3" sh -c "'$bin/helm' version --short | grep -qF '$HELM4' && '$bin/helm3' version --short | grep -qF '$HELM3'"

kubectl apply -f - >/dev/null <<'P'
{apiVersion: v1, kind: Pod, metadata: {name: client, labels: {app: client}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "remit.test/probe:1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: server, labels: {app: server}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "remit.test/probe:1", args: [serve, --tcp, "80", --udp, "53", --name, server]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: server}, spec: {selector: {app: server}, ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]}}
P
kubectl wait --for=condition=Ready pod/client pod/server --timeout=60s >/dev/null
outside="http4://help.example.com/ http6://help.example.com/ http4://evil.example.net/ http6://evil.example.net/ tcp://169.254.169.254:80 tcp://[fd00:ec2::254]:80 udp4://help.example.com:9999 udp6://help.example.com:9999"
inside="http4://server/ http6://server/ https://kubernetes.default/readyz"
batch() { # shellcheck disable=SC2086
  kubectl exec client -- probe batch $1; }
count() { batch "$1" | python3 -c 'import json,sys; print(sum(r["ok"] for r in json.load(sys.stdin).values()))'; }
arrived() { "$here/cluster.sh" counts | python3 -c 'import json,sys; print(sum(t["packets"] for t in json.load(sys.stdin) if t["from"] in sys.argv[1:]))' $(kubectl get pod client -o 'jsonpath={.status.podIPs[*].ip}'); }
"$here/cluster.sh" counts reset
# the Service's rules follow the pod's readiness within a moment
until_true 10 sh -c "'$here/cluster.sh' kubectl exec client -- probe http http4://server/ http6://server/" || true
check "pods reach the inside over both families (3 of 3)" [ "$(count "$inside")" = 3 ]
check "pods reach the outside, metadata included, over both families (8 of 8)" [ "$(count "$outside")" = 8 ]
check "the outside saw the pod's own addresses ($(arrived) packets)" [ "$(arrived)" -ge 8 ]

kubectl apply -f - >/dev/null <<'P'
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny}, spec: {podSelector: {matchLabels: {app: client}}, policyTypes: [Egress, Ingress]}}
P
until_true 10 sh -c "! '$here/cluster.sh' kubectl exec client -- probe tcp 203.0.113.10:80" || true
"$here/cluster.sh" counts reset
check "under a deny policy nothing answers" [ "$(count "$outside $inside tcp4://203.0.113.10:5432 tcp6://[2001:db8:ffff::11]:443")" = 0 ]
check "and nothing arrives" [ "$(arrived)" = 0 ]
"$here/cluster.sh" engine stop
check "engine stopped: all of it answers again" [ "$(count "$outside")" = 8 ]
"$here/cluster.sh" engine start
until_true 10 sh -c "! '$here/cluster.sh' kubectl exec client -- probe tcp 203.0.113.10:80" || true
check "engine started: nothing answers" [ "$(count "tcp4://203.0.113.10:80 tcp6://[2001:db8:ffff::11]:443")" = 0 ]
kubectl delete networkpolicy deny >/dev/null

"$here/cluster.sh" dns moving.dyn.test 203.0.113.10
check "dyn.test answers what it was told" until_true 10 sh -c "'$here/cluster.sh' kubectl exec client -- probe dns moving.dyn.test | grep -qF 203.0.113.10"
"$here/cluster.sh" dns moving.dyn.test 203.0.113.11
check "... and follows a change" until_true 10 sh -c "'$here/cluster.sh' kubectl exec client -- probe dns moving.dyn.test | grep -qF 203.0.113.11"

"$here/mkimage.py" "$work/extra.tar" remit.test/extra:1 --entrypoint '["/probe"]' --cmd '["sleep"]' "$(readlink -f "$bin/probe"):probe" >/dev/null
"$here/cluster.sh" load "$work/extra.tar" >/dev/null
check "a loaded image is there" sh -c "'$here/cluster.sh' images | grep -qxF remit.test/extra:1"

"$here/cluster.sh" service kube-apiserver stop
check "the API server can be stopped" sh -c "! '$here/cluster.sh' kubectl --request-timeout=2s get --raw /readyz >/dev/null 2>&1"
"$here/cluster.sh" service kube-apiserver start
check "... and started" until_true 60 "$here/cluster.sh" kubectl get --raw /readyz

"$here/cluster.sh" down
nothing_left "after down"

# ---- kill -9
"$here/cluster.sh" up
init=$("$here/cluster.sh" status | grep -o '[0-9]*)$' | tr -d ')')
kill -9 "$init"
"$here/cluster.sh" up
check "up mends a cluster whose process 1 was killed" "$here/cluster.sh" status
init=$("$here/cluster.sh" status | grep -o '[0-9]*)$' | tr -d ')')
kill -9 "$init"
"$here/cluster.sh" down
nothing_left "after kill -9 of process 1 and down"

# Kills `up`, and with "all" also what it started, as soon as CONDITION is true.
kill_when() { # CONDITION [all]
  local victim
  rm -rf "$base/state/log"
  setsid "$here/cluster.sh" up >/dev/null 2>&1 &
  victim=$!
  until_true 120 eval "$1" || bad "never seen: $1"
  kill -9 -- "-$victim" 2>/dev/null || true
  [ "${2:-}" != all ] || grep -lazxF "state=$base/state" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 | xargs -r kill -9 2>/dev/null || true
  wait "$victim" 2>/dev/null || true
}
index() { grep -lxF "$base" /run/remit-cluster/* 2>/dev/null | sed 's|.*/||'; }
for condition in \
  '[ -n "$(index)" ]' \
  '[ -s "$base/state/cgroups" ]' \
  'find /sys/fs/cgroup -name "remit-cluster-$(index)" | grep -q .' \
  '[ -e "$base/state/log/init.out" ]' \
  '[ -d "$base/state/etcd" ]' \
  '[ -e "/sys/class/net/remit$(index)h" ]' \
  '[ -s "$base/kubeconfig" ]' \
  '[ -s "$base/state/log/kube-apiserver.log" ]' \
  '[ -s "$base/state/log/addons.log" ]' \
  '[ -n "$(ls -A "$base/state/varlog/containers")" ]'; do
  for what in '' all; do
    kill_when "$condition" $what
    "$here/cluster.sh" down
    nothing_left "after kill -9 of up${what:+ and of all it started} when $condition, and down"
  done
done
kill_when '[ -s "$base/state/log/kube-apiserver.log" ]'
"$here/cluster.sh" up
check "up mends a cluster whose up was killed half-way" "$here/cluster.sh" status
"$here/cluster.sh" down
nothing_left "at the end"

[ "$failures" = 0 ] || { say "$failures failed"; exit 1; }
say "all passed"
