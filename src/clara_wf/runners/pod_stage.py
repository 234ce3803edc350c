"""One stage as a container of a pod: what the cluster says of it, what it logs, and the record of its end."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from clara_wf.model.events import Event, StageEnded, StageWorking
from clara_wf.model.job import StageRecord
from clara_wf.model.locks import Lock
from clara_wf.model.plan import StagePlan
from clara_wf.model.states import StageState
from clara_wf.runners.cluster import Cluster, Refused, Unreachable
from clara_wf.runners.cluster_state import ContainerView, Phase, memory_fault
from clara_wf.runners.limits import Limits
from clara_wf.runners.output import StageOutput
from clara_wf.runners.paths import lock_path, output_folder
from clara_wf.runners.verdict import Ending, judge
from clara_wf.runners.workspace import is_filled, leave_failed_lock, look_afresh

#: Asked for beyond what was read, since the clocks here and there tick apart.
_OVERLAP_SECONDS = 2
#: All there is.
_EVER = 10**8


class PodStage:
    """A stage in a cluster.

    Parameters
    ----------
    plan : StagePlan
        The stage.
    before : StagePlan or None
        The one that it waits for.
    job_id : str
        UUID.
    logs : Path
        Folder for what it prints beside its log.
    limits : Limits
        How much is kept.
    """

    def __init__(self, plan: StagePlan, before: StagePlan | None, job_id: str, logs: Path, limits: Limits) -> None:
        self.name = plan.name
        self.record: StageRecord | None = None  # set when it has ended
        self.view = ContainerView(name=plan.name)
        self._plan = plan
        self._lock = lock_path(plan)
        self._awaited = lock_path(before) if before is not None else None
        self._output = StageOutput(plan.name, job_id, logs / f"{plan.name}.out", limits)
        self._reason, self._canceled = "", False
        self._working: float | None = None
        self._read_until = ""  # time of the last line that was read, as the cluster writes it
        self._read_at: float | None = None
        self._all_read = False
        self._mute_since: float | None = None  # its log cannot be read
        self._late_since: float | None = None  # it ended well, and that is not to be seen

    @property
    def failed(self) -> bool:
        """Whether it ended without completing, through its own fault."""
        return self.record is not None and self.record.state is StageState.FAILED

    @property
    def is_unseen(self) -> bool:
        """Whether it logs as ours do, and its log file is not where it should be seen."""
        log = self._plan.folder("LOGNAME")
        return self._output.has_spoken and log is not None and not os.path.lexists(log)

    def read_log(self, cluster: Cluster, pod: str) -> Iterator[Event]:
        """Read what it wrote since the last time; of an ended stage, once more.

        Raises
        ------
        Unreachable, Refused
            The cluster does not answer, or does not give it.
        """
        if self._all_read or self.view.phase is Phase.ABSENT or not pod:
            return
        moment = time.monotonic()
        since = _EVER if self._read_at is None else math.ceil(moment - self._read_at) + _OVERLAP_SECONDS
        try:
            lines = cluster.log(pod, self.name, seconds=since)
        except (Unreachable, Refused):
            self._mute_since = self._mute_since or moment
            raise
        self._mute_since = None
        self._read_at, self._all_read = moment, self.view.phase is Phase.ENDED
        for line in lines:
            written, _, text = line.partition(" ")
            if written > self._read_until:
                self._read_until = written
                yield from self._feed(text.encode() + b"\n")
        if self._all_read:
            yield from self._feed(b"")
            self._output.close()

    def may_still_speak(self, patience: float) -> bool:
        """Whether it has ended, and what it wrote last could not be read for less than so many seconds."""
        is_mute = self.view.phase is Phase.ENDED and self._mute_since is not None
        return is_mute and time.monotonic() - (self._mute_since or 0.0) < patience

    def may_come_late(self, patience: float) -> bool:
        """Whether it ended well, and its lock or result may be on the way for less than so many seconds.

        A folder that machines share by a network shows what another has written there a while later.
        """
        if self.view.exit_code != 0 or (os.path.lexists(self._lock) and is_filled(self._plan)):
            return False
        moment = time.monotonic()
        self._late_since = self._late_since or moment
        for folder in (self._lock.parent, output_folder(self._plan)):
            look_afresh(folder)
        return moment - self._late_since < patience

    def _feed(self, data: bytes) -> Iterator[Event]:
        for event in self._output.feed("log", data):
            if isinstance(event, StageWorking):
                known, self._working = self._working is not None, time.monotonic()
                if known:
                    continue
            yield event

    def take_for_working(self) -> Iterator[Event]:
        """Say that a stage works that does not say so itself, as soon as it has what it waits for."""
        ready = self._awaited is None or os.path.lexists(self._awaited)
        if self.view.phase is Phase.RUNNING and ready and self._working is None and not self._output.has_spoken:
            self._working = time.monotonic()
            yield StageWorking(stage=self.name)

    def end(self, reason: str, *, canceled: bool = False) -> None:
        """Note why the stage is about to be ended, also in its lock: the first word counts."""
        if self.record is None and not self._reason:
            self._reason, self._canceled = reason, canceled
            leave_failed_lock(self._plan, reason)

    def conclude(self, *, shared: bool, undisturbed: bool, lost: str = "") -> StageEnded:
        """Judge a stage whose container has ended or is gone.

        Parameters
        ----------
        shared : bool
            The stage's lock and output can be seen from here.
        undisturbed : bool
            Nobody has evicted or deleted its pod, or is about to.
        lost : str
            Why its result does not count although it did its part; empty: it counts.
        """
        view, lock = self.view, None
        with contextlib.suppress(OSError):
            lock = Lock.read(self._lock)
        # A container that is gone before anybody saw its end: its lock is the only witness.
        said_completed = lock is not None and lock.state == "completed"
        code = view.exit_code if view.exit_code is not None else (0 if said_completed else 1)
        if not shared and code == 0 and lock is None:
            lock = Lock(stage=self.name, state="completed")
        state, message = judge(
            Ending(
                exit_code=code,
                lock=lock,
                has_output=not shared or is_filled(self._plan),
                reason=self._reason,
                canceled=self._canceled,
                fault=memory_fault(self._plan, view) if undisturbed and not self._reason else "",
            )
        )
        if state is StageState.COMPLETED and lost:
            state, message = StageState.FAILED, lost
        if state is not StageState.COMPLETED:
            leave_failed_lock(self._plan, message)
        seconds = (view.ended - view.started).total_seconds() if view.ended and view.started else None
        self.record = StageRecord(
            name=self.name,
            state=state,
            message=message,
            exit_code=view.exit_code,
            wall_s=seconds,
            work_s=round(time.monotonic() - self._working, 3) if self._working is not None else None,
        )
        return StageEnded(record=self.record)
