#!/usr/bin/env bash
# The chart, as text: lint, render, refuse bad values; what the rendered objects may never hold.
#
#   chart.sh HELM3 HELM4     both binaries; REMIT_REWRITE=1 rewrites golden.txt
#
# Needs no cluster. What only an API server can show stands in admission.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
chart=$root/charts/remit
[ $# = 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
helms=("$1" "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
checks=0 failures=0

pass() { checks=$((checks + 1)); }
fail() { checks=$((checks + 1)) failures=$((failures + 1)); printf 'FAILED: %s\n' "$*" >&2; }
holds() { # WHAT COMMAND...
  if "${@:2}" >"$work/out" 2>&1; then pass; else fail "$1"; sed 's/^/    /' "$work/out" | head -20 >&2; fi
}
render() { "$helm" template remit "$chart" --namespace remit-system --kube-version 1.36.0 "$@"; }
# The documents of a rendering, one per line (line feeds as \x01), without blank lines and sorted: Helm 3 and 4 order and space them differently.
documents() {
  awk 'BEGIN { RS = "(^|\n)---[^\n]*" } { sub(/^\n+/, ""); gsub(/\n[ \t]*(\n[ \t]*)*\n/, "\n"); sub(/\n+$/, ""); gsub(/\n/, "\001"); if ($0 != "") print }' "$1" | sort
}
of_kind() { # FILE KIND... : the documents of these kinds
  local file=$1 kind; shift
  for kind in "$@"; do documents "$file" | tr -d '\r' | grep -E "(^|$(printf '\001'))kind: $kind($(printf '\001')|\$)" || true; done | tr '\001' '\n'
}
# One line per rule: "ClusterRole NAME {rule}". A rule that is not on one line is printed as it is, and so found by its shape.
rules() {
  documents "$1" | awk -v RS='\n' -F '\001' '{
    kind = ""; name = ""; inside = 0
    for (i = 1; i <= NF; i++) {
      if ($i ~ /^kind: /) kind = substr($i, 7)
      if ($i ~ /^  name: / && name == "") name = substr($i, 9)
      if ($i ~ /^[a-zA-Z]/) inside = ($i == "rules:")
      else if (inside && (kind == "ClusterRole" || kind == "Role") && $i !~ /^ *#/) { sub(/^ *- /, "", $i); print kind, name, $i }
    }
  }'
}

# --- both Helms: lint, the same documents, the same golden list
for helm in "${helms[@]}"; do
  for values in "" "$here"/values/*.yaml; do
    name=$(basename "${values:-default}" .yaml) arguments=(${values:+--values "$values"})
    holds "$helm lint, $name" "$helm" lint --strict "$chart" --kube-version 1.36.0 "${arguments[@]}"
    if render "${arguments[@]}" >"$work/$name.$(basename "$helm")" 2>"$work/out"; then pass; else fail "$helm template, $name"; cat "$work/out" >&2; fi
  done
done
helm=${helms[1]} later=$(basename "${helms[1]}")
for values in default full cert-manager least; do
  holds "$values: both Helms render the same documents" diff <(documents "$work/$values.$(basename "${helms[0]}")") <(documents "$work/$values.$later")
done
awk '/^kind: /{k=$2} /^  name: /&&k!=""{print k, $2; k=""}' "$work/default.$later" | sort >"$work/golden.txt"
[ -z "${REMIT_REWRITE:-}" ] || cp "$work/golden.txt" "$here/golden.txt"
holds "the objects of the default rendering are those of golden.txt (REMIT_REWRITE=1 rewrites it)" diff "$here/golden.txt" "$work/golden.txt"

# --- rights
for values in default full cert-manager least; do
  file=$work/$values.$later
  rules "$file" >"$work/rules"
  holds "$values: there are rules to judge" test "$(wc -l <"$work/rules")" -gt 15
  never() { # WHAT PATTERN...: no rule's line matches all patterns
    local lines pattern
    lines=$(cat "$work/rules")
    for pattern in "${@:2}"; do lines=$(grep -E -- "$pattern" <<<"$lines" || true); done
    if [ -z "$lines" ]; then pass; else fail "$values: $1: $lines"; fi
  }
  # The one right that ends pods, in a role of its own and bound where the values say so.
  evict='ClusterRole remit-evict {apiGroups: [""], resources: [pods/eviction], verbs: [create]}'
  holds "$values: remit-evict evicts and does nothing else" test "$(grep ' remit-evict ' "$work/rules")" = "$evict"
  { grep -vxF -- "$evict" "$work/rules" || true; } >"$work/others" && mv "$work/others" "$work/rules"
  lists='[[, "]'
  if grep -vE '^(Cluster)?Role [a-z-]+ \{apiGroups: \[[^]]*\], resources: \[[^]]*\], (resourceNames: \[[^]]*\], )?verbs: \[[^]]*\]\}$' "$work/rules"; then fail "$values: a rule is not on one line, or not in the usual order"; else pass; fi
  never "a wildcard" '\*'
  never "escalate, bind or impersonate" "verbs:.*$lists(escalate|bind|impersonate)[], \"]"
  never "Secrets of the whole cluster" '^ClusterRole' "resources:.*${lists}secrets[], \"/].*verbs"
  never "Secrets that are not named" "resources: \[secrets\], verbs: \[.*(get|list|watch|update|patch|delete)"
  never "writing pods" "resources:.*${lists}pods(/[a-z]*)?[], \"].*verbs:.*(create|update|patch|delete)"
  never "writing namespaces" "resources:.*${lists}namespaces(/[a-z]*)?[], \"].*verbs:.*(create|update|patch|delete)"
  token='Role remit-operator {apiGroups: [""], resources: [serviceaccounts/token], resourceNames: [remit-policies], verbs: [create]}'
  holds "$values: tokens of remit-policies and of no other account" test "$(grep 'serviceaccounts/' "$work/rules")" = "$token"
  never "ConfigMaps of the whole cluster for the operator's own account" '^ClusterRole remit-operator .*configmaps'
  holds "$values: remit-policies holds ConfigMaps and nothing else" test "$(grep -c 'Role remit-policies ' "$work/rules")" = 1
  never "webhooks or policies that are not named" 'admissionregistration' 'resources: \[[^]]*\], verbs: \[.*(create|update|patch|delete)'
  never "ClusterRoles or their bindings" "resources:.*${lists}clusterrole"
  never "the verb release for a program" '^(Cluster)?Role remit-(operator|uninstall|test) .*release'
  # one rule of its own per managed kind, all verbs
  holds "$values: the rights on what is managed are src/plan/object.rs" diff \
    <(sed -nE '/fn resource/,/^    }/s/.*=> \("([^"]*)", "([a-z]+)"\),/\1 \2/p' "$root/src/plan/object.rs" | sort) \
    <(sed -nE 's/^ClusterRole remit-(operator|policies) \{apiGroups: \["?([^]"]*)"?\], resources: \[([a-z]+)\], verbs: \[get, list, watch, create, update, patch, delete\]\}$/\2 \3/p' "$work/rules" | sort)
done

# --- what may never be granted
rust() { sed -nE 's/^    row\("([^"]*)", "([^"]*)", (true|false), "(.*)"\),$/- {group: "\1", resource: "\2", readsToo: \3, why: "\4"}/p' "$root/src/scope/permission.rs"; }
holds "files/never-grantable.yaml is NEVER_GRANTABLE of src/scope/permission.rs" diff <(rust) <(grep '^- ' "$chart/files/never-grantable.yaml")
holds "NEVER_GRANTABLE is read" test "$(rust | wc -l)" -gt 30
rule() { jq -nc --arg g "$1" --arg r "$2" --arg v "$3" '[{apiGroups: [$g], resources: [$r], verbs: ($v / ",")}]'; }
refused() { # EXPECTED ARGUMENT...: rendering fails, with a message that matches
  local expected=$1; shift
  for helm in "${helms[@]}"; do
    if render "$@" >"$work/out" 2>&1; then fail "$(basename "$helm") accepts $*"
    elif ! grep -qE -- "$expected" "$work/out"; then fail "$(basename "$helm") refuses $* without saying '$expected': $(tail -n 3 "$work/out")"
    else pass; fi
  done
}
refused 'secrets in group "" can never be granted: its holder reads credentials' --set-json "grantable.rules=$(rule "" secrets get)"
refused 'create pods in group ""' --set-json "grantable.rules=$(rule "" pods get,create)"
refused 'get pods/exec' --set-json "grantable.rules=$(rule "" pods/exec get)"
refused 'update pods/status' --set-json "grantable.rules=$(rule "" pods/status update)"
refused 'get nodes/proxy' --set-json "grantable.rules=$(rule "" nodes/proxy get)"
refused 'create serviceaccounts/token' --set-json "grantable.rules=$(rule "" serviceaccounts/token create)"
refused 'patch deployments in group "apps"' --set-json "grantable.rules=$(rule apps deployments patch)"
refused 'delete networkpolicies' --set-json "grantable.rules=$(rule networking.k8s.io networkpolicies delete)"
refused 'create rolebindings' --set-json "grantable.rules=$(rule rbac.authorization.k8s.io rolebindings create)"
refused 'patch aiworkloads' --set-json "grantable.rules=$(rule remit.dev aiworkloads patch)"
refused 'grantable' --set-json "grantable.rules=$(rule '*' orders get)"
refused 'grantable' --set-json "grantable.rules=$(rule shop.example.com '*' get)"
refused 'grantable' --set-json "grantable.rules=$(rule shop.example.com orders '*')"
refused 'grantable' --set-json "grantable.rules=$(rule rbac.authorization.k8s.io roles escalate)"
refused 'grantable' --set-json 'grantable.rules=[{"nonResourceURLs":["/metrics"],"verbs":["get"]}]'

# --- bad values
refused 'replica' --set replica=2
refused 'replicas' --set replicas=0
refused 'registry' --set image.registry=example.com
refused 'digest' --set image.digest=sha256:short
refused 'pullPolicy' --set image.pullPolicy=always
refused 'timeoutSeconds' --set webhook.timeoutSeconds=6
refused 'caBundle' --set webhook.caBundle=xxx
refused 'issuerRef' --set webhook.certificate.type=CertManager
refused 'type' --set webhook.certificate.type=Vault
refused 'port' --set webhook.port=443
refused 'must differ' --set http.port=9443
refused 'durationSeconds' --set lease.durationSeconds=0
refused 'podRanges' --set 'cluster.podRanges={10.0.0.0}'
refused 'addresses' --set 'dns.addresses={kube-dns}'
refused 'addresses' --set 'guard.proxy.addresses={proxy.example.com:3128}'
refused 'addresses' --set 'guard.proxy.addresses={10.0.0.1}'
refused 'certificates' --set guard.roots.certificates=x
refused 'public' --set guard.roots.public=yes
refused 'roots' --set guard.roots.file=/etc/ssl
refused 'level' --set logging.level=verbose
refused 'namespaceSelector' --set-json 'ceilings=[{"name":"a","spec":{}}]'
refused 'unscopedPods' --set-json 'ceilings=[{"name":"a","spec":{"namespaceSelector":{},"unscopedPods":"Refuse"}}]'
refused 'models' --set-json 'ceilings=[{"name":"a","spec":{"namespaceSelector":{},"models":[]}}]'
refused 'podSecurity' --set podSecurity=restricted
refused 'maxUnavailable' --set podDisruptionBudget.maxUnavailable=0

# --- values that matter
helm=${helms[1]}
shows() { # WHAT KIND PATTERN ARGUMENT...
  local what=$1 kind=$2 pattern=$3; shift 3
  render "$@" >"$work/render" || { fail "$what"; return 0; }
  if of_kind "$work/render" "$kind" | grep -E -- "$pattern" >/dev/null; then pass; else fail "$what: no '$pattern' in $kind with $*"; fi
}
hides() {
  local what=$1 kind=$2 pattern=$3; shift 3
  render "$@" >"$work/render" || { fail "$what"; return 0; }
  if of_kind "$work/render" "$kind" | grep -E -- "$pattern" >/dev/null; then fail "$what: '$pattern' in $kind with $*"; else pass; fi
}
full=(--values "$here/values/full.yaml") cert=(--values "$here/values/cert-manager.yaml") least=(--values "$here/values/least.yaml")
shows "the image's tag is the appVersion" Deployment "image: ghcr.io/remit-dev/remit-operator:$(sed -nE 's/^appVersion: "(.*)"/\1/p' "$chart/Chart.yaml")\$"
shows "a digest goes before the tag" Deployment 'image: registry.example.com/remit/operator@sha256:0123456789abcdef' "${full[@]}" --set image.tag=x
shows "the same image uninstalls" Job 'image: registry.example.com/remit/operator@sha256' "${full[@]}"
hides "one replica has no disruption budget" PodDisruptionBudget .
shows "two have one" PodDisruptionBudget 'maxUnavailable: 1' --set replicas=2
shows "and are spread" Deployment 'topologyKey: kubernetes.io/hostname' --set replicas=2
shows "or as told" Deployment 'topologyKey: topology.kubernetes.io/zone' "${full[@]}"
hides "no budget on request" PodDisruptionBudget . "${least[@]}"
shows "the grace period is longer than the shutdown" Deployment 'terminationGracePeriodSeconds: 15' "${full[@]}"
shows "CRDs are kept" CustomResourceDefinition 'helm.sh/resource-policy: keep'
hides "CRDs are not kept on request" CustomResourceDefinition 'resource-policy' "${full[@]}"
hides "no CRDs on request" CustomResourceDefinition . "${least[@]}"
hides "nothing is granted by default" RoleBinding 'name: remit-grantable'
shows "grantable is bound where it is told" RoleBinding 'namespace: shop' "${full[@]}"
hides "nothing is evicted by default" RoleBinding 'name: remit-evict'
shows "pods are evicted where it is told" RoleBinding 'name: remit-evict' "${full[@]}"
hides "nobody binds evict for the whole cluster" ClusterRoleBinding 'evict' "${full[@]}"
hides "nobody binds grantable for the whole cluster" ClusterRoleBinding 'grantable' "${full[@]}"
shows "view is aggregated" ClusterRole 'aggregate-to-view: "true"'
hides "roles are not aggregated on request" ClusterRole 'aggregate-to' "${full[@]}"
shows "the operator has a network policy" NetworkPolicy 'port: 9443'
hides "no network policy on request" NetworkPolicy . "${least[@]}"
hides "no ServiceMonitor by default" ServiceMonitor .
shows "a ServiceMonitor on request" ServiceMonitor 'release: prometheus' "${full[@]}"
shows "cert-manager makes the certificate" Certificate 'remit-webhook.remit-system.svc$' "${cert[@]}"
shows "and fills the caBundle" ValidatingWebhookConfiguration 'inject-ca-from: remit-system/remit-webhook' "${cert[@]}"
shows "the operator then only reads it" ConfigMap 'type: Files' "${cert[@]}"
hides "and needs no right to its Secret" Role 'remit-webhook-tls' "${cert[@]}" --set uninstall.enabled=false
for mode in default cert; do
  if [ $mode = cert ]; then with=("${cert[@]}"); else with=(); fi
  shows "$mode: the operator keeps the webhook's path" ConfigMap 'configurations: \[remit-scope, remit-recorder, remit-pods\]' "${with[@]}"
  shows "$mode: in its Secret" Role 'resourceNames: \[remit-webhook-path\], verbs: \[get, update\]' "${with[@]}"
  hides "$mode: caBundle is nobody's in the chart" ValidatingWebhookConfiguration caBundle "${with[@]}"
  hides "$mode: nor is the path" ValidatingWebhookConfiguration 'path:' "${with[@]}"
done
shows "another namespace is followed" ValidatingAdmissionPolicy 'system:serviceaccount:elsewhere:remit' --namespace elsewhere
# With Fail, a kind that could be missing would refuse every pod (and nobody sees to a built-in one that was let go of once).
holds "a policy with parameters is open where their kind is missing" test "$(render | awk -v RS='\n---' '/paramKind:/ && !/failurePolicy: Ignore/' | wc -l)" = 0
shows "pods must meet restricted" ValidatingAdmissionPolicy 'Pod Security restricted: the pod or every container must set runAsNonRoot'
hides "or less on request" ValidatingAdmissionPolicy 'Pod Security restricted' --set podSecurity=Baseline
shows "but something" ValidatingAdmissionPolicy 'Pod Security baseline' --set podSecurity=Baseline
hides "or nothing" ValidatingAdmissionPolicy 'Pod Security' --set podSecurity=None
shows "guards have the chart's image" ValidatingAdmissionPolicy "== 'registry.example.com/guard:x'" --set guard.image.repository=registry.example.com/guard,guard.image.tag=x
for policy in $(render | of_kind /dev/stdin ValidatingAdmissionPolicy | sed -nE 's/^  name: (remit-.*)/\1/p'); do
  shows "the hook may delete $policy" ClusterRole "validatingadmissionpolicybindings\].*[[ ]$policy[],]"
  holds "and the operator does" grep -q "\"$policy\"" "$root/src/operator/uninstall.rs"
done
shows "ceilings are rendered" ScopeCeiling 'unscopedPods: Allow' "${full[@]}"
shows "before the release goes, Remit is uninstalled" Job 'helm.sh/hook: pre-delete'
hides "not on request" Job . "${least[@]}"
for pattern in 'runAsNonRoot: true' 'readOnlyRootFilesystem: true' 'allowPrivilegeEscalation: false' 'drop: \[ALL\]' 'seccompProfile: {type: RuntimeDefault}'; do
  for kind in Deployment Job; do shows "Pod Security restricted" $kind "$pattern"; done
done

# --- documentation and copies
for key in $(grep -oE '^[a-zA-Z]+:' "$chart/values.yaml" | tr -d :); do
  holds "README.md says what $key is" grep -qE "^\| \`$key[\`.]" "$chart/README.md"
done
# What it installs, each in a row that names its kind as well; a binding with its role or policy. (Hooks and tests apart.)
sed -n '/^## What it installs/,/^## Ceilings/p' "$chart/README.md" | grep '^|' >"$work/installs"
while read -r kind name; do
  case $name in remit-uninstall|remit-test) continue ;; esac
  kind=${kind%Binding} name=${name%.remit.dev}
  named() { grep -E "(^|[^A-Za-z])${kind%y}" "$work/installs" | grep -F -- "\`$name\`"; }
  holds "README.md says what $kind $name is for" named
done <"$here/golden.txt"
if ls "$root"/crds/*.yaml >/dev/null 2>&1; then
  holds "crds/ and charts/remit/files/crds/ are equal" diff -r "$root/crds" "$chart/files/crds"
else fail "crds/ is empty"; fi
holds "chart and package have one version" grep -q "^version: $(sed -nE 's/^version = "(.*)"/\1/p' "$root/Cargo.toml" | head -1)\$" "$chart/Chart.yaml"

echo "chart: $checks checks, $failures failed"
[ "$failures" = 0 ]
