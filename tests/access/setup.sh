#!/usr/bin/env bash
# setup.sh: the independent implementation that tests/it/access.rs compares with, built once into the user's cache; target/access/oracle
# leads to it. A second run builds nothing and needs no network.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/remit/access
key=$(cd "$here/oracle" && { uname -m; sha256sum go.mod go.sum ./*.go; } | sha256sum | cut -c1-16)
program=$cache/oracle-$key
if [ ! -x "$program" ]; then
  command -v go >/dev/null || { echo "access: Go is not installed; tests/access/oracle/go.mod names the version" >&2; exit 1; }
  echo "building the oracle of NetworkPolicies (once per user; some minutes)" >&2
  mkdir -p "$cache"
  new=$(mktemp "$cache/partial.XXXXXX")
  trap 'rm -f "$new"' EXIT
  (cd "$here/oracle" && CGO_ENABLED=0 GOWORK=off nice -n 5 go build -trimpath -buildvcs=false -o "$new" .) >&2
  chmod 755 "$new"
  mv "$new" "$program"
fi
mkdir -p "$checkout/target/access"
ln -sfnT "$program" "$checkout/target/access/oracle"
