"""States, in Clara's own terms."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class JobState(StrEnum):
    """Where a job is in its life."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class JobStatus(StrEnum):
    """How a job fares. Success is STOPPED and HEALTHY."""

    HEALTHY = "HEALTHY"
    FAULTED = "FAULTED"
    CANCELED = "CANCELED"
    EVICTED = "EVICTED"
    TERMINATED = "TERMINATED"


class Priority(IntEnum):
    """The order in which waiting jobs start; higher goes first."""

    LOWER = 0
    NORMAL = 1
    HIGHER = 2
    IMMEDIATE = 3


class StageState(StrEnum):
    """What a stage is doing, as its runner sees it."""

    WAITING = "waiting"  # started, and waiting for the stage before it
    WORKING = "working"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
