"""A Plan: what a runner carries out. Read from the chart's rendered Job, never made up beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from clara_wf.model.errors import ChartError

#: Every variable of the stage contract begins with this.
PREFIX = "NVIDIA_CLARA_"
#: The label by which all objects of a job are found in a cluster.
JOB_LABEL = "clara-workflow/job-id"
#: The annotation by which a Job says where this machine sees its payload.
PAYLOAD_ANNOTATION = "clara-workflow/payload"


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of the host, seen by a stage under another path."""

    path: str  # in the container, absolute: /app/input
    host: Path  # on the host, absolute
    read_only: bool = False  # the stage may not write there


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a stage may use at most."""

    cpu: float | None = None  # cores
    memory: int | None = None  # bytes


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One container of the job."""

    name: str  # the stage's name: ai-vnet
    image: str  # repository:tag
    command: tuple[str, ...]  # the program and its fixed arguments; empty: the image's own entry point
    args: tuple[str, ...] = ()  # arguments of this workflow
    environment: Mapping[str, str] = field(default_factory=dict)  # as in the manifest, container paths
    mounts: tuple[Mount, ...] = ()  # ordered as in the manifest
    resources: Resources = Resources()

    def variable(self, name: str) -> str:
        """Return a variable of the contract, without its prefix; empty if it is not set."""
        return self.environment.get(PREFIX + name, "")

    @property
    def timeout(self) -> float | None:
        """Seconds that the stage may wait, and again work; None is no limit.

        Raises
        ------
        ChartError
            The chart gives no number of seconds.
        """
        text = self.variable("TIMEOUT") or "0"
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise ChartError(f"the time-out {text!r} of stage {self.name} is no number of seconds")
        return seconds or None

    def host_path(self, container_path: str) -> Path | None:
        """Translate a path in the container to one on the host; None where no mount holds it."""
        path = PurePosixPath(container_path)
        best: tuple[int, Path] | None = None
        for mount in self.mounts:
            if path.is_relative_to(mount.path):
                depth = len(PurePosixPath(mount.path).parts)
                if best is None or depth > best[0]:
                    best = (depth, mount.host / path.relative_to(mount.path))
        return best[1] if best else None

    def folder(self, variable: str) -> Path | None:
        """Return the host's folder or file behind INPUTS, OUTPUTS, LOCKDIR or LOGNAME."""
        value = self.variable(variable)
        return self.host_path(str(PurePosixPath(self.variable("APPDIR") or "/app") / value)) if value else None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job, ready to be carried out by any runner."""

    workflow: str  # name: liver-seg
    workflow_id: str  # UUID
    job_id: str  # UUID
    job_name: str  # no patient data
    payload: Path  # the job's folder on the host, or where this machine sees the storage that holds it
    stages: tuple[StagePlan, ...]  # in the order of the chain
    deadline: float | None = None  # seconds that the whole job may take
    storage: str = "hostPath"  # where a cluster has the payload: hostPath, existingClaim, storageClass or bucket
    store: str = ""  # URL of the job's folder in the bucket; empty: none
    store_endpoint: str = ""  # of a bucket's server that is not AWS

    def stage(self, name: str) -> StagePlan:
        """Return the stage of that name.

        Raises
        ------
        KeyError
            The plan has no such stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    @property
    def input(self) -> Path:
        """The folder that the payload must fill before the first stage works."""
        return self._io("INPUTS", 0)

    @property
    def output(self) -> Path:
        """The folder where the last stage leaves the result."""
        return self._io("OUTPUTS", -1)

    def _io(self, variable: str, index: int) -> Path:
        found = self.stages[index].folder(variable)
        if found is None:
            raise KeyError(variable)
        # INPUTS may name a file in the folder (input/recon.mhd): the folder is what is mounted.
        return next(mount.host for mount in self.stages[index].mounts if found.is_relative_to(mount.host))
