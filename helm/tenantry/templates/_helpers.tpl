{{/* What follows from the values, and what they must not say. Names: _names.tpl; secrets: _secrets.tpl; pods: _pod.tpl. */}}

{{/* TENANTRY_WORKER_MEMORY: 80 % of the container's limit, so that the worker ends the job that took too much, and not
     the kernel the container. The rest is for the process that watches. */}}
{{- define "tenantry.workerMemory" -}}
{{- $limit := toString (dig "limits" "memory" "" .Values.worker.resources) -}}
{{- if hasKey .Values.config "WORKER_MEMORY" -}}
{{- else if regexMatch "^[0-9]+Gi$" $limit -}}
{{- div (mul (trimSuffix "Gi" $limit | int64) 1024 8) 10 -}}
{{- else if regexMatch "^[0-9]+Mi$" $limit -}}
{{- div (mul (trimSuffix "Mi" $limit | int64) 8) 10 -}}
{{- end -}}
{{- end -}}

{{/* Seconds that a worker's pod needs to end in peace: its jobs' grace, three for itself, seven to be sure. */}}
{{- define "tenantry.workerGraceSeconds" -}}
{{- add (get .Values.config "WORKER_GRACE" | default 25 | float64 | ceil | int64) 10 -}}
{{- end -}}

{{/* Seconds that an API's pod needs: until proxies know, for draining by itself, fifteen for requests under way, five to
     be sure. */}}
{{- define "tenantry.apiGraceSeconds" -}}
{{- add .Values.api.drainSeconds (hasKey .Values.config "SERVE_DRAIN" | ternary (get .Values.config "SERVE_DRAIN") 5) 20 -}}
{{- end -}}

{{/* Probes of a process without routes: how long they put up with silence is the supervisor's time to end a worker that
     a job has taken hold of, and to start the next one. */}}
{{- define "tenantry.metricsProbes" -}}
startupProbe:
  httpGet:
    path: /health/live
    port: metrics
  periodSeconds: 2
  timeoutSeconds: {{ .timeoutSeconds | int64 }}
  failureThreshold: {{ div .startupSeconds 2 }}
readinessProbe:
  httpGet:
    path: /health/ready
    port: metrics
  periodSeconds: {{ .periodSeconds | int64 }}
  timeoutSeconds: {{ .timeoutSeconds | int64 }}
livenessProbe:
  httpGet:
    path: /health/live
    port: metrics
  periodSeconds: {{ .periodSeconds | int64 }}
  timeoutSeconds: {{ .timeoutSeconds | int64 }}
  failureThreshold: 12
{{- end -}}

{{/* Where workers and provisioners tell their metrics and health. */}}
{{- define "tenantry.metricsEnv" -}}
- name: TENANTRY_METRICS_HOST
  value: {{ .Values.listenAddress | quote }}
- name: TENANTRY_METRICS_PORT
  value: {{ .Values.metrics.port | quote }}
{{- end -}}

{{/* What a Job does when its pod ends with an error: a node that was drained counts for nothing, and what another try
     would not change is final (exit codes of the commands: 2 a mistake, 4 something that is in the way).
     Takes (dict "final" (list 2)). */}}
{{- define "tenantry.podFailurePolicy" -}}
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
    - action: FailJob
      onExitCodes:
        operator: In
        values: {{ toJson .final }}
{{- end -}}

{{/* The secrets of backups and of whatever else acts as the owner: those of the provisioner. */}}
{{- define "tenantry.ownerUses" -}}
databaseUrl databaseOwnerUrl redisUrl storageAccessKeyId storageSecretAccessKey storage keyring
{{- end -}}

{{/* All that is wrong with the values and that their schema cannot see, at once. */}}
{{- define "tenantry.validate" -}}
{{- $problems := include "tenantry.partProblems" . | fromYamlArray -}}
{{- $needed := dict
  "databaseUrl" "PostgreSQL's address as tenantry_app"
  "databaseOwnerUrl" "PostgreSQL's address as tenantry_owner"
  "redisUrl" "Redis' address (or valkey.enabled)"
  "keyring" "the file of the keys that sign tokens"
  "vault" "the file of the keys that seal what is stored"
-}}
{{- range $item := list "databaseUrl" "databaseOwnerUrl" "redisUrl" "keyring" "vault" -}}
{{- if and (eq $item "redisUrl") $.Values.valkey.enabled -}}
{{- else if not (include "tenantry.secretRef" (dict "root" $ "item" $item)) -}}
{{- $problems = append $problems (printf "secrets.%s: expected %s, as existingSecret, remoteRef or value" $item (get $needed $item)) -}}
{{- end -}}
{{- end -}}
{{- range $item := splitList " " (include "tenantry.secretItems" .) -}}
{{- $secret := index $.Values.secrets $item -}}
{{- $given := list -}}
{{- range $way := list "existingSecret" "value" "remoteRef" -}}
{{- if get $secret $way -}}
{{- $given = append $given $way -}}
{{- end -}}
{{- end -}}
{{- if gt (len $given) 1 -}}
{{- $problems = append $problems (printf "secrets.%s: is given %d times, as %s; expected one" $item (len $given) (join " and " $given)) -}}
{{- end -}}
{{- if and $secret.remoteRef (not $.Values.secrets.external.store) -}}
{{- $problems = append $problems (printf "secrets.external.store: expected the name of the store that secrets.%s.remoteRef refers to" $item) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.storage.url .Values.storage.volume.enabled -}}
{{- $problems = append $problems "storage: expected either url or volume.enabled, and both are given" -}}
{{- else if not (or .Values.storage.url .Values.storage.volume.enabled) -}}
{{- $problems = append $problems "storage.url: expected s3://bucket/prefix, or storage.volume.enabled" -}}
{{- end -}}
{{- $key := include "tenantry.secretRef" (dict "root" $ "item" "storageAccessKeyId") -}}
{{- $secretKey := include "tenantry.secretRef" (dict "root" $ "item" "storageSecretAccessKey") -}}
{{- if ne (empty $key) (empty $secretKey) -}}
{{- $problems = append $problems "secrets: expected storageAccessKeyId and storageSecretAccessKey together, or neither" -}}
{{- end -}}
{{- if and $key .Values.storage.volume.enabled -}}
{{- $problems = append $problems "secrets.storageAccessKeyId: is for a bucket, and storage.volume is enabled" -}}
{{- end -}}
{{- if include "tenantry.secretRef" (dict "root" $ "item" "mailUrl") -}}
{{- range $name := list "APP_URL" "MAIL_FROM" -}}
{{- if not (get $.Values.config $name) -}}
{{- $problems = append $problems (printf "config.%s: is needed with secrets.mailUrl" $name) -}}
{{- end -}}
{{- end -}}
{{- else if get .Values.config "SIGNUP" -}}
{{- $problems = append $problems "config.SIGNUP: needs mail, thus secrets.mailUrl" -}}
{{- end -}}
{{- if and .Values.worker.autoscaling.enabled .Values.worker.keda.enabled -}}
{{- $problems = append $problems "worker: expected either autoscaling.enabled or keda.enabled, and both are" -}}
{{- end -}}
{{- if and .Values.worker.keda.enabled (not .Values.worker.keda.prometheusAddress) -}}
{{- $problems = append $problems "worker.keda.prometheusAddress: expected the address of the Prometheus that knows how many jobs are ready" -}}
{{- end -}}
{{- range $name := list "api" "worker" -}}
{{- $scale := (index $.Values $name).autoscaling -}}
{{- if and $scale.enabled (gt (int64 $scale.minReplicas) (int64 $scale.maxReplicas)) -}}
{{- $problems = append $problems (printf "%s.autoscaling: minReplicas is more than maxReplicas" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not (include "tenantry.hosts" (dict "root" $ "hosts" .Values.ingress.hosts))) -}}
{{- $problems = append $problems "ingress.hosts: expected a host, or config.BASE_DOMAIN" -}}
{{- end -}}
{{- if .Values.httpRoute.enabled -}}
{{- if not .Values.httpRoute.parentRefs -}}
{{- $problems = append $problems "httpRoute.parentRefs: expected the Gateway that it belongs to" -}}
{{- end -}}
{{- if not (include "tenantry.hosts" (dict "root" $ "hosts" .Values.httpRoute.hostnames)) -}}
{{- $problems = append $problems "httpRoute.hostnames: expected a host, or config.BASE_DOMAIN" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tenants.files .Values.tenants.existingConfigMap -}}
{{- $problems = append $problems "tenants: expected either files or existingConfigMap, and both are given" -}}
{{- end -}}
{{- if and .Values.pgbouncer.enabled (not (include "tenantry.secretRef" (dict "root" $ "item" "databaseListenUrl"))) -}}
{{- $problems = append $problems "secrets.databaseListenUrl: expected PostgreSQL's own address as tenantry_app, since pgbouncer is enabled" -}}
{{- end -}}
{{- $problems = concat $problems (include "tenantry.partProblems" . | fromYamlArray) -}}
{{- with uniq $problems -}}
{{- fail (printf "\n\nThe values of this chart do not describe a deployment:\n  - %s\n" (join "\n  - " .)) -}}
{{- end -}}
{{- end -}}

{{/* The hosts that are given, else every organization's below the base domain; as a YAML list, or nothing. */}}
{{- define "tenantry.hosts" -}}
{{- $base := get .root.Values.config "BASE_DOMAIN" -}}
{{- if .hosts -}}
{{- toYaml .hosts -}}
{{- else if $base -}}
{{- toYaml (list (printf "*.%s" $base)) -}}
{{- end -}}
{{- end -}}
