{{/*
The sidecar, an item of `initContainers`. Put it first: what comes after it starts when a policy is active, and it ends
when all others have ended.

  initContainers:
    - {{- include "postern.sidecar" . | nindent 6 }}
*/}}
{{- define "postern.sidecar" -}}
{{- include "postern.check" . -}}
{{- $v := .Values.postern | default (index .Values "postern-sidecar") -}}
name: postern
image: {{ include "postern.image" $v.image | quote }}
imagePullPolicy: {{ $v.image.pullPolicy }}
restartPolicy: Always
args:
  - serve
  {{- if $v.policy.source }}
  - {{ printf "--source=%s" $v.policy.source | quote }}
  - --trusted-root=/etc/postern/trusted-root/{{ if $v.policy.trustedRoot.inline }}root.json{{ else }}{{ $v.policy.trustedRoot.key }}{{ end }}
  {{- if ne $v.state.kind "none" }}
  - --state-dir=/var/lib/postern
  {{- end }}
  {{- else }}
  - --policy=/etc/postern/policy
  {{- end }}
  - --uds={{ $v.socket.directory }}/postern.sock
  - --uds-mode={{ $v.socket.mode }}
  - --admin={{ $v.admin.address }}:{{ int $v.admin.port }}
  {{- if $v.tcp }}
  - {{ printf "--tcp=%s" $v.tcp | quote }}
  {{- end }}
  - --drain-delay={{ $v.drain.delay }}
  - --drain-grace={{ $v.drain.grace }}
  {{- range $key := list "maxBundleBytes" "cacheMaxBytes" "workers" "pollInterval" "maxAge" "whenStale" "whenExpired" "lenient" "strictWildcards" "conditionExtensions" "reloadDebounce" "reflection" "maxBatchItems" "maxRequestBytes" "maxConcurrentRequests" "maxConcurrentBytes" "maxConnections" "udsAllowUids" "udsAllowGids" "cache" "traceKeep" "tracePrincipals" "traceBaggage" "traceGenAi" "logFormat" "logLevel" }}
  {{- $value := get $v $key }}
  {{- if not (has (toString $value) (list "" "<nil>")) }}
  - {{ printf "--%s=%v" (kebabcase $key) (ternary (int64 $value) $value (kindIs "float64" $value)) | quote }}
  {{- end }}
  {{- end }}
  {{- $sinks := include "postern.sinks" $v }}
  {{- if $sinks }}
  - {{ printf "--records=%s" $sinks | quote }}
  {{- if $v.records.hashKey.secret }}
  - --records-hash-key-file=/etc/postern/records-key/{{ $v.records.hashKey.key }}
  {{- end }}
  {{- range $key := list "keep" "mask" "queue" "queueBytes" "whenFull" "maxBytes" "maxFiles" }}
  {{- $value := get $v.records $key }}
  {{- if not (has (toString $value) (list "" "<nil>")) }}
  - {{ printf "--records-%s=%v" (kebabcase $key) (ternary (int64 $value) $value (kindIs "float64" $value)) | quote }}
  {{- end }}
  {{- end }}
  {{- end }}
  {{- if or $v.candidate.configMap $v.candidate.volume }}
  - --candidate=/etc/postern/candidate
  {{- with $v.candidate.share }}
  - {{ printf "--candidate-share=%s" . | quote }}
  {{- end }}
  {{- end }}
{{- if or $v.otel.endpoint $v.env }}
env:
  {{- if $v.otel.endpoint }}
  - name: K8S_NODE_IP
    valueFrom: {fieldRef: {apiVersion: v1, fieldPath: status.hostIP}}
  - name: K8S_NODE_NAME
    valueFrom: {fieldRef: {apiVersion: v1, fieldPath: spec.nodeName}}
  - name: K8S_POD_NAME
    valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}
  - name: K8S_NAMESPACE_NAME
    valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}
  - name: OTEL_EXPORTER_OTLP_ENDPOINT
    value: {{ $v.otel.endpoint | quote }}
  - name: OTEL_RESOURCE_ATTRIBUTES
    value: k8s.node.name=$(K8S_NODE_NAME),k8s.pod.name=$(K8S_POD_NAME),k8s.namespace.name=$(K8S_NAMESPACE_NAME)
  {{- end }}
  {{- range $name, $value := $v.env }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- with $v.envFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: postern-admin
    containerPort: {{ int $v.admin.port }}
    protocol: TCP
# Passes when a policy is active: only a startup probe holds back the containers that come after.
startupProbe:
  httpGet: {path: /readyz, port: postern-admin, scheme: HTTP}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: {{ int $v.startup.seconds }}
readinessProbe:
  httpGet: {path: /readyz, port: postern-admin, scheme: HTTP}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 3
livenessProbe:
  httpGet: {path: /livez, port: postern-admin, scheme: HTTP}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- $bundle := include "postern.mib" $v.maxBundleBytes | int64 }}
{{- $private := add (include "postern.mib" $v.cacheMaxBytes | int64) ($v.resources.privateMiB | int64) }}
{{- if $sinks }}{{- $private = add $private (include "postern.mib" $v.records.queueBytes | int64) }}{{- end }}
{{- if or $v.candidate.configMap $v.candidate.volume }}{{- $private = add $private $bundle }}{{- end }}
resources:
  requests:
    cpu: {{ $v.resources.cpu | quote }}
    # One bundle, cache and private memory: the steady state.
    memory: {{ $v.resources.memoryRequest | default (printf "%dMi" (add $bundle $private)) }}
  limits:
    # Two bundles, cache and private memory: while one policy takes the place of another both are mapped.
    memory: {{ $v.resources.memoryLimit | default (printf "%dMi" (add $bundle $bundle $private)) }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int64 $v.user }}
  # What is made by this group: the socket, unless the pod has an fsGroup, which comes first.
  runAsGroup: {{ int64 $v.socket.group }}
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  privileged: false
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - name: postern-socket
    mountPath: {{ $v.socket.directory }}
  {{- if $v.policy.source }}
  - name: postern-trusted-root
    mountPath: /etc/postern/trusted-root
    readOnly: true
  {{- if ne $v.state.kind "none" }}
  - name: postern-state
    mountPath: /var/lib/postern
  {{- end }}
  {{- else }}
  - name: {{ $v.policy.volume | default "postern-policy" }}
    mountPath: /etc/postern/policy
    readOnly: true
  {{- end }}
  {{- if $v.records.file }}
  - name: {{ $v.records.fileVolume | default "postern-records" }}
    mountPath: /var/log/postern
  {{- end }}
  {{- if $v.records.hashKey.secret }}
  - name: postern-records-key
    mountPath: /etc/postern/records-key
    readOnly: true
  {{- end }}
  {{- if or $v.candidate.configMap $v.candidate.volume }}
  - name: {{ $v.candidate.volume | default "postern-candidate" }}
    mountPath: /etc/postern/candidate
    readOnly: true
  {{- end }}
  {{- if not $v.serviceAccountToken }}
  # Kubernetes mounts no token where something is mounted already.
  - name: postern-no-token
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
  {{- end }}
  {{- with $v.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/*
Where records go, of the values.
*/}}
{{- define "postern.sinks" -}}
{{- $sinks := list -}}
{{- if .records.stdout }}{{- $sinks = append $sinks "stdout" -}}{{- end -}}
{{- if .records.file }}{{- $sinks = append $sinks "file:/var/log/postern/decisions.jsonl" -}}{{- end -}}
{{- if .records.otlp }}{{- $sinks = append $sinks "otlp" -}}{{- end -}}
{{- join "," $sinks -}}
{{- end }}

{{/*
Items of `volumes` of the pod.
*/}}
{{- define "postern.volumes" -}}
{{- include "postern.check" . -}}
{{- $v := .Values.postern | default (index .Values "postern-sidecar") -}}
- name: postern-socket
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- if $v.policy.source }}
- name: postern-trusted-root
  {{- if $v.policy.trustedRoot.inline }}
  downwardAPI:
    items:
      - path: root.json
        fieldRef:
          apiVersion: v1
          fieldPath: metadata.annotations['{{ include "postern.domain" . }}/trusted-root']
  {{- else }}
  configMap:
    name: {{ $v.policy.trustedRoot.configMap }}
  {{- end }}
{{- if ne $v.state.kind "none" }}
- name: postern-state
  {{- if eq $v.state.kind "persistentVolumeClaim" }}
  persistentVolumeClaim:
    claimName: {{ $v.state.claim }}
  {{- else if eq $v.state.kind "hostPath" }}
  hostPath:
    path: {{ $v.state.hostPath }}
    type: Directory
  {{- else }}
  emptyDir:
    # The active bundle, the one before it, the one that is being fetched, and metadata.
    sizeLimit: {{ add (mul 3 (include "postern.mib" $v.maxBundleBytes | int64)) 16 }}Mi
  {{- end }}
{{- end }}
{{- else if $v.policy.configMap }}
- name: postern-policy
  configMap:
    name: {{ $v.policy.configMap }}
{{- end }}
{{- if and $v.records.file (not $v.records.fileVolume) }}
- name: postern-records
  emptyDir:
    # The files that are kept, and one that is being written.
    sizeLimit: {{ mul (add $v.records.maxFiles 1) (include "postern.mib" $v.records.maxBytes | int64) }}Mi
{{- end }}
{{- if $v.records.hashKey.secret }}
- name: postern-records-key
  secret:
    secretName: {{ $v.records.hashKey.secret }}
{{- end }}
{{- if $v.candidate.configMap }}
- name: postern-candidate
  configMap:
    name: {{ $v.candidate.configMap }}
{{- end }}
{{- if not $v.serviceAccountToken }}
- name: postern-no-token
  emptyDir:
    medium: Memory
    sizeLimit: 64Ki
{{- end }}
{{- end }}

{{/*
Items of `env` of a container that asks: POSTERN_CONNECT, which clients and `postern check` read.
*/}}
{{- define "postern.env" -}}
{{- $v := .Values.postern | default (index .Values "postern-sidecar") -}}
- name: POSTERN_CONNECT
  value: unix://{{ $v.socket.directory }}/postern.sock
{{- end }}

{{/*
Items of `volumeMounts` of a container that asks. Read-only: connecting needs the right to write to the socket, not to
its directory, and nobody but the sidecar may put another socket in its place.
*/}}
{{- define "postern.volumeMounts" -}}
{{- $v := .Values.postern | default (index .Values "postern-sidecar") -}}
- name: postern-socket
  mountPath: {{ $v.socket.directory }}
  readOnly: true
{{- end }}

{{/*
Labels of the pod: the injector leaves it alone, the PodMonitor finds it.
*/}}
{{- define "postern.podLabels" -}}
{{ include "postern.domain" . }}/inject: "false"
{{ include "postern.domain" . }}/sidecar: "true"
{{- end }}

{{/*
Annotations of the pod. May be empty.
*/}}
{{- define "postern.podAnnotations" -}}
{{- $v := .Values.postern | default (index .Values "postern-sidecar") -}}
{{- with $v.policy.trustedRoot.inline -}}
{{ include "postern.domain" $ }}/trusted-root: {{ . | quote }}
{{- end }}
{{- end }}

{{/*
Fields of `securityContext` of the pod: the group that may write to the socket.
*/}}
{{- define "postern.podSecurityContext" -}}
{{- $v := .Values.postern | default (index .Values "postern-sidecar") -}}
supplementalGroups: [{{ int64 $v.socket.group }}]
{{- with $v.fsGroup }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- end }}

{{/*
What the sidecar needs of the pod's grace period, in seconds: it is stopped when the application has ended.
*/}}
{{- define "postern.drainSeconds" -}}
{{- $v := .Values.postern | default (index .Values "postern-sidecar") -}}
{{- add (include "postern.seconds" $v.drain.delay) (include "postern.seconds" $v.drain.grace) $v.drain.marginSeconds -}}
{{- end }}

{{/*
`terminationGracePeriodSeconds` of the pod: the application's time, then the sidecar's.
*/}}
{{- define "postern.terminationGracePeriodSeconds" -}}
{{- $v := .Values.postern | default (index .Values "postern-sidecar") -}}
{{- add $v.drain.applicationSeconds (include "postern.drainSeconds" .) -}}
{{- end }}

{{/*
All of the above as one map, which the injector is configured with: what is injected is what a chart includes.
*/}}
{{- define "postern.injection" -}}
container: {{- include "postern.sidecar" . | nindent 2 }}
volumes: {{- include "postern.volumes" . | nindent 2 }}
applicationEnv: {{- include "postern.env" . | nindent 2 }}
applicationVolumeMounts: {{- include "postern.volumeMounts" . | nindent 2 }}
podLabels:
  {{ include "postern.domain" . }}/sidecar: "true"
{{- with include "postern.podAnnotations" . }}
podAnnotations: {{- . | nindent 2 }}
{{- end }}
podSecurityContext: {{- include "postern.podSecurityContext" . | nindent 2 }}
drainSeconds: {{ include "postern.drainSeconds" . }}
{{- end }}
