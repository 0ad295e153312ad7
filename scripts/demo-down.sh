#!/usr/bin/env bash
# make demo-down: clears away what make demo made, in this order: the AIWorkloads, the example's namespaces, the ceiling,
# Remit; and the cluster, if the demo started it. On another cluster only the CustomResourceDefinitions stay, which
# Helm keeps by design (kubectl delete crd aiworkloads.remit.dev scopeceilings.remit.dev).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/demo/story.sh

failed=
clear_away() {
  local selected namespace ours=()
  selected=$(tests/cluster/select.sh up)
  eval "$selected"
  kubectl() { "$KUBECTL" "$@"; }
  for namespace in shop finance web support; do
    if is_ours "$namespace"; then ours+=("$namespace"); fi
  done
  if [[ " ${ours[*]} " == *" support "* ]] && kubectl get crd aiworkloads.remit.dev >/dev/null 2>&1; then
    tell "Deleting the AIWorkloads of namespace support (their pods stay denied until they are gone) ..."
    quietly kubectl -n support delete aiworkloads --all --wait=false
  fi
  if [ ${#ours[@]} -gt 0 ]; then
    tell "Deleting the namespaces ${ours[*]} ..."
    quietly kubectl delete namespace "${ours[@]}" --timeout=180s
    if kubectl get crd scopeceilings.remit.dev >/dev/null 2>&1; then
      tell "Deleting the ceiling ..."
      quietly kubectl delete --ignore-not-found -f examples/ceiling.yaml
    fi
  fi
  if is_ours remit-system; then
    if "$HELM" status remit -n remit-system >/dev/null 2>&1; then
      tell "Uninstalling Remit ..."
      if ! said=$("$HELM" uninstall remit -n remit-system --wait --timeout 5m 2>&1); then
        failed=yes
        tell "This failed, and the rest goes on: $said"
        tell "Without what the chart does before it goes: helm uninstall remit -n remit-system --no-hooks"
        return
      fi
    fi
    quietly kubectl delete namespace remit-system --ignore-not-found --timeout=120s
  fi
}

# A cluster that is down has nothing to clear: it is not brought up for that.
is_up() {
  case $CLUSTER in
    embedded) tests/cluster/cluster.sh status >/dev/null 2>&1 ;;
    kind) kind get clusters 2>/dev/null | grep -qx remit ;;
    *) true ;;
  esac
}

started=$(cat target/demo/started-cluster 2>/dev/null || true)
export CLUSTER=${CLUSTER:-$(cat target/demo/cluster 2>/dev/null || echo embedded)}
if is_up; then clear_away; else tell "The cluster is not up: nothing to clear."; fi
if [ -n "$started" ] && [ "$started" = "$CLUSTER" ]; then
  tell "Ending the cluster, which the demo had started ..."
  tests/cluster/select.sh down
fi
rm -rf target/demo
[ -z "$failed" ]
