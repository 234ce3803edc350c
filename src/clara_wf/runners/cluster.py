"""The API server of a cluster: what the Kubernetes runner asks it, and what it says when it is not there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2 as httpx
from lightkube import Client
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Event, Node, PersistentVolume, PersistentVolumeClaim, Pod
from lightkube.types import CascadeType

from clara_wf.model.errors import LackError
from clara_wf.model.plan import JOB_LABEL

#: A change that means nothing, to be looked at again.
_NUDGED = "clara-workflow/nudged"
#: What whoever asks reads for itself: wrong at this moment, not there.
_EXPECTED = {400, 404}
#: Answers that another try, unchanged, may mend, beside those of a server that is in trouble.
_TRANSIENT = {408, 429}


class Unreachable(LackError):
    """The API server does not answer, or is in trouble: what runs in the cluster goes on without it."""

    retriable = True


class Refused(LackError):
    """The API server does not let this user do it: a token that has expired, or rights that were taken away."""


class Cluster:
    """One namespace of a cluster.

    Parameters
    ----------
    client : Client
        How the API server is reached.
    namespace : str
        Where the jobs are.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    def job(self, job_id: str) -> Job | None:
        """Return the Job that carries out the job of this id; None if there is none."""
        with _translated():
            found = list(self._client.list(Job, namespace=self.namespace, labels={JOB_LABEL: job_id}))
        return found[0] if found else None

    def pods(self, job: Job) -> list[Pod]:
        """Return the pods of a Job."""
        if job.metadata is None or job.metadata.name is None:
            return []
        name, uid = job.metadata.name, job.metadata.uid
        with _translated():
            pods = list(self._client.list(Pod, namespace=self.namespace, labels={"job-name": name}))
        # A Job of the same name that is being deleted may still have its pod.
        return [pod for pod in pods if uid in _owners(pod)]

    def events(self, name: str) -> list[Event]:
        """Return the events of an object, the oldest first; none where the user may not know them."""
        try:
            with _translated():
                wanted = self._client.list(Event, namespace=self.namespace, fields={"involvedObject.name": name})
                found = list(wanted)
        except Refused:
            return []
        return sorted(found, key=lambda event: str(event.lastTimestamp or event.eventTime or ""))

    def node_addresses(self) -> list[str] | None:
        """Return the names and addresses of all nodes; None where the user may not know them."""
        nodes = self._nodes()
        if nodes is None:
            return None
        statuses = [node.status for node in nodes if node.status is not None]
        return [found.address for status in statuses for found in status.addresses or []]

    def nodes(self) -> list[dict[str, str]] | None:
        """Return what each node has for pods, by resource; None where the user may not know that."""
        nodes = self._nodes()
        if nodes is None:
            return None
        return [dict(node.status.allocatable or {}) if node.status is not None else {} for node in nodes]

    def _nodes(self) -> list[Node] | None:
        try:
            with _translated():
                return list(self._client.list(Node))
        except Refused:  # not everybody may list what belongs to no namespace
            return None

    def log(self, pod: str, container: str, *, seconds: int) -> Sequence[str]:
        """Return what a container wrote within the last seconds, each line after the moment at which it was written.

        Empty where the container has not written anything, or is gone.
        """
        try:
            with _translated():
                lines = self._client.log(
                    pod, namespace=self.namespace, container=container, since=seconds, timestamps=True, newlines=False
                )
                return list(lines)
        except ApiError as fault:
            if fault.status.code in {400, 404}:  # it has not started, or was removed
                return ()
            raise

    def delete(self, job: Job, *, grace: int) -> None:
        """Delete a Job, which is there until its pod is gone; the pod's containers are given `grace` seconds."""
        if job.metadata is None or job.metadata.name is None:
            return
        # The Job first, or it would make a new pod in the place of the deleted one.
        with _translated(), _unless_gone():
            self._client.delete(Job, job.metadata.name, namespace=self.namespace, cascade=CascadeType.FOREGROUND)
        self._delete_pods(self.pods(job), grace)

    def clear(self, job_id: str, *, grace: int) -> None:
        """Delete what there is of a job without its release; containers are given `grace` seconds."""
        labels: dict[str, Any] = {JOB_LABEL: job_id}
        with _translated():
            jobs = list(self._client.list(Job, namespace=self.namespace, labels=labels))
            pods = list(self._client.list(Pod, namespace=self.namespace, labels=labels))
        for job in jobs:
            self.delete(job, grace=grace)
        # Without a grace a pod is gone from the list before its containers are. Where none has started, nobody has to
        # be waited for, while a node that is busy with an image which does not come would let one wait.
        for pod in pods:
            self._delete_pods([pod], grace if _has_started(pod) else 0)
        with contextlib.suppress(Refused), _translated(), _unless_gone():
            for claim in self._client.list(PersistentVolumeClaim, namespace=self.namespace, labels=labels):
                self._client.delete(PersistentVolumeClaim, _name(claim), namespace=self.namespace)
        with contextlib.suppress(Refused), _translated(), _unless_gone():
            for volume in self._client.list(PersistentVolume, labels=labels):
                self._client.delete(PersistentVolume, _name(volume))

    def _delete_pods(self, pods: Sequence[Pod], grace: int) -> None:
        for pod in pods:
            if pod.metadata is not None and pod.metadata.name is not None:
                with _translated(), _unless_gone():
                    self._client.delete(Pod, pod.metadata.name, namespace=self.namespace, grace_period=grace)

    def nudge_claims(self, job_id: str) -> None:
        """Have the cluster look once more at claims of a job that are not bound.

        A claim that the cluster saw before its volume is looked at again after 15 s, or as soon as it is changed.
        Whoever may not change it waits.
        """
        with contextlib.suppress(Refused), _translated():
            for claim in self._client.list(PersistentVolumeClaim, namespace=self.namespace, labels={JOB_LABEL: job_id}):
                if claim.status is not None and claim.status.phase == "Pending":
                    change = {"metadata": {"annotations": {_NUDGED: str(time.monotonic_ns())}}}
                    with _unless_gone():
                        self._client.patch(PersistentVolumeClaim, _name(claim), change, namespace=self.namespace)

    def leftovers(self, job_id: str) -> list[str]:
        """Return what there still is of a job, by kind: also what is being deleted, which takes its time."""
        kinds = []
        for kind in (Job, Pod, PersistentVolumeClaim):
            with _translated():
                if list(self._client.list(kind, namespace=self.namespace, labels={JOB_LABEL: job_id})):
                    kinds.append(kind.__name__)
        try:
            with _translated():
                if list(self._client.list(PersistentVolume, labels={JOB_LABEL: job_id})):
                    kinds.append(PersistentVolume.__name__)
        except Refused:  # not everybody may list what belongs to no namespace
            return kinds
        return kinds


def _name(found: PersistentVolume | PersistentVolumeClaim) -> str:
    return (found.metadata.name if found.metadata is not None else None) or ""


def _has_started(pod: Pod) -> bool:
    statuses = (pod.status.containerStatuses if pod.status is not None else None) or []
    return any(found.state is not None and found.state.waiting is None for found in statuses)


def _owners(pod: Pod) -> set[str]:
    owners = (pod.metadata.ownerReferences if pod.metadata is not None else None) or []
    return {owner.uid for owner in owners}


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except ApiError as fault:
        if fault.status.code != httpx.codes.NOT_FOUND:
            raise


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise `Unreachable` for what another try may mend, and `LackError` for what the user may not do.

    What answers may be a proxy before the API server, with a page of its own; and before anything is asked, a program
    that KUBECONFIG names may have to sign in.
    """
    try:
        yield
    except ApiError as fault:
        code, told = fault.status.code, fault.status.message
        if code is None or code >= httpx.codes.INTERNAL_SERVER_ERROR or code in _TRANSIENT:
            raise Unreachable(f"the cluster is in trouble: {told or 'it does not say which'}") from fault
        if code in {401, 403}:
            raise Refused(
                f"the cluster refuses: {told}", remedy="Check the rights of the user in KUBECONFIG"
            ) from fault
        if code in _EXPECTED:
            raise
        raise LackError(f"the cluster answers {code}: {told}") from fault
    except httpx.HTTPError as fault:
        raise Unreachable("the cluster does not answer", remedy="Check KUBECONFIG and that it is up") from fault
    except (ConfigError, OSError) as fault:  # its text holds what the program said
        raise Unreachable(
            "the program that KUBECONFIG names for signing in does not do so", remedy="Sign in by it"
        ) from fault
    except (AttributeError, KeyError, TypeError, ValueError) as fault:
        raise Unreachable("what answers is no API server", remedy="Check the proxy's settings") from fault
