#!/usr/bin/env bash
# Which cluster to use, for programs which only want one (the demo, the end-to-end tests):
#
#   eval "$(tests/cluster/select.sh up)"     brings it up if need be; sets CLUSTER, KUBECONFIG, KUBECTL, HELM
#   tests/cluster/select.sh load FILE.tar... makes image archives available to its nodes
#   tests/cluster/select.sh down             ends it (never the user's own)
#
# CLUSTER=embedded  the one of this folder (root)
# CLUSTER=kind      kind, where Docker runs; a cluster named "remit" is made if there is none
# CLUSTER=current   what kubectl is pointed at now; nothing is created or loaded: the images have to be pullable
#                   there (REMIT_IMAGE names the operator's)
# unset             kind if Docker answers and kind is installed, else embedded
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

choice=${CLUSTER:-}
if [ -z "$choice" ]; then
  if command -v kind >/dev/null && command -v docker >/dev/null && docker info >/dev/null 2>&1; then choice=kind; else choice=embedded; fi
fi
bin=$checkout/target/cluster/bin
kind_config=$checkout/target/kind/kubeconfig

# The user's own program if there is one; else ours, built (the api group has both).
tool() { command -v "$1" || { [ -x "$bin/$1" ] || "$here/build.sh" link "$bin" api >&2; echo "$bin/$1"; }; }

up() {
  local config kubectl helm
  case $choice in
    embedded)
      "$here/cluster.sh" up >&2
      config=$checkout/target/cluster/kubeconfig kubectl=$bin/kubectl helm=$bin/helm
      ;;
    kind)
      command -v kind >/dev/null || die "CLUSTER=kind needs kind (kind.sigs.k8s.io) and Docker"
      config=$kind_config kubectl=$(tool kubectl) helm=$(tool helm)
      mkdir -p "$(dirname "$config")"
      if kind get clusters 2>/dev/null | grep -qx remit; then
        kind export kubeconfig --name remit --kubeconfig "$config" >&2
      else
        kind create cluster --name remit --kubeconfig "$config" --wait 120s >&2
      fi
      ;;
    current)
      config=${KUBECONFIG:-$HOME/.kube/config} kubectl=$(tool kubectl) helm=$(tool helm)
      KUBECONFIG=$config "$kubectl" --request-timeout=10s get --raw /readyz >/dev/null || die "CLUSTER=current: the current context does not answer"
      say "using the current context $(KUBECONFIG=$config "$kubectl" config current-context)"
      ;;
    *) die "CLUSTER=$choice: one of embedded, kind, current" ;;
  esac
  printf 'export CLUSTER=%q KUBECONFIG=%q KUBECTL=%q HELM=%q\n' "$choice" "$config" "$kubectl" "$helm"
}
load() {
  local file
  case $choice in
    embedded) "$here/cluster.sh" load "$@" >&2 ;;
    kind) for file in "$@"; do kind load image-archive --name remit "$file" >&2; done ;;
    current)
      say "CLUSTER=current: nothing is loaded. The nodes must be able to pull ${REMIT_IMAGE:-the images} (push them to a"
      say "registry of yours, e.g. 'skopeo copy oci-archive:FILE.tar docker://REGISTRY/NAME:TAG', and set REMIT_IMAGE)."
      ;;
  esac
}
down() {
  case $choice in
    embedded) "$here/cluster.sh" down ;;
    kind) kind delete cluster --name remit ;;
    current) say "CLUSTER=current: it is yours, nothing is ended" ;;
  esac
}

command=${1:-up}
[ $# = 0 ] || shift
case $command in
  up | load | down) "$command" "$@" ;;
  *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
