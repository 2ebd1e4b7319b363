{{/* Rules of NetworkPolicies. */}}

{{/* One rule of egress. Takes (dict "to" (list …) "ports" (list …)), and "protocols" (list …), TCP where left out. */}}
{{- define "tenantry.egressRule" -}}
{{- $protocols := .protocols | default (list "TCP") -}}
- ports:
    {{- range $port := .ports }}
    {{- range $protocol := $protocols }}
    - port: {{ $port | int64 }}
      protocol: {{ $protocol }}
    {{- end }}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Pods of this release, as a peer. Takes (dict "root" $ "component" "valkey"). */}}
{{- define "tenantry.peer" -}}
- podSelector:
    matchLabels:
      {{- include "tenantry.selectorLabels" . | nindent 6 }}
{{- end -}}

{{/* Rules of egress by what is to be reached: postgresql, pgbouncer, redis, mail, storage, tracing, internet.
     Takes (dict "root" $ "needs" (list …)). Those of things that are not there are left out. */}}
{{- define "tenantry.egress" -}}
{{- $root := .root -}}
{{- $policy := $root.Values.networkPolicy -}}
{{- range .needs }}
{{- if eq . "postgresql" }}
{{ include "tenantry.egressRule" $policy.postgresql }}
{{- else if eq . "pgbouncer" }}
{{- if $root.Values.pgbouncer.enabled }}
{{ include "tenantry.egressRule" (dict "to" (include "tenantry.peer" (dict "root" $root "component" "pgbouncer") | fromYamlArray) "ports" (list $root.Values.pgbouncer.port)) }}
{{- end }}
{{- else if eq . "redis" }}
{{- if $root.Values.valkey.enabled }}
{{ include "tenantry.egressRule" (dict "to" (include "tenantry.peer" (dict "root" $root "component" "valkey") | fromYamlArray) "ports" (list 6379)) }}
{{- else }}
{{ include "tenantry.egressRule" $policy.redis }}
{{- end }}
{{- else if eq . "mail" }}
{{- if include "tenantry.secretRef" (dict "root" $root "item" "mailUrl") }}
{{ include "tenantry.egressRule" $policy.mail }}
{{- end }}
{{- else if eq . "storage" }}
{{- if not $root.Values.storage.volume.enabled }}
{{ include "tenantry.egressRule" $policy.storage }}
{{- end }}
{{- else if eq . "tracing" }}
{{- if get $root.Values.config "TRACING_URL" }}
{{ include "tenantry.egressRule" $policy.tracing }}
{{- end }}
{{- else if eq . "internet" }}
{{- if $policy.internet.enabled }}
{{ include "tenantry.egressRule" (dict "ports" $policy.internet.ports "to" (list
  (dict "ipBlock" (dict "cidr" "0.0.0.0/0" "except" $policy.internet.except))
  (dict "ipBlock" (dict "cidr" "2000::/3" "except" $policy.internet.exceptIPv6))
)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A whole NetworkPolicy of one component. Takes (dict "root" $ "component" "api" "needs" (list …)), and may take
     "ingress" (list of rules), "extra" (list of rules of egress), "annotations". */}}
{{- define "tenantry.networkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
{{ include "tenantry.metadata" (dict "root" .root "component" .component "name" (printf "%s-%s" (include "tenantry.fullname" .root) .component) "annotations" .annotations) }}
spec:
  podSelector:
    matchLabels:
      {{- include "tenantry.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- with .ingress }}
  ingress:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  egress:
    {{- include "tenantry.egressRule" (dict "to" .root.Values.networkPolicy.dns.to "ports" .root.Values.networkPolicy.dns.ports "protocols" (list "UDP" "TCP")) | nindent 4 }}
    {{- include "tenantry.egress" . | trim | nindent 4 }}
    {{- with .extra }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
