# shellcheck shell=bash
# Shared by the scripts of this folder. Sourcing it goes to the repository's root and does nothing else.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step NAME COMMAND...: says what runs and how long it took
step() {
  local name=$1 start=$SECONDS
  shift
  say "==> $name"
  "$@" || die "$name failed"
  say "    $name: $((SECONDS - start)) s"
}
