"""What Kubernetes does without us: the pod of a job, created through the API and watched, and Jobs of such pods."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightkube import Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod
from lightkube.types import CascadeType

Manifest = dict[str, Any]


def pod_spec(job: Manifest, payload: Path, *, only: str = "") -> Manifest:
    """Return the pod of a rendered Job, its payload a folder of the node and no claim; with one container only."""
    spec: Manifest = copy.deepcopy(job["spec"]["template"]["spec"])
    for volume in spec["volumes"]:
        if volume["name"] == "payload":
            volume.pop("persistentVolumeClaim")
            volume["hostPath"] = {"path": str(payload), "type": "Directory"}
    if only:
        spec["containers"] = [found for found in spec["containers"] if found["name"] == only]
    return spec


def run_pod(client: Client, namespace: str, name: str, spec: Manifest) -> float:
    """Create a pod, watch it until it has succeeded, delete it; return the seconds of the first two."""
    pod = Pod.from_dict({"metadata": {"name": name}, "spec": spec})
    started = time.monotonic()
    client.create(pod, namespace=namespace)
    try:
        for _, seen in client.watch(Pod, namespace=namespace, fields={"metadata.name": name}):
            phase = seen.status.phase if seen.status is not None else ""
            if phase in {"Succeeded", "Failed"}:
                break
        seconds = time.monotonic() - started
        assert phase == "Succeeded", f"pod {name}: {phase}"
    finally:
        client.delete(Pod, name, namespace=namespace, grace_period=0)
    return seconds


def run_jobs(client: Client, namespace: str, specs: Sequence[Manifest]) -> float:
    """Create Jobs, watch them until the last has completed; return the seconds."""
    waiting = set()
    started = time.monotonic()
    for number, spec in enumerate(specs):
        name = f"bare-{number}"
        job = {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": spec}}}
        client.create(Job.from_dict(job), namespace=namespace)
        waiting.add(name)
    for _, seen in client.watch(Job, namespace=namespace):
        name = seen.metadata.name if seen.metadata is not None else ""
        conditions = {found.type for found in (seen.status.conditions or [])} if seen.status is not None else set()
        assert "Failed" not in conditions, f"job {name} failed"
        if "Complete" in conditions:
            waiting.discard(name)
        if not waiting:
            break
    seconds = time.monotonic() - started
    for number in range(len(specs)):
        client.delete(Job, f"bare-{number}", namespace=namespace, cascade=CascadeType.BACKGROUND)
    return seconds


def make_namespace(client: Client, name: str) -> None:
    """Make a namespace, and wait until pods may be created in it."""
    from lightkube.resources.core_v1 import Namespace, ServiceAccount

    client.create(Namespace(metadata=ObjectMeta(name=name)))
    for _ in range(150):
        accounts = client.list(ServiceAccount, namespace=name)
        if any(found.secrets for found in accounts if found.metadata and found.metadata.name == "default"):
            return
        time.sleep(0.2)


def remove_namespace(client: Client, name: str) -> None:
    """Remove a namespace with all that is in it, and the volumes that its claims had; wait until it is gone."""
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.core_v1 import Namespace, PersistentVolume

    try:
        client.delete(Namespace, name)
        for _ in range(600):
            client.get(Namespace, name)
            time.sleep(0.2)
    except ApiError as fault:
        if fault.status.code != 404:
            raise
    for volume in client.list(PersistentVolume):
        claim = volume.spec.claimRef if volume.spec is not None else None
        if claim is not None and claim.namespace == name and volume.metadata and volume.metadata.name:
            client.delete(PersistentVolume, volume.metadata.name)
