{{- define "postern.chart.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "postern.chart.fullname" -}}
{{- $name := include "postern.chart.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/*
Labels that select, of (dict "root" $ "component" "injector").
*/}}
{{- define "postern.chart.selector" -}}
app.kubernetes.io/name: {{ include "postern.chart.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "postern.chart.labels" -}}
{{ include "postern.chart.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The account of a component. Nothing that it runs asks the Kubernetes API.
*/}}
{{- define "postern.chart.serviceAccount" -}}
{{- if .root.Values.serviceAccount.name -}}
{{- .root.Values.serviceAccount.name -}}
{{- else if .root.Values.serviceAccount.create -}}
{{- printf "%s-%s" (include "postern.chart.fullname" .root) .component -}}
{{- else -}}
default
{{- end -}}
{{- end }}

{{/*
Security of the chart's own containers: what restricted Pod Security asks for, and a read-only root.
*/}}
{{- define "postern.chart.securityContext" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.sidecar.user }}
runAsGroup: {{ int64 .Values.sidecar.user }}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
privileged: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/*
A context for the templates of the library, of (dict "root" $ "values" …).
*/}}
{{- define "postern.chart.injection" -}}
{{- include "postern.injection" (dict "Values" (dict "postern" .values) "Capabilities" .root.Capabilities "Release" .root.Release "Chart" .root.Chart) -}}
{{- end }}

{{/*
The configuration of the injector: every profile as the library chart renders it.
*/}}
{{- define "postern.chart.config" -}}
{{- $profiles := dict "default" (include "postern.chart.injection" (dict "root" $ "values" .Values.sidecar) | fromYaml) -}}
{{- range $name, $changes := .Values.profiles -}}
{{- $values := mergeOverwrite (deepCopy $.Values.sidecar) (deepCopy $changes) -}}
{{- $profiles = set $profiles $name (include "postern.chart.injection" (dict "root" $ "values" $values) | fromYaml) -}}
{{- end -}}
{{- range $name, $profile := $profiles -}}
{{- if hasKey $profile "Error" -}}{{- fail (printf "the profile `%s` renders no YAML: %s" $name (get $profile "Error")) -}}{{- end -}}
{{- end -}}
{{- range $namespace, $defaults := .Values.namespaces -}}
{{- if and $defaults.profile (not (hasKey $profiles $defaults.profile)) -}}
{{- fail (printf "`namespaces.%s.profile` is `%s`; wanted one of: %s" $namespace $defaults.profile (keys $profiles | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- dict "domain" (include "postern.domain" .) "profiles" $profiles "namespaces" .Values.namespaces | toPrettyJson -}}
{{- end }}

{{/*
What does not fit together, all of it at once.
*/}}
{{- define "postern.chart.check" -}}
{{- $problems := list -}}
{{- if semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version -}}
{{- $problems = append $problems (printf "Kubernetes is %s; wanted 1.29 or newer, where native sidecars are on by default" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $certificate := .Values.injector.certificate -}}
{{- if and (eq $certificate.from "existing") (not (and $certificate.existing.secretName $certificate.existing.caBundle)) -}}
{{- $problems = append $problems "`injector.certificate.from` is existing; wanted `existing.secretName` and `existing.caBundle` beside it" -}}
{{- end -}}
{{- if eq (int .Values.injector.port) (int .Values.injector.adminPort) -}}
{{- $problems = append $problems "`injector.port` and `injector.adminPort` are the same" -}}
{{- end -}}
{{- if hasKey .Values.profiles "default" -}}
{{- $problems = append $problems "`profiles.default`: the default profile is `sidecar`; write its values there" -}}
{{- end -}}
{{- range $job := list "refresh" "publish" -}}
{{- $values := get $.Values $job -}}
{{- if $values.enabled -}}
{{- if not $.Values.repository.at -}}
{{- $problems = append $problems (printf "`%s.enabled` needs the repository; set `repository.at`" $job) -}}
{{- end -}}
{{- if not $values.keysSecret -}}
{{- $problems = append $problems (printf "`%s.enabled` needs keys; set `%s.keysSecret`" $job $job) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.publish.enabled -}}
{{- if eq (empty .Values.publish.configMap) (empty .Values.publish.claim) -}}
{{- $problems = append $problems "`publish.enabled` needs a policy; set `publish.configMap` or `publish.claim`, one of the two" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.repository.claim .Values.repository.at (not (hasPrefix "/repository" .Values.repository.at)) -}}
{{- $problems = append $problems (printf "`repository.claim` is mounted at /repository, and `repository.at` is %s; wanted /repository or below" .Values.repository.at) -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\npostern: %s" (join "\npostern: " $problems)) -}}
{{- end -}}
{{- end }}

{{/*
The pod of a job that writes to the repository, of (dict "root" $ "component" … "args" … "keys" SECRET "policy" VOLUME).
*/}}
{{- define "postern.chart.job" -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "postern.chart.labels" . | nindent 4 }}
    {{- with $values.repository.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "postern.chart.serviceAccount" (dict "root" .root "component" "jobs") }}
  # Workload identity mounts tokens of its own; this one is for the Kubernetes API, which no job asks.
  automountServiceAccountToken: false
  {{- with $values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    fsGroup: {{ int64 $values.sidecar.user }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: {{ .component }}
      image: {{ include "postern.image" $values.sidecar.image | quote }}
      imagePullPolicy: {{ $values.sidecar.image.pullPolicy }}
      args: {{- toYaml .args | nindent 8 }}
      {{- with $values.repository.env }}
      env:
        {{- range $name, $value := . }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
      {{- end }}
      {{- with $values.repository.envFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      resources: {{- toYaml $values.jobs.resources | nindent 8 }}
      securityContext: {{- include "postern.chart.securityContext" .root | nindent 8 }}
      volumeMounts:
        - name: keys
          mountPath: /etc/postern/keys
          readOnly: true
        {{- if .policy }}
        - name: policy
          mountPath: /etc/postern/policy
          readOnly: true
        {{- end }}
        {{- if $values.repository.claim }}
        - name: repository
          mountPath: /repository
        {{- end }}
  volumes:
    - name: keys
      secret:
        secretName: {{ .keys }}
        defaultMode: 0440
    {{- with .policy }}
    - name: policy
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $values.repository.claim }}
    - name: repository
      persistentVolumeClaim:
        claimName: {{ . }}
    {{- end }}
{{- end }}
