#!/usr/bin/env bash
# make images: the operator's image as an OCI archive, from a static binary and nothing else; no Docker, no daemon, no root.
#
#   PROFILE=dev|release   dev (the default) is what the tests run; release is what is shipped
#   IMAGE=name:tag        default: remit.test/operator:dev
#
# The same sources give the same bytes. Load it with `make cluster-load IMAGES=target/images/operator.tar`, `docker load`, `skopeo copy` ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

profile=${PROFILE:-dev}
image=${IMAGE:-remit.test/operator:dev}
case $profile in
  dev) directory=debug ;;
  release) directory=release ;;
  *) die "PROFILE is dev or release, not $profile" ;;
esac

cargo build --locked --profile "$profile" --bin remit-operator
triple=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-target}/$triple/$directory/remit-operator
mkdir -p target/images
strip -o target/images/remit-operator "$built"
# An image FROM scratch has no dynamic linker.
if readelf -l target/images/remit-operator | grep -q 'program interpreter'; then die "$built is linked dynamically; see .cargo/config.toml"; fi
tests/cluster/mkimage.py target/images/operator.tar "$image" --user 65532:65532 --entrypoint '["/remit-operator"]' \
  target/images/remit-operator:remit-operator
say "target/images/operator.tar: $image ($(du -h target/images/operator.tar | cut -f1))"
