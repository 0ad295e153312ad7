# shellcheck shell=bash disable=SC2034
# Shared by the drivers of this folder. Sourcing it does nothing but to say where things are.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)

say() { printf '%s\n' "$*" >&2; }
die() { printf 'clients: %s\n' "$*" >&2; exit 1; }

# until_true SECONDS COMMAND...: polls until COMMAND succeeds
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt "$end" ] || return 1
    sleep 0.05
  done
}
