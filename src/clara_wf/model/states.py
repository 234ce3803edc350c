"""States, in Clara's own terms."""

from __future__ import annotations

from enum import StrEnum


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


class StageState(StrEnum):
    """What a stage is doing, as its runner sees it."""

    WAITING = "waiting"  # started, and waiting for the stage before it
    WORKING = "working"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
