{{/* The parts that are optional: PgBouncer, Valkey, and what they have in common. */}}

{{/* Takes (dict "image" .Values.valkey.image). */}}
{{- define "tenantry.partImage" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository .image.tag -}}
{{- end -}}
{{- end -}}

{{/* Pod Security Standards, "restricted", with the user of another image. Takes (dict "user" 999). */}}
{{- define "tenantry.partSecurityContext" -}}
runAsNonRoot: true
{{- with .user }}
runAsUser: {{ . | int64 }}
runAsGroup: {{ . | int64 }}
fsGroup: {{ . | int64 }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What the pods of a part have in common with each other and not with the processes'.
     Takes (dict "root" $ "settings" .Values.valkey). */}}
{{- define "tenantry.partPod" -}}
serviceAccountName: {{ include "tenantry.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "tenantry.partSecurityContext" (dict "user" .settings.runAsUser) | nindent 2 }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" }}
{{- with (get $.settings $name) }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A selector of the pods of several components. Takes (dict "root" $ "components" (list …)). */}}
{{- define "tenantry.anyOf" -}}
matchLabels:
  app.kubernetes.io/name: {{ include "tenantry.name" .root }}
  app.kubernetes.io/instance: {{ .root.Release.Name }}
matchExpressions:
  - key: app.kubernetes.io/component
    operator: In
    values:
      {{- toYaml .components | nindent 6 }}
{{- end -}}

{{- define "tenantry.valkeyName" -}}
{{- printf "%s-valkey" (include "tenantry.fullname" .) -}}
{{- end -}}

{{- define "tenantry.pgbouncerName" -}}
{{- printf "%s-pgbouncer" (include "tenantry.fullname" .) -}}
{{- end -}}

{{/* The address of this release's Valkey, as variables: Kubernetes puts the first into the second. */}}
{{- define "tenantry.valkeyEnv" -}}
{{- $ref := include "tenantry.secretRef" (dict "root" . "item" "valkeyPassword") | fromYaml -}}
- name: VALKEY_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $ref.name }}
      key: {{ $ref.key }}
- name: TENANTRY_REDIS_URL
  value: redis://:$(VALKEY_PASSWORD)@{{ include "tenantry.valkeyName" . }}:6379/0
{{- end -}}

{{/* Where backups are kept: for their pods alone, since no other has the keys without which it is refused. */}}
{{- define "tenantry.backupEnv" -}}
{{- range $name, $value := dict "URL" .Values.backups.url "S3_ENDPOINT" .Values.backups.s3.endpoint "S3_REGION" .Values.backups.s3.region }}
{{- with $value }}
- name: TENANTRY_BACKUP_{{ $name }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What is wrong with the values of these parts, as a YAML list. */}}
{{- define "tenantry.partProblems" -}}
{{- $problems := list -}}
{{- if .Values.valkey.enabled -}}
{{- if not (include "tenantry.secretRef" (dict "root" $ "item" "valkeyPassword")) -}}
{{- $problems = append $problems "secrets.valkeyPassword: expected the password of Valkey, as existingSecret, remoteRef or value, since valkey is enabled" -}}
{{- end -}}
{{- if include "tenantry.secretRef" (dict "root" $ "item" "redisUrl") -}}
{{- $problems = append $problems "valkey.enabled: expected either secrets.redisUrl or valkey.enabled, and both are given" -}}
{{- end -}}
{{- with .Values.secrets.valkeyPassword.value -}}
{{- if not (regexMatch "^[A-Za-z0-9]+$" .) -}}
{{- $problems = append $problems "secrets.valkeyPassword: expected letters and digits alone, since it becomes part of an address" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.pgbouncer.enabled -}}
{{- $name := include "tenantry.pgbouncerName" . -}}
{{- if not (include "tenantry.secretRef" (dict "root" $ "item" "pgbouncerUsers")) -}}
{{- $problems = append $problems "secrets.pgbouncerUsers: expected the file userlist.txt, as existingSecret, remoteRef or value, since pgbouncer is enabled" -}}
{{- end -}}
{{- if not .Values.pgbouncer.database.host -}}
{{- $problems = append $problems "pgbouncer.database.host: expected the host of PostgreSQL" -}}
{{- end -}}
{{- if and (hasPrefix "verify" .Values.pgbouncer.database.tls) (not .Values.pgbouncer.database.caConfigMap) -}}
{{- $problems = append $problems (printf "pgbouncer.database.caConfigMap: expected the authority of PostgreSQL's certificate, since tls is %s" .Values.pgbouncer.database.tls) -}}
{{- end -}}
{{- with .Values.secrets.databaseUrl.value -}}
{{- if not (contains $name .) -}}
{{- $problems = append $problems (printf "secrets.databaseUrl: expected PgBouncer's address, with the host %s, since pgbouncer is enabled" $name) -}}
{{- end -}}
{{- end -}}
{{- with .Values.secrets.databaseOwnerUrl.value -}}
{{- if contains $name . -}}
{{- $problems = append $problems "secrets.databaseOwnerUrl: expected PostgreSQL's own address, and not PgBouncer's" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if or .Values.cronJobs.backup.enabled .Values.cronJobs.backupVerify.enabled .Values.cronJobs.backupPrune.enabled -}}
{{- if not .Values.backups.url -}}
{{- $problems = append $problems "backups.url: expected s3://bucket/prefix, since a CronJob of backups is enabled" -}}
{{- end -}}
{{- if not (include "tenantry.secretRef" (dict "root" $ "item" "backupKeys")) -}}
{{- $problems = append $problems "secrets.backupKeys: expected the keys that encrypt backups, as existingSecret, remoteRef or value, since a CronJob of backups is enabled" -}}
{{- end -}}
{{- end -}}
{{- $key := include "tenantry.secretRef" (dict "root" $ "item" "backupAccessKeyId") -}}
{{- $secretKey := include "tenantry.secretRef" (dict "root" $ "item" "backupSecretAccessKey") -}}
{{- if ne (empty $key) (empty $secretKey) -}}
{{- $problems = append $problems "secrets: expected backupAccessKeyId and backupSecretAccessKey together, or neither" -}}
{{- end -}}
{{- toYaml $problems -}}
{{- end -}}

{{/* Valkey's configuration. What is in it may be lost without losing data, but not in silence. */}}
{{- define "tenantry.valkeyConf" -}}
port 6379
dir /data
# A full memory is an error, and not a job, or a count of guesses, that is gone.
maxmemory {{ .Values.valkey.maxMemory | int64 }}mb
maxmemory-policy noeviction
# Jobs that were relayed, and counters of use, outlive a restart; at most a second of them is lost.
appendonly yes
appendfsync everysec
save ""
# A client that is gone without a word is noticed before its block of a queue matters.
tcp-keepalive 60
{{- end -}}

{{/* PgBouncer's configuration; docs/scale.md says why each of these. */}}
{{- define "tenantry.pgbouncerIni" -}}
{{- $settings := .Values.pgbouncer -}}
{{- $database := $settings.database -}}
[databases]
{{ $database.name }} = host={{ $database.host }} port={{ $database.port | int64 }}

[pgbouncer]
listen_addr = *
listen_port = {{ $settings.port | int64 }}
; No socket beside the port: nobody else is in the container.
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /run/tenantry/pgbouncer/userlist.txt
pool_mode = transaction
default_pool_size = {{ $settings.poolSize | int64 }}
max_client_conn = {{ $settings.maxClientConnections | int64 }}
query_wait_timeout = {{ $settings.queryWaitTimeout | int64 }}
server_lifetime = {{ $settings.serverLifetime | int64 }}
max_prepared_statements = {{ $settings.maxPreparedStatements | int64 }}
server_tls_sslmode = {{ $database.tls }}
{{- if $database.caConfigMap }}
server_tls_ca_file = /run/tenantry/postgresql/ca.crt
{{- end }}
{{- end -}}
