#!/usr/bin/env bash
# Licences, sources and banned crates of the dependencies (deny.toml), by a pinned cargo-deny in the user's cache.
#
#   deny.sh             checks; builds cargo-deny first if it is not there (minutes, once per user)
#   deny.sh install     only builds it
#   deny.sh installed   says by its exit code whether it is there
#
# Advisories are not part of it: news of the world must not break an unrelated change. `cargo deny check advisories` asks for them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=0.20.2
root=${XDG_CACHE_HOME:-$HOME/.cache}/remit/cargo-deny-$version
program=$root/bin/cargo-deny

install() {
  [ -x "$program" ] && return
  mkdir -p "$root"
  exec 9>"$root/lock"
  flock 9
  [ -x "$program" ] && return
  say "building cargo-deny $version (once per user; some minutes) ..."
  # From a directory of its own: the flags of this repository are for our programs.
  (cd "$root" && nice cargo install --quiet --locked "cargo-deny@$version" --root "$root" --target-dir "$root/target")
  rm -rf "$root/target"
}

case ${1:-check} in
  installed) [ -x "$program" ] ;;
  install) install ;;
  check)
    install
    for package in . fuzz; do # each has a deny.toml
      "$program" --manifest-path "$package/Cargo.toml" --log-level warn --all-features --locked check --hide-inclusion-graph bans licenses sources
    done
    ;;
  *) die "usage: deny.sh [check|install|installed]" ;;
esac
