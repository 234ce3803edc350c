"""The pod's volumes, as folders of the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara_wf.chart.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One volume of the pod."""

    host: Path | None  # its folder on the host, absolute; None: scratch space that ends with the pod (emptyDir)
    read_only: bool = False  # nobody may write there


def read_volumes(pod: Mapping[str, Any], manifests: Sequence[Manifest], faults: list[str]) -> dict[str, Volume]:
    """Resolve each volume of a pod.

    A claim leads to the release's PersistentVolumeClaim and on to the PersistentVolume of the same name or storage
    class, whose hostPath is the folder.

    Parameters
    ----------
    pod : mapping
        The pod's spec.
    manifests : sequence of Manifest
        All objects of the release.
    faults : list of str
        What cannot be resolved is appended here.
    """
    volumes: dict[str, Volume] = {}
    for entry in pod.get("volumes") or []:
        name = str(entry.get("name", ""))
        kinds = [key for key in entry if key != "name"]
        if name in volumes:
            faults.append(f"volume '{name}' stands twice")
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
