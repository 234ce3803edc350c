"""The payload of a run: taken for this run alone, and cleared of what an earlier run left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from clara_wf.model.errors import ChartError, InputError, JobError
from clara_wf.model.files import UNFINISHED
from clara_wf.model.locks import Lock, now
from clara_wf.model.payload import Payload
from clara_wf.model.plan import Plan, StagePlan
from clara_wf.runners.paths import contract_path, lock_path, output_folder, planted_link


class Layout(Protocol):
    """What a stage needs in the payload before it starts."""

    def lay_out(self, payload: Path) -> None:
        """Create it.

        Raises
        ------
        OSError
            The payload cannot be written.
        """


class Workspace:
    """A payload, taken.

    The file `.lock` in it is locked for as long as this object or a process that inherits `handle` lives: a run whose
    runner was killed is over only when its last stage has ended.

    Raises
    ------
    JobError
        The job is still running.
    InputError
        The payload cannot be written.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        try:
            plan.payload.mkdir(parents=True, exist_ok=True)
            self.handle = os.open(plan.payload / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as fault:
            raise unwritable(plan, fault) from fault
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            os.close(self.handle)
            if isinstance(fault, BlockingIOError):
                raise JobError(f"job {plan.job_id} is still running", remedy="Wait for its end, or stop it") from fault
            raise unwritable(plan, fault) from fault

    def prepare(self, layouts: Iterable[Layout]) -> None:
        """Remove the locks, the logs and the results of an earlier run, lay out the folders, and give the input free.

        Only what lies in the payload is removed, and never the job's own input.

        Raises
        ------
        InputError
            The payload cannot be written; it is given back.
        """
        try:
            for stage in self._plan.stages:
                self._clear_stage(stage)
            for layout in layouts:
                layout.lay_out(self._plan.payload)
            self._declare_complete()
        except OSError as fault:
            self.close()
            raise unwritable(self._plan, fault) from fault

    def _clear_stage(self, stage: StagePlan) -> None:
        lock = lock_path(stage)
        lock.parent.mkdir(parents=True, exist_ok=True)
        logs = Payload(root=self._plan.payload).logs
        logs.mkdir(parents=True, exist_ok=True)
        stale = [lock, logs / f"{stage.name}.out"]
        stale += [entry for entry in lock.parent.iterdir() if entry.name.startswith(UNFINISHED)]
        if (log := stage.folder("LOGNAME")) is not None and log.is_relative_to(self._plan.payload):
            stale.append(log)
        for path in stale:
            _remove(path)
        output = output_folder(stage)
        if (link := planted_link(stage, output)) is not None and is_ours(self._plan, link.parent):
            link.unlink()
        if output.is_dir() and is_ours(self._plan, output):
            for entry in output.iterdir():
                _remove(entry)

    def _declare_complete(self) -> None:
        """Say by the input lock that the payload is complete. An earlier run's is replaced."""
        first = self._plan.stages[0]
        if first.variable("INPUTLOCK"):
            path = contract_path(first, "LOCKDIR", "INPUTLOCK")
            _remove(path)
            Lock(stage=path.stem, state="completed", ended=now()).write(path)

    def close(self) -> None:
        """Give the payload back; a second time does nothing."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def _remove(path: Path) -> None:
    """Remove what an earlier run has left at a path, whatever that is; a link goes, and not what it leads to."""
    if not path.is_symlink() and path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_ours(plan: Plan, folder: Path) -> bool:
    """Whether a folder lies in the payload, and has nothing to do with the job's input."""
    folder, root, own_input = folder.resolve(), plan.payload.resolve(), plan.input.resolve()
    overlaps = folder.is_relative_to(own_input) or own_input.is_relative_to(folder)
    return folder != root and folder.is_relative_to(root) and not overlaps


def is_filled(stage: StagePlan) -> bool:
    """Whether the stage left anything in its output folder."""
    with contextlib.suppress(OSError):
        return any(not entry.name.startswith(UNFINISHED) for entry in output_folder(stage).iterdir())
    return False


def look_afresh(folder: Path) -> None:
    """Have this machine forget what it knows of a folder that it shares with others.

    A client of NFS remembers for up to a minute that a file is not there. What it changes in a folder itself, it looks
    at anew.
    """
    with contextlib.suppress(OSError):
        descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, dir=folder)
        os.close(descriptor)
        Path(name).unlink()


def leave_failed_lock(stage: StagePlan, message: str) -> None:
    """Say on a stage's behalf that it failed, so that nobody waits for it; its own word, if there is one, stands."""
    lock = Lock(stage=stage.name, state="failed", message=message, ended=now(), image=stage.image)
    with contextlib.suppress(OSError):  # the run ends the others anyway
        lock.write(lock_path(stage))


def faults_of(plan: Plan) -> list[str]:
    """Return everything in a plan that no runner can carry out, each in a line."""
    faults = [] if plan.stages else [f"workflow {plan.workflow} has no stage"]
    names = [stage.name for stage in plan.stages]
    faults += [f"stage {name} stands in the workflow twice" for name in sorted(set(names)) if names.count(name) > 1]
    locks: set[Path] = set()
    for stage in plan.stages:
        try:
            lock = lock_path(stage)
            output_folder(stage)
            contract_path(stage, "INPUTS")
            _ = stage.timeout
        except ChartError as fault:
            faults.append(str(fault))
            continue
        if lock in locks:
            faults.append(f"stage {stage.name} leaves the same lock as another, {lock.name}")
        locks.add(lock)
    return faults


def unwritable(plan: Plan, fault: OSError) -> InputError:
    """Return the error that says why a payload cannot be written."""
    return InputError(
        f"the payload {plan.payload} cannot be written: {fault.strerror or type(fault).__name__}",
        remedy="Check its permissions and the free space",
    )
