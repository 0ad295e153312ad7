#!/usr/bin/env bash
# make check: everything that needs no cluster. The first failure ends it.
#
#   REMIT_REQUIRE_TOOLS=1   fail where a tool is not there (make test), instead of saying so and going on
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

left_out=()
missing() { # WHAT HOW
  [ "${REMIT_REQUIRE_TOOLS:-}" != 1 ] || die "$1 cannot be checked: $2"
  left_out+=("$1 ($2)")
}

# Modules of tests/it that need no cluster. The chart's need Helm.
pure=(layers:: generated:: channel:: cli::)
if [ -n "${HELM:-}" ] || [ -x target/cluster/bin/helm ] || command -v helm >/dev/null; then
  pure+=(chart::)
else
  missing "the chart beside the code" "no Helm; \`make cluster-tools\` builds it"
fi

step "format" cargo fmt --check
step "format of the fuzz targets" cargo fmt --check --manifest-path fuzz/Cargo.toml
step "lints" cargo clippy --quiet --locked --all-features --all-targets -- -D warnings
step "unit tests" cargo test --quiet --locked --lib
step "tests without a cluster" cargo test --quiet --locked --test it -- --skip api_ --skip pod:: --skip node:: "${pure[@]}"
step "feature none" cargo clippy --quiet --locked --no-default-features -- -D warnings
for feature in k8s client operator guard cli; do
  step "feature $feature" cargo clippy --quiet --locked --no-default-features --features "$feature" -- -D warnings
done
if scripts/deny.sh installed; then
  step "licences and sources" scripts/deny.sh
else
  missing "licences and sources" "no cargo-deny; \`make deny\` builds it once, which takes minutes"
fi

for what in "${left_out[@]}"; do say "left out: $what"; done
say "check: passed"
