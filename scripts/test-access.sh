#!/usr/bin/env bash
# make test-access: effective access beside independent implementations, with the counts: NetworkPolicy beside Cyclonus' matcher, RBAC beside
# the API server (whose tier is brought up, and ended).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts/packages.sh
tests/access/setup.sh
tests/cluster/build.sh link "$PWD/target/cluster/bin" api helm3
started=
end() {
  local status=$?
  [ -z "$started" ] || [ "${KEEP:-}" = 1 ] || tests/cluster/api.sh down || status=1
  exit "$status"
}
trap end EXIT
if ! tests/cluster/api.sh status >/dev/null 2>&1; then
  started=yes
  tests/cluster/api.sh up
fi
cargo test --locked --test it -- access::network api_access:: --nocapture
