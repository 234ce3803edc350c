"""One container of the rendered Job as a `StagePlan`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from clara_wf.chart.quantity import parse_quantity
from clara_wf.chart.volumes import Volume
from clara_wf.model.plan import Mount, Resources, StagePlan

_READ = {"name", "image", "command", "args", "env", "resources", "volumeMounts"}
# How the cluster isolates and pulls; ports are documentation (Kubernetes opens none by them).
_OF_THE_CLUSTER = {
    "imagePullPolicy", "ports", "securityContext", "terminationMessagePath", "terminationMessagePolicy",
}  # fmt: skip
_MOUNT_READ = {"name", "mountPath", "subPath", "readOnly"}
_REFERENCE = re.compile(r"\$(?:\$|\((?P<name>[-._a-zA-Z][-._a-zA-Z0-9]*)\))")


def read_container(container: Mapping[str, Any], volumes: Mapping[str, Volume], faults: list[str]) -> StagePlan:
    """Read a container.

    Parameters
    ----------
    container : mapping
        The container, as in the Job.
    volumes : mapping of str to Volume
        The pod's volumes by name.
    faults : list of str
        What a plan cannot say is appended here, with the stage's name before it.
    """
    name = str(container.get("name", ""))
    found: list[str] = [f"{key} is not supported" for key in container if key not in _READ | _OF_THE_CLUSTER]
    environment = _environment(container.get("env") or [], found)
    image = container.get("image")
    if not isinstance(image, str) or not image:
        found.append("has no image")
    plan = StagePlan(
        name=name,
        image=str(image),
        command=_strings("command", container.get("command"), environment, found),
        args=_strings("args", container.get("args"), environment, found),
        environment=environment,
        mounts=_mounts(container.get("volumeMounts") or [], volumes, found),
        resources=_resources(container.get("resources") or {}, found),
    )
    faults += [f"stage '{name}': {fault}" for fault in found]
    return plan


def _environment(entries: object, faults: list[str]) -> dict[str, str]:
    """Read plain values; a variable that stands twice has its last value, as in Kubernetes."""
    environment: dict[str, str] = {}
    if not isinstance(entries, list):
        faults.append("env is no list")
        return environment
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            faults.append(f"env entry '{entry}' has no name")
        elif "valueFrom" in entry:
            kind = next(iter(entry["valueFrom"] or {"nothing": None}))
            faults.append(f"variable {name}: valueFrom ({kind}) is not supported, only plain values")
        elif not isinstance(entry.get("value", ""), str):
            faults.append(f"variable {name}: {entry['value']!r} is no string, quote it")
        else:
            environment[name] = _expand(entry.get("value", ""), environment)
    return environment


def _expand(text: str, environment: Mapping[str, str]) -> str:
    """Put variables in place of $(NAME), as Kubernetes does: $$ is $, and an unknown name stays as it stands."""

    def replacement(match: re.Match[str]) -> str:
        return "$" if match["name"] is None else environment.get(match["name"], match[0])

    return _REFERENCE.sub(replacement, text)


def _strings(key: str, value: object, environment: Mapping[str, str], faults: list[str]) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        faults.append(f"{key} is no list")
        return ()
    wrong = [item for item in value if not isinstance(item, str)]
    faults += [f"{key}: {item!r} is no string, quote it" for item in wrong]
    return tuple(_expand(item, environment) for item in value if isinstance(item, str))


def _mounts(entries: object, volumes: Mapping[str, Volume], faults: list[str]) -> tuple[Mount, ...]:
    mounts: dict[str, Mount] = {}
    if not isinstance(entries, list):
        faults.append("volumeMounts is no list")
        return ()
    for entry in entries:
        name, path, inside = entry.get("name"), entry.get("mountPath"), entry.get("subPath") or ""
        unknown = sorted(set(entry) - _MOUNT_READ)
        if unknown:
            faults.append(f"mount {path}: {', '.join(unknown)} is not supported")
        elif not isinstance(path, str) or not path.startswith("/") or ":" in path:
            faults.append(f"mount of '{name}': mountPath '{path}' is not absolute")
        elif path in mounts:
            faults.append(f"mount {path}: stands twice")
        elif name not in volumes:
            faults.append(f"mount {path}: no volume '{name}'")
        elif PurePosixPath(inside).is_absolute() or ".." in PurePosixPath(inside).parts:
            faults.append(f"mount {path}: subPath '{inside}' leads out of the volume")
        else:
            volume = volumes[name]
            # Scratch space of one stage (emptyDir: /tmp, /dev/shm): a stage has that anywhere, its own file system.
            if volume.host is None:
                continue
            host = volume.host / inside
            if volume.within is not None and not host.is_relative_to(volume.within):
                faults.append(f"mount {path}: subPath '{inside}' is not below the job's folder {volume.within.name}")
            else:
                read_only = volume.read_only or bool(entry.get("readOnly"))
                mounts[path] = Mount(path=path, host=host, read_only=read_only)
    return tuple(mounts.values())


def _resources(resources: Mapping[str, Any], faults: list[str]) -> Resources:
    """Read the limits of processor and memory.

    Requests tell a scheduler where there is room. GPUs, huge pages and disk are a cluster's to count: a laptop's stage
    uses what is there.
    """
    limits: Mapping[str, Any] = resources.get("limits") or {}
    numbers = {}
    for key in ("cpu", "memory"):
        if limits.get(key) is not None:
            try:
                numbers[key] = parse_quantity(limits[key])
            except ValueError as exc:
                faults.append(f"resources.limits.{key}: {exc}")
    return Resources(
        cpu=float(numbers["cpu"]) if "cpu" in numbers else None,
        memory=int(numbers["memory"]) if "memory" in numbers else None,
    )
