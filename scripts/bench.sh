#!/usr/bin/env bash
# make bench: the benchmark tables, by the ignored tests `bench::…` of tests/it on the API tier, in the release profile.
# Brings the API tier up if it is not, and ends what it brought up.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

benches=$(cargo test --locked --quiet --release --test it -- --ignored --list bench:: | grep -c ': test$' || true)
[ "$benches" -gt 0 ] || die "there is no test named bench:: in tests/it"
if ! tests/cluster/api.sh status >/dev/null 2>&1; then
  trap 'tests/cluster/api.sh down' EXIT
  tests/cluster/api.sh up
fi
cargo test --locked --release --test it -- --ignored --nocapture --test-threads 1 bench::
