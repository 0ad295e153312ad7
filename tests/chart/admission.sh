#!/usr/bin/env bash
# The chart on an API server (make cluster-api is enough: no node, so no operator ever answers): install, upgrade and roll back,
# what the admission policies refuse and to whom, what is held up while the webhook is away, and what the operator's account may do.
#
#   KUBECONFIG=... admission.sh HELM...     one run for each Helm; cleans up after itself
#
# Refuses to touch a cluster on which Remit is installed; takes away what the tests of tests/it left there. No other test may run there meanwhile.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
chart=$(cd "$here/../../charts/remit" && pwd)
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
release=remit-chart-system a=remit-chart-a b=remit-chart-b
rules=(remit-confine-policies remit-protect-generated remit-keep-enrolled remit-guarded-pods remit-guards remit-guard-tokens remit-guard-access remit-guard-notes remit-restricted-pods)
operator=(--as "system:serviceaccount:$release:remit") policies=(--as "system:serviceaccount:$release:remit-policies")
checks=0 failures=0 out=

fail() { failures=$((failures + 1)); printf 'FAILED: %s\n' "$*" >&2; }
passes() { # WHAT COMMAND...
  checks=$((checks + 1))
  if ! out=$("${@:2}" 2>&1); then fail "$1 (should pass): $out"; fi
}
refuses() { # WHAT PATTERN COMMAND...
  checks=$((checks + 1))
  if out=$("${@:3}" 2>&1); then fail "$1 (should be refused): $out"
  elif ! grep -E -- "$2" <<<"$out" >/dev/null; then fail "$1: refused, but does not say '$2': $out"; fi
}
can() { # YES-OR-NO USER-ARGUMENTS... -- CAN-I-ARGUMENTS...
  local expected=$1 user=(); shift
  while [ "$1" != -- ]; do user+=("$1"); shift; done; shift
  checks=$((checks + 1))
  out=$(kubectl auth can-i "${user[@]}" "$@" 2>/dev/null || true)
  [ "$out" = "$expected" ] || fail "can-i ${user[*]} $*: $out, expected $expected"
}
may() { # YES-OR-NO VERB NAMESPACE: the operator's account on orders.shop.example.com (kubectl auth can-i forgets the group of what is not served)
  checks=$((checks + 1))
  out=$(jq -n --arg u "system:serviceaccount:$release:remit" --arg v "$2" --arg n "$3" '{apiVersion: "authorization.k8s.io/v1", kind: "SubjectAccessReview",
    spec: {user: $u, resourceAttributes: {namespace: $n, verb: $v, group: "shop.example.com", resource: "orders"}}}' | kubectl create -o json -f - | jq -r 'if .status.allowed then "yes" else "no" end')
  [ "$out" = "$1" ] || { fail "may $2 orders in $3: $out, expected $1"; return 1; }
}
until_true() { local n; for n in $(seq 100); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.1; done; return 1; }
gone() { ! kubectl get "$@"; }

# shellcheck source=pods.sh
source "$here/pods.sh"

clean() {
  kubectl delete validatingwebhookconfiguration remit-scope remit-recorder remit-pods --ignore-not-found
  kubectl delete mutatingwebhookconfiguration remit-inject --ignore-not-found
  kubectl delete validatingadmissionpolicybinding,validatingadmissionpolicy "${rules[@]}" --ignore-not-found
  kubectl delete scopeceilings chart-test --ignore-not-found || true
  kubectl -n $a patch aiworkload bot --type merge -p '{"metadata":{"finalizers":null}}' || true
  let_go
  kubectl delete namespace "$release" "$a" "$b" "$c" --ignore-not-found --wait
  kubectl delete clusterrole,clusterrolebinding -l app.kubernetes.io/instance=remit-chart --ignore-not-found
  kubectl delete clusterrole,clusterrolebinding remit-chart-test remit-chart-edit --ignore-not-found
}
if kubectl get validatingwebhookconfiguration remit-scope >/dev/null 2>&1 &&
  [ "$(kubectl get validatingwebhookconfiguration remit-scope -o jsonpath='{.webhooks[0].clientConfig.service.namespace}')" != "$release" ]; then
  echo "Remit is installed on this cluster; this test needs one without" >&2
  exit 1
fi
# What the worlds of tests/it left on this API server: roles that all of them share, policies of their own.
kubectl delete mutatingwebhookconfiguration,validatingwebhookconfiguration,validatingadmissionpolicybinding,validatingadmissionpolicy,clusterrolebinding,clusterrole \
  -l app.kubernetes.io/part-of=remit --ignore-not-found >/dev/null
# Definitions that were there stay, and stay nobody's.
present=$(kubectl get crd -o name | grep -E '\.remit\.dev$' || true)
definitions() {
  if [ -z "$present" ]; then kubectl delete crd aiworkloads.remit.dev scopeceilings.remit.dev --ignore-not-found
  else kubectl annotate $present meta.helm.sh/release-name- meta.helm.sh/release-namespace- && kubectl label $present app.kubernetes.io/managed-by-; fi
}
trap '{ clean; definitions; } >/dev/null 2>&1 || true' EXIT

generated() { # NAME: what the operator would write for AIWorkload NAME of namespace $a, and the isolation policy
  local labels="{app.kubernetes.io/managed-by: remit, remit.dev/workload: $1, remit.dev/workload-namespace: $a}"
  cat <<YAML
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: remit-$1, namespace: $a, labels: $labels}
spec: {podSelector: {matchLabels: {app: $1}}, policyTypes: [Ingress, Egress], ingress: [], egress: []}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: remit.unscoped, namespace: $a, labels: {app.kubernetes.io/managed-by: remit}}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [], egress: []}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: $1, namespace: $a, labels: $labels}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: remit.$a.$1, namespace: $a, labels: $labels}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: remit.$a.$1, namespace: $a, labels: $labels}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: remit.$a.$1}
subjects: [{kind: ServiceAccount, name: $1, namespace: $a}]
YAML
}
workload() { # NAME
  cat <<YAML
apiVersion: remit.dev/v1alpha1
kind: AIWorkload
metadata: {name: $1, namespace: $a, finalizers: [remit.dev/deny-until-gone]}
spec: {mode: Enforce, selector: {matchLabels: {app: $1}}}
YAML
}
role() { # NAMESPACE RULES
  printf '{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: remit.test, namespace: %s, labels: {app.kubernetes.io/managed-by: remit}}, rules: %s}' "$1" "$2"
}
owner='{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"d9607e19-f88f-11e6-a518-42010a800195"}]}}'
no_finalizer='{"metadata":{"finalizers":null}}'

for helm in "$@"; do
  version=$("$helm" version --template '{{.Version}}')
  clean >/dev/null 2>&1 || true
  kubectl create namespace "$release" >/dev/null
  for namespace in $a $b; do
    kubectl create namespace "$namespace" >/dev/null
    kubectl label namespace "$namespace" remit.dev/enrolled=true >/dev/null
  done

  # --- install, upgrade, roll back
  passes "$version: install" "$helm" install remit-chart "$chart" --namespace "$release" --take-ownership
  passes "the definitions are established" kubectl wait --for=condition=Established crd/aiworkloads.remit.dev crd/scopeceilings.remit.dev --timeout=20s
  until_true kubectl get scopeceilings
  # what the operator does to them must survive Helm
  for configuration in validating/remit-scope validating/remit-recorder validating/remit-pods mutating/remit-inject; do
    kind=${configuration%/*}webhookconfiguration configuration=${configuration#*/}
    names=$(kubectl get "$kind" "$configuration" -o jsonpath='{range .webhooks[*]}{.name} {end}')
    bundle=$(base64 -w0 <"$(kubectl config view --raw --minify -o jsonpath='{.clusters[0].cluster.certificate-authority}' | grep . ||
      { kubectl config view --raw --minify -o jsonpath='{.clusters[0].cluster.certificate-authority-data}' | base64 -d >"/tmp/remit-chart.$$"; echo "/tmp/remit-chart.$$"; })")
    rm -f "/tmp/remit-chart.$$"
    for name in $names; do
      passes "the operator writes the caBundle and the path of $name" kubectl "${operator[@]}" patch "$kind" "$configuration" --type strategic \
        -p "{\"webhooks\":[{\"name\":\"$name\",\"clientConfig\":{\"caBundle\":\"$bundle\",\"service\":{\"path\":\"/kept\"}}}]}"
    done
  done
  kept() { kubectl get validatingwebhookconfiguration/remit-scope validatingwebhookconfiguration/remit-recorder validatingwebhookconfiguration/remit-pods mutatingwebhookconfiguration/remit-inject -o jsonpath='{range .items[*].webhooks[*]}{.clientConfig.caBundle}{" "}{.clientConfig.service.path}{"\n"}{end}' | grep -c '. /kept$'; }
  values=(--set-json 'grantable.rules=[{"apiGroups":["shop.example.com"],"resources":["orders"],"verbs":["get","list","watch"]}]' --set "grantable.namespaces={$b}"
    --set-json 'ceilings=[{"name":"chart-test","spec":{"namespaceSelector":{"matchLabels":{"chart-test":"true"}},"classes":["Internal"]}}]'
    --set replicas=2 --set webhook.timeoutSeconds=3)
  passes "upgrade" "$helm" upgrade remit-chart "$chart" --namespace "$release" "${values[@]}"
  passes "the upgrade made the ceiling" kubectl get scopeceiling chart-test
  passes "the upgrade changed the webhook" test "$(kubectl get validatingwebhookconfiguration remit-scope -o jsonpath='{.webhooks[0].timeoutSeconds}')" = 3
  passes "the upgrade left every caBundle and path" test "$(kept)" = 11
  passes "roll back" "$helm" rollback remit-chart 1 --namespace "$release"
  passes "rolling back took the ceiling away" gone scopeceiling chart-test
  passes "rolling back took the second replica away" test "$(kubectl -n "$release" get deployment remit-operator -o jsonpath='{.spec.replicas}')" = 1
  passes "rolling back left every caBundle and path" test "$(kept)" = 11
  passes "upgrade again" "$helm" upgrade remit-chart "$chart" --namespace "$release" "${values[@]}"
  for policy in "${rules[@]}"; do
    passes "$policy has no type errors" until_true test "$(kubectl get validatingadmissionpolicy "$policy" -o json | jq -c '.status.typeChecking')" = '{}'
  done

  # --- what the account may do, beyond reading the list in rbac.yaml
  as=("${operator[@]}" --)
  passes "the chart's rules are aggregated" until_true eval '[ "$(kubectl get clusterrole remit-grantable -o jsonpath="{.rules[*].resources[*]}")" = orders ]'
  for verb in get list watch create update patch delete; do can yes "${as[@]}" $verb networkpolicies -n $a; done
  can no "${as[@]}" get secrets -n $a
  can no "${as[@]}" list secrets -n "$release"
  can no "${as[@]}" get secrets/other -n "$release"
  can no "${as[@]}" list configmaps -n "$release"
  can yes "${as[@]}" get secrets/remit-webhook-tls -n "$release"
  can yes "${as[@]}" update secrets/remit-webhook-path -n "$release"
  for verb in create update patch delete; do can no "${as[@]}" $verb pods -n $a; can no "${as[@]}" $verb namespaces; done
  for verb in escalate bind; do can no "${as[@]}" $verb roles.rbac.authorization.k8s.io -n $a; can no "${as[@]}" $verb clusterroles; done
  for verb in impersonate; do can no "${as[@]}" $verb users; can no "${as[@]}" $verb serviceaccounts; done
  can no "${as[@]}" create serviceaccounts --subresource token -n $a
  can yes "${as[@]}" create serviceaccounts/remit-policies --subresource token -n "$release"
  for name in remit remit-uninstall default; do can no "${as[@]}" create serviceaccounts/$name --subresource token -n "$release"; done
  for verb in get list create update patch delete; do can no "${as[@]}" $verb configmaps -n $a; can yes "${policies[@]}" -- $verb configmaps -n $a; done
  for kind in secrets pods serviceaccounts networkpolicies aiworkloads.remit.dev; do can no "${policies[@]}" -- get $kind -n $a; can no "${policies[@]}" -- create $kind -n $a; done
  for verb in create escalate bind; do can no "${policies[@]}" -- $verb roles.rbac.authorization.k8s.io -n $a; done
  can no "${policies[@]}" -- create serviceaccounts --subresource token -n "$release"
  can no "${as[@]}" update aiworkloads -n $a
  can no "${as[@]}" create aiworkloads -n $a
  can no "${as[@]}" patch validatingwebhookconfigurations/other
  may yes list $b || true
  may no list $a || true
  may no delete $b || true
  orders='[{apiGroups: [shop.example.com], resources: [orders], verbs: [get, list, watch]}]'
  passes "hands out what is grantable" kubectl "${operator[@]}" apply -f - < <(role $b "$orders")
  refuses "hands out a further verb" 'attempting to grant RBAC permissions not currently held' kubectl "${operator[@]}" apply -f - < <(role $b "${orders/watch/delete}")
  refuses "hands out a further resource" 'attempting to grant' kubectl "${operator[@]}" apply -f - < <(role $b "${orders/orders/refunds}")
  refuses "hands it out where it is not bound" 'attempting to grant' kubectl "${operator[@]}" apply -f - < <(role $a "$orders")
  passes "the way down" kubectl "${operator[@]}" apply -f - < <(role $b '[]')

  configmaps='[{apiGroups: [""], resources: [configmaps], verbs: [get]}]'
  refuses "hands out ConfigMaps, which another account holds" 'attempting to grant' kubectl "${operator[@]}" apply -f - < <(role $b "$configmaps")
  refuses "the account of policies hands out nothing" 'cannot (get|patch|create) resource' kubectl "${policies[@]}" apply -f - < <(role $b "$configmaps")

  # --- the account of the guards' policies
  map() { # NAMESPACE NAME LABELS
    printf '{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, namespace: %s, labels: %s}, data: {a: b}}' "$2" "$1" "$3"
  }
  ours='{app.kubernetes.io/managed-by: remit}' confined='this account writes ConfigMaps named remit-'
  until_true eval "! kubectl ${policies[*]} create --dry-run=server -f - < <(map $a other '$ours')"
  passes "it writes a policy" kubectl "${policies[@]}" create -f - < <(map $a remit-bot "$ours")
  passes "and again" kubectl "${policies[@]}" -n $a patch configmap remit-bot --type merge -p '{"data":{"a":"c"}}'
  refuses "another name" "$confined" kubectl "${policies[@]}" create -f - < <(map $a other "$ours")
  refuses "without the label" "$confined" kubectl "${policies[@]}" create -f - < <(map $a remit-other '{}')
  refuses "where nobody enrolled" "$confined" kubectl "${policies[@]}" create -f - < <(map default remit-bot "$ours")
  refuses "in Remit's own namespace" "$confined" kubectl "${policies[@]}" create -f - < <(map "$release" remit-bot "$ours")
  refuses "the operator's configuration" "$confined" kubectl "${policies[@]}" -n "$release" patch configmap remit-operator --type merge -p '{"data":{"config.yaml":""}}'
  refuses "takes the label off" "$confined" kubectl "${policies[@]}" -n $a label configmap remit-bot app.kubernetes.io/managed-by-
  refuses "deletes somebody's" "$confined" kubectl "${policies[@]}" -n $a delete configmap kube-root-ca.crt
  refuses "somebody edits a policy" 'is generated by Remit' kubectl -n $a patch configmap remit-bot --type merge -p '{"data":{"a":"d"}}'
  refuses "somebody forges one" 'managed-by: remit marks what Remit generates' kubectl create -f - < <(map $a remit-forged "$ours")
  # What would lie in its place before it is written.
  not_mapped() { ! kubectl create --dry-run=server -f - <<<"$1"; }
  note() { map "$1" "$2" '{}' | sed "s/data: {a: b}/$3/"; }
  own='policy.note in a ConfigMap named remit-' edit=(--as remit-chart-edit)
  kubectl create clusterrolebinding remit-chart-edit --clusterrole=edit --user=remit-chart-edit >/dev/null
  until_true kubectl auth can-i "${edit[@]}" create configmaps -n $a
  refuses "a policy that lies there first" "$own" kubectl "${edit[@]}" create -f - < <(note $a remit-new 'data: {policy.note: x}')
  refuses "in other clothes" "$own" kubectl "${edit[@]}" create -f - < <(note $a remit-new 'binaryData: {policy.note: eA==}')
  refuses "by an administrator" "$own" kubectl create -f - < <(note $a remit-new 'data: {policy.note: x}')
  refuses "applied" "$own" kubectl "${edit[@]}" apply --server-side --field-manager=remit -f - < <(note $a remit-new 'data: {policy.note: x}')
  passes "another key" kubectl "${edit[@]}" create -f - < <(map $a remit-new '{}')
  refuses "and then that one" "$own" kubectl "${edit[@]}" -n $a patch configmap remit-new --type merge -p '{"data":{"policy.note":"x"}}'
  passes "another name" kubectl "${edit[@]}" create -f - < <(note $a notes 'data: {policy.note: x}')
  passes "where nobody enrolled" kubectl "${edit[@]}" create --dry-run=server -f - < <(note default remit-new 'data: {policy.note: x}')
  kubectl label namespace $a remit.dev/enrolled- >/dev/null
  passes "before the enrolment" until_true kubectl create -f - < <(note $a remit-old 'data: {policy.note: x}')
  kubectl label namespace $a remit.dev/enrolled=true >/dev/null
  until_true not_mapped "$(note $a remit-probe 'data: {policy.note: x}')"
  refuses "is not changed after it" "$own" kubectl "${edit[@]}" -n $a patch configmap remit-old --type merge -p '{"data":{"policy.note":"y"}}'
  passes "is labelled" kubectl "${edit[@]}" -n $a label configmap remit-old a=b
  passes "and goes" kubectl "${edit[@]}" -n $a delete configmap remit-old remit-new notes
  passes "it deletes a policy" kubectl "${policies[@]}" -n $a delete configmap remit-bot

  # --- rights of people
  kubectl -n $b create rolebinding remit-chart-admin --clusterrole=admin --user=remit-chart-admin >/dev/null
  until_true kubectl auth can-i --as remit-chart-admin release aiworkloads.remit.dev -n $b
  can yes --as remit-chart-edit -- create aiworkloads.remit.dev -n $a
  can no --as remit-chart-edit -- release aiworkloads.remit.dev -n $a
  can no --as remit-chart-edit -- create scopeceilings.remit.dev
  can yes --as remit-chart-admin -- release aiworkloads.remit.dev -n $b
  can no --as remit-chart-admin -- update aiworkloads.remit.dev --subresource status -n $b

  # --- what Remit generates is Remit's (the caller here holds every right: system:masters)
  until_true eval "! kubectl -n $a create serviceaccount probe --dry-run=server -o yaml | sed 's/^metadata:/&\n  labels: {app.kubernetes.io\/managed-by: remit}/' | kubectl create --dry-run=server -f -"
  reserved='managed-by: remit marks what Remit generates' belongs='generated by Remit: edit AIWorkload bot in namespace'
  refuses "forges the label" "$reserved" kubectl create -f - < <(generated bot | sed '/^---$/,$d')
  passes "the operator creates" kubectl "${operator[@]}" create -f - < <(generated bot | sed '/^rules: \[\]/,$d'; echo 'rules: []')
  passes "an account with its rights creates the binding" kubectl "${operator[@]}" apply -f - < <(generated bot)
  refuses "widens a policy" "$belongs" kubectl -n $a patch networkpolicy remit-bot --type merge -p '{"spec":{"egress":[{}]}}'
  refuses "widens a role" "$belongs" kubectl -n $a patch role remit.$a.bot --type merge -p '{"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}'
  refuses "adds a subject" "$belongs" kubectl -n $a patch rolebinding remit.$a.bot --type merge -p '{"subjects":[{"kind":"User","name":"eve","apiGroup":"rbac.authorization.k8s.io"}]}'
  refuses "takes the label off" "$belongs" kubectl -n $a label networkpolicy remit-bot app.kubernetes.io/managed-by-
  refuses "adds an owner" "$belongs" kubectl -n $a patch role remit.$a.bot --type merge -p "$owner"
  refuses "annotates the account" "$belongs" kubectl -n $a annotate serviceaccount bot a=b
  for object in serviceaccount/bot role/remit.$a.bot rolebinding/remit.$a.bot networkpolicy/remit-bot; do
    refuses "deletes $object" "$belongs" kubectl -n $a delete $object
  done
  refuses "deletes the isolation" 'edit the ScopeCeiling' kubectl -n $a delete networkpolicy remit.unscoped
  refuses "deletes the collection" 'generated by Remit' kubectl delete --raw "/apis/networking.k8s.io/v1/namespaces/$a/networkpolicies"
  passes "a token for the account is no edit of it" kubectl -n $a create token bot
  passes "the operator edits" kubectl "${operator[@]}" -n $a patch networkpolicy remit-bot --type merge -p '{"spec":{"egress":[]}}'
  passes "a foreign object stays free" kubectl -n $a create serviceaccount other
  refuses "and cannot become Remit's" "$reserved" kubectl -n $a label serviceaccount other app.kubernetes.io/managed-by=remit
  passes "Helm's label is another" kubectl -n $a label serviceaccount other app.kubernetes.io/managed-by=Helm
  passes "the operator's own account is Helm's" kubectl -n "$release" annotate serviceaccount remit a=b

  # --- enrolment: ned may write namespaces and holds no verb release
  kubectl create clusterrole remit-chart-test --verb=get,patch,update --resource=namespaces,namespaces/status,namespaces/finalize >/dev/null
  kubectl create clusterrolebinding remit-chart-test --clusterrole=remit-chart-test --user=ned >/dev/null
  until_true kubectl auth can-i --as ned patch namespaces
  release_needed='needs the verb release on aiworkloads.remit.dev'
  refuses "un-enrols" "$release_needed" kubectl --as ned label namespace $a remit.dev/enrolled-
  refuses "changes the label" "$release_needed" kubectl --as ned label namespace $a remit.dev/enrolled=no --overwrite
  refuses "un-enrols through the status" "$release_needed" kubectl --as ned patch namespace $a --subresource=status --type merge -p '{"metadata":{"labels":{"remit.dev/enrolled":null}}}'
  refuses "un-enrols through finalize" "$release_needed" kubectl --as ned replace --raw "/api/v1/namespaces/$a/finalize" \
    -f <(kubectl get namespace $a -o json | jq 'del(.metadata.labels["remit.dev/enrolled"])')
  passes "labels otherwise" kubectl --as ned label namespace $a team=x
  passes "with the verb it goes" kubectl label namespace $a remit.dev/enrolled-
  passes "enrolling is free" kubectl --as ned label namespace $a remit.dev/enrolled=true

  # --- pods, judged by the API server itself (the same for every Helm)
  [ "$helm" != "$1" ] || pods "$helm"

  # --- the webhook is away: closed for what counts, open for the rest
  kubectl -n $a get aiworkloads >/dev/null
  webhook='failed calling webhook "aiworkloads.remit.dev"'
  refuses "creates" "$webhook" kubectl create -f - < <(workload bot)
  configuration=$(kubectl get validatingwebhookconfiguration remit-scope -o json | jq 'del(.metadata.resourceVersion, .metadata.uid)')
  kubectl delete validatingwebhookconfiguration remit-scope >/dev/null
  until_true kubectl create -f - < <(workload bot) || true
  until_true kubectl create -f - < <(workload stays | sed 's/, finalizers: .*}/}/') || true
  kubectl -n $a get aiworkload bot >/dev/null 2>&1 || kubectl create -f - < <(workload bot) >/dev/null
  kubectl -n $a get aiworkload stays >/dev/null 2>&1 || kubectl create -f - < <(workload stays | sed 's/, finalizers: .*}/}/') >/dev/null
  kubectl create -f - <<<"$configuration" >/dev/null
  until_true eval "! kubectl create --dry-run=server -f - < <(workload probe)"
  refuses "changes the spec" "$webhook" kubectl -n $a patch aiworkload bot --type merge -p '{"spec":{"mode":"Observe"}}'
  refuses "sets the release annotation" "$webhook" kubectl -n $a annotate aiworkload bot remit.dev/release=true
  refuses "gives it an owner" "$webhook" kubectl -n $a patch aiworkload bot --type merge -p "$owner"
  refuses "takes the finalizer off" "$webhook" kubectl -n $a patch aiworkload bot --type merge -p "$no_finalizer"
  refuses "deletes" "$webhook" kubectl -n $a delete aiworkload bot --wait=false
  passes "labels" kubectl -n $a label aiworkload bot a=b
  passes "the operator writes the status" kubectl "${operator[@]}" -n $a patch aiworkload bot --subresource=status --type merge -p '{"status":{"observedGeneration":1}}'
  refuses "the operator does not write the spec" "$webhook" kubectl "${operator[@]}" -n $a patch aiworkload bot --type merge -p '{"spec":{"mode":"Observe"}}'
  passes "ceilings can be tightened" kubectl patch scopeceiling chart-test --type merge -p '{"spec":{"classes":[]}}'
  passes "recorded kinds are not held up" kubectl -n $a create serviceaccount third
  passes "the operator takes its finalizer off" kubectl "${operator[@]}" -n $a patch aiworkload bot --type merge -p "$no_finalizer"

  # --- everything can go
  kubectl -n $a create configmap owner >/dev/null
  passes "the operator sets an owner" kubectl "${operator[@]}" -n $a patch networkpolicy remit.unscoped --type merge \
    -p "{\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"owner\",\"uid\":\"$(kubectl -n $a get configmap owner -o jsonpath='{.metadata.uid}')\"}]}}"
  passes "the owner goes" kubectl -n $a delete configmap owner
  passes "and the garbage collector deletes what it owned" until_true gone -n $a networkpolicy remit.unscoped
  passes "a namespace goes with generated objects and AIWorkloads in it, webhook away" kubectl delete namespace $a --timeout=60s
  # No node runs the hook here.
  passes "uninstall" "$helm" uninstall remit-chart --namespace "$release" --no-hooks
  for kind in clusterroles clusterrolebindings validatingwebhookconfigurations mutatingwebhookconfigurations validatingadmissionpolicies validatingadmissionpolicybindings scopeceilings; do
    passes "no $kind of Remit are left" test -z "$(kubectl get $kind -o name | grep -E 'remit-(scope|recorder|pods|inject|protect|keep|guard|restricted|confine|policies|operator|grantable|view|edit|release|uninstall)|chart-test$' | grep -v remit-chart || true)"
  done
  passes "the definitions are kept" kubectl get crd aiworkloads.remit.dev scopeceilings.remit.dev
  echo "chart on the API server, Helm $version: done"
done
echo "admission: $checks checks, $failures failed"
[ "$failures" = 0 ]
