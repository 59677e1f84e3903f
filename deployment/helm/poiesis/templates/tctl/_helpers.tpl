{{/* Ages of some states as the controller reads them: COMPLETE=30,CANCELED=7 */}}
{{- define "poiesis.daysByState" -}}
{{- $pairs := list -}}
{{- range $state, $days := .daysByState -}}
{{- $pairs = append $pairs (printf "%s=%v" $state $days) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end -}}

{{/* Fail if the archive has no keys. */}}
{{- define "poiesis.checkArchive" -}}
{{- $archive := .Values.tasks.retention.archive -}}
{{- if $archive.url -}}
{{- $secret := required "tasks.retention.archive.secretName is empty: with tasks.retention.archive.url it must name a Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" $archive.secretName -}}
{{- include "poiesis.checkSecret" (dict "root" . "value" "tasks.retention.archive.secretName" "secret" $secret "keys" (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY")) -}}
{{- with $archive.caSecret -}}
{{- if .name -}}
{{- include "poiesis.checkSecret" (dict "root" $ "value" "tasks.retention.archive.caSecret" "secret" .name "keys" (list .key)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "poiesis.tctlMounts" -}}
{{- include "poiesis.postgresCaMount" . }}
{{- with .Values.tasks.retention.archive }}
{{- if .url }}
- {name: archive, mountPath: /tmp}
{{- if .caSecret.name }}
- {name: archive-ca, mountPath: /etc/poiesis-archive, readOnly: true}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "poiesis.tctlVolumes" -}}
{{- include "poiesis.postgresCaVolume" . }}
{{- with .Values.tasks.retention.archive }}
{{- if .url }}
# One object at a time: 64 MiB of documents, compressed, and one more document.
- {name: archive, emptyDir: {sizeLimit: 512Mi}}
{{- if .caSecret.name }}
- name: archive-ca
  secret:
    secretName: {{ .caSecret.name }}
    items: [{key: {{ .caSecret.key }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
