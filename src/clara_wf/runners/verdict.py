"""How a stage ended: decided here from what was seen, without looking at anything. Who sees and acts is the runner."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from clara_wf.model.job import Job, StageRecord
from clara_wf.model.locks import UPSTREAM_FAILED, Lock
from clara_wf.model.states import JobState, JobStatus, StageState

#: Shells and containers report the end by signal n as exit code 128 + n.
_SHELL_SIGNAL = 128
#: Ended by SIGKILL, as a container reports it.
KILLED = _SHELL_SIGNAL + signal.SIGKILL
_GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What a runner sees of a stage that has ended."""

    exit_code: int  # negative: ended by that signal
    lock: Lock | None  # what it said itself, or the runner on its behalf
    has_output: bool  # there is something in its output folder
    reason: str = ""  # why the runner ended it; empty: it ended by itself
    canceled: bool = False  # the runner ended it through no fault of its own
    fault: str = ""  # why it ended, where that is known better than by its exit code


def judge(ending: Ending) -> tuple[StageState, str]:
    """Return the state of an ended stage and, unless it completed, why in one line.

    A stage has completed when it left a lock that says so, exit code 0 and a result: all three. An exit code of 0
    without a lock breaks the contract, since on a cluster the next stage would wait for ever.
    """
    code, lock = ending.exit_code, ending.lock
    said_completed = lock is not None and lock.state == "completed"
    if ending.reason and not (said_completed and code == 0) and not _failed_before(ending):
        return (StageState.CANCELED if ending.canceled else StageState.FAILED), ending.reason
    if lock is None:
        advice = "without leaving a lock" if code == 0 else "without saying why"
        return StageState.FAILED, ending.fault or f"ended {describe_exit(code)} {advice}; its log may tell more"
    if not said_completed:
        return StageState.FAILED, lock.message or "failed, without saying why"
    if code != 0:
        return StageState.FAILED, f"said completed, then {ending.fault or f'ended {describe_exit(code)}'}"
    if not ending.has_output:
        return StageState.FAILED, "completed, but left nothing in its output folder"
    return StageState.COMPLETED, ""


def _failed_before(ending: Ending) -> bool:
    """Whether a stage that was ended had failed by itself already.

    Whoever ends a stage writes the reason into its lock first, so another word there is the stage's own and was
    earlier. That it gives up because of another stage is no failure of its own.
    """
    lock = ending.lock
    if lock is None or lock.state != "failed":
        return False
    return lock.message != ending.reason and not lock.message.startswith(UPSTREAM_FAILED)


def out_of_memory(limit: int | None, used: int = 0) -> str:
    """Say that a stage ran out of memory, under a limit and having used so much, in bytes; 0: not known."""
    limited = f": its limit is {limit / _GIB:.2f} GiB" if limit is not None else ""
    return f"ran out of memory{limited}" + (f", it had used {used / _GIB:.2f} GiB" if used else "")


def describe_exit(code: int) -> str:
    """Say how a process ended: `with exit code 3`, `by SIGKILL (perhaps out of memory)`."""
    number = -code if code < 0 else code - _SHELL_SIGNAL
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"with exit code {code}"
    hint = " (perhaps out of memory)" if number == signal.SIGKILL else ""
    return f"by {name}{hint}"


def conclude(job: Job, stages: tuple[StageRecord, ...], *, fault: str, canceled: bool) -> Job:
    """Return the job at its end: HEALTHY if every stage completed, CANCELED if somebody stopped it, else FAULTED.

    Parameters
    ----------
    job : Job
        The job as it was.
    stages : tuple of StageRecord
        The ended stages.
    fault : str
        The first failure, in one line; empty if there was none.
    canceled : bool
        Somebody asked the job to end.
    """
    if all(stage.state is StageState.COMPLETED for stage in stages):
        status, message = JobStatus.HEALTHY, ""
    elif canceled:
        status, message = JobStatus.CANCELED, "canceled"
    else:
        status, message = JobStatus.FAULTED, fault
    return Job(
        id=job.id,
        name=job.name,
        workflow=job.workflow,
        state=JobState.STOPPED,
        status=status,
        message=message,
        stages=stages,
        started=job.started,
    )
