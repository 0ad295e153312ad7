#!/usr/bin/env bash
# Fuzzing of what the guard reads (fuzz/): any bytes give a value or an error, and what the targets say of it holds.
#
#   fuzz.sh [run]              each target for FUZZ_SECONDS (600), or only TARGET=...; the corpus stays in the user's cache and grows
#   fuzz.sh smoke              ten seconds each, from the committed seeds; keeps nothing
#   fuzz.sh again TARGET FILE  one input, with what it says
#   fuzz.sh seeds              writes fuzz/seeds anew
#
# By the stable compiler: it has the coverage that libFuzzer is guided by. A sanitizer would take an unstable one, to look for what
# `unsafe_code = "forbid"` rules out. libFuzzer comes with its crate and needs a C++ compiler.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

targets=(dns_query dns_answer client_hello policy_document channel_message http_message http_target)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/remit/fuzz
programs=target/fuzz/$(rustc --print host-tuple)/release
crashes=target/fuzz/crashes
flags=(
  --cfg fuzzing
  -C passes=sancov-module
  -C llvm-args=-sanitizer-coverage-level=4
  -C llvm-args=-sanitizer-coverage-inline-8bit-counters
  -C llvm-args=-sanitizer-coverage-pc-table
  -C llvm-args=-sanitizer-coverage-trace-compares
)

# Longer inputs than these say nothing new. Those of client_hello pass the limit of a hello.
declare -A longest=([dns_query]=1024 [dns_answer]=2048 [client_hello]=20480 [policy_document]=8192 [channel_message]=4096 [http_message]=4096 [http_target]=1024)

# build COMMAND ARG...: of cargo, with what the targets are built with
build() {
  local command=$1
  shift
  if ! command -v c++ >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "libFuzzer needs a C++ compiler (apt-get install g++)"
    say "installing g++"
    { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends g++; } >&2
  fi
  # These flags take the place of those of .cargo/config.toml: libFuzzer does not run where the C library is linked in.
  RUSTFLAGS="${flags[*]}" cargo "$command" --quiet --locked --release --bins --manifest-path fuzz/Cargo.toml --target-dir target/fuzz "$@"
}

# fuzz TARGET SECONDS CORPUS: from the seeds and the corpus, into which new inputs go. One line if it went well.
fuzz() {
  local target=$1 seconds=$2 corpus=$3 log=target/fuzz/$1.log options=()
  mkdir -p "$crashes/$target"
  [ ! -f "fuzz/$target.dict" ] || options=(-dict="fuzz/$target.dict")
  if ! "$programs/$target" "$corpus" "fuzz/seeds/$target" "${options[@]}" -max_total_time="$seconds" -max_len="${longest[$target]}" \
    -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$crashes/$target/" >"$log" 2>&1; then
    report "$target" "$log"
    return 1
  fi
  awk -v target="$target" '
    $2 == "DONE" { for (i = 3; i < NF; i++) { if ($i == "cov:") edges = $(i + 1); if ($i == "corp:") corpus = $(i + 1) } }
    $1 == "stat::number_of_executed_units:" { runs = $2 }
    $1 == "stat::average_exec_per_sec:" { speed = $2 }
    END { sub("/.*", "", corpus); printf "%-16s %10d runs, %6d/s, corpus %5d, coverage %5d edges\n", target, runs, speed, corpus, edges }
  ' "$log"
}

# report TARGET LOG: what broke, and how to see it again
report() {
  local file
  grep -A3 -E '^thread .* panicked|ERROR: libFuzzer' "$2" | grep -v '^note: ' >&2 || tail -n 20 "$2" >&2
  file=$(sed -n 's/.*Test unit written to //p' "$2" | tail -n 1)
  if [ -n "$file" ]; then
    say "$1: broken by $file; again with:"
    say "  scripts/fuzz.sh again $1 $file"
  else
    say "$1: failed; the whole log is $2"
  fi
}

# each SECONDS CORPUS: all targets, or the one that was named, in CORPUS/<target>. All are run before it fails.
each() {
  local target status=0
  for target in "${targets[@]}"; do
    [ -z "${TARGET:-}" ] || [ "$TARGET" = "$target" ] || continue
    mkdir -p "$2/$target"
    fuzz "$target" "$1" "$2/$target" || status=1
  done
  return "$status"
}

[ -z "${TARGET:-}" ] || [ -f "fuzz/fuzz_targets/$TARGET.rs" ] || die "no target $TARGET; there are ${targets[*]}"
case ${1:-run} in
  run)
    build build
    each "${FUZZ_SECONDS:-600}" "$cache"
    ;;
  smoke)
    fuzz/seeds.py check || die "fuzz/seeds is not what fuzz/seeds.py writes; \`scripts/fuzz.sh seeds\` does"
    build clippy -- -D warnings
    build build
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    each 10 "$scratch"
    ;;
  again)
    [ $# = 3 ] || die "usage: fuzz.sh again TARGET FILE"
    build build
    exec "$programs/$2" "$3"
    ;;
  seeds) fuzz/seeds.py write ;;
  *) die "usage: fuzz.sh [run|smoke|again TARGET FILE|seeds]" ;;
esac
