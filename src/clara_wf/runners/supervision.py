"""One stage under supervision: from its start to the record of its end."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from clara_wf.model.events import Event, StageLogged, StageWorking
from clara_wf.model.job import StageRecord
from clara_wf.model.locks import Lock
from clara_wf.model.plan import StagePlan
from clara_wf.model.states import StageState
from clara_wf.runners.child import Child, Program
from clara_wf.runners.limits import Limits
from clara_wf.runners.output import StageOutput
from clara_wf.runners.paths import lock_path
from clara_wf.runners.verdict import Ending, judge
from clara_wf.runners.watch import Watch
from clara_wf.runners.workspace import is_filled, leave_failed_lock

#: Read of a stream before the others get their turn.
_READ_BYTES = 1024 * 1024


class Supervised:
    """A stage, its program, and what is known of it."""

    def __init__(self, program: Program, before: StagePlan | None, job_id: str, logs: Path, limits: Limits) -> None:
        self.name = program.stage.name
        self.record: StageRecord | None = None  # set when it has ended
        self._program = program
        self._limits = limits
        self._lock = lock_path(program.stage)
        self._awaited = lock_path(before) if before is not None else None
        self._log = program.stage.folder("LOGNAME")
        self._output = StageOutput(self.name, job_id, logs / f"{self.name}.out", limits)
        self._child: Child | None = None
        self._ready: float | None = None  # when it had what it waits for
        self._working: float | None = None  # when it said, or was taken, to work
        self._next_sample = 0.0
        self._reason, self._canceled = "", False
        self._kill_at: float | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended without completing, through its own fault."""
        return self.record is not None and self.record.state is StageState.FAILED

    @property
    def has_given_up(self) -> bool:
        """Whether it has failed, though its program may not have ended yet."""
        if self.record is not None or self._reason:
            return self.failed
        lock = self._read_lock()
        return lock is not None and lock.state == "failed"

    def _read_lock(self) -> Lock | None:
        """Return its lock; None if it left none, or none that can be read."""
        with contextlib.suppress(OSError):
            return Lock.read(self._lock)
        return None

    @property
    def has_exited(self) -> bool:
        """Whether its program has ended and waits to be collected."""
        return self._child is not None and self._child.has_exited

    def start(self, watch: Watch, *, keep_open: int, first_core: int) -> None:
        """Start the program; one that cannot be started has failed."""
        try:
            self._child = self._program.start(keep_open=keep_open, first_core=first_core)
        except (OSError, ValueError) as fault:  # ValueError: a variable or an argument with a zero byte in it
            message = f"its program cannot be started: {getattr(fault, 'strerror', None) or fault}"
            leave_failed_lock(self._program.stage, message)
            self.record = StageRecord(name=self.name, state=StageState.FAILED, message=message)
            return
        self._next_sample = self._child.started + 2 * self._limits.tick  # a program that is being loaded tells nothing
        watch.add(self.name, self._child.pid, self._child.streams)

    def read(self, stream: str, watch: Watch) -> Iterator[Event]:
        """Read what there is of one of its streams."""
        if self._child is None:
            return
        descriptor = self._child.streams[stream]
        left = _READ_BYTES
        while left > 0:
            try:
                data = self._child.read(stream)
            except BlockingIOError:
                return
            left -= len(data)
            for event in self._output.feed(stream, data):
                if isinstance(event, StageWorking):
                    known, self._working = self._working is not None, time.monotonic()
                    if known:  # taken for working while it still prepared itself
                        continue
                yield event
            if not data:
                watch.forget_stream(descriptor)
                return

    def check(self, moment: float) -> Iterator[Event]:
        """Look at clocks, memory and log; end the stage if it must not go on."""
        if self._child is None:
            return
        if self._ready is None and (self._awaited is None or os.path.lexists(self._awaited)):
            self._ready = moment
        if self._ready is not None and self._working is None and not self._output.has_spoken:
            # No stage of ours, or one that is still preparing itself.
            self._working = moment
            yield StageWorking(stage=self.name)
        if self._kill_at is not None:
            if moment > self._kill_at:
                self.kill()
            return
        self._check_time(moment)
        self._check_log()
        if moment > self._next_sample:
            self._check_memory()
            # Looking must not cost more than one part in twenty of a core.
            self._next_sample = moment + max(self._limits.tick, 20 * (time.monotonic() - moment))

    def _check_time(self, moment: float) -> None:
        seconds = self._program.stage.timeout
        since = self._working or self._ready
        if seconds is not None and since is not None and moment - since > seconds + self._limits.overtime:
            self.end(f"worked for more than {seconds:g} s, its time-out, and did not stop")

    def _check_log(self) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError):
                size = self._log.lstat().st_size  # where a link of a stage leads is nothing to ask
                if size > self._limits.log_bytes:
                    limit = self._limits.log_bytes / 1024**2
                    self.end(f"its log {self._log.name} grew past {limit:g} MiB")

    def _check_memory(self) -> None:
        fault = self._child.sample(self._program.stage.resources.memory) if self._child is not None else ""
        if fault:
            self.end(fault)
            self.kill()  # it takes more every moment

    def end(self, reason: str, *, canceled: bool = False) -> None:
        """Ask the stage to end, and say why in its lock before it does: the first word counts."""
        if self._child is None or self.record is not None or self._reason:
            return
        self._reason, self._canceled = reason, canceled
        self._kill_at = time.monotonic() + self._limits.grace
        leave_failed_lock(self._program.stage, reason)
        self._child.ask_to_end()

    def kill(self) -> None:
        """End the stage and everything that it started, without asking."""
        if self._child is not None and self.record is None:
            self._child.kill()

    def collect(self, watch: Watch) -> Iterator[Event]:
        """Take what is left of an ended stage: its children, its last words, its record."""
        if self._child is None:
            return
        ended = time.monotonic()
        self._child.clear()
        for stream in self._child.streams:
            yield from self.read(stream, watch)
        for stream, descriptor in self._child.streams.items():
            yield from self._output.feed(stream, b"")
            watch.forget_stream(descriptor)
        if self._working is not None:
            self._working = min(self._working, ended)  # it said so before its end, though it was read after
        usage = self._child.collect()
        watch.forget(self._child.pid)
        self._child.close()
        self._output.close()
        if usage.left:
            yield StageLogged(stage=self.name, level="WARNING", message=usage.left)
        lock = self._read_lock()
        state, message = judge(
            Ending(
                exit_code=usage.exit_code,
                lock=lock,
                has_output=is_filled(self._program.stage),
                reason=self._reason,
                canceled=self._canceled,
                fault=usage.fault,
            )
        )
        if lock is None:
            leave_failed_lock(self._program.stage, message)
        self.record = StageRecord(
            name=self.name,
            state=state,
            message=message,
            exit_code=usage.exit_code,
            wall_s=round(ended - self._child.started, 3),
            work_s=round(ended - self._working, 3) if self._working is not None else None,
            cpu_s=usage.cpu_s,
            peak_bytes=usage.peak_bytes or None,
        )
