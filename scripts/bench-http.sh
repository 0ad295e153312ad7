#!/usr/bin/env bash
# make bench-http: the guard beside nginx, HAProxy and Envoy as they pass HTTP on, in network namespaces of their own (root; ten minutes;
# 5 rounds). See docs/performance.md, and scripts/beside.sh for ROUNDS, BASE and NICE.
#
#   ONLY='32 KB'     only scenarios whose names contain this
#   INSTRUCTIONS=0   leaves the instructions uncounted (a minute)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/beside.sh"

peers
need <<P
strace strace
P

# Debian's package would start a server on this machine: only the program is taken from it.
nginx=$(command -v nginx || echo "$cache/nginx/usr/sbin/nginx")
if [ ! -x "$nginx" ]; then
  say "fetching nginx"
  new=$(mktemp -d)
  { apt-get -q update && (cd "$new" && apt-get -q download nginx); } >&2 || die "please install nginx (this is not a Debian, so it is left to you)"
  dpkg-deb -x "$new"/nginx_*.deb "$new/nginx"
  mkdir -p "$cache"
  rm -rf "$cache/nginx"
  mv "$new/nginx" "$cache/nginx"
  rm -rf "$new"
fi

more=()
[ "${INSTRUCTIONS:-1}" != 0 ] || more=(--no-instructions)
beside bench-http "${ROUNDS:-5}" --nginx "$nginx" --envoy "$envoy" --only "${ONLY:-}" "${more[@]}"
