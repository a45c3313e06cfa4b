{{/* One call of the command against the origins, as a container. Takes (list $ name args). */}}
{{- define "selvage.tool" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  image: {{ include "selvage.image" $root | quote }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args: {{ toJson (index . 2) }}
  {{- if $root.Values.linkTLS.enabled }}
  env: {{- include "selvage.linkEnv" $root | nindent 2 }}
  volumeMounts:
  - {name: link, mountPath: /etc/selvage/link, readOnly: true}
  {{- end }}
  resources:
    requests: {cpu: 20m, memory: 32Mi}
    limits: {memory: 128Mi}
  securityContext: {{- toYaml $root.Values.containerSecurityContext | nindent 4 }}
{{- end }}

{{- define "selvage.toolVolumes" -}}
{{- if .Values.linkTLS.enabled }}
volumes:
- name: link
  secret: {secretName: {{ include "selvage.linkSecret" (list . "origin") }}, defaultMode: 0440}
{{- end }}
{{- end }}
