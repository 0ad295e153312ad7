#!/usr/bin/env bash
# Programs that neither cargo nor Go builds: installs the packages that are missing, or says which to install. Called by test.sh and demo.sh.
#
# The packages of the node tier (runc, nftables, ...) are in tests/cluster/build.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

missing=()
while read -r command package; do
  command -v "$command" >/dev/null || missing+=("$package")
done <<P
cc gcc
c++ g++
make make
git git
python3 python3
strip binutils
flock util-linux
jq jq
P
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "please install ${missing[*]} (Debian's names; this is not a Debian, so it is left to you)"
  [ "$(id -u)" = 0 ] || die "these packages are missing: ${missing[*]}. Run as root, or: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  # `apt-get update` only when something is missing: it needs the network.
  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"; } >&2
fi

# Debian's are too old.
for tool in cargo go; do
  command -v "$tool" >/dev/null || die "$tool is not installed; Cargo.toml and tests/cluster/modules/*/go.mod name the versions"
done
