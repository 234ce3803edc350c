{{- /*
The two containers that carry a payload between a bucket and the pod. They keep the stage contract, but are no stages: they
see the whole payload, and they alone the bucket's keys. Called with (dict "root" $ "stages" list).
*/ -}}
{{- define "clara-workflow.stageIn" -}}
{{- $skipped := list "locks" "logs" -}}
{{- range $stage := .stages -}}
  {{- if eq $stage.name "stage-in" "stage-out" -}}
    {{- fail (printf "workflow.payloads.bucket: a stage named '%s' stands in the way of the container of that name" $stage.name) -}}
  {{- end -}}
  {{- $skipped = append $skipped $stage.output -}}
{{- end -}}
{{- $args := list "in" -}}
{{- range $folder := $skipped -}}
  {{- /* What an earlier run of this job left is not its input; least of all its locks, by which stages start. */ -}}
  {{- $args = concat $args (list "--skip" $folder) -}}
{{- end -}}
{{- if ne .root.Values.runSimple "TRUE" -}}
  {{- $args = concat $args (list "--wait" (base (index .root.Values.stages (first .stages).name).inputLock)) -}}
{{- end -}}
{{- include "clara-workflow.transfer" (dict "root" .root "name" "stage-in" "args" $args "waitLock" "" "timeout" .root.Values.workflow.payloads.bucket.timeout) -}}
{{- end -}}

{{- define "clara-workflow.stageOut" -}}
{{- $args := list "out" -}}
{{- range $stage := .stages -}}
  {{- $args = concat $args (list "--folder" $stage.output) -}}
{{- end -}}
{{- $last := index .root.Values.stages (last .stages).name -}}
{{- $own := .root.Values.workflow.payloads.bucket.timeout -}}
{{- /* The last stage may wait and then work, each for its time-out, before there is anything to carry. */ -}}
{{- $timeout := "0" -}}
{{- if and (float64 $last.timeout) (float64 $own) -}}
  {{- $timeout = addf (mulf 2 (float64 $last.timeout)) (float64 $own) | ceil | int64 | toString -}}
{{- end -}}
{{- include "clara-workflow.transfer" (dict "root" .root "name" "stage-out" "args" $args "waitLock" $last.lockName "timeout" $timeout) -}}
{{- end -}}

{{- define "clara-workflow.transfer" -}}
{{- $bucket := .root.Values.workflow.payloads.bucket -}}
{{- $image := printf "%s:%s" $bucket.image.repository $bucket.image.tag -}}
{{- $args := concat .args (list "--url" (include "clara-workflow.store" .root)) -}}
{{- with $bucket.endpoint -}}
  {{- $args = concat $args (list "--endpoint" .) -}}
{{- end -}}
name: {{ .name }}
image: {{ $image | quote }}
imagePullPolicy: {{ .root.Values.imagePullPolicy }}
command: ["python", "-m", "clara_wf.operators.transfer"]
args: {{ toJson $args }}
env:
  - name: NVIDIA_CLARA_STAGENAME
    value: {{ .name | quote }}
  - name: NVIDIA_CLARA_JOBID
    value: {{ .root.Values.job.id | quote }}
  - name: NVIDIA_CLARA_JOBNAME
    value: {{ .root.Values.job.name | quote }}
  - name: NVIDIA_CLARA_IMAGE
    value: {{ $image | quote }}
  - name: NVIDIA_CLARA_APPDIR
    value: "/app"
  - name: NVIDIA_CLARA_INPUTS
    value: "payload"
  - name: NVIDIA_CLARA_OUTPUTS
    value: "payload"
  - name: NVIDIA_CLARA_LOCKDIR
    value: "/app/payload/locks"
  - name: NVIDIA_CLARA_LOCKNAME
    value: {{ printf "%s.lock" .name | quote }}
  - name: NVIDIA_CLARA_WAITNAME
    value: {{ .waitLock | quote }}
  - name: NVIDIA_CLARA_LOGNAME
    value: {{ printf "/app/payload/logs/%s.log" .name | quote }}
  - name: NVIDIA_CLARA_TIMEOUT
    value: {{ .timeout | quote }}
  # It waits for the bucket itself, if at all: see --wait.
  - name: NVIDIA_CLARA_RUNSIMPLE
    value: "TRUE"
  - name: NVIDIA_CLARA_NETWORK
    value: "any"
  {{- range $key := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
  {{- if $bucket.secretName }}
  - name: {{ $key }}
    valueFrom:
      secretKeyRef:
        name: {{ $bucket.secretName | quote }}
        key: {{ $key }}
  {{- end }}
  {{- end }}
{{- with $bucket.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: payload
    mountPath: /app/payload
  - name: {{ include "clara-workflow.tmp" .name }}
    mountPath: /tmp
{{- end -}}
