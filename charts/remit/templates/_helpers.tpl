{{/* Names are fixed, not made from the release's name: there is one Remit in a cluster, and its webhooks, policies and
     custom resources are the cluster's. */}}

{{- define "remit.chart" -}}
{{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Labels of every object; call with (list $ "component"). */}}
{{- define "remit.labels" -}}
{{- $ := index . 0 -}}
helm.sh/chart: {{ include "remit.chart" $ }}
{{ include "remit.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: remit
app.kubernetes.io/managed-by: {{ $.Release.Service }}
{{- with $.Values.extraLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "remit.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: remit
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "remit.image" -}}
{{- include "remit.reference" (list $ .Values.image) -}}
{{- end }}
{{- define "remit.guardImage" -}}
{{- include "remit.reference" (list $ .Values.guard.image) -}}
{{- end }}
{{- define "remit.reference" -}}
{{- $ := index . 0 -}}
{{- with index . 1 -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* User names of the operator, of the account that writes the guards' policies, and of the hook that uninstalls it. */}}
{{- define "remit.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:remit
{{- end }}
{{- define "remit.policiesUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:remit-policies
{{- end }}
{{- define "remit.uninstallUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:remit-uninstall
{{- end }}

{{/* The controllers that delete whatever lies in a namespace that goes, or belongs to an owner that went. The second form
     is theirs where the controller manager runs without an account for each controller. */}}
{{- define "remit.deleters" -}}
['system:serviceaccount:kube-system:namespace-controller', 'system:serviceaccount:kube-system:generic-garbage-collector', 'system:kube-controller-manager']
{{- end }}

{{/* Where pods are judged: enrolled namespaces, without those that must come up whatever happens. */}}
{{- define "remit.enrolledNamespaces" -}}
matchLabels: {remit.dev/enrolled: "true"}
matchExpressions:
  - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, {{ .Release.Namespace }}]}
{{- end }}

{{/* Security contexts of every pod here: the Pod Security level "restricted". */}}
{{- define "remit.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "remit.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "remit.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The operator's configuration file: ARCHITECTURE.md, "The operator". */}}
{{- define "remit.config" -}}
{{- if has (int .Values.guard.channel.port) (list (int .Values.http.port) (int .Values.webhook.port)) -}}
{{- fail "guard.channel.port: must differ from http.port and webhook.port" -}}
{{- end -}}
{{- if eq (int .Values.http.port) (int .Values.webhook.port) -}}
{{- fail "http.port: must differ from webhook.port" -}}
{{- end -}}
namespace: {{ .Release.Namespace }}
serviceAccount: remit
policiesAccount: remit-policies
deployment: remit-operator
http: {port: {{ .Values.http.port }}}
webhook:
  port: {{ .Values.webhook.port }}
  service: remit-webhook
  configurations: [remit-scope, remit-recorder, remit-pods]
  mutatingConfigurations: [remit-inject]
{{- if eq .Values.webhook.certificate.type "CertManager" }}
  certificate: {type: Files, directory: /etc/remit/tls}
{{- else }}
  certificate: {type: SelfSigned, secretName: remit-webhook-tls}
{{- end }}
lease: {name: remit-operator, durationSeconds: {{ .Values.lease.durationSeconds }}}
shutdownSeconds: {{ .Values.shutdownSeconds }}
appliers: {{ toJson .Values.appliers }}
cluster: {podRanges: {{ toJson .Values.cluster.podRanges }}, serviceRanges: {{ toJson .Values.cluster.serviceRanges }}, otherRanges: {{ toJson .Values.cluster.otherRanges }}, domain: {{ .Values.cluster.domain | quote }}}
dns: {services: {{ toJson .Values.dns.services }}, addresses: {{ toJson .Values.dns.addresses }}}
guard:
  image: {{ include "remit.guardImage" . | quote }}
  imagePullPolicy: {{ .Values.guard.image.pullPolicy }}
  cpuRequest: {{ .Values.guard.resources.cpuRequest | quote }}
  memoryRequest: {{ .Values.guard.resources.memoryRequest | quote }}
  memoryLimit: {{ .Values.guard.resources.memoryLimit | quote }}
  allowedDevices: {{ toJson .Values.guard.allowedDevices }}
  channel: {service: remit-guards, port: {{ .Values.guard.channel.port }}}
  {{- /* Absent where the values of an older release are reused. */}}
  roots: {public: {{ dig "roots" "public" true .Values.guard }}, certificates: {{ dig "roots" "certificates" "" .Values.guard | toJson }}}
  proxy: {addresses: {{ dig "proxy" "addresses" list .Values.guard | toJson }}}
{{- end }}

{{/* Stops the rendering when grantable.rules hold what may never be granted. */}}
{{- define "remit.checkGrantable" -}}
{{- $rows := (.Files.Get "files/never-grantable.yaml" | fromYaml).rows -}}
{{- $reads := list "get" "list" "watch" -}}
{{- range $i, $rule := .Values.grantable.rules -}}
{{- range $group := $rule.apiGroups -}}
{{- range $resource := $rule.resources -}}
{{- range $row := $rows -}}
{{- $matches := or (eq $row.resource "*") (eq $row.resource $resource) -}}
{{- if and (hasSuffix "/*" $row.resource) (hasPrefix (trimSuffix "*" $row.resource) $resource) -}}
{{- $matches = true -}}
{{- end -}}
{{- if and $matches (eq $row.group $group) -}}
{{- range $verb := $rule.verbs -}}
{{- if or $row.readsToo (not (has $verb $reads)) -}}
{{- fail (printf "grantable.rules[%d]: %s %s in group %q can never be granted: %s" $i $verb $resource $group $row.why) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Annotations of the parts of the hook that uninstalls; call with the weight. */}}
{{- define "remit.uninstallHook" -}}
annotations:
  helm.sh/hook: pre-delete
  helm.sh/hook-weight: {{ . | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- define "remit.testHook" -}}
annotations:
  helm.sh/hook: test
  helm.sh/hook-weight: {{ . | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
