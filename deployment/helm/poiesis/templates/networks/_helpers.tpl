{{/* Peers in the namespace of the release: (dict "root" $ "components" (list "api")) */}}
{{- define "poiesis.servicePeers" -}}
{{- range .components }}
- podSelector:
    matchLabels: {{- include "poiesis.selectorLabels" (dict "root" $.root "component" .) | nindent 6 }}
{{- end }}
{{- end -}}

{{/* The TaskPods of all namespaces of tasks, as a peer. */}}
{{- define "poiesis.taskPeer" -}}
- namespaceSelector:
    matchExpressions:
      - {key: kubernetes.io/metadata.name, operator: In, values: {{ include "poiesis.tasksNamespaces" . }}}
  podSelector:
    matchExpressions: [{key: poiesis.io/task, operator: Exists}]
{{- end -}}

{{/* Public addresses, without `networkPolicy.tasks.deny`, as a list of peers. */}}
{{- define "poiesis.publicAddresses" -}}
{{- /* Not globally reachable (IANA's registry of special-purpose addresses, RFC 6890) */ -}}
{{- $private := list "0.0.0.0/8" "10.0.0.0/8" "100.64.0.0/10" "127.0.0.0/8" "169.254.0.0/16" "172.16.0.0/12" "192.0.0.0/24" "192.168.0.0/16" "198.18.0.0/15" -}}
{{- $denied := list -}}
{{- range .Values.networkPolicy.tasks.deny -}}
{{- if regexMatch "^[23][0-9a-fA-F]{3}:" . -}}
{{- $denied = append $denied . -}}
{{- else if not (contains ":" .) -}}
{{- $private = append $private . -}}
{{- end -}}
{{- end -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except: {{- $private | uniq | toYaml | nindent 6 }}
- ipBlock:
    cidr: 2000::/3
    {{- with $denied }}
    except: {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end -}}

{{/*
The S3 endpoint of a URL as an egress rule in JSON; empty: a name, whose addresses no policy can express. Of a Service,
the rule contains the Pods of its namespace: a policy applies after the Service's address was replaced.
*/}}
{{- define "poiesis.endpointRule" -}}
{{- $url := urlParse . -}}
{{- $port := trimPrefix ":" (regexFind ":[0-9]+$" $url.host) -}}
{{- $ports := list (dict "protocol" "TCP" "port" (int (default (ternary "80" "443" (eq $url.scheme "http")) $port))) -}}
{{- $service := regexFind "^[^.]+\\.[^.]+\\.svc(\\.|$)" $url.hostname -}}
{{- if regexMatch "^[0-9]+(\\.[0-9]+){3}$" $url.hostname -}}
{{- dict "to" (list (dict "ipBlock" (dict "cidr" (printf "%s/32" $url.hostname)))) "ports" $ports | toJson -}}
{{- else if contains ":" $url.hostname -}}
{{- dict "to" (list (dict "ipBlock" (dict "cidr" (printf "%s/128" $url.hostname)))) "ports" $ports | toJson -}}
{{- else if $service -}}
{{- $labels := dict "kubernetes.io/metadata.name" (index (splitList "." $service) 1) -}}
{{- dict "to" (list (dict "namespaceSelector" (dict "matchLabels" $labels))) "ports" $ports | toJson -}}
{{- end -}}
{{- end -}}

{{/* The S3 endpoints of the configuration, as a JSON list. */}}
{{- define "poiesis.storageEndpoints" -}}
{{- $s3 := .Values.config.storage.s3 -}}
{{- $urls := list $s3.endpoint (dig "stsEndpoint" nil (default dict $s3.webIdentity)) -}}
{{- range $s3.credentials -}}
{{- $urls = append $urls .endpoint -}}
{{- end -}}
{{- without $urls nil "" | uniq | toJson -}}
{{- end -}}

{{/* An entry of `networkPolicy.tasks.allow` as an egress rule in JSON. */}}
{{- define "poiesis.allowRule" -}}
{{- $entry := . -}}
{{- if kindIs "string" . -}}
{{- $entry = dict "cidr" . -}}
{{- end -}}
{{- $selectors := pick $entry "namespaceSelector" "podSelector" -}}
{{- $peer := $selectors -}}
{{- if $entry.cidr -}}
{{- if $selectors -}}
{{- fail (printf "networkPolicy.tasks.allow: an entry must have either cidr or selectors, got both (cidr %s)" $entry.cidr) -}}
{{- end -}}
{{- $peer = dict "ipBlock" (pick $entry "cidr" "except") -}}
{{- else if not $selectors -}}
{{- fail (printf "networkPolicy.tasks.allow: an entry must have cidr, namespaceSelector or podSelector, got %s" (keys $entry | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $rule := dict "to" (list $peer) -}}
{{- if $entry.ports -}}
{{- $ports := list -}}
{{- range $entry.ports -}}
{{- $ports = append $ports (dict "protocol" "TCP" "port" (int .)) -}}
{{- end -}}
{{- $_ := set $rule "ports" $ports -}}
{{- end -}}
{{- $rule | toJson -}}
{{- end -}}

{{/* `policyTypes`, `ingress` and `egress` of TaskPods. */}}
{{- define "poiesis.taskRules" -}}
{{- $policy := .Values.networkPolicy -}}
policyTypes: [Ingress, Egress]
egress:
  # cluster DNS
  - to:
      - namespaceSelector:
          matchLabels: {kubernetes.io/metadata.name: {{ $policy.dns.namespace }}}
        podSelector:
          matchLabels: {{- toYaml $policy.dns.podLabels | nindent 12 }}
      {{- range $policy.dns.cidrs }}
      - ipBlock: {cidr: {{ . | quote }}}
      {{- end }}
    ports:
      {{- range $policy.dns.ports }}
      - {protocol: UDP, port: {{ . }}}
      - {protocol: TCP, port: {{ . }}}
      {{- end }}
  # reports of the recorder
  {{- if eq .Values.config.recorder.transport "gateway" }}
  - to:
      - namespaceSelector:
          matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}
        podSelector:
          matchLabels: {{- include "poiesis.selectorLabels" (dict "root" . "component" "gateway") | nindent 12 }}
    ports: [{protocol: TCP, port: 8443}]
  {{- else if .Values.postgresql.embedded }}
  - to:
      - namespaceSelector:
          matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}
        podSelector:
          matchLabels: {{- include "poiesis.selectorLabels" (dict "root" . "component" "postgres") | nindent 12 }}
    ports: [{protocol: TCP, port: 5432}]
  {{- end }}
  {{- if not .Values.config.recorder.filesOnly }}
  # the API server, at its own addresses: a policy applies after the address of the Service was replaced
  - ports:
      {{- range $policy.apiServer.ports }}
      - {protocol: TCP, port: {{ . }}}
      {{- end }}
    {{- with $policy.apiServer.cidrs }}
    to:
      {{- range . }}
      - ipBlock: {cidr: {{ . | quote }}}
      {{- end }}
    {{- end }}
  {{- end }}
  # public addresses
  - to:
      {{- include "poiesis.publicAddresses" . | nindent 6 }}
  {{- range include "poiesis.storageEndpoints" . | fromJsonArray }}
  {{- with include "poiesis.endpointRule" . }}
  - {{ . }}  # configured object storage
  {{- end }}
  {{- end }}
  {{- range $policy.tasks.allow }}
  - {{ include "poiesis.allowRule" . }}  # networkPolicy.tasks.allow
  {{- end }}
{{- end -}}
