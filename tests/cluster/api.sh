#!/usr/bin/env bash
# etcd, API server and controller manager only: for tests which need no node. No root, no namespaces; on loopback,
# on ports which are free at the start.
#
#   api.sh up       idempotent; writes target/cluster-api/kubeconfig
#   api.sh down     ends the processes which `up` started, and no others
#   api.sh status   one line; exit 1 if it is not up
#
# Pods can be created and stay Pending; Services get addresses and nothing behind them. State: target/cluster-api/.
# The programs are target/cluster/bin/ (shared with the node tier).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

base=$checkout/target/cluster-api
bin=$checkout/target/cluster/bin
pki=$base/pki
mark=REMIT_CLUSTER_API=$base
services4=10.96.0.0/16 services6=fd00:10:96::/112
source "$here/apiserver.sh"

# A process is ours if it is our user's, was started with our mark in its environment, and runs a program out of
# the cache. No pid file: whatever was killed half-way, this finds the rest, and a recycled number is never hit.
pids() {
  local directory
  for directory in /proc/[0-9]*; do
    if [ -O "$directory" ] && grep -qzxF "$mark" "$directory/environ" 2>/dev/null &&
      [[ $(readlink "$directory/exe") == "$cache"/* ]]; then echo "${directory##*/}"; fi
  done
}
ended() { [ ! -d "/proc/$1" ] || grep -q '^State:.*Z' "/proc/$1/status"; }
ready() { "$bin/probe" https --timeout 2s "127.0.0.1:$1/readyz" | grep -q ' 200 ok$'; }
healthy() { [ -s "$base/kubeconfig" ] && [ -s "$base/port" ] && [ "$(pids | wc -l)" = 3 ] && ready "$(<"$base/port")"; }

start() { # NAME ARG...
  local name=$1
  (
    close_descriptors
    cd "$base"
    exec env -i PATH="$PATH" HOME="$base" TMPDIR="${TMPDIR:-/tmp}" "$mark" setsid "$bin/$name" "${@:2}" </dev/null >>"$base/log/$name.log" 2>&1
  ) &
}

run() {
  local etcd_client etcd_peer api
  read -r etcd_client etcd_peer api <<<"$("$bin/probe" ports 3)"
  rm -rf "$base/etcd" "$base/log" "$base/kubeconfig"
  mkdir -p "$base/log"
  echo "$api" >"$base/port"
  start etcd --data-dir "$base/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://127.0.0.1:$etcd_client" --advertise-client-urls "http://127.0.0.1:$etcd_client" \
    --listen-peer-urls "http://127.0.0.1:$etcd_peer" --initial-advertise-peer-urls "http://127.0.0.1:$etcd_peer" --initial-cluster "default=http://127.0.0.1:$etcd_peer"
  # The advertised address only fills the EndpointSlice of default/kubernetes (a loopback address would be refused there).
  apiserver_flags "$pki" "$here/audit.yaml" "$base/log"
  start kube-apiserver "${apiserver_flags[@]}" --etcd-servers="http://127.0.0.1:$etcd_client" --secure-port="$api" \
    --bind-address=127.0.0.1 --advertise-address=198.51.100.1
  kubeconfig "$pki" kcm "https://127.0.0.1:$api" >"$base/kcm.kubeconfig"
  until_true "${1:-60}" ready "$api" || return 1
  controllers_flags "$pki" "$base/kcm.kubeconfig" "$base/flex"
  start kube-controller-manager "${controllers_flags[@]}" --secure-port=0
  kubeconfig "$pki" admin "https://127.0.0.1:$api" >"$base/kubeconfig.new"
  chmod 600 "$base/kubeconfig.new"
  mv "$base/kubeconfig.new" "$base/kubeconfig"
  # the first thing most tests do needs it, and it comes from the controller manager
  until_true 30 "$bin/kubectl" --kubeconfig "$base/kubeconfig" -n default get serviceaccount default
}

up() {
  local began=$EPOCHREALTIME
  mkdir -p "$base"
  chmod 700 "$base"
  exec 9>"$base/lock"
  flock 9
  if ! healthy; then
    "$here/build.sh" link "$bin" api 9>&-
    began=$EPOCHREALTIME
    finish
    "$bin/mkpki" "$pki" ca:ca ca:front-ca key:sa \
      "cert|apiserver|ca|kube-apiserver||server|kubernetes,kubernetes.default.svc,localhost,127.0.0.1,10.96.0.1" \
      "cert|front-client|front-ca|front-proxy-client||client|" \
      "cert|admin|ca|admin|system:masters|client|" \
      "cert|kcm|ca|system:kube-controller-manager||client|"
    # a second try: somebody else may have taken a port between our looking and our listening
    run 40 || { finish; run 60; } || { tail -n 5 "$base"/log/*.log >&2; finish; die "the API server did not become ready"; }
  fi
  say "cluster-api is up after $(since "$began") s: KUBECONFIG=$base/kubeconfig"
}
finish() {
  local pid killed
  killed=$(pids)
  for pid in $killed; do kill -9 "$pid" 2>/dev/null || true; done
  # an ending process has no environment any more, so `pids` alone would be too early
  for pid in $killed; do until_true 20 ended "$pid" || die "process $pid does not end"; done
  rm -rf "$base/etcd" "$base/kubeconfig" "$base/port"
}
down() {
  [ -d "$base" ] || { say "cluster-api is down"; return 0; }
  exec 9>"$base/lock"
  flock 9
  finish
  rm -rf "$pki" "$base/kcm.kubeconfig"
  say "cluster-api is down"
}
status() { if healthy; then echo "up (port $(<"$base/port"))"; else echo down; return 1; fi; }

case ${1:-} in
  up | down | status) "$1" ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
