#!/usr/bin/env bash
# git.sh BASE [--host NAME] [--other URL]: a clone, and what came after it. Trust and proxies come from the environment alone.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shell.sh"

export GIT_TERMINAL_PROMPT=0 GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
whole() { git clone -q "$base/git/demo.git" "$scratch/whole" && git -C "$scratch/whole" fsck --strict 2>&1 && [ -f "$scratch/whole/README" ]; }
# The old protocol: its refs come in one long answer.
old() { git -c protocol.version=0 clone -q "$base/git/demo.git" "$scratch/old"; }
shallow() { git clone -q --depth 1 "$base/git/demo.git" "$scratch/shallow" && like commits "$(git -C "$scratch/shallow" rev-list --count HEAD)" 1; }
deepened() { git -C "$scratch/shallow" fetch -q --unshallow && like commits "$(git -C "$scratch/shallow" rev-list --count HEAD)" 30; }
refs() { like refs "$(git ls-remote "$base/git/demo.git" | wc -l)" '[1-9]*'; }

check ls-remote refs
check clone whole
check clone-v0 old
check shallow shallow
check fetch deepened
exit "$failed"
