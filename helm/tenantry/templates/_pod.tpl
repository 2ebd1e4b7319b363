{{/*
The pod of every process: what is common to all, and the secrets that it is given, and no others.

Takes a dict of:
  root            $
  component       label and name of the container: api, worker, provisioner, migrate, …
  settings        the component's part of the values: resources, nodeSelector, tolerations, affinity, priorityClassName,
                  podLabels, podAnnotations, topologySpreadConstraints, extraEnv, extraVolumes, extraVolumeMounts,
                  tmp.sizeLimit; any may be missing
  args            list: the command, after `tenantry`
  uses            list of the secrets that the process gets (tenantry.secretItems), and "storage" for archives' place
  env             list of more variables
  hook            true where the pod runs before the release's other objects are there: its settings are written out
                  and not read from the ConfigMap, and secrets and account are the hook's
  restartPolicy   Never for Jobs; left out: Always
  graceSeconds    terminationGracePeriodSeconds
  container       map of more fields of the container: ports, probes, lifecycle
  volumes, volumeMounts   lists of more
  initContainers  list of dicts: name, args; they get the same variables and volumes
The result is the content of a `template:`.
*/}}
{{- define "tenantry.pod" -}}
{{- $settings := .settings | default dict -}}
{{- $uses := .uses | default list -}}
metadata:
  labels:
    {{- merge (dict) (include "tenantry.podLabels" (dict "root" .root "component" .component) | fromYaml) ($settings.podLabels | default dict) | toYaml | nindent 4 }}
  annotations:
    {{- if not .hook }}
    checksum/config: {{ include "tenantry.configData" .root | sha256sum }}
    checksum/secrets: {{ include "tenantry.secretsChecksum" (dict "root" .root "uses" $uses) }}
    {{- end }}
    kubectl.kubernetes.io/default-container: {{ .component }}
    {{- with $settings.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  serviceAccountName: {{ include (ternary "tenantry.hookAccountName" "tenantry.serviceAccountName" (default false .hook)) .root }}
  automountServiceAccountToken: false
  # Kubernetes' variables for Services begin with TENANTRY_ for a Service of that name.
  enableServiceLinks: false
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    {{- include "tenantry.podSecurityContext" .root | nindent 4 }}
  {{- with .graceSeconds }}
  terminationGracePeriodSeconds: {{ . }}
  {{- end }}
  {{- with $settings.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $settings.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if hasKey $settings "topologySpreadConstraints" }}
  topologySpreadConstraints:
    {{- if $settings.topologySpreadConstraints }}
    {{- toYaml $settings.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      # As far as possible: a node that is away is not to keep pods from starting.
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "tenantry.selectorLabels" (dict "root" $.root "component" $.component) | nindent 10 }}
      # Of each release by itself, else the old pods push the new ones aside.
      matchLabelKeys: [pod-template-hash]
    {{- end }}
    {{- end }}
  {{- end }}
  {{- with .initContainers }}
  initContainers:
    {{- range . }}
    - name: {{ .name }}
      args:
        {{- toYaml .args | nindent 8 }}
      {{- include "tenantry.containerBasics" (dict "pod" $ "settings" $settings "uses" $uses) | nindent 6 }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .component }}
      args:
        {{- toYaml .args | nindent 8 }}
      {{- include "tenantry.containerBasics" (dict "pod" . "settings" $settings "uses" $uses) | nindent 6 }}
      {{- with .container }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: {{ dig "tmp" "sizeLimit" "1Gi" $settings }}
    {{- range $uses }}
    {{- $ref := include "tenantry.secretRef" (dict "root" $.root "item" . "hook" $.hook) | fromYaml }}
    {{- $file := include "tenantry.secretFile" . | fromYaml }}
    {{- if and $file $ref }}
    - name: {{ kebabcase . }}
      secret:
        secretName: {{ $ref.name }}
        defaultMode: 0440
        items:
          - key: {{ $ref.key }}
            path: {{ $file.file }}
    {{- end }}
    {{- end }}
    {{- if and (has "storage" $uses) .root.Values.storage.volume.enabled }}
    - name: storage
      persistentVolumeClaim:
        claimName: {{ .root.Values.storage.volume.existingClaim | default (printf "%s-storage" (include "tenantry.fullname" .root)) }}
    {{- end }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $settings.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* What all containers of a pod have. Takes (dict "pod" <the pod's dict> "settings" … "uses" …). */}}
{{- define "tenantry.containerBasics" -}}
{{- $root := .pod.root -}}
image: {{ include "tenantry.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  {{- include "tenantry.containerSecurityContext" $root | nindent 2 }}
{{- with .settings.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not .pod.hook }}
envFrom:
  - configMapRef:
      name: {{ include "tenantry.fullname" $root }}-config
{{- end }}
env:
  - name: TENANTRY_HOME
    value: /tmp/tenantry
  {{- if .pod.hook }}
  {{- range $name, $value := include "tenantry.configData" $root | fromYaml }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
  {{- end }}
  {{- range .uses }}
  {{- $ref := include "tenantry.secretRef" (dict "root" $root "item" . "hook" $.pod.hook) | fromYaml }}
  {{- $file := include "tenantry.secretFile" . | fromYaml }}
  {{- if and $ref $file }}
  - name: {{ $file.variable }}
    value: {{ printf "%s/%s" $file.folder $file.file }}
  {{- else if $ref }}
  - name: {{ include "tenantry.secretVariable" . }}
    valueFrom:
      secretKeyRef:
        name: {{ $ref.name }}
        key: {{ $ref.key }}
  {{- else if and (eq . "redisUrl") $root.Values.valkey.enabled }}
  {{- include "tenantry.valkeyEnv" $root | nindent 2 }}
  {{- end }}
  {{- end }}
  {{- if has "storage" .uses }}
  {{- include "tenantry.storageEnv" $root | nindent 2 }}
  {{- end }}
  {{- with .pod.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .settings.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- range .uses }}
  {{- $ref := include "tenantry.secretRef" (dict "root" $root "item" . "hook" $.pod.hook) | fromYaml }}
  {{- $file := include "tenantry.secretFile" . | fromYaml }}
  {{- if and $file $ref }}
  - name: {{ kebabcase . }}
    mountPath: {{ $file.folder }}
    readOnly: true
  {{- end }}
  {{- end }}
  {{- if and (has "storage" .uses) $root.Values.storage.volume.enabled }}
  - name: storage
    mountPath: /var/lib/tenantry/storage
  {{- end }}
  {{- with .pod.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .settings.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Where archives are kept; the bucket's key comes with the secrets. */}}
{{- define "tenantry.storageEnv" -}}
{{- $storage := .Values.storage -}}
- name: TENANTRY_STORAGE_URL
  value: {{ $storage.volume.enabled | ternary "file:///var/lib/tenantry/storage" $storage.url | quote }}
{{- if not $storage.volume.enabled }}
{{- with $storage.s3.endpoint }}
- name: TENANTRY_STORAGE_S3_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with $storage.s3.region }}
- name: TENANTRY_STORAGE_S3_REGION
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Pod Security Standards, "restricted". */}}
{{- define "tenantry.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.security.runAsUser }}
runAsUser: {{ . | int64 }}
runAsGroup: {{ . | int64 }}
{{- end }}
{{- with .Values.security.fsGroup }}
fsGroup: {{ . | int64 }}
# A large volume is not gone through at each start.
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "tenantry.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The ConfigMap's data: every setting that is no secret, as YAML. */}}
{{- define "tenantry.configData" -}}
{{- $data := dict -}}
{{- range $name, $value := .Values.config -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $data (printf "TENANTRY_%s" $name) (include "tenantry.scalar" $value) -}}
{{- end -}}
{{- end -}}
{{- toYaml $data -}}
{{- end -}}
