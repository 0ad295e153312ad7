#!/usr/bin/env bash
# A real one-node Kubernetes in namespaces of its own, dual-stack, with an outside world to talk to. Needs root.
#
#   cluster.sh up                     bring it up (idempotent; at once if it is healthy)
#   cluster.sh down                   end it: no process, mount, link, route, table or cgroup stays
#   cluster.sh status                 one line; exit 1 if it is not up
#   cluster.sh kubectl ARG...         kubectl as its administrator
#   cluster.sh exec COMMAND...        a command on the node (in its namespaces)
#   cluster.sh load FILE.tar...       image archives into its containerd
#   cluster.sh images                 what is in there
#   cluster.sh counts [reset]         what arrived at the outside world, as JSON
#   cluster.sh heard                  what was said there, a connection each, as JSON
#   cluster.sh dns [NAME ADDRESS...]  set (without addresses: remove) a name below dyn.test; no NAME: print them
#   cluster.sh engine stop|start      stop: nothing enforces NetworkPolicy any more, its table is gone
#   cluster.sh service NAME stop|start [SIGNAL]   the same for any program (etcd, kube-apiserver, kubelet ...)
#
# State: target/cluster/ of this checkout (kubeconfig, bin/, state/log/). Several checkouts can run one each: they
# share the machine's table of indexes in /run/remit-cluster. What it does not promise: survival of a reboot,
# or of objects in it when it is found half-dead (it is then built anew).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

base=$checkout/target/cluster
state=$base/state
bin=$base/bin
claims=/run/remit-cluster
export KUBECONFIG=$base/kubeconfig

# ---- addresses. The IPv6 pods bear public-looking numbers on purpose: a cluster may be numbered so.
node_name=node1
pods4=10.244.0.0/24 pods6=2001:db8:10:244::/64
services4=10.96.0.0/16 services6=fd00:10:96::/112
api4=10.96.0.1 api6=fd00:10:96::1 dns4=10.96.0.10
internet_addresses="203.0.113.10 203.0.113.11 2001:db8:ffff::10 2001:db8:ffff::11 169.254.169.254 fd00:ec2::254"
counts_address=203.0.113.10:9000
set_index() {
  index=$1 group=remit-cluster-$1 link=remit${1}h
  host4=10.99.$1.1 node4=10.99.$1.2 host6=fd00:99:$1::1 node6=fd00:99:$1::2
}

source "$here/config.sh"

# ---- which index is ours: one file per running cluster, its content is the owner's directory
with_claims_locked() {
  mkdir -p "$claims"
  exec 7>/run/remit-cluster.lock
  flock 7
  "$@"
  rmdir "$claims" 2>/dev/null || true
  exec 7>&-
}
find_index() { # of this checkout; fails if there is none
  local file
  for file in "$claims"/*; do
    if [ -f "$file" ] && [ "$(<"$file")" = "$base" ]; then set_index "${file##*/}"; return 0; fi
  done
  if [ -s "$state/index" ]; then set_index "$(<"$state/index")"; return 0; fi
  return 1
}
claim_index() {
  local file i
  for file in "$claims"/*; do # forget owners of which nothing is left
    [ -f "$file" ] || continue
    set_index "${file##*/}"
    [ -n "$(cgroup_dirs)" ] || [ -e "/sys/class/net/$link" ] || rm -f "$file"
  done
  for i in $(seq 0 63); do
    set_index "$i"
    if [ ! -e "$claims/$i" ] && [ ! -e "/sys/class/net/$link" ]; then
      echo "$base" >"$claims/$i"
      echo "$i" >"$state/index"
      return 0
    fi
  done
  die "64 clusters are running: end some"
}
release_index() {
  rm -f "$claims/$index" "$state/index"
  # An empty directory which we made as a mount point; not while another cluster has something mounted on it.
  [ -z "$(ls "$claims")" ] || return 0
  local name
  for name in kubelet cni; do
    [ -e "/run/remit-cluster.made-$name-dir" ] || continue
    rmdir "/var/lib/$name" 2>/dev/null || true
    rm -f "/run/remit-cluster.made-$name-dir"
  done
}
make_mount_points() {
  local name
  for name in kubelet cni; do
    [ -d "/var/lib/$name" ] || { touch "/run/remit-cluster.made-$name-dir"; mkdir -p "/var/lib/$name"; }
  done
}

# ---- processes are known by their cgroup, which only launch.sh joins: no pid file can lie
cgroup_dirs() { find /sys/fs/cgroup -type d -name "$group" -prune 2>/dev/null; }
cgroup_pids() { cgroup_dirs | while read -r dir; do find "$dir" -name cgroup.procs -exec cat {} + 2>/dev/null; done | sort -u; }
init_pid() { # the process which is number 1 of the cluster's pid namespace, one level below ours
  local pid
  while read -r pid; do
    if awk '/^NSpid:/ { exit !(NF == 3 && $3 == 1) }' "/proc/$pid/status" 2>/dev/null; then echo "$pid"; return 0; fi
  done < <(cgroup_dirs | head -n 1 | while read -r dir; do cat "$dir/cgroup.procs" "$dir/init/cgroup.procs" 2>/dev/null; done)
  return 1
}
own_cgroups() { # lines "controllers path": the cgroups to make, below those we are in
  local controllers path mount
  if [ "$cgroup_version" = 2 ]; then echo "all /sys/fs/cgroup/$group"; return; fi
  while IFS=: read -r _ controllers path; do
    mount=/sys/fs/cgroup/${controllers#name=}
    if [ -n "$controllers" ] && [ -d "$mount" ]; then echo "$controllers ${mount}${path%/}/$group"; fi
  done </proc/self/cgroup
}
if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then cgroup_version=2; else cgroup_version=1; fi

# ---- conditions
api_ready() { "$bin/probe" https --timeout 2s "$node4:6443/readyz" | grep -q ' 200 ok$'; }
node_ready() { [ "$("$bin/kubectl" get node "$node_name" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)" = True ]; }
healthy() { [ -e "$state/ready" ] && init_pid >/dev/null && api_ready && node_ready; }
stamp() { { readlink -f "$bin"/{etcd,kubelet,containerd,ptp,coredns,netpol,probe}; cat "$here"/{config.sh,init.sh,launch.sh,apiserver.sh,audit.yaml,addons.yaml}; } | sha256sum; }

# ---- up
up() {
  local began=$EPOCHREALTIME t
  [ "$(id -u)" = 0 ] || die "the node needs root (mounts, network namespaces). 'make cluster-api' does not."
  [[ $checkout/ != /run/* ]] || die "a checkout below /run is hidden inside the cluster: move it"
  mkdir -p "$state/log"
  exec 9>"$base/lock"
  flock 9
  if find_index && healthy; then
    [ "$(stamp)" = "$(cat "$state/ready")" ] || say "note: it runs other versions than this checkout has now ('make cluster-down cluster' renews it)"
    say "cluster is up: KUBECONFIG=$KUBECONFIG"
    return 0
  fi
  "$here/build.sh" packages 9>&-
  "$here/build.sh" link "$bin" node helm3 9>&-
  images=$("$here/build.sh" images 9>&-)
  t=$EPOCHREALTIME
  if find_index; then say "found a half-dead cluster: building it anew"; teardown; fi
  with_claims_locked claim_index
  make_mount_points
  write_pki
  write_configs
  own_cgroups >"$state/cgroups"
  rm -f "$state"/log/*.log "$state/log/init.out"
  say "starting (index $index, configuration $(since "$t") s)"
  (
    close_descriptors
    cd /
    exec env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 \
      REMIT_APISERVER_FLAGS="${REMIT_APISERVER_FLAGS:-}" REMIT_KCM_FLAGS="${REMIT_KCM_FLAGS:-}" REMIT_SCHEDULER_FLAGS="${REMIT_SCHEDULER_FLAGS:-}" \
      group="$group" scripts="$here" state="$state" bin="$bin" images="$images" cgroup_version="$cgroup_version" \
      node_name="$node_name" node4="$node4" node6="$node6" pods4="$pods4" pods6="$pods6" services4="$services4" services6="$services6" \
      internet_addresses="$internet_addresses" counts_address="$counts_address" \
      setsid bash "$here/launch.sh" </dev/null >"$state/log/init.out" 2>&1
  ) &
  until_true 20 init_pid || { cat "$state/log/init.out" >&2; die "the cluster's first process did not start"; }
  ip link add "$link" type veth peer name eth0 netns "$(init_pid)"
  ip addr add "$host4/30" dev "$link"
  ip -6 addr add "$host6/126" dev "$link" nodad
  ip link set "$link" up
  kubeconfig "$state/pki" admin "https://$node4:6443" >"$base/kubeconfig.new"
  chmod 600 "$base/kubeconfig.new"
  mv "$base/kubeconfig.new" "$KUBECONFIG"

  t=$EPOCHREALTIME
  until_true 90 api_ready || failed "the API server did not become ready"
  say "API server ready after $(since "$t") s"
  t=$EPOCHREALTIME
  "$bin/kubectl" apply -f "$here/addons.yaml" >"$state/log/addons.log"
  until_true 60 node_ready || failed "the node did not become Ready"
  # as a cloud's address allocator would record it
  "$bin/kubectl" patch node "$node_name" -p "{\"spec\":{\"podCIDR\":\"$pods4\",\"podCIDRs\":[\"$pods4\",\"$pods6\"]}}" >>"$state/log/addons.log"
  say "node Ready after $(since "$t") s"
  t=$EPOCHREALTIME
  "$bin/kubectl" -n kube-system rollout status deployment/coredns --timeout=90s >>"$state/log/addons.log" || failed "DNS did not become ready"
  say "DNS ready after $(since "$t") s"
  stamp >"$state/ready"
  say "cluster is up after $(since "$began") s: KUBECONFIG=$KUBECONFIG"
}
failed() {
  say "---- last lines of the logs in $state/log"
  tail -n 5 "$state"/log/init.out "$state"/log/*.log >&2 || true
  die "$1"
}

# ---- down
started_pids() { grep -lzxsF "state=$state" /proc/[0-9]*/environ | cut -d/ -f3; } # also what has not joined its cgroup yet
nobody_left() {
  local pids
  pids=$(cgroup_pids; started_pids)
  # shellcheck disable=SC2086
  [ -z "$pids" ] || { kill -9 $pids 2>/dev/null; return 1; }
}
no_cgroup_left() {
  cgroup_dirs | while read -r dir; do find "$dir" -depth -type d -exec rmdir {} \; 2>/dev/null; done || true
  [ -z "$(cgroup_dirs)" ]
}
teardown() { # of the cluster with the current index
  local pid
  # The end of process 1 ends all others, and with them the mounts, networks and tables.
  if pid=$(init_pid); then kill -9 "$pid" 2>/dev/null || true; fi
  until_true 30 nobody_left || say "these processes do not end: $(cgroup_pids | tr '\n' ' ')"
  ip link del "$link" 2>/dev/null || true
  until_true 10 no_cgroup_left || say "these cgroups stay: $(cgroup_dirs | tr '\n' ' ')"
  with_claims_locked release_index
  find "$state" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf {} +
  rm -f "$KUBECONFIG"
}
down() {
  local began=$EPOCHREALTIME
  [ -d "$base" ] || { say "cluster is down"; return 0; }
  exec 9>"$base/lock"
  flock 9
  if find_index; then
    [ "$(id -u)" = 0 ] || die "ending the cluster needs root"
    teardown
    say "cluster is down after $(since "$began") s"
  else
    say "cluster is down"
  fi
}

# ---- on the node
on_node() {
  local pid
  find_index && pid=$(init_pid) || die "the cluster is not up (make cluster)"
  nsenter -t "$pid" -n -m -p -u -i -C -- env PATH="/run/remit/bin:$PATH" "$@"
}
load() {
  local file
  for file in "$@"; do on_node ctr -n k8s.io images import --local - <"$file" 2> >(grep -v DEPRECATION >&2); done
}
counts() {
  case ${1:-} in
    '') on_node probe get --timeout 3s "http://$counts_address/counts" ;;
    reset) on_node probe get --timeout 3s "http://$counts_address/reset" >/dev/null ;;
    *) die "counts [reset]" ;;
  esac
}
heard() { on_node probe get --timeout 3s "http://$counts_address/heard"; }
dns() {
  local file=$state/dns/hosts name=${1:-} address
  if [ -z "$name" ]; then cat "$file" 2>/dev/null || true; return; fi
  [[ $name == *.dyn.test ]] || die "$name: only names below dyn.test"
  shift
  { awk -v n="$name" '$2 != n' "$file" 2>/dev/null || true; for address in "$@"; do echo "$address $name"; done; } >"$file.new"
  chmod 644 "$file.new"
  mv "$file.new" "$file"
}
service() { # NAME stop|start [SIGNAL]
  local name=$1
  [ -e "$state/log/$name.log" ] || die "no such program: $name"
  case ${2:-} in
    stop)
      touch "$state/stop/$name"
      on_node bash -c 'for n in $(seq 300); do [ -s /run/remit/pid/$1 ] || exit 0; kill -$2 $(cat /run/remit/pid/$1) 2>/dev/null; sleep 0.1; done; exit 1' - "$name" "${3:-TERM}" || die "$name does not end"
      ;;
    start)
      rm -f "$state/stop/$name"
      until_true 10 on_node test -s "/run/remit/pid/$name" || die "$name does not start"
      ;;
    *) die "service NAME stop|start [SIGNAL]" ;;
  esac
}
engine() {
  case ${1:-} in
    stop) service engine stop; on_node netpol flush ;;
    start) on_node netpol resume; service engine start ;;
    *) die "engine stop|start" ;;
  esac
}
status() {
  if find_index && healthy; then echo "up (index $index, process $(init_pid))"; else echo down; return 1; fi
}

command=${1:-}
[ $# = 0 ] || shift
case $command in
  up | down | status | load | counts | heard | dns | service | engine) "$command" "$@" ;;
  images) on_node ctr -n k8s.io images list -q ;;
  kubectl) [ -s "$KUBECONFIG" ] || die "the cluster is not up (make cluster)"; exec "$bin/kubectl" "$@" ;;
  exec) on_node "$@" ;;
  *) sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
