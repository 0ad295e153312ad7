# shellcheck shell=bash
# Shared by the scripts of this folder: where things are, and a few small words. Sourcing it does nothing else.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/remit/cluster
# shellcheck source=versions.env
source "$here/versions.env"

say() { printf '%s\n' "$*" >&2; }
die() { printf 'cluster: %s\n' "$*" >&2; exit 1; }

# seconds since $1 (a value of $EPOCHREALTIME), with one decimal
since() {
  local us=$(( ${EPOCHREALTIME/[.,]/} - ${1/[.,]/} ))
  printf '%d.%d' $((us / 1000000)) $((us % 1000000 / 100000))
}

# until_true SECONDS COMMAND...: polls every 50 ms until COMMAND succeeds; fails after SECONDS
until_true() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt "$end" ] || return 1
    sleep 0.05
  done
}

# Closes every descriptor above 2, so that a server does not keep a lock, a pipe of make or a terminal open.
close_descriptors() {
  local path fd
  for path in /proc/self/fd/*; do
    fd=${path##*/}
    # 255 is bash's own handle on the script it reads
    [ "$fd" -gt 2 ] && [ "$fd" -ne 255 ] && eval "exec $fd>&-"
  done 2>/dev/null
  return 0
}

# kubeconfig PKI USER SERVER > FILE: everything inline, so the file can be moved
kubeconfig() {
  cat <<K
apiVersion: v1
kind: Config
current-context: remit-test
clusters: [{name: remit-test, cluster: {server: "$3", certificate-authority-data: $(base64 -w0 "$1/ca.crt")}}]
users: [{name: $2, user: {client-certificate-data: $(base64 -w0 "$1/$2.crt"), client-key-data: $(base64 -w0 "$1/$2.key")}}]
contexts: [{name: remit-test, context: {cluster: remit-test, user: $2}}]
K
}
