# shellcheck shell=bash disable=SC2034
# What the clients in bash have in common: their command line, and one line for each check.

usage() { echo "usage: $0 BASE [--host NAME] [--other URL] [--http 1|2]" >&2; exit 2; }
host_of() { local rest=${1#*://}; printf '%s' "${rest%%/*}"; }

[ $# -gt 0 ] || usage
base=${1%/} host=$(host_of "$1") other='' http=1 failed=0
shift
while [ $# -gt 1 ]; do
  case $1 in
    --host) host=$2 ;;
    --other) other=$2 ;;
    --http) http=$2 ;;
    *) usage ;;
  esac
  shift 2
done
[ $# = 0 ] || usage
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# check NAME COMMAND...
check() {
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "ok $name"
  else
    failed=1
    said=${said//$'\n'/; }
    echo "FAIL $name: ${said:0:300}"
  fi
}

# like WHAT GOT PATTERN
like() {
  # shellcheck disable=SC2053
  [[ $2 == $3 ]] || { echo "$1 is $2, not $3"; return 1; }
}
