#!/usr/bin/env bash
# make test: everything, in the order in which a failure is cheapest to find. Sets up what it needs; what it brought up, it ends.
#
#   KEEP=1             leaves the clusters up
#   REMIT_SKIP_NODE=1  leaves out what needs root or a node, and says what
#
# Nothing is skipped in silence: a test that is ignored, or a tier that cannot run, fails it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

node=1
left_out="guard in network namespaces, clients through it, image, the policy engine's own tests, node tier, demo"
if [ "${REMIT_SKIP_NODE:-}" = 1 ]; then
  node=0
  say "REMIT_SKIP_NODE=1: will be LEFT OUT: $left_out"
elif [ "$(id -u)" != 0 ]; then
  die "the node tier needs root (network namespaces, mounts). Run as root, or leave it out with REMIT_SKIP_NODE=1."
fi

results=target/test-results.txt
mkdir -p target
: >"$results"
began=$SECONDS
ours=()
end() { # the clusters which were not up before
  local status=$? tier
  if [ "${KEEP:-}" = 1 ]; then
    [ ${#ours[@]} -eq 0 ] || say "KEEP=1: left up: ${ours[*]}"
  else
    for tier in "${ours[@]}"; do "tests/cluster/$tier.sh" down || status=1; done
  fi
  exit "$status"
}
trap end EXIT

bring_up() { # TIER
  if ! "tests/cluster/$1.sh" status >/dev/null 2>&1; then
    ours+=("$1")
    "tests/cluster/$1.sh" up
  fi
}

# tests NAME ARG...: runs tests of tests/it, keeps their closing line
tests() {
  local name=$1 output
  shift
  output=$(mktemp)
  if ! cargo test --locked --test it -- "$@" 2>&1 | tee "$output"; then
    rm -f "$output"
    return 1
  fi
  sed -n "s/^test result: /$name: /p" "$output" >>"$results"
  # Benchmarks are run by `make bench` and `make bench-policy`; nothing else may be ignored.
  if grep -E '^test .* \.\.\. ignored' "$output" | grep -vE '^test bench(_policy)?::'; then
    rm -f "$output"
    die "$name: tests are ignored"
  fi
  rm -f "$output"
}

# Clients that nobody changed. Without the way `direct`, which proves nothing of ours: a client or a server that is wrong is so through TCP as well.
clients() {
  env -u ONLY -u GUARD -u GUARD_ARGS tests/clients/run.sh tcp redirect base-url proxy inspect || return 1
  cat target/clients/results/summary.txt >>"$results"
}

# The engine that enforces NetworkPolicy on the test node is ours: its own tests (the independent suite is `make test-engine`).
engine_tests() { (cd tests/cluster/modules/netpol && go test -trimpath ./...); }

# The story, from a cluster without Remit; it checks each of its promises.
demo() {
  local kubeconfig=$PWD/target/cluster/kubeconfig bin=$PWD/target/cluster/bin
  if KUBECONFIG=$kubeconfig "$bin/helm" status remit -n remit-system >/dev/null 2>&1; then
    KUBECONFIG=$kubeconfig "$bin/helm" uninstall remit -n remit-system --wait --timeout 180s
    KUBECONFIG=$kubeconfig "$bin/kubectl" delete namespace remit-system --timeout=60s
  fi
  CLUSTER=embedded NO_COLOR=1 scripts/demo.sh && CLUSTER=embedded NO_COLOR=1 scripts/demo-down.sh
}

scripts/packages.sh
# Before the cluster is up: the guard's tests need them as well.
[ "$node" = 0 ] || tests/cluster/build.sh packages
step "programs of the test clusters" tests/cluster/build.sh link "$PWD/target/cluster/bin" api helm3
step "oracle of NetworkPolicies" tests/access/setup.sh
step "cargo-deny" scripts/deny.sh install
REMIT_REQUIRE_TOOLS=1 scripts/check.sh
step "fuzz targets, ten seconds each" scripts/fuzz.sh smoke
step "test cluster: fast tests" tests/cluster/selftest.sh fast
step "chart" tests/chart/chart.sh target/cluster/bin/helm3 target/cluster/bin/helm

step "API tier: up" bring_up api
step "chart on an API server" env KUBECONFIG="$PWD/target/cluster-api/kubeconfig" PATH="$PWD/target/cluster/bin:$PATH" tests/chart/admission.sh helm
step "webhook, asked by a real API server" env KUBECONFIG="$PWD/target/cluster-api/kubeconfig" cargo test --locked --lib -- --ignored
step "API tier" tests "without a node" --skip node:: --skip pod::

if [ "$node" = 1 ]; then
  step "guard in a pod of its own" tests "in network namespaces" pod::
  step "clients that nobody changed, through the guard" clients
  step "image of the operator" scripts/images.sh operator
  step "image of the guard" scripts/images.sh guard
  step "test cluster: its policy engine" engine_tests
  step "image of clients that nobody changed" tests/clients/image.sh
  step "node tier: up" bring_up cluster
  step "images into the node" tests/cluster/cluster.sh load target/images/{operator,guard,clients}.tar
  step "node tier" tests "on a node" node::
  step "demo" demo
fi

say
say "tests of tests/it, and the clients:"
sed 's/^/  /' "$results" >&2
[ "$node" = 1 ] || say "  LEFT OUT (REMIT_SKIP_NODE=1): $left_out"
say "test: passed in $(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s"
