#!/usr/bin/env bash
# PID 1 of the cluster: runs inside the new namespaces, makes the private file systems and networks, then starts
# the programs and starts them again when they end. When it dies, the kernel ends everything in here.
# Started only by cluster.sh, which passes its settings in the environment. Kills nothing, cleans nothing: cluster.sh down does.
set -euo pipefail # a half-made node is worse than none; the programs below are supervised and may fail
hostname "$node_name"

# ---- file systems: only this mount namespace sees them
mount -t sysfs sysfs /sys
if [ "$cgroup_version" = 2 ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true; done
else
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  while read -r controllers _; do
    directory=/sys/fs/cgroup/${controllers#name=}
    mkdir -p "$directory"
    case $controllers in
      name=*) mount -t cgroup -o "none,$controllers" cgroup "$directory" ;;
      *) mount -t cgroup -o "$controllers" cgroup "$directory" ;;
    esac
  done <"$state/cgroups"
fi
mkdir -p "$state"/{static,log/pods,kubelet,cni,containerd,etcd,stop,dns,varlog/pods,varlog/containers}
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/remit/{state,bin,images,tmp,pid} /run/containerd /run/netns /run/lock
mount --bind "$state" /run/remit/state
mount --bind "$images" /run/remit/images
mount --bind "$state/varlog" /var/log
mount --bind "$state/kubelet" /var/lib/kubelet
mount --bind "$state/cni" /var/lib/cni
mount --make-rshared /
for program in "$bin"/*; do ln -s "$(readlink -f "$program")" "/run/remit/bin/${program##*/}"; done
state=/run/remit/state
export PATH=/run/remit/bin:$PATH TMPDIR=/run/remit/tmp
cd /

# The kubelet insists on these values and would set them machine-wide: give it files which already say so.
mkdir -p /run/remit/sysctl
while read -r name value; do
  file=/run/remit/sysctl/${name//\//_}
  echo "$value" >"$file"
  if [ -e "/proc/sys/$name" ]; then mount --bind "$file" "/proc/sys/$name"; fi
done <<X
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
X

# ---- networks: the node, and the outside world as a namespace of its own behind it
setting() { echo "$2" >"/proc/sys/net/$1"; }
ip link set lo up
setting ipv4/ip_forward 1
setting ipv6/conf/all/forwarding 1
setting ipv6/conf/default/forwarding 1
setting ipv6/conf/all/accept_dad 0
setting ipv6/conf/default/accept_dad 0
setting ipv4/conf/all/route_localnet 1

ip netns add internet
ip link add internet type veth peer name eth0 netns internet
ip addr add 198.51.100.1/30 dev internet
ip -6 addr add 2001:db8:fffe::1/126 dev internet nodad
ip link set internet up
ip -n internet link set lo up
ip -n internet addr add 198.51.100.2/30 dev eth0
ip -n internet -6 addr add 2001:db8:fffe::2/126 dev eth0 nodad
ip -n internet link set eth0 up
for address in $internet_addresses; do
  case $address in
    *:*) ip -n internet -6 addr add "$address/128" dev lo nodad ;;
    *) ip -n internet addr add "$address/32" dev lo ;;
  esac
done
ip -n internet route add default via 198.51.100.1
ip -n internet -6 route add default via 2001:db8:fffe::1
ip -n internet route add unreachable 203.0.113.0/24
ip -n internet -6 route add unreachable 2001:db8:ffff::/48
ip route add 203.0.113.0/24 via 198.51.100.2
ip route add 169.254.169.254/32 via 198.51.100.2
ip -6 route add 2001:db8:ffff::/48 via 2001:db8:fffe::2
ip -6 route add fd00:ec2::254/128 via 2001:db8:fffe::2

# The end of the cable to the host is put here by cluster.sh.
for _ in $(seq 500); do [ ! -e /sys/class/net/eth0 ] || break; sleep 0.02; done
ip addr add "$node4/30" dev eth0
ip -6 addr add "$node6/126" dev eth0 nodad
ip link set eth0 up
# Without a route to the Services' ranges the node gets ENETUNREACH before kube-proxy's rules can rewrite.
ip route add "$services4" dev eth0
ip -6 route add "$services6" dev eth0

# ---- programs
set +e
log=$state/log pki=$state/pki etc=$state/etc

# Keeps a program running; while the file stop/NAME exists it stays down (cluster.sh service NAME stop|start).
supervise() {
  local name=$1; shift
  (
    while :; do
      while [ -e "$state/stop/$name" ]; do sleep 0.1; done
      "$@" >>"$log/$name.log" 2>&1 &
      echo $! >"/run/remit/pid/$name"
      wait $!
      echo "--- $name ended with $?" >>"$log/$name.log"
      rm -f "/run/remit/pid/$name"
      [ -e "$state/stop/$name" ] || sleep 0.5
    done
  ) &
}
ready() { [ "$(probe https --timeout 2s 127.0.0.1:6443/readyz 2>/dev/null | grep -c '^ok .* 200 ok$')" = 1 ]; }

supervise etcd etcd --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380
supervise containerd containerd -c "$etc/containerd.toml"
sink_addresses=()
for address in $internet_addresses; do sink_addresses+=(--address "$address"); done
supervise internet ip netns exec internet probe sink --counts "$counts_address" --certificate "$pki/internet.crt" --key "$pki/internet.key" "${sink_addresses[@]}"
source "$scripts/apiserver.sh"
apiserver_flags "$pki" "$etc/audit.yaml" "$log"
# shellcheck disable=SC2086
supervise kube-apiserver kube-apiserver "${apiserver_flags[@]}" --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --bind-address=:: --advertise-address="$node4" \
  --kubelet-client-certificate="$pki/apiserver-kubelet.crt" --kubelet-client-key="$pki/apiserver-kubelet.key" \
  --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP ${REMIT_APISERVER_FLAGS:-}

import_images() {
  for _ in $(seq 400); do ctr version >/dev/null 2>&1 && break; sleep 0.05; done
  for image in /run/remit/images/*.tar; do ctr -n k8s.io images import --local "$image"; done
}
import_images >"$log/images.log" 2>&1 &

# The others would exit, or back off for seconds, when they find no API server.
until ready; do sleep 0.05; done
controllers_flags "$pki" "$etc/kcm.kubeconfig" /run/remit/flex
# shellcheck disable=SC2086
supervise kube-controller-manager kube-controller-manager "${controllers_flags[@]}" ${REMIT_KCM_FLAGS:-}
# shellcheck disable=SC2086
supervise kube-scheduler kube-scheduler --kubeconfig="$etc/scheduler.kubeconfig" \
  --authentication-kubeconfig="$etc/scheduler.kubeconfig" --authorization-kubeconfig="$etc/scheduler.kubeconfig" \
  --leader-elect=false --bind-address=127.0.0.1 ${REMIT_SCHEDULER_FLAGS:-}
supervise kubelet kubelet --config="$etc/kubelet.yaml" --kubeconfig="$etc/node.kubeconfig" --hostname-override="$node_name" --node-ip="$node4,$node6" --root-dir=/var/lib/kubelet
supervise kube-proxy kube-proxy --config="$etc/proxy.yaml"
supervise engine netpol --kubeconfig="$etc/engine.kubeconfig" --pod-cidr="$pods4" --pod-cidr="$pods6" --node-name="$node_name"

# PID 1 also inherits every orphan: bash collects them.
while :; do wait; sleep 1; done
