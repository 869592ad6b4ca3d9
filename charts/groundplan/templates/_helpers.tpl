{{/* Names don't follow the release's: workers look for them, and one installation serves a cluster. */}}

{{- define "groundplan.labels" -}}
app.kubernetes.io/name: groundplan
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selects the pods of a component. Takes a list: the root and the component. */}}
{{- define "groundplan.selector" -}}
app.kubernetes.io/name: groundplan
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "groundplan.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "groundplan.redisSecret" -}}
{{ .Values.redis.existingSecret.name | default "groundplan-redis" }}
{{- end }}

{{/* What every pod of the chart but the sidecar keeps to: PodSecurity's restricted profile. */}}
{{- define "groundplan.restrictedPod" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "groundplan.restricted" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end }}

{{/* Not empty where the chart brings a Redis of its own. */}}
{{- define "groundplan.ownRedis" -}}
{{- if and .Values.redis.enabled (not .Values.redis.url) (not .Values.redis.existingSecret.name) }}yes{{ end }}
{{- end }}

{{/* What is in a Secret of this release already, so that an upgrade keeps it. Takes a list: the root, Secret and key. */}}
{{- define "groundplan.kept" -}}
{{- $secret := lookup "v1" "Secret" (index . 0).Release.Namespace (index . 1) -}}
{{- if $secret }}{{ index ($secret.data | default dict) (index . 2) | default "" | b64dec }}{{ end }}
{{- end }}
