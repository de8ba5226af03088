{{- define "seqserve.name" -}}
{{- if contains "seqserve" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-seqserve" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "seqserve.selector" -}}
app.kubernetes.io/name: seqserve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "seqserve.labels" -}}
{{ include "seqserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "seqserve.image" -}}
{{- $gpu := ternary "-gpu" "" (gt (int .Values.resources.gpus) 0) -}}
{{- if .Values.image.digest -}}
{{- .Values.image.repository }}@{{ .Values.image.digest -}}
{{- else -}}
{{- .Values.image.repository }}:{{ .Values.image.tag | default (print .Chart.AppVersion $gpu) -}}
{{- end -}}
{{- end -}}

{{- define "seqserve.claim" -}}
{{- .Values.models.claim.existing | default (print (include "seqserve.name" .) "-models") -}}
{{- end -}}

{{/* Whether the store can be had by pods of several nodes. */}}
{{- define "seqserve.isShared" -}}
{{- if or (ne .Values.models.source "claim") (ne .Values.models.claim.accessMode "ReadWriteOnce") -}}
yes
{{- end -}}
{{- end -}}

{{/* Of everything that runs in a container. */}}
{{- define "seqserve.confinement" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "seqserve.podConfinement" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "seqserve.scaling" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - {type: Percent, value: 100, periodSeconds: 30}
    - {type: Pods, value: 4, periodSeconds: 30}
  selectPolicy: Max
scaleDown:
  stabilizationWindowSeconds: 300
  policies:
    - {type: Percent, value: 25, periodSeconds: 60}
  selectPolicy: Max
{{- end -}}
