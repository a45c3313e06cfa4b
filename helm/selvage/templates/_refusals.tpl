{{/*
Combinations that the schema cannot see. Each message says what to do. Included once, so that
nothing is rendered of what cannot work.
*/}}
{{- define "selvage.refuse" -}}
{{- $v := .Values -}}
{{- if and .Release.IsInstall (lt (int $v.origin.replicas) (int $v.origin.founders)) -}}
{{- fail (printf "origin.founders is %d and origin.replicas %d: a cluster is founded when all its founders are there. Set both to the same number at the first installation." (int $v.origin.founders) (int $v.origin.replicas)) -}}
{{- end -}}
{{- if and $v.edge.tls.enabled (not $v.edge.tls.existingSecret) (not $v.edge.tls.certManager.enabled) -}}
{{- fail "edge.tls.enabled needs edge.tls.existingSecret or edge.tls.certManager.enabled." -}}
{{- end -}}
{{- if $v.edge.tls.certManager.enabled -}}
{{- if $v.edge.tls.existingSecret -}}
{{- fail "edge.tls.existingSecret and edge.tls.certManager.enabled: choose one." -}}
{{- end -}}
{{- if or (not $v.edge.tls.certManager.dnsNames) (not $v.edge.tls.certManager.issuerRef.name) -}}
{{- fail "edge.tls.certManager needs dnsNames and issuerRef.name." -}}
{{- end -}}
{{- end -}}
{{- if $v.linkTLS.enabled -}}
{{- if $v.linkTLS.certManager.enabled -}}
{{- if or $v.linkTLS.origin.existingSecret $v.linkTLS.edge.existingSecret -}}
{{- fail "linkTLS.certManager.enabled and an existingSecret: choose one." -}}
{{- end -}}
{{- if not $v.linkTLS.certManager.issuerRef.name -}}
{{- fail "linkTLS.certManager needs issuerRef.name." -}}
{{- end -}}
{{- else if not (and $v.linkTLS.origin.existingSecret $v.linkTLS.edge.existingSecret) -}}
{{- fail "linkTLS.enabled needs linkTLS.origin.existingSecret and linkTLS.edge.existingSecret, or linkTLS.certManager.enabled." -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.edge.drain.preStop "command") (not (include "selvage.admin" (list . "edge"))) -}}
{{- fail "edge.drain.preStop command needs admin.enabled, and with edge.hostNetwork also admin.existingSecret: a Secret whose key admin.secretKey is the token of operators." -}}
{{- end -}}
{{- if and $v.admin.enabled (has (int $v.admin.port) (list (int $v.edge.ports.rtmp) (int $v.edge.ports.rtmps) (int $v.edge.ports.http) (int $v.origin.port) (int $v.origin.httpPort))) -}}
{{- fail "admin.port is also a port of edges or origins." -}}
{{- end -}}
{{- if and $v.monitoring.serviceMonitor.enabled $v.networkPolicy.enabled (not $v.networkPolicy.monitoringFrom) -}}
{{- fail "monitoring.serviceMonitor.enabled with networkPolicy.enabled needs networkPolicy.monitoringFrom: nobody else may ask for metrics." -}}
{{- end -}}
{{- if and $v.tracing.enabled (not $v.tracing.endpoint) (not $v.jaeger.enabled) -}}
{{- fail "tracing.enabled needs tracing.endpoint or jaeger.enabled." -}}
{{- end -}}
{{- if and $v.apps.configMaps $v.apps.existingClaim -}}
{{- fail "apps.configMaps and apps.existingClaim: choose one." -}}
{{- end -}}
{{- if and $v.edge.hostNetwork $v.networkPolicy.enabled (not $v.networkPolicy.nodeCIDRs) -}}
{{- fail "edge.hostNetwork with networkPolicy.enabled needs networkPolicy.nodeCIDRs: edges on their node's network have no identity that the origins' policy knows." -}}
{{- end -}}
{{- with $v.edge.autoscaling -}}
{{- if .enabled -}}
{{- if lt (int .maxReplicas) (int .minReplicas) -}}
{{- fail "edge.autoscaling.maxReplicas is below minReplicas." -}}
{{- end -}}
{{- if not (or .cpuPercent .connections .egressBytes .extraMetrics) -}}
{{- fail "edge.autoscaling.enabled needs one of cpuPercent, connections, egressBytes and extraMetrics." -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.edge.drain.preStop "sleep") (lt (int $v.edge.drain.preStopSeconds) 1) -}}
{{- fail "edge.drain.preStopSeconds must be at least 1 for preStop sleep; preStop none leaves it out." -}}
{{- end -}}
{{- /* A name that was removed is given to whoever comes back: a list that was left behind would remove it. */ -}}
{{- $prefix := printf "%s-" (include "selvage.originName" .) -}}
{{- range $v.origin.remove.members -}}
{{- $name := toString . -}}
{{- if and (hasPrefix $prefix $name) (lt (int (trimPrefix $prefix $name)) (int $v.origin.replicas)) -}}
{{- fail (printf "origin.remove.members names %s, which is one of the %d origins that stay: empty the list after the upgrade that removed it, and remove those with the highest numbers." $name (int $v.origin.replicas)) -}}
{{- end -}}
{{- end -}}
{{- /* Shrinking without removal would leave voters that never answer. What is installed is known only where there is a cluster to ask. */ -}}
{{- with lookup "apps/v1" "StatefulSet" .Release.Namespace (include "selvage.originName" .) -}}
{{- $fewer := sub (int .spec.replicas) (int $v.origin.replicas) -}}
{{- if lt (len $v.origin.remove.members) (int $fewer) -}}
{{- fail (printf "there are %d origins, and %d are wanted: name the %d members to remove in origin.remove.members (selvage cluster status)." (int .spec.replicas) (int $v.origin.replicas) (int $fewer)) -}}
{{- end -}}
{{- end -}}
{{- end }}
