#!/usr/bin/env bash
# make demo-image: the demo's programs as an OCI archive, target/images/demo.tar.
#
#   IMAGE=name:tag   default: remit.test/demo:dev
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

image=${IMAGE:-remit.test/demo:dev}
cargo build --quiet --locked --no-default-features --example demo
triple=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p target/images
tests/cluster/mkimage.py target/images/demo.tar "$image" --entrypoint '["/demo"]' "${CARGO_TARGET_DIR:-target}/$triple/debug/examples/demo:demo"
say "target/images/demo.tar: $image ($(du -h target/images/demo.tar | cut -f1))"
