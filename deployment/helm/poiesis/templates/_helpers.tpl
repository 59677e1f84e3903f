{{/* Names: <fullname>-<component>; short enough for a Job's name with a revision. */}}
{{- define "poiesis.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels of selection: (dict "root" $ "component" "api") */}}
{{- define "poiesis.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "poiesis.labels" -}}
{{ include "poiesis.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: poiesis
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image: (dict "root" $ "service" "api") */}}
{{- define "poiesis.image" -}}
{{- $images := .root.Values.images -}}
{{- with index $images .service -}}
{{- . -}}
{{- else -}}
{{- with $images.registry }}{{ trimSuffix "/" . }}/{{ end }}poiesis-{{ .service }}:{{ default .root.Chart.AppVersion $images.tag }}
{{- end -}}
{{- end -}}

{{- define "poiesis.imagePullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The Pod Security level "restricted" for Pods of ours. */}}
{{- define "poiesis.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "poiesis.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The Secret with migrations-dsn and api-dsn. */}}
{{- define "poiesis.postgresSecret" -}}
{{- if .Values.postgresql.embedded -}}
{{ include "poiesis.fullname" . }}-postgres
{{- else -}}
{{- required "postgresql.existingSecret is empty: with postgresql.embedded=false it must name a Secret with the keys migrations-dsn, api-dsn and recorder-dsn" .Values.postgresql.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* The Secret with recorder-dsn, which TaskPods mount. */}}
{{- define "poiesis.recorderSecret" -}}
{{- if .Values.postgresql.embedded -}}
{{ include "poiesis.fullname" . }}-recorder
{{- else -}}
{{- default (include "poiesis.postgresSecret" .) .Values.postgresql.existingRecorderSecret -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the embedded Postgres' certificate. */}}
{{- define "poiesis.postgresTlsSecret" -}}
{{- default (printf "%s-tls" (include "poiesis.postgresSecret" .)) .Values.postgresql.tlsSecret -}}
{{- end -}}

{{/* The certificate authority of Postgres as {name, key}; null: none of its own. */}}
{{- define "poiesis.postgresCa" -}}
{{- if .Values.postgresql.embedded -}}
{{- dict "name" (include "poiesis.postgresTlsSecret" .) "key" "ca.crt" | toJson -}}
{{- else if .Values.postgresql.caSecret.name -}}
{{- .Values.postgresql.caSecret | toJson -}}
{{- else -}}
null
{{- end -}}
{{- end -}}

{{/* Where a service finds it: libpq and asyncpg read this variable when sslmode is verify-ca or verify-full. */}}
{{- define "poiesis.postgresCaEnv" -}}
{{- if ne (include "poiesis.postgresCa" .) "null" }}
- {name: PGSSLROOTCERT, value: /etc/poiesis-postgres/ca.crt}
{{- end }}
{{- end -}}

{{- define "poiesis.postgresCaMount" -}}
{{- if ne (include "poiesis.postgresCa" .) "null" }}
- {name: postgres-ca, mountPath: /etc/poiesis-postgres, readOnly: true}
{{- end }}
{{- end -}}

{{- define "poiesis.postgresCaVolume" -}}
{{- with include "poiesis.postgresCa" . | fromJson }}
- name: postgres-ca
  secret:
    secretName: {{ .name }}
    items: [{key: {{ .key }}, path: ca.crt}]
{{- end }}
{{- end -}}

{{- define "poiesis.storageSecret" -}}
{{- $s3 := .Values.storage.s3 -}}
{{- if $s3.existingSecret -}}
{{- if or $s3.accessKey $s3.secretKey -}}
{{- fail "storage.s3.existingSecret is set, so storage.s3.accessKey and storage.s3.secretKey must be empty" -}}
{{- end -}}
{{- $s3.existingSecret -}}
{{- else if or $s3.accessKey $s3.secretKey -}}
{{- if not (and $s3.accessKey $s3.secretKey) -}}
{{- fail "storage.s3.accessKey and storage.s3.secretKey belong together: one of them is empty" -}}
{{- end -}}
{{ include "poiesis.fullname" . }}-storage
{{- end -}}
{{- end -}}

{{/* `storage.credentials` of the api's configuration: what says nothing is left out. */}}
{{- define "poiesis.storageCredentials" -}}
{{- $entries := list -}}
{{- $names := list -}}
{{- range .Values.storage.s3.credentials -}}
{{- if has .name $names -}}
{{- fail (printf "storage.s3.credentials: two have the same name: %s" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- if and .anonymous .secretName -}}
{{- fail (printf "storage.s3.credentials: %s: anonymous and secretName exclude each other" .name) -}}
{{- end -}}
{{- $entry := pick . "name" "urls" -}}
{{- $given := . -}}
{{- range list "secretName" "anonymous" "endpoint" "region" "addressingStyle" "users" "groups" -}}
{{- include "poiesis.setIfAny" (list $entry . (index $given .)) -}}
{{- end -}}
{{- if hasKey . "requesterPays" -}}
{{- $_ := set $entry "requesterPays" .requesterPays -}}
{{- end -}}
{{- with .caSecret -}}
{{- if .name -}}
{{- $_ := set $entry "caSecret" (dict "name" .name "key" (default "ca.crt" .key)) -}}
{{- end -}}
{{- end -}}
{{- $entries = append $entries $entry -}}
{{- end -}}
{{- dict "entries" $entries | toJson -}}
{{- end -}}

{{/*
Fail where a Secret that is named in the values is missing or incomplete. Only a cluster can tell, so nothing is said
by `helm template`: there even the namespace's default ServiceAccount is not to be seen.
(dict "root" $ "secret" name "keys" (list …) "value" "postgresql.existingSecret")
*/}}
{{- define "poiesis.checkSecret" -}}
{{- $namespace := .root.Release.Namespace -}}
{{- if lookup "v1" "ServiceAccount" $namespace "default" -}}
{{- $secret := lookup "v1" "Secret" $namespace .secret -}}
{{- if not $secret -}}
{{- fail (printf "%s: there is no Secret %s in the namespace %s" .value .secret $namespace) -}}
{{- end -}}
{{- $data := default dict $secret.data -}}
{{- range .keys -}}
{{- if not (hasKey $data .) -}}
{{- fail (printf "%s: the Secret %s has no key %s" $.value $.secret .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* `key: value` into a dict only if the value says something: (list $dict "key" value) */}}
{{- define "poiesis.setIfAny" -}}
{{- $value := index . 2 -}}
{{- if $value -}}
{{- $_ := set (index . 0) (index . 1) $value -}}
{{- end -}}
{{- end -}}

{{/* Quantities as text: `cpu: 2` is a number in YAML and after --set. */}}
{{- define "poiesis.quantities" -}}
{{- dict "cpu" (toString .cpu) "memory" (toString .memory) | toJson -}}
{{- end -}}

{{/* Whether Jobs can come into a queue of Kueue. */}}
{{- define "poiesis.kueue" -}}
{{- if or .Values.queue.kueueQueueName .Values.backendParameters.queue }}true{{ else }}false{{ end -}}
{{- end -}}

{{/* Files of the api that come from Secrets: where they are mounted, by what they are for. */}}
{{- define "poiesis.identityDirectory" -}}
/etc/poiesis-identity
{{- end -}}

{{/* `auth` of the api's configuration. */}}
{{- define "poiesis.auth" -}}
{{- $given := .Values.auth -}}
{{- $auth := pick $given "mode" "administrators" "sharing" -}}
{{- $directory := include "poiesis.identityDirectory" . -}}
{{- if eq $given.mode "basic" -}}
{{- $_ := required "auth.basic.existingSecret is empty: with auth.mode=basic it must name a Secret with users and their bcrypt hashes" $given.basic.existingSecret -}}
{{- $_ := set $auth "basic" (dict "usersFile" (printf "%s/users/%s" $directory $given.basic.key)) -}}
{{- else if eq $given.mode "oidc" -}}
{{- $_ := required "auth.oidc.issuer is empty: with auth.mode=oidc it must be the issuer of access tokens" $given.oidc.issuer -}}
{{- if not $given.oidc.audiences -}}
{{- fail "auth.oidc.audiences is empty: with auth.mode=oidc it must say for whom tokens are, or every token of the issuer would do" -}}
{{- end -}}
{{- $oidc := pick $given.oidc "issuer" "audiences" "algorithms" "scopes" "userClaim" "groupsClaim" "leewaySeconds" -}}
{{- range list "timeoutSeconds" "refreshSeconds" "minRefreshSeconds" "staleSeconds" -}}
{{- $_ := set $oidc . (float64 (index $given.oidc .)) -}}
{{- end -}}
{{- with $given.oidc.caSecret.name -}}
{{- $_ := set $oidc "caFile" (printf "%s/ca/%s" $directory $given.oidc.caSecret.key) -}}
{{- end -}}
{{- with $given.oidc.introspection -}}
{{- if ne (empty .clientId) (empty .existingSecret) -}}
{{- fail "auth.oidc.introspection.clientId and auth.oidc.introspection.existingSecret belong together: one of them is empty" -}}
{{- end -}}
{{- if .clientId -}}
{{- $introspection := pick . "clientId" "audienceRequired" "maxRequests" "maxCached" -}}
{{- $_ := set $introspection "clientSecretFile" (printf "%s/introspection/%s" $directory .key) -}}
{{- $_ := set $introspection "cacheSeconds" (float64 .cacheSeconds) -}}
{{- $_ := set $introspection "refusedSeconds" (float64 .refusedSeconds) -}}
{{- $_ := set $oidc "introspection" $introspection -}}
{{- end -}}
{{- end -}}
{{- $_ := set $auth "oidc" $oidc -}}
{{- end -}}
{{- $auth | toJson -}}
{{- end -}}

{{/* The Secrets that `poiesis.auth` names files of: {directory: {name, key}} */}}
{{- define "poiesis.identitySecrets" -}}
{{- $auth := .Values.auth -}}
{{- $secrets := dict -}}
{{- if eq $auth.mode "basic" -}}
{{- $_ := set $secrets "users" (dict "name" $auth.basic.existingSecret "key" $auth.basic.key "value" "auth.basic.existingSecret") -}}
{{- else if eq $auth.mode "oidc" -}}
{{- with $auth.oidc.caSecret -}}
{{- if .name -}}
{{- $_ := set $secrets "ca" (dict "name" .name "key" .key "value" "auth.oidc.caSecret") -}}
{{- end -}}
{{- end -}}
{{- with $auth.oidc.introspection -}}
{{- if .clientId -}}
{{- $_ := set $secrets "introspection" (dict "name" .existingSecret "key" .key "value" "auth.oidc.introspection.existingSecret") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $secrets | toJson -}}
{{- end -}}

{{/* One of userLimits as a number: (list $root given default); -1 is the default, where users are told apart. */}}
{{- define "poiesis.userLimit" -}}
{{- if ge (float64 (index . 1)) 0.0 -}}
{{- index . 1 -}}
{{- else if eq (index . 0).Values.auth.mode "none" -}}
0
{{- else -}}
{{- index . 2 -}}
{{- end -}}
{{- end -}}

{{/* `userLimits` of the api's configuration: 0 is left out. */}}
{{- define "poiesis.userLimits" -}}
{{- $given := .Values.userLimits -}}
{{- $limits := dict -}}
{{- $half := max 1 (div .Values.queue.maxActiveTasks 2) -}}
{{- $active := int (include "poiesis.userLimit" (list . $given.active.tasks $half)) -}}
{{- if $active -}}
{{- $_ := set $limits "active" (dict "tasks" $active "whenReached" $given.active.whenReached) -}}
{{- end -}}
{{- include "poiesis.setIfAny" (list $limits "queuedTasks" (int (include "poiesis.userLimit" (list . $given.queuedTasks 10000)))) -}}
{{- $perSecond := float64 (include "poiesis.userLimit" (list . $given.requests.perSecond 200)) -}}
{{- if $perSecond -}}
{{- $_ := set $limits "requests" (dict "perSecond" $perSecond "burst" $given.requests.burst) -}}
{{- end -}}
{{- range list "cpuCores" "ramGb" "diskGb" "gpus" -}}
{{- include "poiesis.setIfAny" (list $limits . (float64 (index $given .))) -}}
{{- end -}}
{{- $limits | toJson -}}
{{- end -}}

{{/* The filers of the values, then those that are made of `rclone` and `sharedVolumes`. */}}
{{- define "poiesis.filers" -}}
{{- $root := . -}}
{{- $filers := list -}}
{{- range .Values.filers -}}
{{- $filer := deepCopy . -}}
{{- range $side, $service := dict "inputs" "tif" "outputs" "tof" -}}
{{- with index $filer $side -}}
{{- if not .image -}}
{{- $_ := set . "image" (include "poiesis.image" (dict "root" $root "service" $service)) -}}
{{- if and $root.Values.storage.streaming (eq $side "inputs") -}}
{{- $_ := set . "streamCommand" (list "python3" "-m" "poiesis_tif.stream") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $filer.secretName -}}
{{- $filer = omit $filer "secretName" -}}
{{- end -}}
{{- if hasKey $filer "sharedVolumes" -}}
{{- $_ := set $filer "sharedVolumes" (include "poiesis.sharedVolumes" $filer.sharedVolumes | fromJsonArray) -}}
{{- end -}}
{{- $filers = append $filers $filer -}}
{{- end -}}
{{- with .Values.rclone -}}
{{- if .schemes -}}
{{- $secret := required "rclone.existingSecret is empty: with rclone.schemes it must name a Secret with the key rclone.conf" .existingSecret -}}
{{- $image := include "poiesis.image" (dict "root" $root "service" "rclone") -}}
{{- $side := dict "schemes" .schemes "image" $image "command" (list "python3" "-m" "poiesis_rclone") -}}
{{- $filers = append $filers (dict "name" "rclone" "inputs" $side "outputs" $side "env" .env
      "objectStorage" false "secretName" $secret) -}}
{{- else if .existingSecret -}}
{{- fail "rclone.schemes is empty: with rclone.existingSecret it must name the schemes of URLs that rclone serves" -}}
{{- end -}}
{{- end -}}
{{- with .Values.sharedVolumes -}}
{{- $image := include "poiesis.image" (dict "root" $root "service" "file") -}}
{{- $side := dict "schemes" (list "file") "image" $image "command" (list "python3" "-m" "poiesis_file") -}}
{{- $filers = append $filers (dict "name" "file" "inputs" $side "outputs" $side
      "objectStorage" false "sharedVolumes" (include "poiesis.sharedVolumes" . | fromJsonArray)) -}}
{{- end -}}
{{- $filers | toJson -}}
{{- end -}}

{{- define "poiesis.sharedVolumes" -}}
{{- $volumes := list -}}
{{- range . -}}
{{- $volumes = append $volumes (ternary . (omit . "subPath") (not (empty .subPath))) -}}
{{- end -}}
{{- $volumes | toJson -}}
{{- end -}}

{{/* The api's configuration document. Its keys are those of poiesis_api.config. */}}
{{- define "poiesis.config" -}}
{{- $values := .Values -}}
{{- if and $values.queue.kueueQueueName (eq $values.volume.type "pvc") -}}
{{- fail "queue.kueueQueueName needs volume.type ephemeral or emptyDir: a task that Kueue stops begins anew, and the claim of a Job would still hold what its first attempt left" -}}
{{- end -}}
{{- $images := dict
    "trec" (include "poiesis.image" (dict "root" . "service" "trec"))
    "helper" (include "poiesis.image" (dict "root" . "service" "helper"))
    "pullPolicy" $values.images.pullPolicy
    "pullSecrets" $values.images.pullSecrets -}}
{{- $filers := include "poiesis.filers" . | fromJsonArray -}}
{{- $s3 := $values.storage.s3 -}}
{{- $storage := dict "addressingStyle" $s3.addressingStyle "outputKeys" $s3.outputKeys -}}
{{- include "poiesis.setIfAny" (list $storage "secretName" (include "poiesis.storageSecret" .)) -}}
{{- include "poiesis.setIfAny" (list $storage "endpoint" $s3.endpoint) -}}
{{- include "poiesis.setIfAny" (list $storage "region" $s3.region) -}}
{{- with $s3.webIdentity -}}
{{- if .roleArn -}}
{{- $role := dict "roleArn" .roleArn "audience" .audience -}}
{{- include "poiesis.setIfAny" (list $role "stsEndpoint" .stsEndpoint) -}}
{{- $_ := set $storage "webIdentity" $role -}}
{{- end -}}
{{- end -}}
{{- include "poiesis.setIfAny" (list $storage "credentials" (include "poiesis.storageCredentials" . | fromJson).entries) -}}
{{- include "poiesis.setIfAny" (list $storage "httpAllow" $values.storage.http.allow) -}}
{{- include "poiesis.setIfAny" (list $storage "httpDeny" $values.storage.http.deny) -}}
{{- if $s3.caSecret.name -}}
{{- $_ := set $storage "caSecret" $s3.caSecret -}}
{{- end -}}
{{- $volume := pick $values.volume "type" "accessMode" -}}
{{- $_ := set $volume "defaultSizeGb" (float64 $values.volume.defaultSizeGb) -}}
{{- include "poiesis.setIfAny" (list $volume "storageClass" $values.volume.storageClass) -}}
{{- $executors := pick $values.executors "securityContext" "logBytes" -}}
{{- $extended := dict -}}
{{- range $name, $quantity := $values.executors.extendedResources -}}
{{- $_ := set $extended $name (toString $quantity) -}}
{{- end -}}
{{- $_ := set $executors "extendedResources" $extended -}}
{{- $_ := set $executors "defaultResources" (include "poiesis.quantities" $values.executors.defaultResources | fromJson) -}}
{{- $_ := set $executors "rootDiskGb" (float64 $values.executors.rootDiskGb) -}}
{{- $most := $values.executors.maxResources -}}
{{- $_ := set $executors "maxResources" (dict
    "cpuCores" $most.cpuCores
    "ramGb" (float64 $most.ramGb)
    "diskGb" (float64 $most.diskGb)
    "gpuCount" $most.gpuCount) -}}
{{- $_ := set $executors "onError" $values.executors.onExecutorError -}}
{{- include "poiesis.setIfAny" (list $executors "imagePullPolicy" $values.executors.imagePullPolicy) -}}
{{- $resources := dict -}}
{{- range $container, $given := $values.resources -}}
{{- $_ := set $resources $container (dict
      "requests" (include "poiesis.quantities" $given.requests | fromJson)
      "limits" (include "poiesis.quantities" $given.limits | fromJson)) -}}
{{- end -}}
{{- $pod := pick $values.pod "labels" "annotations" "nodeSelector" "tolerations" "affinity" -}}
{{- range list "priorityClassName" "runtimeClassName" "activeDeadlineSeconds" -}}
{{- include "poiesis.setIfAny" (list $pod . (index $values.pod .)) -}}
{{- end -}}
{{- $queue := pick $values.queue "maxActiveTasks" "maxSubmissions" "claimSeconds" -}}
{{- $_ := set $queue "pollSeconds" (float64 $values.queue.pollSeconds) -}}
{{- $_ := set $queue "stalledSeconds" (float64 $values.queue.stalledSeconds) -}}
{{- range list "giveUpSeconds" "kueueQueueName" "kueuePriorityClass" -}}
{{- include "poiesis.setIfAny" (list $queue . (index $values.queue .)) -}}
{{- end -}}
{{- $document := dict -}}
{{- with include "poiesis.postgresCa" . | fromJson -}}
{{- $_ := set $document "postgresCaSecret" . -}}
{{- end -}}
{{- $info := dict "version" .Chart.AppVersion -}}
{{- range $key, $value := $values.serviceInfo -}}
{{- include "poiesis.setIfAny" (list $info $key $value) -}}
{{- end -}}
{{- merge $document (dict
    "images" $images
    "filers" $filers
    "storage" $storage
    "recorderSecret" (include "poiesis.recorderSecret" .)
    "volume" $volume
    "executors" $executors
    "resources" $resources
    "pod" $pod
    "filerRetryAttempts" $values.filerRetryAttempts
    "ttlSecondsAfterFinished" $values.ttlSecondsAfterFinished
    "terminationGracePeriodSeconds" $values.terminationGracePeriodSeconds
    "queue" $queue
    "backendParameters" $values.backendParameters
    "serviceInfo" $info
    "limits" (dict
      "bodyBytes" $values.api.bodyBytes
      "bodySeconds" (float64 $values.api.bodySeconds)
      "executors" $values.limits.executors
      "taskObjectBytes" $values.limits.taskObjectBytes
      "incomingBytes" $values.api.incomingBytes
      "outgoingBytes" $values.api.outgoingBytes
      "pageBytes" $values.api.pageBytes
      "sendSeconds" (float64 $values.api.sendSeconds))
    "userLimits" (include "poiesis.userLimits" . | fromJson)
    "auth" (include "poiesis.auth" . | fromJson)
    "http" (dict
      "host" "0.0.0.0"
      "port" 8000
      "drainSeconds" (float64 $values.api.drainSeconds)
      "headSeconds" (float64 $values.api.headSeconds)
      "keepAliveSeconds" (float64 $values.api.keepAliveSeconds)
      "maxConnections" $values.api.maxConnections
      "allowedOrigins" $values.api.allowedOrigins)
    "database" (set (deepCopy $values.api.database) "timeoutSeconds" (float64 $values.api.database.timeoutSeconds)))
  | toPrettyJson -}}
{{- end -}}
