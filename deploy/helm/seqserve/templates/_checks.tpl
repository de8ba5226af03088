{{/* What a schema of single values cannot say. */}}
{{- define "seqserve.check" -}}
{{- $isShared := eq (include "seqserve.isShared" .) "yes" -}}
{{- if not $isShared -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "replicas is %d, but models.claim.accessMode ReadWriteOnce is of one node: use ReadWriteMany, or another models.source" (int .Values.replicas)) -}}
{{- end -}}
{{- if ne .Values.autoscaling.by "none" -}}
{{- fail "autoscaling needs a store that pods of several nodes can have: models.claim.accessMode ReadWriteMany or ReadOnlyMany, or another models.source" -}}
{{- end -}}
{{- end -}}
{{- if and (ne .Values.autoscaling.by "none") (gt (int .Values.replicas) 1) -}}
{{- fail "replicas has no effect with autoscaling: set autoscaling.minReplicas" -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas (%d) exceeds autoscaling.maxReplicas (%d)" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq .Values.autoscaling.by "cpu") (gt (int .Values.resources.gpus) 0) -}}
{{- fail "autoscaling.by cpu says nothing about a GPU: use queue" -}}
{{- end -}}
{{- if lt (float64 .Values.settings.drain_seconds) (float64 .Values.settings.max_request_seconds) -}}
{{- fail (printf "settings.drain_seconds (%v) is below settings.max_request_seconds (%v): a pod that goes would cut calls" .Values.settings.drain_seconds .Values.settings.max_request_seconds) -}}
{{- end -}}
{{- end -}}
