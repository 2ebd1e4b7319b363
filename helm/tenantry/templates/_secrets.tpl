{{/* Which secret is where. */}}

{{/* The names of all, in one place. */}}
{{- define "tenantry.secretItems" -}}
databaseUrl databaseOwnerUrl databaseListenUrl databaseReplicaUrl redisUrl mailUrl storageAccessKeyId storageSecretAccessKey metricsToken tracingHeaders valkeyPassword pgbouncerUsers keyring vault backupKeys backupAccessKeyId backupSecretAccessKey
{{- end -}}

{{/* Where a secret is, as YAML of `name` and `key`; nothing where it is not given.
     Takes (dict "root" $ "item" "databaseUrl"), and "hook" true where it is read before the release is there. */}}
{{- define "tenantry.secretRef" -}}
{{- $secret := index .root.Values.secrets .item -}}
{{- $full := include "tenantry.fullname" .root -}}
{{- if $secret.existingSecret -}}
name: {{ $secret.existingSecret }}
key: {{ $secret.key }}
{{- else if or $secret.value $secret.remoteRef -}}
name: {{ printf "%s-%s%s" $full (ternary "hook-" "" (default false .hook)) (kebabcase .item) }}
key: {{ $secret.key }}
{{- end -}}
{{- end -}}

{{/* The variable that a secret is passed in; none of those that are files. */}}
{{- define "tenantry.secretVariable" -}}
{{- get (dict
  "databaseUrl" "TENANTRY_DATABASE_URL"
  "databaseOwnerUrl" "TENANTRY_DATABASE_OWNER_URL"
  "databaseListenUrl" "TENANTRY_DATABASE_LISTEN_URL"
  "databaseReplicaUrl" "TENANTRY_DATABASE_REPLICA_URL"
  "redisUrl" "TENANTRY_REDIS_URL"
  "mailUrl" "TENANTRY_MAIL_URL"
  "storageAccessKeyId" "TENANTRY_STORAGE_S3_ACCESS_KEY_ID"
  "storageSecretAccessKey" "TENANTRY_STORAGE_S3_SECRET_ACCESS_KEY"
  "backupAccessKeyId" "TENANTRY_BACKUP_S3_ACCESS_KEY_ID"
  "backupSecretAccessKey" "TENANTRY_BACKUP_S3_SECRET_ACCESS_KEY"
  "tracingHeaders" "OTEL_EXPORTER_OTLP_HEADERS"
) . -}}
{{- end -}}

{{/* The file that a secret is mounted as, and the variable that names it: YAML of `variable`, `folder`, `file`. */}}
{{- define "tenantry.secretFile" -}}
{{- $files := dict
  "keyring" (dict "variable" "TENANTRY_KEYRING" "folder" "/run/tenantry/keyring" "file" "keyring.json")
  "vault" (dict "variable" "TENANTRY_VAULT_FILE" "folder" "/run/tenantry/vault" "file" "vault.json")
  "backupKeys" (dict "variable" "TENANTRY_BACKUP_KEY_FILE" "folder" "/run/tenantry/backup" "file" "backup-keys.json")
  "metricsToken" (dict "variable" "TENANTRY_METRICS_TOKEN_FILE" "folder" "/run/tenantry/metrics" "file" "token")
-}}
{{- if hasKey $files . -}}
{{- toYaml (get $files .) -}}
{{- end -}}
{{- end -}}

{{/* The sum over the secrets that are given as values: pods are replaced when one changes.
     Takes (dict "root" $ "uses" (list …)). */}}
{{- define "tenantry.secretsChecksum" -}}
{{- $seen := dict -}}
{{- range .uses -}}
{{- with (get $.root.Values.secrets .) -}}
{{- with .value -}}
{{- $_ := set $seen . true -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- keys $seen | sortAlpha | join "\n" | sha256sum -}}
{{- end -}}
