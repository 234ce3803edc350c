"""What a runner tells while it works. Whoever shows it (a terminal, a page, a log) is told the same."""

from __future__ import annotations

from dataclasses import dataclass

from clara_wf.model.job import Job, StageRecord


@dataclass(frozen=True, kw_only=True)
class StageWaiting:
    """A stage has started, and prepares itself or waits for the one before it."""

    stage: str


@dataclass(frozen=True, kw_only=True)
class StageWorking:
    """A stage has what it waited for."""

    stage: str


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """A stage says how far it is."""

    stage: str
    fraction: float  # 0 to 1
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class StageLogged:
    """A stage wrote a line that is for people."""

    stage: str
    level: str  # DEBUG, INFO, WARNING, ERROR
    message: str


@dataclass(frozen=True, kw_only=True)
class JobLogged:
    """The runner has something to say to people that concerns the whole job."""

    level: str  # INFO, WARNING
    message: str


@dataclass(frozen=True, kw_only=True)
class StageEnded:
    """A stage has ended, well or not."""

    record: StageRecord


@dataclass(frozen=True, kw_only=True)
class JobEnded:
    """The last event of a run."""

    job: Job


Event = StageWaiting | StageWorking | StageProgress | StageLogged | StageEnded | JobLogged | JobEnded
