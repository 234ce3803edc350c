"""A run whose stages are programs of this machine: each is started, supervised, and ended with the job."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from itertools import takewhile
from types import TracebackType
from typing import Self

from clara_wf.model.errors import ChartError, ClaraError, LackError, UsageError
from clara_wf.model.events import Event, JobEnded, StageEnded, StageWaiting, StageWorking
from clara_wf.model.job import Job
from clara_wf.model.payload import Payload
from clara_wf.model.plan import Plan, StagePlan
from clara_wf.runners.child import Launcher, Program
from clara_wf.runners.journal import Journal
from clara_wf.runners.limits import Limits
from clara_wf.runners.supervision import Supervised
from clara_wf.runners.watch import Watch
from clara_wf.runners.workspace import Workspace, faults_of, unwritable


class LocalRun:
    """One job, its stages being programs of this machine; see `Run`.

    Parameters
    ----------
    plan : Plan
        The job.
    launcher : Launcher
        What to start for its stages; of this run alone.
    limits : Limits
        How patient the run is.
    """

    def __init__(self, plan: Plan, launcher: Launcher, limits: Limits) -> None:
        self._plan = plan
        self._launcher = launcher
        self._limits = limits
        self._journal = Journal(plan)
        self._stages: dict[str, Supervised] = {}
        self._cancels = 0
        self._canceled = False
        self._ended = False
        self._first_failed: str | None = None
        self._give_up_at = 0.0  # when those who do not notice that failure are ended

    @property
    def job(self) -> Job:
        """The job as it stands."""
        return self._journal.job

    def cancel(self) -> None:
        """Ask the job to end; a second call kills at once."""
        self._cancels += 1
        self._watch.wake()

    def __enter__(self) -> Self:
        """Check the plan, and take and clear the payload."""
        self._programs = self._check()
        self._workspace = Workspace(self._plan)
        try:
            self._launcher.begin(self._plan)
        except OSError as fault:
            self._workspace.close()
            raise unwritable(self._plan, fault) from fault
        self._workspace.prepare(self._programs)
        self._journal.begin()
        self._watch = Watch()
        return self

    def _check(self) -> list[Program]:
        """Return what to start for every stage, or raise once with everything that is wrong."""
        faults: list[ClaraError] = [ChartError(fault) for fault in faults_of(self._plan)]
        programs = []
        for stage in self._plan.stages:
            try:
                programs.append(self._launcher.program(self._plan, stage))
            except (ChartError, LackError, UsageError) as fault:
                faults.append(fault)
        faults += self._launcher.faults(self._plan)
        if len(faults) > 1:
            raise type(faults[0])("; ".join(str(fault) for fault in faults))
        if faults:
            raise faults[0]
        return programs

    def __iter__(self) -> Iterator[Event]:
        """Carry out the plan."""
        yield from self._start()
        while self._living():
            yield from self._step()
        yield self._end()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left."""
        try:
            if not self._ended:
                self.cancel()
                self._obey(time.monotonic())
                while self._living():
                    self._step()
                self._end()
        finally:
            for stage in self._living():  # Ctrl-C came once more while the stages were given their time
                stage.kill()
            self._launcher.end()
            self._watch.close()
            self._workspace.close()

    def _living(self) -> list[Supervised]:
        return [stage for stage in self._stages.values() if stage.record is None]

    def _start(self) -> list[Event]:
        """Start all stages at once: they order themselves by their locks."""
        self._watch.guard(self._launcher.mark, self._launcher.removal)
        logs = Payload(root=self._plan.payload).logs
        events: list[Event] = []
        before: StagePlan | None = None
        first_core = 0
        for program in self._programs:
            stage = Supervised(program, before, self._plan.job_id, logs, self._limits)
            self._stages[stage.name] = stage
            stage.start(self._watch, keep_open=self._workspace.handle, first_core=first_core)
            events.append(StageWaiting(stage=stage.name))
            self._note_end(stage, events)
            before = program.stage
            first_core += math.ceil(program.stage.resources.cpu or 0)
        return events

    def _step(self) -> list[Event]:
        """Wait for something to happen, at most one tick, and act on it."""
        events: list[Event] = []
        for name, stream in self._watch.wait(self._limits.tick):
            if stream:
                events += self._note_working(self._stages[name].read(stream, self._watch))
        moment = time.monotonic()
        for stage in self._living():
            if stage.has_exited:
                events += self._note_working(stage.collect(self._watch))
                self._note_end(stage, events)
            else:
                events += self._note_working(stage.check(moment))
        self._obey(moment)
        return events

    def _note_working(self, events: Iterable[Event]) -> Iterator[Event]:
        """Note who works, before its end is noted: a quick stage may say both within one step."""
        for event in events:
            if isinstance(event, StageWorking):
                self._journal.working(event.stage)
            yield event

    def _note_end(self, stage: Supervised, events: list[Event]) -> None:
        """Note an ended stage; a failed one ends the others."""
        if stage.record is None:
            return
        self._journal.note(stage.record)
        events.append(StageEnded(record=stage.record))
        if stage.failed and self._first_failed is None:
            # The one that it waited for may have failed, left its lock, and not quite ended yet.
            first = next(each for each in self._stages.values() if each.has_given_up)
            self._first_failed = first.name
            # Those after it read its lock and say so themselves; those before it work in vain.
            self._give_up_at = time.monotonic() + self._limits.patience
            for earlier in takewhile(lambda other: other is not first, self._stages.values()):
                earlier.end(f"ended, since stage {first.name} failed", canceled=True)

    def _obey(self, moment: float) -> None:
        """End what must not go on: canceled, past the deadline, or behind a failed stage."""
        if self._cancels and not self._canceled:
            self._canceled = True
            for stage in self._living():
                stage.end("canceled", canceled=True)
        if self._cancels > 1:
            for stage in self._living():
                stage.kill()
        deadline = self._plan.deadline
        if deadline is not None and moment - self._watch.started > deadline:
            self._journal.blame(f"took longer than its deadline of {deadline:g} s")
            for stage in self._living():
                stage.end(f"the job took longer than its deadline of {deadline:g} s")
        if self._first_failed is not None and moment > self._give_up_at:
            for stage in self._living():
                # Whoever has failed by itself is about to end, with an exit code that tells what kind of failure it is.
                if not stage.has_given_up or moment > self._give_up_at + self._limits.grace:
                    stage.end(f"ended, since stage {self._first_failed} failed", canceled=True)

    def _end(self) -> JobEnded:
        self._ended = True
        return JobEnded(job=self._journal.end(canceled=self._canceled))
