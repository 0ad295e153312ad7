# shellcheck shell=bash
# The files which the cluster's programs read: certificates, kubeconfigs, configurations. Sourced by cluster.sh,
# which sets $state (on the host) and the addresses. Inside the cluster's mount namespace the same directory is
# /run/remit/state: only those short paths appear in the files, so the checkout may lie anywhere.

inside=/run/remit/state

write_pki() {
  local sans=kubernetes,kubernetes.default,kubernetes.default.svc,kubernetes.default.svc.cluster.local,localhost
  rm -rf "$state/pki"
  "$bin/mkpki" "$state/pki" ca:ca ca:front-ca ca:internet-ca key:sa \
    "cert|internet|internet-ca|internet||server|*.example.com,*.example.org,*.example.net,*.public.test" \
    "cert|apiserver|ca|kube-apiserver||server|$sans,127.0.0.1,::1,$api4,$api6,$node4,$node6" \
    "cert|kubelet-server|ca|$node_name||server|$node_name,$node4,$node6,127.0.0.1" \
    "cert|apiserver-kubelet|ca|apiserver-kubelet-client|system:masters|client|" \
    "cert|front-client|front-ca|front-proxy-client||client|" \
    "cert|admin|ca|admin|system:masters|client|" \
    "cert|kcm|ca|system:kube-controller-manager||client|" \
    "cert|scheduler|ca|system:kube-scheduler||client|" \
    "cert|proxy|ca|system:kube-proxy||client|" \
    "cert|node|ca|system:node:$node_name|system:nodes|client|" \
    "cert|engine|ca|network-policy-engine|system:masters|client|"
}

write_configs() {
  local etc=$state/etc user snapshotter=overlayfs
  mkdir -p "$etc/cni"
  for user in kcm scheduler proxy node engine; do
    kubeconfig "$state/pki" $user https://127.0.0.1:6443 >"$etc/$user.kubeconfig"
  done
  : >"$etc/resolv.conf"

  # A group of its own per file system type: overlayfs cannot lie on overlayfs (a checkout inside a container)
  [ "$(stat -f -c %T "$state")" != overlayfs ] || snapshotter=native

  # failCgroupV1: on hosts with cgroup v1 a kubelet from 1.35 on stops otherwise.
  cat >"$etc/kubelet.yaml" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $inside/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $inside/pki/kubelet-server.crt
tlsPrivateKeyFile: $inside/pki/kubelet-server.key
clusterDNS: [$dns4]
clusterDomain: cluster.local
resolvConf: $inside/etc/resolv.conf
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: /var/lib/kubelet/volume-plugins
evictionHard: {memory.available: "50Mi", nodefs.available: "1%", nodefs.inodesFree: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
failSwapOn: false
enforceNodeAllocatable: []
registerNode: true
staticPodPath: $inside/static
shutdownGracePeriod: 0s
maxPods: 110
K

  # restrict_oom_score_adj: without CAP_SYS_RESOURCE runc dies with "can't get final child's PID from pipe: EOF".
  cat >"$etc/containerd.toml" <<K
version = 3
root = "$inside/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs","io.containerd.snapshotter.v1.zfs","io.containerd.snapshotter.v1.devmapper","io.containerd.snapshotter.v1.blockfile","io.containerd.snapshotter.v1.erofs","io.containerd.nri.v1.nri","io.containerd.internal.v1.opt","io.containerd.tracing.processor.v1.otlp","io.containerd.internal.v1.tracing"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "$snapshotter"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "remit.test/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/run/remit/bin"]
    conf_dir = "$inside/etc/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "$(command -v runc)"
        SystemdCgroup = false
K

  # ptp, not bridge: all pod traffic is routed, so a policy engine sees it in the forward hook without br_netfilter.
  cat >"$etc/cni/10-ptp.conflist" <<K
{"cniVersion":"1.0.0","name":"remit","plugins":[
 {"type":"ptp","ipMasq":false,"mtu":1400,
  "ipam":{"type":"host-local","dataDir":"/run/cni-ipam","ranges":[[{"subnet":"$pods4"}],[{"subnet":"$pods6"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
K

  cat >"$etc/proxy.yaml" <<K
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: $node_name
clusterCIDR: $pods4,$pods6
clientConnection: {kubeconfig: $inside/etc/proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 100ms, syncPeriod: 30s}
K

  cp "$here/audit.yaml" "$etc/audit.yaml"
}
