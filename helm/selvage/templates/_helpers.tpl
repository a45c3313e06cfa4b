{{/* Names and labels. */}}

{{- define "selvage.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What selects pods. It never changes: selectors are immutable. Takes (list $ "edge"). */}}
{{- define "selvage.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* What objects bear besides; it changes with the version. Takes (list $ "edge"). */}}
{{- define "selvage.labels" -}}
{{- $root := index . 0 -}}
{{ include "selvage.selector" . }}
app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/part-of: selvage
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "selvage.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "selvage.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "selvage.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* Where origins are. */}}

{{- define "selvage.originName" -}}{{ include "selvage.fullname" . }}-origin{{- end }}

{{- define "selvage.originsHost" -}}
{{ include "selvage.originName" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{/* The address of one origin. Takes (list $ ordinal). */}}
{{- define "selvage.originAddress" -}}
{{- $root := index . 0 -}}
{{ include "selvage.originName" $root }}-{{ index . 1 }}.{{ include "selvage.originsHost" $root }}:{{ $root.Values.origin.port }}
{{- end }}

{{- define "selvage.linkName" -}}
{{ .Values.linkTLS.serverName | default (printf "link.%s" (include "selvage.fullname" .)) }}
{{- end }}

{{/* The Secret with the link's certificate. Takes (list $ "edge"). */}}
{{- define "selvage.linkSecret" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- (index $root.Values.linkTLS $role).existingSecret | default (printf "%s-%s-link" (include "selvage.fullname" $root) $role) -}}
{{- end }}

{{- define "selvage.edgeSecret" -}}
{{- .Values.edge.tls.existingSecret | default (printf "%s-edge-tls" (include "selvage.fullname" .)) -}}
{{- end }}

{{- define "selvage.traceEndpoint" -}}
{{- if .Values.tracing.endpoint -}}
{{- .Values.tracing.endpoint -}}
{{- else -}}
http://{{ include "selvage.fullname" . }}-jaeger.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:4317
{{- end -}}
{{- end }}

{{/*
A configuration as TOML, a line for each key: `play.coalesce = "40ms"`. What JSON writes of a
string, a number, a boolean or a list of these is TOML as well. toToml is not used: numbers of
values are floats to it. Takes (list prefix map).
*/}}
{{- define "selvage.toml" -}}
{{- $prefix := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{ include "selvage.toml" (list (printf "%s%s." $prefix $key) $value) }}
{{- else if not (kindIs "invalid" $value) -}}
{{ $prefix }}{{ $key }} = {{ toRawJson $value }}
{{ end -}}
{{- end -}}
{{- end }}

{{/* What both roles are told. Takes (list $ "edge"), gives YAML. */}}
{{- define "selvage.commonConfig" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
log: {{ toJson (pick $values.log "filter" "format") }}
{{- if $values.tracing.enabled }}
trace: {{ toJson (dict "endpoint" (include "selvage.traceEndpoint" $root) "sample" $values.tracing.sample "clients" $values.tracing.clients "frames" (int64 $values.tracing.frames)) }}
{{- end }}
{{- with $values.monitoring.streams }}
metrics: {{ toJson (dict "streams" (int64 .)) }}
{{- end }}
{{- end }}

{{- define "selvage.edgeConfig" -}}
{{- $values := .Values -}}
{{- $listen := $values.listenAddress -}}
{{ include "selvage.commonConfig" (list . "edge") }}
origins: ["dns:{{ include "selvage.originsHost" . }}:{{ $values.origin.port }}"]
drain_grace: {{ $values.edge.drain.seconds }}s
listen:
  rtmp: "{{ $listen }}:{{ $values.edge.ports.rtmp }}"
  http: "{{ $listen }}:{{ $values.edge.ports.http }}"
  {{- if $values.edge.tls.enabled }}
  rtmps: "{{ $listen }}:{{ $values.edge.ports.rtmps }}"
  {{- end }}
  {{- if $values.edge.proxyProtocol }}
  proxy_protocol: {{ toJson $values.edge.proxyProtocol }}
  {{- end }}
rtmfp:
  enabled: {{ $values.edge.rtmfp.enabled }}
{{- if $values.edge.tls.enabled }}
tls:
  cert: /etc/selvage/tls/tls.crt
  key: /etc/selvage/tls/tls.key
{{- end }}
{{- end }}

{{- define "selvage.originConfig" -}}
{{- $values := .Values -}}
{{ include "selvage.commonConfig" (list . "origin") }}
listen: "{{ $values.listenAddress }}:{{ $values.origin.port }}"
http: "{{ $values.listenAddress }}:{{ $values.origin.httpPort }}"
data: /var/lib/selvage
drain_grace: {{ $values.origin.drainSeconds }}s
cluster:
  name: {{ $values.origin.clusterName | default (include "selvage.fullname" .) | quote }}
  peers:
  {{- range $ordinal := until (int $values.origin.founders) }}
  - {{ add1 $ordinal }}={{ include "selvage.originAddress" (list $ $ordinal) }}
  {{- end }}
{{- if or $values.apps.configMaps $values.apps.existingClaim }}
apps:
  dir: /apps
{{- end }}
{{- end }}

{{/*
Whom an origin with an empty disk asks as well, and one that was removed and is there again. Only
such an origin reads it, so it is no reason to restart the others: the checksum in their template is
that of the configuration without it.
*/}}
{{- define "selvage.originJoin" -}}
{{- if gt (int .Values.origin.replicas) 1 -}}
cluster:
  join:
  {{- range $ordinal := until (int .Values.origin.replicas) }}
  - {{ include "selvage.originAddress" (list $ $ordinal) }}
  {{- end }}
{{- end -}}
{{- end }}

{{/* Parts of pods. */}}

{{/*
Whether pods of a role listen for operators: always on the loopback, by variables, which `selvage
status` and `selvage drain` read as well. On a node's own network the loopback is the node's, and
whoever is there needs a token. Takes (list $ "edge"), gives nothing for no.
*/}}
{{- define "selvage.admin" -}}
{{- $values := (index . 0).Values -}}
{{- $shared := and (eq (index . 1) "edge") $values.edge.hostNetwork -}}
{{- if and $values.admin.enabled (or $values.admin.existingSecret (not $shared)) -}}
true
{{- end -}}
{{- end }}

{{/* Who this is, in configuration and in traces. Takes (list $ "edge"). */}}
{{- define "selvage.env" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
- name: SELVAGE_ID
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- if eq $role "origin" }}
- name: SELVAGE_CLUSTER__ADVERTISE
  value: "$(SELVAGE_ID).{{ include "selvage.originsHost" $root }}:{{ $root.Values.origin.port }}"
{{- end }}
{{- if $root.Values.linkTLS.enabled }}
{{ include "selvage.linkEnv" $root }}
{{- end }}
{{- if include "selvage.admin" . }}
- {name: SELVAGE_ADMIN__LISTEN, value: "127.0.0.1:{{ $root.Values.admin.port }}"}
{{- if $root.Values.admin.existingSecret }}
- {name: SELVAGE_ADMIN__TOKEN_FILE, value: /etc/selvage/admin/{{ $root.Values.admin.secretKey }}}
{{- end }}
{{- end }}
{{- if $root.Values.tracing.enabled }}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: "k8s.namespace.name={{ $root.Release.Namespace }},k8s.pod.name=$(SELVAGE_ID),k8s.node.name=$(NODE_NAME)"
{{- end }}
{{- with (index $root.Values $role).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The certificates of links, as variables: `selvage cluster` reads the same ones, also when somebody
calls it in a container.
*/}}
{{- define "selvage.linkEnv" -}}
- {name: SELVAGE_LINK__TLS__CERT, value: /etc/selvage/link/tls.crt}
- {name: SELVAGE_LINK__TLS__KEY, value: /etc/selvage/link/tls.key}
- {name: SELVAGE_LINK__TLS__CA, value: /etc/selvage/link/ca.crt}
- {name: SELVAGE_LINK__TLS__NAME, value: {{ include "selvage.linkName" . }}}
{{- end }}

{{/* The three probes. Takes (list $ "edge"). */}}
{{- define "selvage.probes" -}}
{{- $root := index . 0 -}}
{{- $port := ternary $root.Values.edge.ports.http $root.Values.origin.httpPort (eq (index . 1) "edge") -}}
{{- $exec := eq $root.Values.probes.kind "exec" -}}
{{- /* A log of many entries is read at the start. */ -}}
startupProbe:
  {{- if $exec }}
  exec: {command: [/selvage, probe, startup, --http, "127.0.0.1:{{ $port }}"]}
  {{- else }}
  httpGet: {path: /startupz, port: http}
  {{- end }}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 300
{{- /* The process alone: a cluster without a leader is not mended by restarts. */}}
livenessProbe:
  {{- if $exec }}
  exec: {command: [/selvage, probe, live, --http, "127.0.0.1:{{ $port }}"]}
  {{- else }}
  httpGet: {path: /livez, port: http}
  {{- end }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- /* An origin knows a leader, an edge reaches an origin. */}}
readinessProbe:
  {{- if $exec }}
  exec: {command: [/selvage, probe, ready, --http, "127.0.0.1:{{ $port }}"]}
  {{- else }}
  httpGet: {path: /readyz, port: http}
  {{- end }}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{/* Takes (list $ "edge"). */}}
{{- define "selvage.mounts" -}}
{{- $root := index . 0 -}}
- {name: config, mountPath: /etc/selvage/config, readOnly: true}
{{- if $root.Values.linkTLS.enabled }}
- {name: link, mountPath: /etc/selvage/link, readOnly: true}
{{- end }}
{{- if and $root.Values.admin.enabled $root.Values.admin.existingSecret }}
- {name: admin, mountPath: /etc/selvage/admin, readOnly: true}
{{- end }}
{{- end }}

{{/* Takes (list $ "edge"). */}}
{{- define "selvage.volumes" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
- name: config
  configMap: {name: "{{ include "selvage.fullname" $root }}-{{ $role }}"}
{{- if $root.Values.linkTLS.enabled }}
- name: link
  secret: {secretName: {{ include "selvage.linkSecret" . }}, defaultMode: 0440}
{{- end }}
{{- if and $root.Values.admin.enabled $root.Values.admin.existingSecret }}
- name: admin
  secret:
    secretName: {{ $root.Values.admin.existingSecret }}
    defaultMode: 0440
    items: [{key: {{ $root.Values.admin.secretKey }}, path: {{ $root.Values.admin.secretKey }}}]
{{- end }}
{{- end }}

{{/* Where pods may run. Takes (list $ "edge" antiAffinity). */}}
{{- define "selvage.placement" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $anti := index . 2 -}}
{{- $values := index $root.Values $role -}}
{{- if ne $anti "none" -}}
affinity:
  podAntiAffinity:
    {{- if eq $anti "required" }}
    requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels: {{- include "selvage.selector" (list $root $role) | nindent 10 }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "selvage.selector" (list $root $role) | nindent 12 }}
    {{- end }}
{{- end }}
{{- with $values.zoneSpread }}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: {{ . }}
  labelSelector:
    matchLabels: {{- include "selvage.selector" (list $root $role) | nindent 6 }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* What all pods of the fabric have in common. */}}
{{- define "selvage.podBase" -}}
serviceAccountName: {{ include "selvage.serviceAccount" . }}
automountServiceAccountToken: false
{{- /* Links of services become variables that begin with SELVAGE_, and those are configuration. */}}
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end }}

{{/* What a restricted pod of either role may reach. */}}
{{- define "selvage.egress" -}}
- ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
- to:
  - podSelector:
      matchLabels: {{- include "selvage.selector" (list . "origin") | nindent 8 }}
  ports:
  - {protocol: TCP, port: link}
{{- if and .Values.tracing.enabled .Values.tracing.endpoint }}
- ports:
  - {protocol: TCP, port: {{ regexFind "[0-9]+$" (trimSuffix "/" .Values.tracing.endpoint) | default "4317" }}}
{{- else if .Values.tracing.enabled }}
- to:
  - podSelector:
      matchLabels: {{- include "selvage.selector" (list . "jaeger") | nindent 8 }}
  ports:
  - {protocol: TCP, port: otlp}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
A quantity such as 4Gi as PromQL: `4 * 1073741824`; without one there is no limit to reach.
Takes (list resources "memory").
*/}}
{{- define "selvage.limitBytes" -}}
{{- $limits := (index . 0).limits | default dict -}}
{{- $quantity := index $limits (index . 1) | default "Inf" | toString -}}
{{- $suffix := regexFind "[KMGTPkm]i?$" $quantity -}}
{{- $factors := dict "Ki" "1024" "Mi" "1048576" "Gi" "1073741824" "Ti" "1099511627776" "Pi" "1125899906842624" "k" "1000" "M" "1000000" "G" "1000000000" "T" "1000000000000" "P" "1000000000000000" "m" "0.001" -}}
{{- trimSuffix $suffix $quantity }} * {{ index $factors $suffix | default "1" -}}
{{- end }}
