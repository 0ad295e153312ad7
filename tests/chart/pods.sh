# shellcheck shell=bash
# What the API server itself asks of pods (templates/pod-policies.yaml, pod-security.yaml): part of admission.sh, which sources this.
#
# Many pods are judged in one request each way: made as a dry run, all at once, each case with the words of the rule that must refuse it.

c=remit-chart-c
image=ghcr.io/remit-dev/remit-guard:$(sed -nE 's/^appVersion: "(.*)"/\1/p' "$chart/Chart.yaml")
# As src/plan/inject.rs makes it, for the AIWorkload bot (tests/it/generated.rs writes it); its uid is known once it is there.
guarded=$(sed "s#IMAGE#$image#" "$here/guarded-pod.json")
inspecting=$(sed "s#IMAGE#$image#" "$here/inspecting-pod.json")
plain=$(jq 'del(.spec.initContainers, .spec.volumes, .spec.serviceAccount, .spec.serviceAccountName, .spec.automountServiceAccountToken) | .metadata |= {name: "probe", labels: {app: "other"}}' <<<"$guarded")

# judge WHAT NAMESPACE POD < CASES: a case is "NAME | words of the refusal (~: or), or pass | jq filter on POD"
judge() {
  local name words filter items=() all line
  all=$(cat)
  while IFS='|' read -r name words filter; do
    name=${name// /}
    [ -n "$name" ] || continue
    items+=("$(jq -c --arg n "$name" "(${filter:-.}) | .metadata.name = \$n" <<<"$3")") || fail "$1: case $name: no such filter"
  done <<<"$all"
  printf '%s\n' "${items[@]}" | jq -s '{apiVersion: "v1", kind: "List", items: .}' |
    kubectl create --dry-run=server --validate=false -n "$2" -f - >"$scratch/passed" 2>"$scratch/refused" || true
  while IFS='|' read -r name words filter; do
    name=${name// /} words=$(sed 's/^ *//; s/ *$//' <<<"$words")
    [ -n "$name" ] || continue
    checks=$((checks + 1))
    line=$(grep -F "\"$name\" is" "$scratch/refused" || true)
    if [ "$words" = pass ]; then grep -qxF "pod/$name created (server dry run)" "$scratch/passed" || fail "$1: $name should pass: $line"
    elif [ -z "$line" ]; then fail "$1: $name should be refused ($words)"
    elif ! grep -qE -- "${words//\~/|}" <<<"$line"; then fail "$1: $name: refused, but does not say '$words': $line"; fi
  done <<<"$all"
}

workload_of() { # NAME SELECTOR [MODE [METADATA]]
  printf '{apiVersion: remit.dev/v1alpha1, kind: AIWorkload, metadata: {name: %s, namespace: %s%s}, spec: {mode: %s, selector: %s}}\n---\n' "$1" $c "${4:-}" "${3:-Enforce}" "$2"
}
status_of() { # NAME REASON: what the operator says
  kubectl "${operator[@]}" -n $c patch aiworkload "$1" --subresource=status --type merge -p '{"status":{"conditions":[{"type":"Accepted","status":"False","reason":"'"$2"'","message":"m","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}'
}

told() { jq -r --arg n "$1" '"--workload=\(.metadata.namespace)/\($n)/\(.metadata.uid)"' < <(kubectl -n $c get aiworkload "$1" -o json); }
# A guarded pod of another AIWorkload: a jq filter.
for_workload() { printf '.metadata.labels = {app: "%s"} | .spec.initContainers[1].args[2] = "%s" | .spec.volumes[0].projected.sources[0].configMap.name = "remit-%s"' "$1" "$(told "$1")" "$1"; }

created() { kubectl -n $c create --dry-run=server -f - <<<"$1"; }
not_created() { ! created "$1"; }

# As the AIWorkloads of one namespace may stand: enforced, observed, in conflict, being deleted.
workloads() {
  workload_of bot '{matchLabels: {app: bot}}'
  workload_of expr '{matchExpressions: [{key: tier, operator: In, values: [gold, silver]}, {key: track, operator: NotIn, values: [canary]}, {key: ai, operator: Exists}, {key: muted, operator: DoesNotExist}]}'
  workload_of both '{matchLabels: {app: both, x: ""}, matchExpressions: [{key: tier, operator: In, values: [gold]}]}'
  workload_of blank '{matchExpressions: [{key: blank, operator: In, values: ["", x]}]}'
  workload_of observed '{matchLabels: {app: observed}}' Observe
  workload_of loser '{matchLabels: {team: x}}'
  workload_of excess '{matchLabels: {app: excess}}'
  workload_of opened '{matchLabels: {app: opened}}' Enforce ', annotations: {remit.dev/break-glass: x}'
  workload_of held '{matchLabels: {app: held}}' Enforce ', finalizers: [remit.dev/deny-until-gone]'
  workload_of released '{matchLabels: {app: released}}' Enforce ', finalizers: [remit.dev/deny-until-gone], annotations: {remit.dev/release: "true"}'
  workload_of foreign '{matchLabels: {app: foreign}}' Enforce ', finalizers: [example.com/x]'
}
# The operator may take its finalizer off whatever the webhook says; where nothing of the chart is left, the administrator may.
let_go() {
  local name
  for name in held released foreign; do
    kubectl "${operator[@]}" -n $c patch aiworkload $name --type merge -p "$no_finalizer" || kubectl -n $c patch aiworkload $name --type merge -p "$no_finalizer" || true
  done >/dev/null 2>&1
}
declared() { workloads | kubectl apply -f -; }
seen() {
  local label passes=0
  for label in foreign released loser excess; do
    ! jq --arg l $label '.metadata |= {name: "p", labels: (if $l == "loser" then {team: "x"} else {app: $l} end)}' <<<"$plain" |
      kubectl create --dry-run=server -n $c -f - || passes=$((passes + 1))
  done
  [ $passes = 3 ]
}

guarded_pods() {
  local none='no guard is in place' own='the first init containers of a guarded pod' redirect=.spec.initContainers[0] guard=.spec.initContainers[1] source='.spec.volumes[0].projected.sources'
  local user="names its user"
  judge "pods, no AIWorkload" $c "$plain" <<<'free | pass | .metadata.labels = {app: "bot"}'
  # Nobody answers for the webhook that judges AIWorkloads.
  local configuration
  configuration=$(kubectl get validatingwebhookconfiguration remit-scope -o json | jq 'del(.metadata.resourceVersion, .metadata.uid)')
  kubectl delete validatingwebhookconfiguration remit-scope >/dev/null
  passes "AIWorkloads" until_true declared
  kubectl -n $c delete aiworkload held released foreign --wait=false >/dev/null
  status_of loser Conflict >/dev/null
  status_of excess CeilingExceeded >/dev/null
  kubectl create -f - <<<"$configuration" >/dev/null
  passes "they are seen" until_true seen
  # Nobody makes its account here.
  kubectl -n $c create serviceaccount bot >/dev/null
  guarded=$(jq --arg w "$(told bot)" '.spec.initContainers[1].args[2] = $w' <<<"$guarded")
  inspecting=$(jq --arg w "$(told bot)" '.spec.initContainers[1].args[2] = $w' <<<"$inspecting")
  local l='.metadata.labels ='
  judge "selected" $c "$plain" <<CASES
free          | pass  | .
no-labels     | pass  | del(.metadata.labels)
by-label      | $none | $l {app: "bot"}
and-more      | $none | $l {app: "bot", x: "y"}
case-counts   | pass  | $l {app: "Bot"}
expr          | $none | $l {tier: "gold", ai: ""}
expr-second   | $none | $l {tier: "silver", ai: "x", track: "stable"}
not-in        | pass  | $l {tier: "gold", ai: "", track: "canary"}
in-other      | pass  | $l {tier: "iron", ai: ""}
in-absent     | pass  | $l {ai: ""}
exists-not    | pass  | $l {tier: "gold"}
is-there      | pass  | $l {tier: "gold", ai: "", muted: ""}
all-of-both   | $none | $l {app: "both", x: "", tier: "gold"}
blank         | $none | $l {blank: ""}
empty-absent  | pass  | $l {app: "both", tier: "gold"}
half-of-both  | pass  | $l {app: "both", x: "", tier: "silver"}
observed      | pass  | $l {app: "observed"}
in-conflict   | pass  | $l {team: "x"}
not-accepted  | $none | $l {app: "excess"}
being-deleted | $none | $l {app: "held"}
released      | pass  | $l {app: "released"}
not-held      | pass  | $l {app: "foreign"}
CASES
  judge "selected elsewhere" $b "$plain" <<<'same-labels | pass | .metadata.labels = {app: "bot"}'
  judge "not enrolled" default "$plain" <<<'same-labels | pass | .metadata.labels = {app: "bot"}'
  judge "guarded" $c "$guarded" <<CASES
as-injected     | pass | .
other-ids       | pass | $redirect.args = ["redirect", "--uid=2099999999", "--gid=2000000000"] | $guard.securityContext += {runAsUser: 2099999999, runAsGroup: 2000000000}
pull-always     | pass | .spec.initContainers[].imagePullPolicy = "Always"
more-memory     | pass | $guard.resources.limits.memory = "1Gi"
more-init       | pass | .spec.initContainers += [.spec.containers[0] + {name: "init"}]
with-token      | pass | .spec.volumes += [{name: "kube-api-access-abcde", emptyDir: {}}] | .spec.initContainers[].volumeMounts += [{name: "kube-api-access-abcde", mountPath: "/var/run/secrets/kubernetes.io/serviceaccount", readOnly: true}]
other-audience  | pass | .spec.volumes += [{name: "v", projected: {sources: [{serviceAccountToken: {audience: "vault", path: "t"}}]}}]
of-two          | pass | .metadata.labels.team = "x"
none            | $none~$own | del(.spec.initContainers)
no-redirect     | $none~$own | del($redirect)
no-guard        | $none~$own | del($guard)
not-first       | $none~$own~Pod Security | .spec.initContainers |= [.[1], .[0]]
behind-another  | $none~$own~Pod Security | .spec.initContainers |= [{name: "x", image: "x", securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}}}] + .
in-containers   | $none~$own | .spec.containers += [$guard | del(.restartPolicy)] | del($guard)
renamed         | $none~$own~Pod Security | $redirect.name = "x"
renamed-too     | $none~$own | $guard.name = "x"
guard-image     | must be as Remit injects them | $guard.image = "evil"
redirect-image  | must be as Remit injects them~Pod Security | $redirect.image = "evil"
guard-command   | must be as Remit injects them | $guard.command = ["sh"]
redirect-command| must be as Remit injects them~Pod Security | $redirect.command = ["sh"]
guard-env       | must be as Remit injects them | $guard.env = [{name: "A", value: "b"}]
guard-env-from  | must be as Remit injects them | $guard.envFrom = [{configMapRef: {name: "x"}}]
redirect-env    | must be as Remit injects them~Pod Security | $redirect.env = [{name: "A", value: "b"}]
guard-lifecycle | must be as Remit injects them | $guard.lifecycle = {postStart: {exec: {command: ["sh"]}}}
guard-liveness  | must be as Remit injects them | $guard.livenessProbe = {exec: {command: ["sh"]}}
guard-device    | must be as Remit injects them | $guard.volumeDevices = [{name: "d", devicePath: "/dev/d"}] | .spec.volumes += [{name: "d", persistentVolumeClaim: {claimName: "d"}}]
redirect-args   | remit-redirect must have the arguments~Pod Security | $redirect.args[0] = "run"
redirect-low    | remit-redirect must have the arguments~Pod Security | $redirect.args[1] = "--uid=1000" | $guard.securityContext.runAsUser = 1000
redirect-group  | remit-redirect must have the arguments~Pod Security | $redirect.args[2] = "--gid=1000" | $guard.securityContext.runAsGroup = 1000
redirect-more   | remit-redirect must have the arguments~Pod Security | $redirect.args += ["--x"]
redirect-mount  | remit-redirect must have the arguments | $redirect.volumeMounts = [{name: "remit-policy", mountPath: "/x"}]
redirect-stays  | remit-redirect must have the arguments~Pod Security | $redirect.restartPolicy = "Always"
guard-ends      | must be a sidecar | del($guard.restartPolicy, $guard.startupProbe, $guard.readinessProbe)
guard-args      | must be a sidecar | $guard.args[0] = "redirect"
guard-more      | must be a sidecar | $guard.args += ["--x"]
guard-no-trust  | must be a sidecar | $guard.args[1] = "--x"
guard-trust     | must be a sidecar | del($guard.args[1])
guard-of-nobody | must be told~must be a sidecar | del($guard.args[2])
guard-of-other  | must be told~must hold the policy | $guard.args[2] = "$(told observed)"
guard-of-before | must be told | $guard.args[2] |= sub("/[0-9a-f-]+$"; "/d9607e19-f88f-11e6-a518-42010a800195")
guard-elsewhere | must be told~must be a sidecar | $guard.args[2] |= sub("=[^/]+/"; "=$b/")
guard-of-no-uid | must be told~must be a sidecar | $guard.args[2] |= sub("/[0-9a-f-]+$"; "/")
guard-startup   | must be a sidecar | $guard.startupProbe = {exec: {command: ["sh"]}}
guard-ready     | must be a sidecar | $guard.readinessProbe = {exec: {command: ["sh"]}}
guard-escalates | must have the securityContext~Pod Security | $guard.securityContext.allowPrivilegeEscalation = true
guard-writes    | must have the securityContext | $guard.securityContext.readOnlyRootFilesystem = false
guard-label     | must have the securityContext | $guard.securityContext.seLinuxOptions = {level: "s0"}
guard-keeps     | must have the securityContext~Pod Security | $guard.securityContext.capabilities.drop = ["NET_RAW"]
guard-proc      | must have the securityContext | $guard.securityContext.procMount = "Default"
guard-apparmor  | must have the securityContext | $guard.securityContext.appArmorProfile = {type: "RuntimeDefault"}
guard-windows   | must have the securityContext | $guard.securityContext.windowsOptions = {runAsUserName: "x"}
guard-localhost | must have the securityContext | $guard.securityContext.seccompProfile = {type: "Localhost", localhostProfile: "x"}
redirect-writes | must have the securityContext | $redirect.securityContext.readOnlyRootFilesystem = false
guard-adds      | the capabilities those that Remit | $guard.securityContext.capabilities.add = ["NET_BIND_SERVICE"]
redirect-adds   | the capabilities those that Remit~Pod Security | $redirect.securityContext.capabilities.add += ["SYS_ADMIN"]
other-uid       | must be those that remit-redirect lets pass | $guard.securityContext.runAsUser = 2000000009
other-gid       | must be those that remit-redirect lets pass | $guard.securityContext.runAsGroup = 2000000009
redirect-user   | must be those that remit-redirect lets pass | $redirect.securityContext += {runAsUser: 1000, runAsNonRoot: true}
redirect-in     | must be those that remit-redirect lets pass | $redirect.securityContext.runAsGroup = 1000
guard-root      | must be those that remit-redirect lets pass~Pod Security | $guard.securityContext.runAsNonRoot = false
two-mounts      | must mount the volume remit-policy | $guard.volumeMounts += [{name: "e", mountPath: "/x"}] | .spec.volumes += [{name: "e", emptyDir: {}}]
other-mount     | must mount the volume remit-policy | $guard.volumeMounts[0].name = "e" | .spec.volumes += [{name: "e", emptyDir: {}}]
other-path      | must mount the volume remit-policy | $guard.volumeMounts[0].mountPath = "/etc/remit"
writable        | must mount the volume remit-policy | $guard.volumeMounts[0].readOnly = false
sub-path        | must mount the volume remit-policy | $guard.volumeMounts[0].subPath = "x"
sub-path-expr   | must mount the volume remit-policy | $guard.volumeMounts[0].subPathExpr = "x"
no-volume       | must be the policy of AIWorkload bot~must hold the policy of the guard~must mount the volume | del(.spec.volumes, $guard.volumeMounts)
other-kind      | must be the policy of AIWorkload bot~must hold the policy of the guard | .spec.volumes[0] = {name: "remit-policy", configMap: {name: "remit-bot"}}
other-policy    | must be the policy of AIWorkload bot~must hold the policy of the guard | ${source}[0].configMap.name = "remit-evil"
optional        | must be the policy of AIWorkload bot~must hold the policy of the guard | ${source}[0].configMap.optional = true
whole-map       | must be the policy of AIWorkload bot~must hold the policy of the guard | del(${source}[0].configMap.items)
other-key       | must be the policy of AIWorkload bot~must hold the policy of the guard | ${source}[0].configMap.items[0].key = "x"
other-name      | must be the policy of AIWorkload bot~must hold the policy of the guard | ${source}[0].configMap.name = "bot"
decoy           | must be the policy of AIWorkload bot~must hold the policy of the guard | .spec.volumes += [.spec.volumes[0] | .name = "v" | del(.projected.sources[1])] | ${source}[0].configMap.name = "remit-evil"
two-items       | must be the policy of AIWorkload bot~must hold the policy of the guard | ${source}[0].configMap.items += [{key: "x", path: "x"}]
item-path       | must be the policy of AIWorkload bot~must hold the policy of the guard | ${source}[0].configMap.items[0].path = "x"
token-path      | must be the policy of AIWorkload bot~must hold the policy of the guard | ${source}[1].serviceAccountToken.path = "x"
token-time      | must be the policy of AIWorkload bot~must hold the policy of the guard | ${source}[1].serviceAccountToken.expirationSeconds = 7200
third-source    | must be the policy of AIWorkload bot~must hold the policy of the guard | ${source} += [{secret: {name: "x"}}]
api-token       | must be the policy of AIWorkload bot~must hold the policy of the guard | del(${source}[1].serviceAccountToken.audience)
app-mounts      | are the guard.s own; take the mount out | .spec.containers[0].volumeMounts = [{name: "remit-policy", mountPath: "/x"}]
init-mounts     | are the guard.s own; take the mount out | .spec.initContainers += [.spec.containers[0] + {name: "init", volumeMounts: [{name: "remit-policy", mountPath: "/x"}]}]
app-token       | tokens for remit.dev/guard are for guards alone | .spec.volumes += [{name: "v", projected: {sources: [{serviceAccountToken: {audience: "remit.dev/guard", path: "t"}}]}}]
app-uid         | are kept for guards | .spec.containers[0].securityContext.runAsUser = 2000000007
app-gid         | are kept for guards | .spec.containers[0].securityContext.runAsGroup = 2000000008
init-uid        | are kept for guards | .spec.initContainers += [.spec.containers[0] + {name: "init"} | .securityContext.runAsUser = 2099999999]
pod-uid         | are kept for guards | .spec.securityContext.runAsUser = 2000000000
pod-gid         | are kept for guards | .spec.securityContext.runAsGroup = 2000000007
pod-group       | are kept for guards | .spec.securityContext.fsGroup = 2000000007
more-groups     | are kept for guards | .spec.securityContext.supplementalGroups = [7, 2000000007]
below           | pass | .spec.containers[0].securityContext.runAsUser = 1999999999
above           | pass | .spec.containers[0].securityContext.runAsUser = 2100000000
any-user        | $user | del(.spec.containers[0].securityContext.runAsUser)
init-any-user   | $user | .spec.initContainers += [.spec.containers[0] + {name: "init"} | del(.securityContext.runAsUser)]
short-digest    | $user | del(.spec.containers[0].securityContext.runAsUser) | .spec.containers[0].image = "bot@sha256:$(printf %063d 1)"
digest-amid     | $user | del(.spec.containers[0].securityContext.runAsUser) | .spec.containers[0].image = "bot@sha256:$(printf %064d 1)/x"
by-digest       | pass | del(.spec.containers[0].securityContext.runAsUser) | .spec.containers[0].image = "bot:1@sha256:$(printf %064d 1)"
user-of-pod     | pass | del(.spec.containers[0].securityContext.runAsUser) | .spec.securityContext.runAsUser = 1000
too-long        | $user | del(.spec.containers[0].securityContext.runAsUser) | .spec.containers[0].image = "x" * 1000000
too-many        | $user | .spec.containers += [range(100) as \$i | {name: "c\(\$i)", image: "x", securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}}}]
network         | joins a network | .metadata.annotations = {"k8s.v1.cni.cncf.io/networks": "x"}
default-network | joins a network | .metadata.annotations = {"v1.multus-cni.io/default-network": "x"}
annotated       | pass | .metadata.annotations = {a: "b"}
processes       | shares neither the node | .spec.shareProcessNamespace = true
user-namespace  | shares neither the node | .spec.hostUsers = false
host-network    | shares neither the node~Pod Security | .spec.hostNetwork = true
host-processes  | shares neither the node~Pod Security | .spec.hostPID = true
host-memory     | shares neither the node~Pod Security | .spec.hostIPC = true
CASES
  local trust='{name: "remit-trust", mountPath: "/x"}' memory='the volumes remit-trust and remit-ca are memory'
  judge "guarded, where TLS is looked into" $c "$inspecting" <<CASES
as-injected     | pass | .
read-twice      | pass | .spec.containers[0].volumeMounts += [$trust + {readOnly: true}]
app-writes      | the guard alone writes it | .spec.containers[0].volumeMounts[0].readOnly = false
app-writes-too  | the guard alone writes it | .spec.containers[0].volumeMounts += [$trust]
init-writes     | the guard alone writes it | .spec.initContainers += [.spec.containers[0] + {name: "init", volumeMounts: [$trust]}]
app-has-the-key | remit-ca are the guard.s own | .spec.containers[0].volumeMounts += [{name: "remit-ca", mountPath: "/x", readOnly: true}]
init-has-it     | remit-ca are the guard.s own | .spec.initContainers += [.spec.containers[0] + {name: "init", volumeMounts: [{name: "remit-ca", mountPath: "/x", readOnly: true}]}]
elsewhere       | must be a sidecar | $guard.args[3] = "--trust-store=/tmp"
key-elsewhere   | must be a sidecar | $guard.args[4] = "--ca=/var/run/remit/trust"
one-of-two      | must be a sidecar | del($guard.args[4])
more-arguments  | must be a sidecar | $guard.args += ["--x"]
not-told        | must mount the volume remit-policy~$memory | $guard.args |= .[:3]
not-mounted     | must mount the volume remit-policy | $guard.volumeMounts |= .[:1]
mounted-else    | must mount the volume remit-policy | $guard.volumeMounts[2].mountPath = "/var/run/remit/trust/ca"
exchanged       | must mount the volume remit-policy | $guard.volumeMounts[1].name = "remit-ca" | $guard.volumeMounts[2].name = "remit-trust"
part-of-it      | must mount the volume remit-policy | $guard.volumeMounts[2].subPath = "x"
on-disk         | $memory | del(.spec.volumes[2].emptyDir.medium)
another-kind    | $memory | .spec.volumes[1] = {name: "remit-trust", configMap: {name: "x"}}
CASES
  judge "its volumes, where nothing is looked into" $c "$guarded" <<CASES
trust           | $memory | .spec.volumes += [{name: "remit-trust", emptyDir: {medium: "Memory"}}]
key             | $memory | .spec.volumes += [{name: "remit-ca", emptyDir: {medium: "Memory"}}]
CASES
  judge "posing as guarded, not selected" $c "$plain" <<CASES
by-trust        | $own | .spec.volumes = [{name: "remit-trust", emptyDir: {}}]
by-key          | $own | .spec.volumes = [{name: "remit-ca", emptyDir: {}}]
by-volume       | $own | .spec.volumes = [{name: "remit-policy", emptyDir: {}}]
by-name         | $own | .spec.containers[0].name = "remit-guard"
by-init-name    | $own | .spec.initContainers = [.spec.containers[0] | .name = "remit-redirect"]
by-user         | are kept for guards | .spec.containers[0].securityContext.runAsUser = 2000000007
by-token        | tokens for remit.dev/guard are for guards alone | .spec.volumes = [{name: "v", projected: {sources: [{serviceAccountToken: {audience: "remit.dev/guard", path: "t"}}]}}]
CASES
  judge "guarded, in Observe" $c "$guarded" <<CASES
observed        | pass | $(for_workload observed)
other-policy    | must hold the policy of the guard's AIWorkload | $(for_workload observed) | ${source}[0].configMap.name = "remit-bot"
elsewhere       | must be a sidecar | $(for_workload observed) | $guard.args[2] |= sub("=[^/]+/"; "=$b/")
no-uid          | must be a sidecar | $(for_workload observed) | $guard.args[2] |= sub("/[0-9a-f-]+$"; "/1")
its-app-as-was  | pass | .metadata.labels = {app: "observed"} | .spec.shareProcessNamespace = true
guard-image     | must be as Remit injects them | .metadata.labels = {app: "observed"} | $guard.image = "evil"
network         | pass | $(for_workload observed) | .metadata.annotations = {"k8s.v1.cni.cncf.io/networks": "x"}
any-user        | pass | $(for_workload observed) | del(.spec.containers[0].securityContext.runAsUser)
CASES
}

running_pods() {
  local never='never change on a running pod' debug='an ephemeral container would run' leaves='would no longer select the pod' enters='would select the pod, which has no guard'
  local change=(kubectl -n $c patch pod --dry-run=server --type strategic)
  passes "a guarded pod" kubectl -n $c create -f - <<<"$guarded"
  passes "a guarded pod with an exception" kubectl -n $c create -f - <<<"$(jq "$(for_workload opened) | .metadata.name = \"opened\"" <<<"$inspecting")"
  passes "a guarded pod that no AIWorkload selects any more" kubectl -n $c create -f - <<<"$(jq '.metadata |= {name: "left", labels: {app: "left"}}' <<<"$guarded")"
  passes "a free pod" kubectl -n $c create -f - <<<"$(jq '.metadata.name = "free"' <<<"$plain")"
  # From before: an older guard, none at all.
  kubectl label namespace $c remit.dev/enrolled- >/dev/null
  until_true created "$(jq '.spec.hostPID = true' <<<"$plain")"
  kubectl -n $c create -f - <<<"$(jq --arg i "$image" '.metadata.name = "older" | .spec.initContainers[].image = $i + "-older"' <<<"$guarded")" >/dev/null
  kubectl -n $c create -f - <<<"$(jq '.metadata += {name: "bare", labels: {app: "bot"}, finalizers: ["example.com/x"]}' <<<"$plain")" >/dev/null
  kubectl label namespace $c remit.dev/enrolled=true >/dev/null
  passes "enrolled again" until_true not_created "$(jq '.spec.hostPID = true' <<<"$plain")"
  local init='{"spec":{"initContainers":[{"name":"%s","image":"%s"}]}}'
  for name in remit-redirect remit-guard; do
    refuses "changes the image of $name" "$never" "${change[@]}" bot -p "$(printf "$init" $name evil)"
    refuses "changes the image of an older $name" "$never" "${change[@]}" older -p "$(printf "$init" $name "$image")"
  done
  passes "changes the app's image" "${change[@]}" bot -p '{"spec":{"containers":[{"name":"app","image":"bot:2"}]}}'
  passes "annotates a pod with an older guard" "${change[@]}" older -p '{"metadata":{"annotations":{"a":"b"}}}'
  passes "labels it" "${change[@]}" older -p '{"metadata":{"labels":{"a":"b"}}}'
  passes "labels a pod without guard" "${change[@]}" bare -p '{"metadata":{"labels":{"a":"b"}}}'
  refuses "leaves" "$leaves" "${change[@]}" bot -p '{"metadata":{"labels":{"app":"x"}}}'
  refuses "leaves without labels" "$leaves" "${change[@]}" bot -p '{"metadata":{"labels":null}}'
  refuses "leaves through the status" "$leaves" "${change[@]}" bot --subresource=status -p '{"metadata":{"labels":{"app":"x"}}}'
  refuses "leaves without a guard" "$leaves" "${change[@]}" bare -p '{"metadata":{"labels":{"app":"x"}}}'
  for key in k8s.v1.cni.cncf.io/networks v1.multus-cni.io/default-network; do
    refuses "joins another network, $key" 'joins a network' "${change[@]}" bot -p '{"metadata":{"annotations":{"'$key'":"x"}}}'
    refuses "through the status, $key" 'joins a network' "${change[@]}" bot --subresource=status -p '{"metadata":{"annotations":{"'$key'":"x"}}}'
    passes "a pod that nothing selects, $key" "${change[@]}" free -p '{"metadata":{"annotations":{"'$key'":"x"}}}'
  done
  refuses "enters" "$enters" "${change[@]}" free -p '{"metadata":{"labels":{"app":"bot"}}}'
  refuses "enters by an expression" "$enters" "${change[@]}" free -p '{"metadata":{"labels":{"tier":"gold","ai":""}}}'
  passes "other labels" "${change[@]}" free -p '{"metadata":{"labels":{"tier":"gold"}}}'
  passes "the kubelet writes the status" "${change[@]}" bot --subresource=status -p '{"status":{"phase":"Running"}}'
  local container='{"spec":{"ephemeralContainers":[{"name":"d","image":"x","securityContext":{"runAsUser":1000,"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}]}}'
  for pod in bot older bare; do refuses "debugs $pod" "$debug" "${change[@]}" $pod --subresource=ephemeralcontainers -p "$container"; done
  with() { jq -c ".spec.ephemeralContainers[0] *= $1" <<<"$container"; }
  local guards='must not enter the guard, mount its volume'
  refuses "debugs it as a guard's user" "$guards" "${change[@]}" free --subresource=ephemeralcontainers -p "$(with '{securityContext: {runAsUser: 2000000007}}')"
  refuses "or group" "$guards" "${change[@]}" free --subresource=ephemeralcontainers -p "$(with '{securityContext: {runAsGroup: 2000000007}}')"
  refuses "debugs the guard" "$guards" "${change[@]}" opened --subresource=ephemeralcontainers -p "$(with '{targetContainerName: "remit-guard"}')"
  refuses "mounts what the guard has" "$guards" "${change[@]}" opened --subresource=ephemeralcontainers \
    -p "$(with '{volumeMounts: [{name: "remit-policy", mountPath: "/x"}]}')"
  refuses "mounts what the app trusts, to write it" "$guards" "${change[@]}" opened --subresource=ephemeralcontainers \
    -p "$(with '{volumeMounts: [{name: "remit-trust", mountPath: "/x"}]}')"
  refuses "mounts the key behind it" "$guards" "${change[@]}" opened --subresource=ephemeralcontainers \
    -p "$(with '{volumeMounts: [{name: "remit-ca", mountPath: "/x", readOnly: true}]}')"
  refuses "debugs with any user where there is an exception" 'must name its user' "${change[@]}" opened --subresource=ephemeralcontainers -p "$(jq -c 'del(.spec.ephemeralContainers[0].securityContext.runAsUser)' <<<"$container")"
  passes "debugs where there is an exception" "${change[@]}" opened --subresource=ephemeralcontainers -p "$container"
  passes "debugs a free pod" "${change[@]}" free --subresource=ephemeralcontainers -p "$container"
  refuses "debugs it with powers" 'Pod Security restricted: every container must set allowPrivilegeEscalation' "${change[@]}" free --subresource=ephemeralcontainers -p "$(jq -c '.spec.ephemeralContainers[0].securityContext.allowPrivilegeEscalation = true' <<<"$container")"
  local binding='{"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bot", "labels": %s, "annotations": %s}, "target": {"apiVersion": "v1", "kind": "Node", "name": "n"}}'
  bind() { printf "$binding" "$1" "${3:-{\}}" | jq -c . | kubectl create --raw "/api/v1/namespaces/$c/$2?dryRun=All" -f -; }
  for path in pods/bot/binding bindings; do
    refuses "binds with labels, $path" "a binding would change the pod's labels" bind '{"app": "x"}' $path
    for key in k8s.v1.cni.cncf.io/networks v1.multus-cni.io/default-network seccomp.security.alpha.kubernetes.io/pod container.{seccomp.security.alpha,apparmor.security.beta}.kubernetes.io/app; do
      refuses "binds with annotations, $path, $key" "a binding would join the pod to a network" bind '{}' $path '{"'$key'": "unconfined"}'
    done
    passes "binds, $path" bind '{"topology.kubernetes.io/zone": "a"}' $path '{"a": "b"}'
  done
  local person=(--as remit-chart-edit)
  for name in remit-redirect remit-guard; do
    refuses "enters $name" "whoever enters the guard's container" kubectl "${person[@]}" -n $c exec bot -c $name -- true
    refuses "attaches to $name" "whoever enters the guard's container" kubectl "${person[@]}" -n $c attach bot -c $name
  done
  # There is no node: this far they get.
  refuses "enters the app" 'does not have a host assigned' kubectl "${person[@]}" -n $c exec bot -c app -- true
  refuses "attaches to the app" 'does not have a host assigned' kubectl "${person[@]}" -n $c attach bot -c app
  refuses "enters the guard as an administrator" "whoever enters the guard's container" kubectl -n $c exec bot -c remit-guard -- true
  passes "a finalizer goes" kubectl -n $c patch pod bare --type merge -p '{"metadata":{"finalizers":null}}'
  passes "a pod with an older guard goes" kubectl -n $c delete pod older --timeout=30s
}

guard_tokens() {
  local alone='tokens for remit.dev/guard are for guards alone'
  for namespace in $c default; do
    refuses "a token of a guard, in $namespace" "$alone" kubectl -n $namespace create token default --audience remit.dev/guard
    refuses "among others, in $namespace" "$alone" kubectl -n $namespace create token default --audience vault --audience remit.dev/guard
  done
  refuses "bound to a pod" "$alone" kubectl -n $c create token default --audience remit.dev/guard --bound-object-kind Pod --bound-object-name bot
  passes "another audience" kubectl -n $c create token default --audience vault
  passes "no audience" kubectl -n $c create token default
  passes "the kubelet fetches it" kubectl -n $c create token default --audience remit.dev/guard --as kubelet --as-group system:nodes --as-group system:masters
}

# Upstream's own fixtures of Pod Security, each the level's least pod with one thing changed.
pod_security() { # LEVEL
  local fixtures result
  fixtures=$(cd "$here/../cluster/modules/kube" && go mod download -json k8s.io/pod-security-admission | jq -r .Dir)/test/testdata
  for result in pass fail; do
    # Names of fixtures are no names of pods.
    kubectl create --dry-run=client --validate=false -o json -f "$fixtures/$1/v1.34/$result" |
      jq -s '{apiVersion: "v1", kind: "List", items: [.[] | if .kind == "List" then .items[] else . end | .metadata |= del(.namespace) | .metadata.name |= gsub("_"; "-")]}' | kubectl create --dry-run=server --validate=false -n $c -f - >"$scratch/passed" 2>"$scratch/refused" || true
    local wanted
    wanted=$(find "$fixtures/$1/v1.34/$result" -name '*.yaml' | wc -l)
    checks=$((checks + wanted))
    [ "$wanted" -gt 10 ] || fail "$1: no fixtures"
    if [ $result = pass ]; then
      [ "$(grep -c 'created (server dry run)' "$scratch/passed")" = "$wanted" ] || fail "$1: refused: $(grep Error "$scratch/refused" | head -3)"
    else
      [ "$(grep -c "denied request: Pod Security $1" "$scratch/refused")" = "$wanted" ] || fail "$1: let pass, or refused by another rule: $(cut -c1-200 "$scratch/passed" | head -3; grep Error "$scratch/refused" | grep -v 'Pod Security' | head -3)"
    fi
  done
}
# The one container that is excepted: as ours, or not at all.
the_redirect() {
  local redirect=.spec.initContainers[0] refused='Pod Security restricted'
  # Alone: the other policy asks for the same.
  kubectl delete validatingadmissionpolicybinding remit-guards >/dev/null
  passes "the other policy is gone" until_true created "$(jq '.spec.containers[0].securityContext.runAsUser = 2000000000' <<<"$plain")"
  judge "the redirect" $c "$(jq '.metadata.labels = {app: "other"}' <<<"$guarded")" <<CASES
ours          | pass | .
other-name    | $refused: every container must drop ALL | $redirect.name = "redirect"
other-image   | $refused: every container must drop ALL | $redirect.image += "1"
command       | $refused: every container must drop ALL | $redirect.command = ["sh"]
arguments     | $refused: every container must drop ALL | $redirect.args = ["redirect", "--uid=1", "--gid=2000000008"]
third         | $refused: every container must drop ALL | $redirect.args[2] = "--gid=0"
more          | $refused: every container must drop ALL | $redirect.args += ["--x"]
other-word    | $refused: every container must drop ALL | $redirect.args[0] = "run"
environment   | $refused: every container must drop ALL | $redirect.env = [{name: "A", value: "b"}]
environments  | $refused: every container must drop ALL | $redirect.envFrom = [{configMapRef: {name: "x"}}]
lifecycle     | $refused: every container must drop ALL | $redirect.lifecycle = {postStart: {exec: {command: ["sh"]}}} | $redirect.restartPolicy = "Always"
sidecar       | $refused: every container must drop ALL | $redirect.restartPolicy = "Always"
adds          | $refused: every container must drop ALL | $redirect.securityContext.capabilities.add = ["NET_RAW"]
adds-more     | $refused: every container must drop ALL | $redirect.securityContext.capabilities.add += ["NET_RAW"]
keeps         | $refused: every container must drop ALL | $redirect.securityContext.capabilities.drop = ["NET_RAW"]
privileged    | $refused: no container may be privileged | $redirect.securityContext.privileged = true | del($redirect.securityContext.allowPrivilegeEscalation)
unconfined    | $refused: the pod or every container must set seccompProfile | $redirect.securityContext.seccompProfile.type = "Unconfined"
not-first     | $refused: every container must drop ALL | .spec.initContainers |= [.[1], .[0]]
in-containers | $refused: every container must drop ALL | .spec.containers += [$redirect] | del($redirect)
guard-as-root | $refused: runAsUser must not be 0 | .spec.initContainers[1].securityContext.runAsUser = 0
pod-as-root   | $refused: the pod or every container must set runAsNonRoot | .spec.securityContext.runAsNonRoot = false | .spec.containers[].securityContext.runAsNonRoot = true
pod-open      | $refused: the pod or every container must set seccompProfile | .spec.securityContext.seccompProfile.type = "Unconfined" | .spec.containers[].securityContext.seccompProfile.type = "RuntimeDefault"
app-too       | $refused: every container must drop ALL | .spec.containers[0].securityContext.capabilities.add = ["NET_ADMIN"]
CASES
}

# As if somebody had deleted their configurations: nobody answers for them here.
without_webhooks() {
  kubectl delete mutatingwebhookconfiguration remit-inject --ignore-not-found >/dev/null
  kubectl delete validatingwebhookconfiguration remit-pods --ignore-not-found >/dev/null
}

pods() { # HELM
  without_webhooks
  scratch=$(mktemp -d)
  kubectl create namespace $c >/dev/null
  kubectl label namespace $c remit.dev/enrolled=true >/dev/null
  until_true kubectl -n $c get serviceaccount default
  local host
  host=$(jq '.spec.hostPID = true' <<<"$plain")
  passes "the policies act" until_true not_created "$host"
  guarded_pods
  running_pods
  guard_tokens
  pod_security restricted
  the_redirect
  lax=$(jq 'del(.spec.securityContext)' <<<"$plain")
  passes "a pod that names no user is refused" not_created "$lax"
  kubectl label namespace $c remit.dev/pod-security=warn >/dev/null
  passes "and only warned of where the namespace says so" until_true created "$lax"
  kubectl label namespace $c remit.dev/pod-security- >/dev/null
  passes "and refused again" until_true not_created "$lax"
  # Where they never act, whatever the label says.
  for namespace in kube-system "$release"; do
    until_true kubectl -n "$namespace" get serviceaccount default
    kubectl label namespace "$namespace" remit.dev/enrolled=true >/dev/null
    judge "$namespace" "$namespace" "$host" <<<'host | pass'
    kubectl label namespace "$namespace" remit.dev/enrolled- >/dev/null
  done
  passes "Baseline instead" "$1" upgrade remit-chart "$chart" --namespace "$release" --reuse-values --set podSecurity=Baseline
  without_webhooks
  passes "it is in force" until_true created "$(jq 'del(.spec.securityContext)' <<<"$plain")"
  pod_security baseline
  passes "remit-restricted-pods has no type errors" until_true test "$(kubectl get validatingadmissionpolicy remit-restricted-pods -o json | jq -c '.status.typeChecking')" = '{}'
  passes "or none" "$1" upgrade remit-chart "$chart" --namespace "$release" --reuse-values --set podSecurity=None
  without_webhooks
  passes "it is gone" until_true created "$host"
  let_go
  passes "a namespace goes with guarded pods in it" kubectl delete namespace $c --timeout=60s
  rm -rf "$scratch"
}
