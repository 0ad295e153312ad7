#!/usr/bin/env bash
# make test-attacks: the attack suite alone, one line for each attack: where it is stopped, and by what one sees it. Needs root (a node).
#
#   KEEP=1  leaves the cluster up
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ "$(id -u)" = 0 ] || die "the attack suite needs root: it runs on a node of its own (network namespaces, mounts)"
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
scripts/images.sh operator
scripts/images.sh guard
tests/clients/image.sh
if ! tests/cluster/cluster.sh status >/dev/null 2>&1; then
  started=yes
  tests/cluster/cluster.sh up
fi
tests/cluster/cluster.sh load target/images/{operator,guard,clients}.tar
cargo test --locked --test it -- node::attacks --nocapture
