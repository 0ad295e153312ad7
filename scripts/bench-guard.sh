#!/usr/bin/env bash
# make bench-guard: the guard beside HAProxy and Envoy, in network namespaces of their own (root; nine minutes; 7 rounds). See
# docs/performance.md, and scripts/beside.sh for ROUNDS, BASE and NICE.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/beside.sh"

peers
beside bench-guard "${ROUNDS:-7}" --envoy "$envoy"
