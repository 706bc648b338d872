{{- define "app.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "app.labels" -}}
{{ include "app.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/*
A pod with Postern in it: every line that says `postern` is all that an application's chart needs.
*/}}
{{- define "app.pod" -}}
metadata:
  labels:
    {{- include "app.selector" . | nindent 4 }}
    {{- include "postern.podLabels" . | nindent 4 }}
  {{- with include "postern.podAnnotations" . }}
  annotations: {{- . | nindent 4 }}
  {{- end }}
spec:
  {{- if ne .Values.kind "Deployment" }}
  restartPolicy: Never
  {{- end }}
  automountServiceAccountToken: {{ .Values.postern.serviceAccountToken }}
  terminationGracePeriodSeconds: {{ include "postern.terminationGracePeriodSeconds" . }}
  securityContext:
    runAsNonRoot: true
    seccompProfile: {type: RuntimeDefault}
    {{- include "postern.podSecurityContext" . | nindent 4 }}
  initContainers:
    - {{- include "postern.sidecar" . | nindent 6 }}
  containers:
    - name: client
      image: {{ .Values.client.image | default (include "postern.image" .Values.postern.image) | quote }}
      {{- with .Values.client.args }}
      args: {{- toYaml . | nindent 8 }}
      {{- end }}
      env: {{- include "postern.env" . | nindent 8 }}
      resources:
        requests: {cpu: 10m, memory: 32Mi}
        limits: {memory: 64Mi}
      securityContext:
        runAsUser: {{ int64 .Values.client.user }}
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
      volumeMounts: {{- include "postern.volumeMounts" . | nindent 8 }}
  volumes: {{- include "postern.volumes" . | nindent 4 }}
{{- end }}
