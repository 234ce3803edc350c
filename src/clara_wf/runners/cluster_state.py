"""What a Job's objects in a cluster say of it. Only reads them: who asks the cluster, and who acts, is the runner.

Nothing here depends on having seen an earlier state: whoever looks for the first time, or again after a while, draws
the same conclusions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from lightkube.models.core_v1 import ContainerStatus
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Event, Pod
from lightkube.utils.quantity import parse_quantity

from clara_wf.model.plan import PAYLOAD_ANNOTATION, Plan, StagePlan
from clara_wf.model.states import JobStatus
from clara_wf.runners.verdict import KILLED, out_of_memory

#: Characters of a message that are shown.
_LONGEST = 400
#: Reasons of a waiting container that do not go away by themselves, and how long they may be a hiccup, in seconds.
_PATIENCE = {
    "ErrImageNeverPull": 0.0,
    "InvalidImageName": 0.0,
    "CreateContainerConfigError": 3.0,
    "CreateContainerError": 3.0,
    "RunContainerError": 3.0,
    "ErrImagePull": 5.0,
    "ImagePullBackOff": 5.0,
    "RegistryUnavailable": 5.0,
}
_IMAGE_REASONS = {"ErrImageNeverPull", "InvalidImageName", "ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}


#: Seconds that a node which fits may take to come; one that is full is waited for. Within these an autoscaler says
#: that it makes one.
_NODE_PATIENCE = 20.0
#: Seconds that a node may take to come back which cannot be used for now.
_RETURN_PATIENCE = 600.0
#: What the cluster itself does to a node: it starts again, its disk is full, somebody has cordoned it.
_PASSING = ("node.kubernetes.io/", "were unschedulable")
#: How an autoscaler says that a node for the pod is on its way: the cluster's own, and Karpenter.
_COMING = {"TriggeredScaleUp", "Nominated"}
#: Seconds that a pod may wait for its volumes.
_VOLUME_PATIENCE = 60.0
_NODE_REASONS = {"NodeLost", "NodeShutdown", "Terminated", "Shutdown"}
#: How the scheduler calls what a pod waits for.
_CLAIM = "PersistentVolumeClaim"
#: What is told of a pod that somebody deleted.
DELETED = "its pod was deleted from the cluster"
#: The container that carries what the stages made into the bucket, and those that carry at all.
OUT = "stage-out"
CARRIERS = {"stage-in", OUT}


class Phase(StrEnum):
    """Where a container is."""

    ABSENT = "absent"  # not started yet
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class ContainerView:
    """One container of the pod, whether it is a stage or not."""

    name: str
    phase: Phase = Phase.ABSENT
    started: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None  # of one that has ended
    reason: str = ""  # in Kubernetes' words: OOMKilled, ImagePullBackOff
    message: str = ""  # of a container that cannot start


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something that will not get well by itself."""

    message: str  # one line for people
    stage: str = ""  # whose it is; empty: the whole job's
    of_stage: str = ""  # the message as a stage's own; empty: the same
    container: str = ""  # the one, no stage, whose log tells why
    patience: float = 0.0  # seconds that it may last before it counts
    status: JobStatus = JobStatus.FAULTED

    @property
    def kind(self) -> str:
        """What stays the same of it while its details change."""
        return f"{self.stage} {re.split('[:(]', self.message)[0]}"


@dataclass(frozen=True, kw_only=True)
class Further:
    """What is asked of a cluster only where a job does not start."""

    events: Sequence[Event] = ()  # of its pod, or of a Job that has none
    nodes: Sequence[Mapping[str, str]] | None = None  # what each node has for pods, by resource; None: not known


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A Job and its pod, at one moment."""

    exists: bool
    finished: bool = False  # the cluster says that it is complete, or failed
    has_sent: bool = False  # what the stages made lies in the bucket, if there is one
    is_vanishing: bool = False  # somebody has deleted its pod, which is still there
    pod: str = ""  # name of its pod
    containers: Mapping[str, ContainerView] = field(default_factory=dict)
    trouble: Trouble | None = None
    waits_for: str = ""  # why it has no node yet, or no pod, in the cluster's words

    @property
    def waits_for_volume(self) -> bool:
        """Whether its pod waits for a claim to be bound."""
        return _CLAIM in self.waits_for

    @property
    def may_get_well(self) -> bool:
        """Whether there is no trouble, or one that often passes."""
        return self.trouble is None or self.trouble.patience >= _RETURN_PATIENCE

    @property
    def started(self) -> bool:
        """Whether any container of the pod runs or has run."""
        return any(view.phase is not Phase.ABSENT for view in self.containers.values())


def view(
    plan: Plan,
    job: Job | None,
    pods: Sequence[Pod],
    further: Further | None = None,
) -> JobView:
    """Read a Job and its pods.

    Parameters
    ----------
    plan : Plan
        What they carry out.
    job : Job or None
        None: the cluster has none.
    pods : sequence of Pod
        The pods of this Job; with `backoffLimit: 0` one at most, but for a moment.
    further : Further, optional
        What else was asked for, of a job that does not start.
    """
    further = further or Further()
    if job is None:
        return JobView(
            exists=False, trouble=Trouble(message="its Job was deleted from the cluster", status=JobStatus.TERMINATED)
        )
    pod = max(pods, key=_age, default=None)
    containers = _containers(pod)
    conditions = {found.type: found for found in (job.status.conditions or [])} if job.status else {}
    complete, failed = (_is_true(conditions.get(kind)) for kind in ("Complete", "Failed"))
    return JobView(
        exists=True,
        finished=complete or failed,
        has_sent=complete or (OUT in containers and containers[OUT].exit_code == 0),
        is_vanishing=pod is not None and pod.metadata is not None and pod.metadata.deletionTimestamp is not None,
        pod=pod_name(pod) if pod is not None else "",
        containers=containers,
        trouble=_trouble(plan, job, pod, containers, further),
        waits_for=_waits_for(pod) or _quota(further.events if pod is None else ()),
    )


def _age(pod: Pod) -> str:
    return str(pod.metadata.creationTimestamp) if pod.metadata is not None else ""


def _is_true(condition: object) -> bool:
    return getattr(condition, "status", "") == "True"


def _containers(pod: Pod | None) -> dict[str, ContainerView]:
    if pod is None or pod.status is None:
        return {}
    statuses = [*(pod.status.initContainerStatuses or []), *(pod.status.containerStatuses or [])]
    return {status.name: _container(status) for status in statuses}


def _container(status: ContainerStatus) -> ContainerView:
    state = status.state
    if state is not None and state.terminated is not None:
        ended = state.terminated
        return ContainerView(
            name=status.name,
            phase=Phase.ENDED,
            started=ended.startedAt,
            ended=ended.finishedAt,
            exit_code=ended.exitCode,
            reason=ended.reason or "",
            message=one_line(ended.message or ""),
        )
    if state is not None and state.running is not None:
        return ContainerView(name=status.name, phase=Phase.RUNNING, started=state.running.startedAt)
    waiting = state.waiting if state is not None else None
    return ContainerView(
        name=status.name,
        reason=(waiting.reason or "") if waiting is not None else "",
        message=one_line((waiting.message or "") if waiting is not None else ""),
    )


def _trouble(
    plan: Plan,
    job: Job,
    pod: Pod | None,
    containers: Mapping[str, ContainerView],
    further: Further,
) -> Trouble | None:
    """Return the first trouble, from what concerns the whole job to what concerns one container."""
    for condition in (job.status.conditions or []) if job.status else []:
        # From 1.31 on a Job has failed only when its pod has ended; why it will, it says before.
        is_failing = condition.type in {"FailureTarget", "Failed"} and condition.status == "True"
        if is_failing and condition.reason == "DeadlineExceeded":
            deadline = f" of {plan.deadline:g} s" if plan.deadline is not None else ""
            late = f"took longer than its deadline{deadline}"
            return Trouble(message=late, of_stage=f"the job {late}")
    if pod is None:
        return _without_pod(job, further.events)
    return (
        _of_schedule(pod, further)
        or _of_pod(pod)
        or _of_containers(plan, pod, containers)
        or _of_mounts(containers, further.events)
    )


def _without_pod(job: Job, events: Sequence[Event]) -> Trouble | None:
    if job.status is not None and any(found.type == "Failed" for found in job.status.conditions or []):
        return Trouble(message=DELETED, status=JobStatus.TERMINATED)
    refused = [event for event in events if event.reason == "FailedCreate"]
    if refused:
        why = one_line(refused[-1].message or "").removeprefix("Error creating: ")
        if "exceeded quota" in why:  # until other jobs have ended
            return None
        # Pod Security, admission webhooks: they do not change their mind.
        return Trouble(message=f"the cluster refuses its pod: {why}", patience=3.0)
    return None


def _waits_for(pod: Pod | None) -> str:
    """Return why no node takes a pod; empty where one does, or nobody has tried yet."""
    for condition in (pod.status.conditions or []) if pod is not None and pod.status is not None else []:
        if condition.type == "PodScheduled" and condition.status == "False" and condition.reason == "Unschedulable":
            return one_line(condition.message or "no node has room")
    return ""


def _quota(events: Sequence[Event]) -> str:
    """Return the quota that keeps a Job from having its pod."""
    refusals = [one_line(event.message or "") for event in events if event.reason == "FailedCreate"]
    return refusals[-1].removeprefix("Error creating: ") if refusals and "exceeded quota" in refusals[-1] else ""


def _of_schedule(pod: Pod, further: Further) -> Trouble | None:
    """Tell a pod that waits for its turn from one that no node will ever take."""
    why = _waits_for(pod)
    if not why:
        return None
    message = f"no node can take its pod: {why}"
    if _CLAIM in why:  # it may have to be made first
        return Trouble(message=message, patience=_VOLUME_PATIENCE)
    if any(event.reason in _COMING for event in further.events):
        return None
    if any(words in why for words in _PASSING):
        return Trouble(message=message, patience=_RETURN_PATIENCE)
    nodes = further.nodes
    if "Insufficient" in why and (nodes is None or any(_fits(pod, node) for node in nodes)):
        return None
    return Trouble(message=message, patience=_NODE_PATIENCE)


def _fits(pod: Pod, node: Mapping[str, str]) -> bool:
    """Whether a node that is empty has what a pod requests."""
    wanted: dict[str, Decimal] = {}
    for container in pod.spec.containers if pod.spec is not None else []:
        requests = (container.resources.requests if container.resources is not None else None) or {}
        for name, text in requests.items():
            wanted[name] = wanted.get(name, Decimal(0)) + (parse_quantity(text) or 0)
    return all((parse_quantity(node.get(name, "0")) or 0) >= amount for name, amount in wanted.items())


def _of_pod(pod: Pod) -> Trouble | None:
    status = pod.status
    if status is None:
        return None
    conditions = {found.type: found for found in status.conditions or []}
    disrupted = conditions.get("DisruptionTarget")
    trouble = None
    if status.reason == "Evicted":
        trouble = Trouble(message=f"its pod was evicted: {one_line(status.message or '')}", status=JobStatus.EVICTED)
    elif disrupted is not None and disrupted.status == "True":
        why = one_line(disrupted.message or disrupted.reason or "")
        trouble = Trouble(message=f"its pod was evicted: {why}", status=JobStatus.EVICTED)
    elif status.reason in _NODE_REASONS:
        why = one_line(status.message or "")
        trouble = Trouble(message=f"its node went away: {why}", status=JobStatus.TERMINATED)
    elif status.phase == "Failed" and not status.containerStatuses:
        why = one_line(status.message or status.reason or "no reason is given")
        trouble = Trouble(message=f"its pod failed before it started: {why}")
    elif pod.metadata is not None and pod.metadata.deletionTimestamp is not None:
        # The cluster deletes the pod of a Job past its deadline, and says so a moment later.
        trouble = Trouble(message=DELETED, patience=3.0, status=JobStatus.TERMINATED)
    return trouble


def _of_containers(plan: Plan, pod: Pod, containers: Mapping[str, ContainerView]) -> Trouble | None:
    wanted = [*(pod.spec.initContainers or []), *pod.spec.containers] if pod.spec is not None else []
    images = {found.name: found.image or "" for found in wanted}
    stages = {stage.name for stage in plan.stages}
    has_failed = any(found.exit_code for found in containers.values() if found.name in stages)
    for container in containers.values():
        stage = container.name if container.name in stages else ""
        if container.phase is Phase.ABSENT and container.reason in _PATIENCE:
            patience = _PATIENCE[container.reason]
            who = "" if stage else f"container {container.name}: "
            if container.reason in _IMAGE_REASONS:
                name = images.get(container.name, "")
                message = f"{who}its image {name} cannot be had ({container.reason}): {_cause(container.message)}"
            else:
                message = f"{who}its container cannot be started ({container.reason}): {container.message}"
            return Trouble(message=message, stage=stage, patience=patience)
        # Behind a failed stage, whoever carries the payload fails too.
        if not stage and container.exit_code and not has_failed:
            message = f"container {container.name} ended with exit code {container.exit_code}"
            return Trouble(message=message, container=container.name)
    return None


def _of_mounts(containers: Mapping[str, ContainerView], events: Sequence[Event]) -> Trouble | None:
    """Say why a pod does not get its volumes: only its events tell."""
    if any(view.phase is not Phase.ABSENT for view in containers.values()):
        return None
    for event in reversed(events):
        if event.reason in {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}:
            # A claim that is being provisioned, or a network that is being set up, is allowed its time.
            return Trouble(
                message=f"its pod does not start: {one_line(event.message or '')}", patience=_VOLUME_PATIENCE
            )
    return None


def pod_name(pod: Pod) -> str:
    """Return the name of a pod that the cluster gave."""
    return (pod.metadata.name or "") if pod.metadata is not None else ""


def memory_fault(stage: StagePlan, container: ContainerView) -> str:
    """Say that a stage ran out of memory; empty if it did not.

    A kill by the kernel inside a limit is that, also where the cluster does not say so: nobody else sends SIGKILL to a
    pod that is not being deleted.
    """
    limit = stage.resources.memory
    if container.reason == "OOMKilled" or (container.exit_code == KILLED and limit is not None):
        return out_of_memory(limit)
    return ""


def _cause(text: str) -> str:
    """Return the innermost of nested errors, each of which repeats the image's name in quotes."""
    return text.rsplit('": ', maxsplit=1)[-1].strip('"') or "no reason is given"


def one_line(text: str) -> str:
    """Return what a cluster says in one line that is not endless, without the ids of its own parts."""
    line = re.sub(r'\bpod "[^"]*"( in namespace "[^"]*")?', "the pod", " ".join(text.split()))
    line = re.sub(r"rpc error: code = \w+ desc = ", "", line)
    line = line.rstrip(". ")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def same_work(plan: Plan, job: Job) -> str:
    """Say in what a Job in the cluster differs from a plan, in one line; empty where it is the same work."""
    pod = job.spec.template.spec if job.spec is not None else None
    containers = {found.name: found for found in (pod.containers if pod is not None else [])}
    for stage in plan.stages:
        found = containers.get(stage.name)
        if found is None:
            return f"there it has no stage {stage.name}"
        if found.image != stage.image:
            return f"there stage {stage.name} has the image {found.image}"
        there = {entry.name: entry.value or "" for entry in found.env or [] if entry.valueFrom is None}
        same_command = tuple(found.command or ()) == stage.command and tuple(found.args or ()) == stage.args
        if not same_command or any(there.get(name) != value for name, value in stage.environment.items()):
            return f"there stage {stage.name} has other arguments or variables"
    annotations = (job.metadata.annotations if job.metadata is not None else None) or {}
    if annotations.get(PAYLOAD_ANNOTATION) not in {None, str(plan.payload)}:
        return "there it works on another payload"
    return ""
