{{- /* Name of the Job and of all that belongs to it: <release>-clara-workflow. */ -}}
{{- define "clara-workflow.fullname" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* Labels name the workflow and the job's id. Nothing about a patient may stand here: job.name does not. */ -}}
{{- define "clara-workflow.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
clara-workflow/workflow: {{ include "clara-workflow.name" . | quote }}
clara-workflow/job-id: {{ .Values.job.id | quote }}
{{- end -}}

{{- /* The workflow's name, from workflow.id: a name, an alias, or a UUID in either case. */ -}}
{{- define "clara-workflow.name" -}}
{{- $wanted := lower .Values.workflow.id -}}
{{- $found := list -}}
{{- $known := list -}}
{{- range $name, $workflow := .Values.workflows -}}
  {{- $known = append $known $name -}}
  {{- if or (eq $wanted (lower $name)) (eq $wanted (lower $workflow.id)) (has $wanted $workflow.aliases) -}}
    {{- $found = append $found $name -}}
  {{- end -}}
{{- end -}}
{{- if eq (len $found) 0 -}}
  {{- fail (printf "workflow.id: no workflow '%s'. Known: %s" .Values.workflow.id (sortAlpha $known | join ", ")) -}}
{{- else if gt (len $found) 1 -}}
  {{- fail (printf "workflow.id: '%s' means more than one workflow: %s" .Values.workflow.id ($found | join ", ")) -}}
{{- end -}}
{{- first $found -}}
{{- end -}}

{{- /*
The stages of the workflow, and all arithmetic over their indices. Renders YAML {stages: [...]}, each stage with
  name      as below .Values.stages
  index     0 is the first
  waitLock  what it waits for; "" for the first
  args      of this workflow
  input     folder of the payload that it reads: ioFolders[index], or dicomAdapter.input for the first
  output    folder of the payload that it writes: ioFolders[index + 1], or dicomAdapter.output for the last
*/ -}}
{{- define "clara-workflow.stages" -}}
{{- $name := include "clara-workflow.name" . -}}
{{- $workflow := index .Values.workflows $name -}}
{{- $count := len $workflow.stages -}}
{{- $where := printf "workflows.%s" $name -}}
{{- include "clara-workflow.checkLength" (list $where "ioFolders" $workflow.ioFolders (add1 $count)) -}}
{{- include "clara-workflow.checkLength" (list $where "waitLocks" $workflow.waitLocks $count) -}}
{{- include "clara-workflow.checkLength" (list $where "args" $workflow.args $count) -}}
{{- $last := sub $count 1 | int -}}
{{- $locks := list "" -}}
{{- $stages := list -}}
{{- range $index, $stage := $workflow.stages -}}
  {{- $values := index ($.Values.stages | default dict) $stage -}}
  {{- if not $values -}}
    {{- fail (printf "%s.stages: no stage '%s' below `stages`" $where $stage) -}}
  {{- end -}}
  {{- if has $values.lockName $locks -}}
    {{- fail (printf "%s.stages: '%s' has the lock name '%s' of an earlier stage" $where $stage $values.lockName) -}}
  {{- end -}}
  {{- $waitLock := index $workflow.waitLocks $index -}}
  {{- if not (has $waitLock $locks) -}}
    {{- fail (printf "%s.waitLocks: '%s' would wait for ever for '%s', which no earlier stage makes" $where $stage $waitLock) -}}
  {{- end -}}
  {{- $locks = append $locks $values.lockName -}}
  {{- $input := index $workflow.ioFolders $index -}}
  {{- if and (eq $index 0) $.Values.dicomAdapter.input -}}
    {{- $input = $.Values.dicomAdapter.input -}}
  {{- end -}}
  {{- $output := index $workflow.ioFolders (add1 $index | int) -}}
  {{- if and (eq $index $last) $.Values.dicomAdapter.output -}}
    {{- $output = $.Values.dicomAdapter.output -}}
  {{- end -}}
  {{- $stages = append $stages (dict "name" $stage "index" $index "waitLock" $waitLock "args" (index $workflow.args $index) "input" $input "output" $output) -}}
{{- end -}}
{{- toYaml (dict "stages" $stages) -}}
{{- end -}}

{{- define "clara-workflow.checkLength" -}}
{{- $where := index . 0 -}}
{{- $key := index . 1 -}}
{{- $found := len (index . 2) -}}
{{- $wanted := index . 3 | int -}}
{{- if ne $found $wanted -}}
  {{- fail (printf "%s.%s: has %d entries, its stages need %d" $where $key $found $wanted) -}}
{{- end -}}
{{- end -}}

{{- /* The job's folder on the host. */ -}}
{{- define "clara-workflow.payload" -}}
{{- printf "%s/%s" (trimSuffix "/" .Values.workflow.payloads.hostPath) .Values.job.id -}}
{{- end -}}

{{- define "clara-workflow.storageClass" -}}
{{- printf "pv-clara-payload-%s" .Values.job.id -}}
{{- end -}}

{{- define "clara-workflow.volume" -}}
{{- printf "pv-clara-payload-volume-%s" .Values.job.id -}}
{{- end -}}

{{- define "clara-workflow.claim" -}}
{{- printf "pv-clara-payload-volume-claim-%s" .Values.job.id -}}
{{- end -}}

{{- /* What follows is called by a stage's files with (dict "root" $ "stage" $stage). */ -}}

{{- define "clara-workflow.image" -}}
{{- $image := (index .root.Values.stages .stage.name).image -}}
{{- printf "%s:%s" $image.repository $image.tag -}}
{{- end -}}

{{- define "clara-workflow.appDir" -}}
{{- (index .root.Values.stages .stage.name).appDir -}}
{{- end -}}

{{- /* The variables of the stage contract, version 1. */ -}}
{{- define "clara-workflow.contract" -}}
{{- $values := index .root.Values.stages .stage.name -}}
- name: NVIDIA_CLARA_STAGENAME
  value: {{ $values.stageName | quote }}
- name: NVIDIA_CLARA_JOBID
  value: {{ .root.Values.job.id | quote }}
- name: NVIDIA_CLARA_JOBNAME
  value: {{ .root.Values.job.name | quote }}
- name: NVIDIA_CLARA_IMAGE
  value: {{ include "clara-workflow.image" . | quote }}
- name: NVIDIA_CLARA_APPDIR
  value: {{ $values.appDir | quote }}
- name: NVIDIA_CLARA_INPUTS
  value: {{ $values.inputs | quote }}
- name: NVIDIA_CLARA_OUTPUTS
  value: {{ $values.outputs | quote }}
- name: NVIDIA_CLARA_INPUTLOCK
  value: {{ $values.inputLock | quote }}
- name: NVIDIA_CLARA_LOCKDIR
  value: {{ $values.lockDir | quote }}
- name: NVIDIA_CLARA_LOCKNAME
  value: {{ $values.lockName | quote }}
- name: NVIDIA_CLARA_WAITNAME
  value: {{ .stage.waitLock | quote }}
- name: NVIDIA_CLARA_LOGNAME
  value: {{ $values.logName | quote }}
- name: NVIDIA_CLARA_TIMEOUT
  value: {{ $values.timeout | quote }}
- name: NVIDIA_CLARA_RUNSIMPLE
  value: {{ .root.Values.runSimple | quote }}
- name: NVIDIA_CLARA_TRTISURI
  value: {{ .root.Values.trtisUri | quote }}
{{- end -}}

{{- /* The payload's folders: input and output of the stage, locks and logs of the job. */ -}}
{{- define "clara-workflow.payloadMounts" -}}
{{- $values := index .root.Values.stages .stage.name -}}
- name: payload
  mountPath: {{ $values.appDir }}/{{ $values.mount.in.name }}
  subPath: {{ .stage.input | quote }}
- name: payload
  mountPath: {{ $values.appDir }}/{{ $values.mount.out.name }}
  subPath: {{ .stage.output | quote }}
- name: payload
  mountPath: {{ $values.lockDir }}
  subPath: locks
- name: payload
  mountPath: {{ dir $values.logName }}
  subPath: logs
{{- end -}}

{{- /* Volumes of the pod: the payload, and what the stages ask for, each once. Called with (dict "root" $ "stages" list). */ -}}
{{- define "clara-workflow.volumes" -}}
{{- $volumes := list (dict "name" "payload" "persistentVolumeClaim" (dict "claimName" (include "clara-workflow.claim" .root))) -}}
{{- $root := .root -}}
{{- range $stage := .stages -}}
  {{- $more := include (printf "%s.volumes" $stage.name) (dict "root" $root "stage" $stage) -}}
  {{- if trim $more -}}
    {{- $volumes = concat $volumes (fromYamlArray $more) -}}
  {{- end -}}
{{- end -}}
{{- toYaml (uniq $volumes) -}}
{{- end -}}
