{{/*
The prefix of every label and annotation. The charts and, through its configuration, the injector take it from here.
*/}}
{{- define "postern.domain" -}}
postern.dev
{{- end }}

{{/*
A time such as `500ms` or `2m` in whole seconds, rounded up.
*/}}
{{- define "postern.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]*$" . -}}
{{- $milliseconds := dict "" 1000 "ms" 1 "s" 1000 "m" 60000 "min" 60000 "h" 3600000 "d" 86400000 -}}
{{- div (add (mul $number (get $milliseconds $unit)) 999) 1000 -}}
{{- end }}

{{/*
A size such as `64MiB` in whole MiB, rounded up.
*/}}
{{- define "postern.mib" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-zA-Z]*$" . -}}
{{- $bytes := dict "" 1 "B" 1 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 "kB" 1000 "MB" 1000000 "GB" 1000000000 -}}
{{- div (add (mul $number (get $bytes $unit)) 1048575) 1048576 -}}
{{- end }}

{{/*
Ends the rendering with everything that does not fit together, at once. What is wrong with a single value, the schema
says.
*/}}
{{- define "postern.check" -}}
{{- $v := .Values.postern | default (index .Values "postern-sidecar") -}}
{{- if not $v -}}
{{- fail "postern-sidecar: there are no values; add the chart to `dependencies` in Chart.yaml, with `alias: postern` or without" -}}
{{- end -}}
{{- $problems := list -}}
{{- if semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version -}}
{{- $problems = append $problems (printf "Kubernetes is %s; wanted 1.29 or newer, where native sidecars are on by default" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $p := $v.policy -}}
{{- $given := list -}}
{{- range $key := list "source" "configMap" "volume" -}}
{{- if get $p $key -}}{{- $given = append $given (printf "`policy.%s`" $key) -}}{{- end -}}
{{- end -}}
{{- if eq (len $given) 0 -}}
{{- $problems = append $problems "there is no policy; set `policy.source` with `policy.trustedRoot`, or `policy.configMap`, or `policy.volume`" -}}
{{- else if gt (len $given) 1 -}}
{{- $problems = append $problems (printf "%s are given; wanted one of them" (join " and " $given)) -}}
{{- end -}}
{{- $roots := list -}}
{{- range $key := list "inline" "configMap" -}}
{{- if get $p.trustedRoot $key -}}{{- $roots = append $roots (printf "`policy.trustedRoot.%s`" $key) -}}{{- end -}}
{{- end -}}
{{- if and $p.source (not $roots) -}}
{{- $problems = append $problems "`policy.source` needs what publications are verified by; set `policy.trustedRoot.inline` (with --set-file) or `policy.trustedRoot.configMap`" -}}
{{- end -}}
{{- if gt (len $roots) 1 -}}
{{- $problems = append $problems (printf "%s are given; wanted one of them" (join " and " $roots)) -}}
{{- end -}}
{{- if and $roots (not $p.source) -}}
{{- $problems = append $problems (printf "%s is given without `policy.source`" (first $roots)) -}}
{{- end -}}
{{- if and $p.trustedRoot.inline (not (hasPrefix "{" (trim $p.trustedRoot.inline))) -}}
{{- $problems = append $problems "`policy.trustedRoot.inline` is no JSON; wanted the text of root.json, not its name: use --set-file" -}}
{{- end -}}
{{- range $key := list "lenient" "strictWildcards" "conditionExtensions" -}}
{{- if and $p.source (not (has (toString (get $v $key)) (list "" "<nil>"))) -}}
{{- $problems = append $problems (printf "`%s` is given with `policy.source`; a publication is as it was compiled: say it to `postern publish`" $key) -}}
{{- end -}}
{{- end -}}
{{- $sinks := include "postern.sinks" $v -}}
{{- if not $sinks -}}
{{- range $key := list "keep" "mask" "queue" "whenFull" -}}
{{- if not (has (toString (get $v.records $key)) (list "" "<nil>")) -}}
{{- $problems = append $problems (printf "`records.%s` is given, and nothing is recorded; set `records.stdout`, `records.file` or `records.otlp`" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.records.otlp (not (or $v.otel.endpoint $v.env $v.envFrom)) -}}
{{- $problems = append $problems "`records.otlp` needs a receiver; set `otel.endpoint`, or OTEL_EXPORTER_OTLP_LOGS_ENDPOINT in `env`" -}}
{{- end -}}
{{- if or $v.candidate.configMap $v.candidate.volume -}}
{{- if and $v.candidate.configMap $v.candidate.volume -}}
{{- $problems = append $problems "`candidate.configMap` and `candidate.volume` are given; wanted one of them" -}}
{{- end -}}
{{- if not $sinks -}}
{{- $problems = append $problems "`candidate` needs records, where what it decides otherwise is told; set `records.stdout`, `records.file` or `records.otlp`" -}}
{{- end -}}
{{- else if $v.candidate.share -}}
{{- $problems = append $problems "`candidate.share` is given without a candidate" -}}
{{- end -}}
{{- if and (eq $v.state.kind "persistentVolumeClaim") (not $v.state.claim) -}}
{{- $problems = append $problems "`state.kind` is persistentVolumeClaim; wanted its name in `state.claim`" -}}
{{- end -}}
{{- if and (eq $v.state.kind "hostPath") (not $v.state.hostPath) -}}
{{- $problems = append $problems "`state.kind` is hostPath; wanted a directory of the node in `state.hostPath`" -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\npostern-sidecar: %s" (join "\npostern-sidecar: " $problems)) -}}
{{- end -}}
{{- end }}

{{/*
The image by digest, or by tag.
*/}}
{{- define "postern.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ required "set `image.tag` or `image.digest`" .tag }}
{{- end -}}
{{- end }}
