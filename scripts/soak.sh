#!/usr/bin/env bash
# make soak: the release guard under half of what it can carry, while upstreams are restarted and clients break off (root; half an hour). It
# fails where a client met an error that it did not deserve, or hung, or where memory or descriptors grew. See docs/performance.md, and
# scripts/beside.sh for NICE.
#
#   SOAK_SECONDS=n   instead of 1800
#   SOAK_BYTES=n     through one connection before it, instead of 10 GB
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/beside.sh"

with_guard soak --seconds "${SOAK_SECONDS:-1800}" --bytes "${SOAK_BYTES:-10000000000}"
