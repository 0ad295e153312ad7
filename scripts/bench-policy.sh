#!/usr/bin/env bash
# make bench-policy: from the change of a scope to 1, 10 and 100 guards, by the ignored test `bench_policy::…` of tests/it on the node tier, with
# release builds of operator and guard (root; ten minutes). See docs/performance.md.
#
#   ROUNDS=n  instead of 10, of four changes each
#   KEEP=1    leaves the cluster up
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ "$(id -u)" = 0 ] || die "the node tier needs root (network namespaces, mounts)"
scripts/packages.sh
tests/cluster/build.sh packages
tests/cluster/build.sh link "$PWD/target/cluster/bin" api helm3
started=
end() { # a cluster which was not up before
  local status=$?
  [ -z "$started" ] || [ "${KEEP:-}" = 1 ] || tests/cluster/cluster.sh down || status=1
  exit "$status"
}
trap end EXIT
PROFILE=release scripts/images.sh operator
PROFILE=release scripts/images.sh guard
cargo test --locked --test it --no-run
if ! tests/cluster/cluster.sh status >/dev/null 2>&1; then
  started=yes
  tests/cluster/cluster.sh up
fi
tests/cluster/cluster.sh load target/images/operator.tar target/images/guard.tar
cargo test --locked --test it -- --ignored --nocapture bench_policy::
