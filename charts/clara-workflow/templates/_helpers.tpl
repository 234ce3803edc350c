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

{{- /*
What depends on the cluster's version asks this: the version that `kubeVersion` names, else what Helm knows of the cluster.
Called with (list $ ">=1.21-0"); renders "true" or nothing.
*/ -}}
{{- define "clara-workflow.kubernetesIs" -}}
{{- $root := index . 0 -}}
{{- if semverCompare (index . 1) ($root.Values.kubeVersion | default $root.Capabilities.KubeVersion.Version) -}}true{{- end -}}
{{- end -}}

{{- /* The pod's security context. A volume of the cluster's own belongs to root until its group is set. */ -}}
{{- define "clara-workflow.podSecurityContext" -}}
{{- $context := deepCopy .Values.podSecurityContext -}}
{{- $group := $context.runAsGroup -}}
{{- if and $group (ne (include "clara-workflow.storage" .) "hostPath") -}}
  {{- /* Not file by file at every start: a claim may hold the payloads of years. */ -}}
  {{- $context = merge $context (dict "fsGroup" $group "fsGroupChangePolicy" "OnRootMismatch") -}}
{{- end -}}
{{- toYaml $context -}}
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
{{- /* Whoever waits for a lock of the payload would not see who made it. */ -}}
{{- $payloadLocks := list -}}
{{- range $workflow.stages -}}
  {{- with index ($.Values.stages | default dict) . -}}
    {{- $payloadLocks = append $payloadLocks (base .inputLock) -}}
  {{- end -}}
{{- end -}}
{{- $stages := list -}}
{{- range $index, $stage := $workflow.stages -}}
  {{- $values := index ($.Values.stages | default dict) $stage -}}
  {{- if not $values -}}
    {{- fail (printf "%s.stages: no stage '%s' below `stages`" $where $stage) -}}
  {{- end -}}
  {{- if has $values.lockName $locks -}}
    {{- fail (printf "%s.stages: '%s' has the lock name '%s' of an earlier stage" $where $stage $values.lockName) -}}
  {{- end -}}
  {{- if has $values.lockName $payloadLocks -}}
    {{- fail (printf "%s.stages: '%s' has the lock name '%s', which says that the payload is complete (inputLock)" $where $stage $values.lockName) -}}
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

{{- /* Where the payload lies for the pod: hostPath, existingClaim, storageClass or bucket. */ -}}
{{- define "clara-workflow.storage" -}}
{{- $payloads := .Values.workflow.payloads -}}
{{- $bucket := $payloads.bucket.url -}}
{{- if and $payloads.existingClaim (or $payloads.storageClass $bucket) -}}
  {{- fail (printf "workflow.payloads: existingClaim and %s are two places for one payload, name one" (ternary "bucket.url" "storageClass" (not (empty $bucket)))) -}}
{{- end -}}
{{- if and (not $bucket) (or $payloads.bucket.endpoint $payloads.bucket.secretName) -}}
  {{- fail "workflow.payloads.bucket: endpoint and secretName are for a bucket, and url is empty" -}}
{{- end -}}
{{- if $bucket -}}bucket
{{- else if $payloads.existingClaim -}}existingClaim
{{- else if $payloads.storageClass -}}storageClass
{{- else -}}hostPath
{{- end -}}
{{- end -}}

{{- /* The job's folder in the bucket. */ -}}
{{- define "clara-workflow.store" -}}
{{- printf "%s/%s" (trimSuffix "/" .Values.workflow.payloads.bucket.url) .Values.job.id -}}
{{- end -}}

{{- /* What the pod claims; empty where the payload lives and dies with the pod. */ -}}
{{- define "clara-workflow.claimName" -}}
{{- $storage := include "clara-workflow.storage" . -}}
{{- if eq $storage "existingClaim" -}}
  {{- .Values.workflow.payloads.existingClaim -}}
{{- else if or (ne $storage "bucket") .Values.workflow.payloads.storageClass -}}
  {{- include "clara-workflow.claim" . -}}
{{- end -}}
{{- end -}}

{{- /*
Where a folder of the payload lies in the volume `payload`. A claim that is there already holds the folders of many jobs.
Called with (dict "root" $ "path" "locks").
*/ -}}
{{- define "clara-workflow.subPath" -}}
{{- if eq (include "clara-workflow.storage" .root) "existingClaim" -}}
{{- printf "%s/%s" .root.Values.job.id .path -}}
{{- else -}}
{{- .path -}}
{{- end -}}
{{- end -}}

{{- define "clara-workflow.storageClass" -}}
{{- .Values.workflow.payloads.storageClass | default (printf "pv-clara-payload-%s" .Values.job.id) -}}
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
- name: NVIDIA_CLARA_NETWORK
  value: {{ include "clara-workflow.network" . | quote }}
{{- end -}}

{{- /* What the stage may reach: "" is nothing, "trtis" the inference server, where there is one, "any" the network. */ -}}
{{- define "clara-workflow.network" -}}
{{- $wanted := (index .root.Values.stages .stage.name).network | default "none" -}}
{{- if eq $wanted "any" -}}any
{{- else if and (eq $wanted "trtis") .root.Values.trtisUri -}}trtis
{{- end -}}
{{- end -}}

{{- /* Requests and limits of the stage; GPUs are a limit like others, and Kubernetes requests them by it. */ -}}
{{- define "clara-workflow.resources" -}}
{{- $values := index .root.Values.stages .stage.name -}}
{{- $resources := deepCopy $values.resources -}}
{{- with int64 ($values.gpus | default 0) -}}
  {{- $resources = mergeOverwrite $resources (dict "limits" (dict "nvidia.com/gpu" .)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- /* The payload's folders: input and output of the stage, locks and logs of the job; and scratch space of its own. */ -}}
{{- define "clara-workflow.payloadMounts" -}}
{{- $values := index .root.Values.stages .stage.name -}}
- name: payload
  mountPath: {{ $values.appDir }}/{{ $values.mount.in.name }}
  subPath: {{ include "clara-workflow.subPath" (dict "root" .root "path" .stage.input) | quote }}
- name: payload
  mountPath: {{ $values.appDir }}/{{ $values.mount.out.name }}
  subPath: {{ include "clara-workflow.subPath" (dict "root" .root "path" .stage.output) | quote }}
- name: payload
  mountPath: {{ $values.lockDir }}
  subPath: {{ include "clara-workflow.subPath" (dict "root" .root "path" "locks") | quote }}
- name: payload
  mountPath: {{ dir $values.logName }}
  subPath: {{ include "clara-workflow.subPath" (dict "root" .root "path" "logs") | quote }}
- name: {{ include "clara-workflow.tmp" .stage.name }}
  mountPath: /tmp
{{- end -}}

{{- /* Name of the volume that is a container's /tmp. Called with the container's name. */ -}}
{{- define "clara-workflow.tmp" -}}
{{- printf "tmp-%s" . | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "clara-workflow.modelsVolume" -}}
- name: models
{{- with .root.Values.models.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ . | quote }}
    readOnly: true
{{- else }}
  hostPath:
    path: {{ .root.Values.models.hostPath | quote }}
    type: DirectoryOrCreate
{{- end }}
{{- end -}}

{{- /* Volumes of the pod: the payload, and what the stages ask for, each once. Called with (dict "root" $ "stages" list). */ -}}
{{- define "clara-workflow.volumes" -}}
{{- $root := .root -}}
{{- $claim := include "clara-workflow.claimName" $root -}}
{{- $payload := dict "emptyDir" (dict "sizeLimit" $root.Values.workflow.payloads.storage) -}}
{{- if $claim -}}
  {{- $payload = dict "persistentVolumeClaim" (dict "claimName" $claim) -}}
{{- end -}}
{{- $volumes := list (set $payload "name" "payload") -}}
{{- $scratch := list -}}
{{- if eq (include "clara-workflow.storage" $root) "bucket" -}}
  {{- $scratch = list "stage-in" "stage-out" -}}
{{- end -}}
{{- range $stage := .stages -}}
  {{- $scratch = append $scratch $stage.name -}}
{{- end -}}
{{- range $name := $scratch -}}
  {{- $volumes = append $volumes (dict "name" (include "clara-workflow.tmp" $name) "emptyDir" (dict "sizeLimit" $root.Values.scratchSize)) -}}
{{- end -}}
{{- range $stage := .stages -}}
  {{- $more := include (printf "%s.volumes" $stage.name) (dict "root" $root "stage" $stage) -}}
  {{- if trim $more -}}
    {{- $volumes = concat $volumes (fromYamlArray $more) -}}
  {{- end -}}
{{- end -}}
{{- toYaml (uniq $volumes) -}}
{{- end -}}
