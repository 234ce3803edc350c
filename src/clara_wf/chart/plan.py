"""A rendered Job as a `Plan`.

What a plan can say is taken over. What only a cluster can do anything with is left out on purpose, and listed here. All
else is refused by name: a stage must not behave otherwise on a laptop than on a cluster without anybody being told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clara_wf.chart.container import read_container
from clara_wf.chart.manifest import Manifest
from clara_wf.chart.volumes import PAYLOAD_VOLUME, STORAGE, read_volumes
from clara_wf.model.errors import ChartError
from clara_wf.model.plan import JOB_LABEL, PAYLOAD_ANNOTATION, Plan, StagePlan

WORKFLOW_LABEL = "clara-workflow/workflow"
WORKFLOW_ID = "clara-workflow/workflow-id"

#: The job's folder in the bucket, and the bucket's server.
STORE = "clara-workflow/store"
STORE_ENDPOINT = "clara-workflow/store-endpoint"
#: Names of the containers that carry the payload to the pod and back. A plan is without them.
TRANSFERS = "clara-workflow/transfers"

_POD_READ = {"containers", "volumes", "restartPolicy"}
# Where the pod runs, as whom, and from which registry: the cluster's business. On a laptop it runs here, as its user.
_POD_OF_THE_CLUSTER = {
    "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks", "hostname",
    "imagePullSecrets", "nodeName", "nodeSelector", "preemptionPolicy", "priority", "priorityClassName",
    "runtimeClassName", "schedulerName", "securityContext", "serviceAccount", "serviceAccountName",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints",
}  # fmt: skip
_JOB_READ = {"template", "activeDeadlineSeconds", "backoffLimit", "completions", "parallelism"}
# When the finished object goes away, and how the cluster counts: there is no object on a laptop.
_JOB_OF_THE_CLUSTER = {"ttlSecondsAfterFinished", "suspend", "manualSelector", "selector", "podReplacementPolicy"}


def read_plan(manifests: Sequence[Manifest], chart: Path) -> Plan:
    """Read a plan out of a rendered release.

    Parameters
    ----------
    manifests : sequence of Manifest
        All objects of the release: one Job, and the volumes that it claims.
    chart : Path
        The chart's folder, for the file names in errors.

    Raises
    ------
    ChartError
        The release has not exactly one Job, or the Job needs something that a plan cannot say. All faults are named
        at once.
    """
    job = _the_job(manifests, chart)
    faults: list[str] = []
    labels = _mapping(job.body, "metadata", "labels")
    annotations = _mapping(job.body, "metadata", "annotations")
    spec = _mapping(job.body, "spec")
    pod = without_transfers(_mapping(spec, "template", "spec"), annotations)
    _check_job(spec, pod, faults)
    volumes = read_volumes(pod, annotations, manifests, faults)
    stages = tuple(read_container(container, volumes, faults) for container in pod.get("containers") or [])
    payload = volumes.get(PAYLOAD_VOLUME)
    if payload is None or payload.host is None:
        faults.append(f"volumes: no volume '{PAYLOAD_VOLUME}' that lies on the host")
    elif annotations.get(PAYLOAD_ANNOTATION, str(payload.host)) != str(payload.within or payload.host):
        faults.append(
            f"metadata.annotations: {PAYLOAD_ANNOTATION} is not what volume '{PAYLOAD_VOLUME}' mounts: {payload.host}"
        )
    faults += [f"metadata.labels: no '{key}'" for key in (WORKFLOW_LABEL, JOB_LABEL) if key not in labels]
    faults += [f"metadata.annotations: no '{key}'" for key in (WORKFLOW_ID,) if key not in annotations]
    if faults or payload is None or payload.host is None:
        raise ChartError(f"{chart / job.source}: the Job cannot be read as a plan: {'; '.join(faults)}")
    deadline = spec.get("activeDeadlineSeconds")
    return Plan(
        workflow=str(labels[WORKFLOW_LABEL]),
        workflow_id=str(annotations[WORKFLOW_ID]),
        job_id=str(labels[JOB_LABEL]),
        job_name=_job_name(stages),
        payload=payload.within or payload.host,
        stages=stages,
        deadline=None if deadline is None else float(deadline),
        storage=str(annotations.get(STORAGE, "hostPath")),
        store=str(annotations.get(STORE, "")),
        store_endpoint=str(annotations.get(STORE_ENDPOINT, "")),
    )


def without_transfers(pod: Mapping[str, Any], annotations: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a pod's spec without the containers that are no stages, and without their kind where none is left."""
    names = set(str(annotations.get(TRANSFERS) or "").split(",")) - {""}
    if not names:
        return pod
    left = dict(pod)
    for kind in ("initContainers", "containers"):
        found = [container for container in pod.get(kind) or [] if container.get("name") not in names]
        if found:
            left[kind] = found
        else:
            left.pop(kind, None)
    return left


def _the_job(manifests: Sequence[Manifest], chart: Path) -> Manifest:
    jobs = [manifest for manifest in manifests if manifest.kind == "Job" and not manifest.is_hook]
    if len(jobs) != 1:
        raise ChartError(f"{chart}: renders to {len(jobs)} Jobs, a workflow is one")
    return jobs[0]


def _mapping(body: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return what stands at a path; nothing where it is missing or no mapping, which then lacks what a job needs."""
    for key in path:
        found = body.get(key)
        body = found if isinstance(found, dict) else {}
    return body


def _check_job(spec: Mapping[str, Any], pod: Mapping[str, Any], faults: list[str]) -> None:
    if not pod:
        faults.append("spec.template.spec: there is none, or it is no mapping")
        return
    faults += [f"spec.{key} is not supported" for key in spec if key not in _JOB_READ | _JOB_OF_THE_CLUSTER]
    faults += [f"pod: {key} is not supported" for key in pod if key not in _POD_READ | _POD_OF_THE_CLUSTER]
    # A second attempt would meet the locks of the first.
    if spec.get("backoffLimit") != 0:
        faults.append("spec.backoffLimit must be 0")
    if spec.get("completions", 1) != 1 or spec.get("parallelism", 1) != 1:
        faults.append("spec.completions and spec.parallelism must be 1")
    if pod.get("restartPolicy") != "Never":
        faults.append("pod: restartPolicy must be Never")
    if not pod.get("containers"):
        faults.append("pod: has no containers")


def _job_name(stages: Sequence[StagePlan]) -> str:
    """Return the job's name, which stands in the stages' variables alone, never in a label."""
    return next((name for stage in stages if (name := stage.variable("JOBNAME"))), "")
