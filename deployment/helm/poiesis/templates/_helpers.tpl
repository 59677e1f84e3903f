{{/* Names: <fullname>-<component>; short enough for a Job's name with a hash. */}}
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

{{/* Labels that select Pods: (dict "root" $ "component" "api") */}}
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
{{- if not $images.tag }}{{ with index $images.digests .service }}@{{ . }}{{ end }}{{ end }}
{{- end -}}
{{- end -}}

{{/*
A chart from a checkout names no published images. Stop an installation that did not choose any, instead of waiting for
Pods that cannot start. Without a cluster (helm template) nothing is checked: Helm then has no kinds, only groups.
*/}}
{{- define "poiesis.checkImages" -}}
{{- $images := .Values.images -}}
{{- $chosen := or $images.digests $images.tag $images.api (ne $images.registry "ghcr.io/jaeaeich") -}}
{{- if and (not $chosen) (.Capabilities.APIVersions.Has "v1/Pod") -}}
{{- fail (printf `this chart is from a checkout, and its images may not be published. Use one of:
- the released chart: helm install %s oci://%s/charts/poiesis
- images of a release: --set images.tag=<version>
- images that you built: --set images.registry=<registry>, or images.registry= (empty) if they are loaded into the nodes
docs/how-to/operators/install.md describes them` .Release.Name $images.registry) -}}
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

{{/* The Pod Security level "restricted", for all Pods of the chart. */}}
{{- define "poiesis.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "poiesis.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The namespace of the tasks of users without an entry in tasks.namespaces. */}}
{{- define "poiesis.tasksNamespace" -}}
{{- default (printf "%s-tasks" .Release.Namespace) .Values.tasks.namespace -}}
{{- end -}}

{{/* The namespaces of tasks, each once, as a JSON list. The first is the default one. */}}
{{- define "poiesis.tasksNamespaces" -}}
{{- $names := list (include "poiesis.tasksNamespace" .) -}}
{{- range .Values.tasks.namespaces -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- uniq $names | toJson -}}
{{- end -}}

{{/* The strictest Pod Security level that TaskPods pass. */}}
{{- define "poiesis.podSecurity" -}}
{{- $executors := .Values.config.executors -}}
{{- $level := ternary "restricted" "baseline" (eq (dig "profile" "" $executors) "restricted") -}}
{{- range .Values.config.storage.sharedVolumes -}}
{{- if hasKey .volume "hostPath" -}}
{{- $level = "privileged" -}}
{{- else if and (eq $level "restricted") (not (or (hasKey .volume "persistentVolumeClaim") (hasKey .volume "csi"))) -}}
{{- $level = "baseline" -}}
{{- end -}}
{{- end -}}
{{- if dig "capabilities" "add" "" $executors.securityContext -}}
{{- $level = "privileged" -}}
{{- end -}}
{{- default $level .Values.tasks.podSecurity -}}
{{- end -}}

{{/* The Secret with migrations-dsn and api-dsn. */}}
{{- define "poiesis.postgresSecret" -}}
{{- if .Values.postgresql.embedded -}}
{{ include "poiesis.fullname" . }}-postgres
{{- else -}}
{{- required "postgresql.existingSecret is empty: with postgresql.embedded=false it must name a Secret with the keys migrations-dsn, api-dsn and recorder-dsn" .Values.postgresql.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* The Secret with recorder-dsn: for the gateway, or with config.recorder.transport postgres for the api. */}}
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

{{/*
What services/setup creates and checks (poiesis_setup.document): certificates and passwords that no value names a Secret
for, and the keys of the Secrets that values name.
*/}}
{{- define "poiesis.setupDocument" -}}
{{- $postgresql := .Values.postgresql -}}
{{- $postgres := include "poiesis.postgresSecret" . -}}
{{- $certificates := list -}}
{{- $passwords := list -}}
{{- $required := list -}}
{{- if $postgresql.embedded -}}
{{- $address := printf "%s:5432/poiesis?sslmode=verify-full" $postgres -}}
{{- $urls := dict "migrations-dsn" (printf "postgresql://poiesis@%s" $address) "api-dsn" (printf "postgresql://poiesis_api@%s" $address) -}}
{{- /* TaskPods in other namespaces resolve it, with config.recorder.transport postgres. */ -}}
{{- $recorder := dict "recorder-dsn" (printf "postgresql://poiesis_recorder@%s.%s.svc:5432/poiesis?sslmode=verify-full" $postgres .Release.Namespace) -}}
{{- $passwords = list (dict "secret" $postgres "urls" $urls) (dict "secret" (include "poiesis.recorderSecret" .) "urls" $recorder) -}}
{{- if $postgresql.tlsSecret -}}
{{- $required = append $required (dict "secret" $postgresql.tlsSecret "keys" (list "tls.crt" "tls.key" "ca.crt") "value" "postgresql.tlsSecret") -}}
{{- else -}}
{{- $certificates = append $certificates (dict "secret" (include "poiesis.postgresTlsSecret" .) "names" (include "poiesis.serviceNames" (dict "root" . "service" $postgres) | fromJsonArray)) -}}
{{- end -}}
{{- else -}}
{{- $value := ternary "postgresql.existingRecorderSecret" "postgresql.existingSecret" (ne $postgresql.existingRecorderSecret "") -}}
{{- $required = list
    (dict "secret" $postgres "keys" (list "migrations-dsn" "api-dsn") "value" "postgresql.existingSecret")
    (dict "secret" (include "poiesis.recorderSecret" .) "keys" (list "recorder-dsn") "value" $value) -}}
{{- with $postgresql.caSecret -}}
{{- if .name -}}
{{- $required = append $required (dict "secret" .name "keys" (list .key) "value" "postgresql.caSecret") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.config.recorder.transport "gateway" -}}
{{- if .Values.gateway.tlsSecret -}}
{{- $required = append $required (dict "secret" .Values.gateway.tlsSecret "keys" (list "tls.crt" "tls.key" "ca.crt") "value" "gateway.tlsSecret") -}}
{{- else -}}
{{- $certificates = append $certificates (dict "secret" (include "poiesis.gatewayTlsSecret" .) "names" (include "poiesis.serviceNames" (dict "root" . "service" (include "poiesis.gateway" .)) | fromJsonArray)) -}}
{{- end -}}
{{- end -}}
{{- dict
    "authority" (printf "%s-ca" (include "poiesis.fullname" .))
    "certificates" $certificates
    "passwords" $passwords
    "required" $required
    "rotation" .Values.setup.rotation | toJson -}}
{{- end -}}

{{/* Whether there is anything to create or renew; empty: no. */}}
{{- define "poiesis.setupNeeded" -}}
{{- $document := include "poiesis.setupDocument" . | fromJson -}}
{{- if or $document.certificates $document.passwords $document.required -}}true{{- end -}}
{{- end -}}

{{/* The DNS names of a Service as a JSON list: (dict "root" $ "service" name) */}}
{{- define "poiesis.serviceNames" -}}
{{- $namespaced := printf "%s.%s" .service .root.Release.Namespace -}}
{{- list .service $namespaced (printf "%s.svc" $namespaced) (printf "%s.svc.cluster.local" $namespaced) | toJson -}}
{{- end -}}

{{/* The Pod template of services/setup: (dict "root" $ "account" name) */}}
{{- define "poiesis.setupPod" -}}
{{- $component := dict "root" .root "component" "setup" -}}
{{- $setup := .root.Values.setup -}}
metadata:
  labels: {{- include "poiesis.labels" $component | nindent 4 }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ .account }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  {{- include "poiesis.imagePullSecrets" .root | nindent 2 }}
  securityContext: {{- include "poiesis.podSecurityContext" .root | nindent 4 }}
  containers:
    - name: setup
      image: {{ include "poiesis.image" (dict "root" .root "service" "setup") }}
      imagePullPolicy: {{ .root.Values.images.pullPolicy }}
      env:
        - name: POD_NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
        - {name: POIESIS_SETUP, value: {{ include "poiesis.setupDocument" .root | quote }}}
      terminationMessagePolicy: FallbackToLogsOnError
      resources: {{- toYaml $setup.resources | nindent 8 }}
      securityContext: {{- include "poiesis.securityContext" .root | nindent 8 }}
  {{- with $setup.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $setup.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Pods that hold a rotated password are replaced. */}}
{{- define "poiesis.rotation" -}}
{{- with .Values.setup.rotation }}
poiesis.io/rotation: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* The name of the gateway's objects. */}}
{{- define "poiesis.gateway" -}}
{{ include "poiesis.fullname" . }}-gateway
{{- end -}}

{{/* The Secret with the gateway's certificate. */}}
{{- define "poiesis.gatewayTlsSecret" -}}
{{- default (printf "%s-tls" (include "poiesis.gateway" .)) .Values.gateway.tlsSecret -}}
{{- end -}}

{{/* The most connections of all gateways to Postgres: with one more replica, as during a rollout. */}}
{{- define "poiesis.gatewayConnections" -}}
{{- mul (add1 .Values.gateway.replicas) .Values.gateway.databaseConnections -}}
{{- end -}}

{{/* The certificate authority of Postgres as {name, key}; null: a public one. */}}
{{- define "poiesis.postgresCa" -}}
{{- if .Values.postgresql.embedded -}}
{{- dict "name" (include "poiesis.postgresTlsSecret" .) "key" "ca.crt" | toJson -}}
{{- else if .Values.postgresql.caSecret.name -}}
{{- .Values.postgresql.caSecret | toJson -}}
{{- else -}}
null
{{- end -}}
{{- end -}}

{{/* libpq and asyncpg read this variable if sslmode is verify-ca or verify-full. */}}
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

{{/* The Secret that the chart creates from storageSecret; empty: none. */}}
{{- define "poiesis.storageSecret" -}}
{{- $keys := .Values.storageSecret -}}
{{- if or $keys.accessKey $keys.secretKey -}}
{{- if not (and $keys.accessKey $keys.secretKey) -}}
{{- fail "storageSecret.accessKey and storageSecret.secretKey must be set together, but one of them is empty" -}}
{{- end -}}
{{- if .Values.config.storage.s3.secretName -}}
{{- fail "storageSecret.accessKey and storageSecret.secretKey must be empty if config.storage.s3.secretName is set" -}}
{{- end -}}
{{ include "poiesis.fullname" . }}-storage
{{- end -}}
{{- end -}}

{{/*
Fail if a Secret that the values name is missing or incomplete. `helm template` cannot check it: without a cluster,
`lookup` does not find the namespace's default ServiceAccount either.
(dict "root" $ "secret" name "keys" (list …) "value" "postgresql.existingSecret"), and "namespace" if it is not the
release's.
*/}}
{{- define "poiesis.checkSecret" -}}
{{- $namespace := default .root.Release.Namespace .namespace -}}
{{- if lookup "v1" "ServiceAccount" $namespace "default" -}}
{{- $secret := lookup "v1" "Secret" $namespace .secret -}}
{{- if not $secret -}}
{{- fail (printf "%s: no such Secret in namespace %s: %s" .value $namespace .secret) -}}
{{- end -}}
{{- $data := default dict $secret.data -}}
{{- range .keys -}}
{{- if not (hasKey $data .) -}}
{{- fail (printf "%s: Secret %s in namespace %s must have the key %s" $.value $.secret $namespace .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The same for a Secret that TaskPods mount: in every namespace of tasks. */}}
{{- define "poiesis.checkTasksSecret" -}}
{{- $given := . -}}
{{- range include "poiesis.tasksNamespaces" .root | fromJsonArray -}}
{{- include "poiesis.checkSecret" (merge (dict "namespace" .) $given) -}}
{{- end -}}
{{- end -}}

{{/* The same for a Secret that only some groups need: in at least one namespace of tasks, if all of them exist. */}}
{{- define "poiesis.checkGroupsSecret" -}}
{{- $given := . -}}
{{- $found := false -}}
{{- range $namespace := include "poiesis.tasksNamespaces" .root | fromJsonArray -}}
{{- $exists := lookup "v1" "ServiceAccount" $namespace "default" -}}
{{- if or (not $exists) (lookup "v1" "Secret" $namespace $given.secret) -}}
{{- $found = true -}}
{{- if $exists }}{{ include "poiesis.checkSecret" (merge (dict "namespace" $namespace) $given) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- include "poiesis.checkTasksSecret" . -}}
{{- end -}}
{{- end -}}

{{/* Whether Jobs can enter a queue of Kueue. */}}
{{- define "poiesis.kueue" -}}
{{- if or .Values.config.queue.kueueQueueName .Values.config.backendParameters.queue }}true{{ else }}false{{ end -}}
{{- end -}}

{{/*
The Secrets of `config.auth` that the mode needs: {name: {secret, key, file, value}}. The api reads each in
/etc/poiesis-identity/<name>/<file> (poiesis_api.config.IdentityFiles).
*/}}
{{- define "poiesis.identitySecrets" -}}
{{- $auth := .Values.config.auth -}}
{{- $used := dict -}}
{{- if eq $auth.mode "basic" -}}
{{- $_ := set $used "users" (list $auth.basic.usersSecret "htpasswd" "config.auth.basic.usersSecret") -}}
{{- else if eq $auth.mode "oidc" -}}
{{- with $auth.oidc.caSecret -}}
{{- $_ := set $used "ca" (list . "ca.crt" "config.auth.oidc.caSecret") -}}
{{- end -}}
{{- with $auth.oidc.introspection -}}
{{- $_ := set $used "introspection" (list .clientSecret "client-secret" "config.auth.oidc.introspection.clientSecret") -}}
{{- end -}}
{{- end -}}
{{- $secrets := dict -}}
{{- range $name, $one := $used -}}
{{- $given := first $one -}}
{{- $_ := set $secrets $name (dict "secret" $given.name "key" (default (index $one 1) $given.key) "file" (index $one 1) "value" (last $one)) -}}
{{- end -}}
{{- $secrets | toJson -}}
{{- end -}}

{{/* The names by which clients reach the api, as a JSON list. */}}
{{- define "poiesis.hosts" -}}
{{- $service := printf "%s-api" (include "poiesis.fullname" .) -}}
{{- $names := concat .Values.config.http.hosts (list
    $service
    (printf "%s.%s" $service .Release.Namespace)
    (printf "%s.%s.svc" $service .Release.Namespace)
    (printf "%s.%s.svc.cluster.local" $service .Release.Namespace)) -}}
{{- if and .Values.api.ingress.enabled .Values.api.ingress.host -}}
{{- $names = append $names .Values.api.ingress.host -}}
{{- end -}}
{{- $names | uniq | toJson -}}
{{- end -}}

{{/* Fail if an Ingress, a NodePort or a LoadBalancer would publish the api without authentication. */}}
{{- define "poiesis.checkPublication" -}}
{{- $auth := .Values.config.auth -}}
{{- if and (eq $auth.mode "none") (not $auth.allowAnonymous) -}}
{{- $why := "with config.auth.mode none, anyone who reaches the api can run any image in your cluster. Set config.auth.mode to basic or oidc, or config.auth.allowAnonymous to true" -}}
{{- if .Values.api.ingress.enabled -}}
{{- fail (printf "api.ingress.enabled is true: %s" $why) -}}
{{- end -}}
{{- if ne .Values.api.service.type "ClusterIP" -}}
{{- fail (printf "api.service.type is %s: %s" .Values.api.service.type $why) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The api's configuration document (poiesis_api.config.Document): `config`, and what only Kubernetes knows. */}}
{{- define "poiesis.config" -}}
{{- $root := . -}}
{{- $images := pick .Values.images "pullPolicy" "pullSecrets" -}}
{{- range list "trec" "helper" "tif" "tof" "rclone" "file" -}}
{{- $_ := set $images . (include "poiesis.image" (dict "root" $root "service" .)) -}}
{{- end -}}
{{- $added := dict
    "images" $images
    "tasks" (dict "namespace" (include "poiesis.tasksNamespace" .) "namespaces" .Values.tasks.namespaces)
    "serviceInfo" (dict "version" .Chart.AppVersion) -}}
{{- if eq .Values.config.recorder.transport "gateway" -}}
{{- $url := printf "https://%s.%s.svc:8443" (include "poiesis.gateway" .) .Release.Namespace -}}
{{- $_ := set $added "gateway" (dict "url" $url "caFile" "/etc/poiesis-gateway/ca.crt") -}}
{{- else if ne (include "poiesis.postgresCa" .) "null" -}}
{{- $_ := set $added "recorderPostgres" (dict "caFile" "/etc/poiesis-postgres/ca.crt") -}}
{{- end -}}
{{- $_ := set $added "http" (dict "hosts" (include "poiesis.hosts" . | fromJsonArray)) -}}
{{- with include "poiesis.storageSecret" . -}}
{{- $_ := set $added "storage" (dict "s3" (dict "secretName" .)) -}}
{{- end -}}
{{- mergeOverwrite (deepCopy .Values.config) $added | toPrettyJson -}}
{{- end -}}
