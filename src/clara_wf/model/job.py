"""What became of a job: the record that a runner keeps in `job.json` and gives to whoever asked for the run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clara_wf.model.files import write_atomically
from clara_wf.model.states import JobState, JobStatus, StageState


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What a stage did and used."""

    name: str  # ai-vnet
    state: StageState  # where it is, or how it ended
    message: str = ""  # why it failed, in one line
    exit_code: int | None = None  # negative: ended by that signal
    wall_s: float | None = None  # seconds from its start to its end, waiting included
    work_s: float | None = None  # seconds from the end of waiting to its end
    cpu_s: float | None = None  # processor seconds, user and system
    peak_bytes: int | None = None  # most memory that it held at once


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job and how it fares."""

    id: str  # UUID
    name: str  # no patient data
    workflow: str  # name
    state: JobState
    status: JobStatus
    message: str = ""  # the first failure, in one line
    stages: tuple[StageRecord, ...] = ()  # in the order of the chain
    started: str = ""  # ISO 8601
    ended: str = ""  # ISO 8601
    wall_s: float | None = None  # seconds

    @property
    def succeeded(self) -> bool:
        """STOPPED and HEALTHY."""
        return self.state is JobState.STOPPED and self.status is JobStatus.HEALTHY

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write the record so that a reader never sees a part of it."""
        write_atomically(path, json.dumps(self.to_json(), indent=2) + "\n")
