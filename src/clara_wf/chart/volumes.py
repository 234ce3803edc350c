"""The pod's volumes, as folders of the host.

A folder of the node is found by what the pod mounts. Storage that only a cluster reaches is named by a claim, or comes
and goes with the pod: there the Job's annotations say where this machine sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara_wf.chart.manifest import Manifest
from clara_wf.model.plan import PAYLOAD_ANNOTATION

#: The pod's volume that holds the payload.
PAYLOAD_VOLUME = "payload"
#: The pod's volume that holds the model repository.
MODELS_VOLUME = "models"

#: Annotations of the Job: where clara-wf sees the payload and the models, and where a cluster has the payload.
MODELS = "clara-workflow/models"
STORAGE = "clara-workflow/storage"
#: Each way of storing a payload; whether the volume is the job's own folder, or one that holds the folders of many.
STORAGES = {"hostPath": False, "existingClaim": True, "storageClass": False, "bucket": False}


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One volume of the pod."""

    host: Path | None  # its folder on the host, absolute; None: scratch space that ends with the pod (emptyDir)
    read_only: bool = False  # nobody may write there
    within: Path | None = None  # what may be mounted of it, and no folder beside: the job's own; None: all of it


def read_volumes(
    pod: Mapping[str, Any], annotations: Mapping[str, Any], manifests: Sequence[Manifest], faults: list[str]
) -> dict[str, Volume]:
    """Resolve each volume of a pod.

    A claim leads to the release's PersistentVolumeClaim and on to the PersistentVolume of the same name or storage
    class, whose hostPath is the folder; unless an annotation says where it is seen.

    Parameters
    ----------
    pod : mapping
        The pod's spec, without containers that are no stages.
    annotations : mapping
        The Job's.
    manifests : sequence of Manifest
        All objects of the release.
    faults : list of str
        What cannot be resolved is appended here.
    """
    seen_here = _annotated(annotations, faults)
    volumes: dict[str, Volume] = {}
    for entry in pod.get("volumes") or []:
        name = str(entry.get("name", ""))
        kinds = [key for key in entry if key != "name"]
        if name in volumes:
            faults.append(f"volume '{name}' stands twice")
        elif name in seen_here and kinds in (["emptyDir"], ["persistentVolumeClaim"]):
            volumes[name] = seen_here[name]
        elif kinds == ["emptyDir"]:
            volumes[name] = Volume(host=None)
        elif kinds == ["hostPath"]:
            _add_folder(name, entry["hostPath"].get("path"), volumes, faults, read_only=False)
        elif kinds == ["persistentVolumeClaim"]:
            _add_claim(name, entry["persistentVolumeClaim"], manifests, volumes, faults)
        else:
            kind = ", ".join(kinds) or "no kind"
            faults.append(
                f"volume '{name}': {kind} is not supported, only hostPath, persistentVolumeClaim and emptyDir"
            )
    _check_scratch(pod, volumes, faults)
    return volumes


def _annotated(annotations: Mapping[str, Any], faults: list[str]) -> dict[str, Volume]:
    """Return the volumes that are not to be found by what the pod mounts."""
    volumes: dict[str, Volume] = {}
    storage = str(annotations.get(STORAGE, "hostPath"))
    if storage not in STORAGES:
        faults.append(f"metadata.annotations: {STORAGE} is '{storage}', not one of {', '.join(STORAGES)}")
    elif storage != "hostPath":
        payload = _folder(PAYLOAD_ANNOTATION, annotations, faults)
        if payload is not None:
            many = STORAGES[storage]
            volumes[PAYLOAD_VOLUME] = Volume(host=payload.parent if many else payload, within=payload if many else None)
    if MODELS in annotations:
        models = _folder(MODELS, annotations, faults)
        if models is not None:
            volumes[MODELS_VOLUME] = Volume(host=models, read_only=True)
    return volumes


def _folder(key: str, annotations: Mapping[str, Any], faults: list[str]) -> Path | None:
    text = annotations.get(key)
    if isinstance(text, str) and text.startswith("/"):
        return Path(text)
    faults.append(f"metadata.annotations: {key} is no absolute folder")
    return None


def _add_folder(name: str, path: object, volumes: dict[str, Volume], faults: list[str], *, read_only: bool) -> None:
    if isinstance(path, str) and path.startswith("/"):
        volumes[name] = Volume(host=Path(path), read_only=read_only)
    else:
        faults.append(f"volume '{name}': hostPath '{path}' is not absolute")


def _add_claim(
    name: str, claim: Mapping[str, Any], manifests: Sequence[Manifest], volumes: dict[str, Volume], faults: list[str]
) -> None:
    claim_name = claim.get("claimName")
    claims = [found for found in manifests if found.kind == "PersistentVolumeClaim" and found.name == claim_name]
    if len(claims) != 1:
        faults.append(f"volume '{name}': the chart makes no PersistentVolumeClaim '{claim_name}'")
        return
    wanted = claims[0].body.get("spec") or {}
    persistent = [
        found
        for found in manifests
        if found.kind == "PersistentVolume"
        and wanted.get("volumeName", found.name) == found.name
        and wanted.get("storageClassName") == (found.body.get("spec") or {}).get("storageClassName")
    ]
    if len(persistent) != 1:
        faults.append(f"volume '{name}': {len(persistent)} PersistentVolumes fit the claim '{claim_name}', not one")
        return
    spec = persistent[0].body.get("spec") or {}
    if not isinstance(spec.get("hostPath"), dict):
        faults.append(f"volume '{name}': PersistentVolume '{persistent[0].name}' is no hostPath")
        return
    _add_folder(name, spec["hostPath"].get("path"), volumes, faults, read_only=bool(claim.get("readOnly")))


def _check_scratch(pod: Mapping[str, Any], volumes: Mapping[str, Volume], faults: list[str]) -> None:
    """Refuse scratch space that stages share, which a plan cannot say. For one stage alone it means nothing here."""
    users: dict[str, list[str]] = {}
    for container in pod.get("containers") or []:
        mounted = {str(mount.get("name")) for mount in container.get("volumeMounts") or []}
        for name in mounted & {name for name, volume in volumes.items() if volume.host is None}:
            users.setdefault(name, []).append(str(container.get("name")))
    for name, stages in users.items():
        if len(stages) > 1:
            faults.append(f"volume '{name}': emptyDir shared by {', '.join(stages)} is not supported, use the payload")
