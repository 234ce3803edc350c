"""The memory runner: stages are functions, called in threads of this process. For tests of whoever needs a runner.

It carries out the same plan by the same contract (variables, folders, locks, exit codes) as every other runner, and is
no mock: only nothing can be ended by force, no limit of memory holds, and what a stage logs goes to standard error.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from clara_wf.model.errors import ChartError, UsageError
from clara_wf.model.events import Event, JobEnded, StageEnded, StageWaiting, StageWorking
from clara_wf.model.job import Job, StageRecord
from clara_wf.model.locks import Lock, now
from clara_wf.model.plan import Plan, StagePlan
from clara_wf.runners.journal import Journal
from clara_wf.runners.limits import Limits
from clara_wf.runners.paths import StagePaths, lock_path
from clara_wf.runners.runner import Capabilities
from clara_wf.runners.verdict import Ending, judge
from clara_wf.runners.workspace import Workspace, faults_of, is_filled

#: A stage: given its arguments and its variables, it returns an exit code. `clara_wf.stage.run` has this shape.
StageFunction = Callable[[Sequence[str], Mapping[str, str]], int]


class MemoryRunner:
    """Runs each stage as a function.

    Parameters
    ----------
    functions : mapping of str to callable
        For every stage by its name, what to call with its arguments and its environment.
    limits : Limits, optional
        `tick` and `grace` count here.
    """

    capabilities = Capabilities(ends_stages=False)

    def __init__(self, functions: Mapping[str, StageFunction], *, limits: Limits | None = None) -> None:
        self._functions = dict(functions)
        self._limits = limits or Limits()

    def run(self, plan: Plan) -> MemoryRun:
        """Give the run of a plan, which has not started yet."""
        return MemoryRun(plan, self._functions, self._limits)


class MemoryRun:
    """One job, its stages being functions; see `Run`."""

    def __init__(self, plan: Plan, functions: Mapping[str, StageFunction], limits: Limits) -> None:
        self._plan = plan
        self._functions = functions
        self._limits = limits
        self._journal = Journal(plan)
        self._running = {stage.name: stage for stage in plan.stages}
        self._waiting = list(plan.stages)
        self._codes: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._started = time.monotonic()
        self._canceled_at: float | None = None
        self._ended = False

    @property
    def job(self) -> Job:
        """The job as it stands."""
        return self._journal.job

    def cancel(self) -> None:
        """Ask the job to end: stages that wait for others stop; one that works is waited for, then left behind."""
        self._canceled_at = self._canceled_at or time.monotonic()

    def __enter__(self) -> Self:
        """Check the plan, and take and clear the payload."""
        faults = faults_of(self._plan)
        if faults:
            raise ChartError("; ".join(faults))
        missing = sorted(self._running.keys() - self._functions.keys())
        if missing:
            raise UsageError(f"there is no function for stage {', '.join(missing)}")
        self._paths = {stage.name: StagePaths(self._plan, stage) for stage in self._plan.stages}
        self._workspace = Workspace(self._plan)
        self._workspace.prepare(self._paths.values())
        self._journal.begin()
        return self

    def __iter__(self) -> Iterator[Event]:
        """Carry out the plan."""
        self._started = time.monotonic()
        for stage in self._plan.stages:
            threading.Thread(target=self._call, args=(stage,), name=stage.name, daemon=True).start()
            yield StageWaiting(stage=stage.name)
        while self._running:
            yield from self._step()
        yield self._end()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left."""
        try:
            if not self._ended:
                self.cancel()
                while self._running:
                    list(self._step())
                self._end()
        finally:
            self._workspace.close()

    def _call(self, stage: StagePlan) -> None:
        paths = self._paths[stage.name]
        environment = {name: paths.translate(value) for name, value in stage.environment.items()}
        code = 1
        try:
            code = self._functions[stage.name]([paths.translate(word) for word in stage.args], environment)
        finally:
            self._codes.put((stage.name, code))

    def _step(self) -> Iterator[Event]:
        # In the order of the chain, also where one was so quick that the next may begin as well.
        for stage in list(self._waiting):
            before = self._plan.stages.index(stage) - 1
            if before < 0 or lock_path(self._plan.stages[before]).exists():
                self._waiting.remove(stage)
                self._journal.working(stage.name)
                yield StageWorking(stage=stage.name)
        try:
            name, code = self._codes.get(timeout=self._limits.tick)
        except queue.Empty:
            pass
        else:
            if name in self._running:  # else it was left behind
                yield self._record(self._running[name], code)
        if self._canceled_at is not None:
            for stage in self._running.values():
                self._leave_lock(stage, "canceled")
            if time.monotonic() - self._canceled_at > self._limits.grace:
                for stage in list(self._running.values()):
                    yield self._record(stage, 1)

    def _record(self, stage: StagePlan, code: int) -> StageEnded:
        lock = Lock.read(lock_path(stage))
        canceled = self._canceled_at is not None
        state, message = judge(
            Ending(
                exit_code=code,
                lock=lock,
                has_output=is_filled(stage),
                reason="canceled" if canceled else "",
                canceled=canceled,
            )
        )
        self._leave_lock(stage, message)
        record = StageRecord(
            name=stage.name,
            state=state,
            message=message,
            exit_code=code,
            wall_s=round(time.monotonic() - self._started, 3),
        )
        del self._running[stage.name]
        self._waiting = [other for other in self._waiting if other is not stage]
        self._journal.note(record)
        return StageEnded(record=record)

    def _leave_lock(self, stage: StagePlan, message: str) -> None:
        path = lock_path(stage)
        if not path.exists():  # else it would be made in vain, and forced onto the disk, at every step
            Lock(stage=stage.name, state="failed", message=message, ended=now()).write(path)

    def _end(self) -> JobEnded:
        self._ended = True
        return JobEnded(job=self._journal.end(canceled=self._canceled_at is not None))
