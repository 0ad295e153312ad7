#!/usr/bin/env bash
# An image (make images: both) as an OCI archive, from a static binary and nothing else; no Docker, no daemon, no root.
#
#   scripts/images.sh [operator|guard]   default: the operator, into target/images/operator.tar
#
#   PROFILE=dev|release   dev (the default) is what the tests run; release is what is shipped
#   IMAGE=name:tag        default: remit.test/operator:dev, remit.test/guard:dev
#
# The same sources give the same bytes. With PROFILE=release also from another checkout and another cargo home: their paths are taken out.
# Load it with `make cluster-load IMAGES=target/images/operator.tar`, `docker load`, `skopeo copy` ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

component=${1:-operator}
program=remit-$component
options=()
case $component in
  operator) ;;
  # Its wall keeps Kubernetes' types out, which take most of the time.
  guard) options=(--no-default-features --features guard) ;;
  *) die "the images are operator and guard, not $component" ;;
esac
profile=${PROFILE:-dev}
image=${IMAGE:-remit.test/$component:dev}
triple=$(rustc -vV | sed -n 's/^host: //p')
case $profile in
  dev) directory=debug ;;
  release)
    directory=release
    [ -z "${RUSTFLAGS:-}${CARGO_ENCODED_RUSTFLAGS:-}" ] || die "RUSTFLAGS is set: it would take the place of the flags of a release"
    # Of this name they are added to those of .cargo/config.toml; RUSTFLAGS would replace them. Only here, because other flags build everything anew.
    # The last that fits wins: the target directory and the cargo home may lie within the checkout.
    options+=(--config "target.$triple.rustflags = [
      '--remap-path-prefix=$(pwd -P)=/remit',
      '--remap-path-prefix=$(realpath -m "${CARGO_TARGET_DIR:-target}")=/remit/target',
      '--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo']")
    ;;
  *) die "PROFILE is dev or release, not $profile" ;;
esac

cargo build --locked --profile "$profile" --bin "$program" "${options[@]}"
built=${CARGO_TARGET_DIR:-target}/$triple/$directory/$program
mkdir -p target/images
strip -o "target/images/$program" "$built"
# An image FROM scratch has no dynamic linker.
if readelf -l "target/images/$program" | grep -q 'program interpreter'; then die "$built is linked dynamically; see .cargo/config.toml"; fi
tests/cluster/mkimage.py "target/images/$component.tar" "$image" --user 65532:65532 --entrypoint "[\"/$program\"]" \
  "target/images/$program:$program"
say "target/images/$component.tar: $image ($(du -h "target/images/$component.tar" | cut -f1))"
