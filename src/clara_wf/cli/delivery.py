"""What becomes of a job's files at its end: the result goes where the user wants it, and nothing of a patient stays."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

from clara_wf.cli.interrupts import uninterrupted
from clara_wf.cli.outcome import SUMMARIES
from clara_wf.cli.terminal import remark
from clara_wf.model.errors import JobError, UsageError
from clara_wf.model.files import UNFINISHED, fsync
from clara_wf.model.payload import Payload
from clara_wf.model.plan import Plan

_RECORD = "job.json"


def check_output(source: Path, output: Path, *, force: bool) -> None:
    """Check that a result can go to a folder.

    Parameters
    ----------
    source : Path
        What the job works on.
    output : Path
        The folder, its links followed.
    force : bool
        An earlier result there may be replaced.

    Raises
    ------
    UsageError
        It is no folder of its own, holds something else than a result, or has the input in it or around it.
    """
    _check_folder(output, force=force)
    true_source = source.resolve()
    if source.is_dir() and output.is_relative_to(true_source):
        raise UsageError(
            f"{output} lies within the input", remedy="Put it beside: the next run would read its own result"
        )
    if true_source.is_relative_to(output):
        raise UsageError(f"{source} lies within the output", remedy="Put it beside: a result replaces the whole folder")
    above = next(folder for folder in output.parents if folder.exists())
    if not os.access(above, os.W_OK):
        raise UsageError(f"{above} may not be written to", remedy="Name another folder by --output")


def _check_folder(output: Path, *, force: bool) -> None:
    """Check that there is nothing at a path, or what a result may replace."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file", remedy="Name a folder by --output")
    if output.is_mount():
        raise UsageError(f"{output} is a mount point", remedy="Name a folder in it: a result appears by one rename")
    if output.is_dir() and any(output.iterdir()):
        if not (output / _RECORD).is_file():
            raise UsageError(f"{output} is not empty", remedy="Name a new folder by --output")
        if (output / ".lock").exists():  # it has a record too
            raise UsageError(f"{output} is the payload of a job", remedy="Name a new folder by --output")
        if not force:
            raise UsageError(f"{output} holds an earlier result", remedy="Name a new folder, or replace it by --force")


def deliver(job: Plan, output: Path, *, force: bool) -> None:
    """Put the result and the job's record where the user wants them: all of it, or nothing.

    Raises
    ------
    UsageError
        Somebody has put something there meanwhile.
    JobError
        The result holds what cannot be delivered.
    OSError
        It cannot be written; the fault names the folder.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.parent / f"{UNFINISHED}{uuid.uuid4().hex}"
    try:
        # The payload may lie on another disk, and it is still read: a copy.
        _copy_tree(job.output, unfinished, job.output.resolve())
        _add_record(job, unfinished)
        for path in unfinished.rglob("*"):
            fsync(path)
        _check_folder(output, force=force)
        if output.exists() and any(output.iterdir()):
            _replace(output, unfinished)
        else:
            unfinished.rename(output)  # an empty folder gives way
        fsync(output.parent)
    except BaseException as fault:
        with contextlib.suppress(OSError):
            remove(unfinished)
        remark(f"the result stays in the payload: {job.output}")
        if isinstance(fault, OSError):  # which may name the file that was read, on a disk with nothing wrong
            raise OSError(fault.errno, fault.strerror, str(output)) from fault
        raise


def _add_record(job: Plan, folder: Path) -> None:
    if (folder / _RECORD).exists():
        raise JobError(
            f"the result holds a file {_RECORD}, and so is the job's record called",
            remedy="Let the stage give it another name",
        )
    shutil.copyfile(Payload(root=job.payload).job, folder / _RECORD)


def _replace(output: Path, new: Path) -> None:
    """Put a folder in the place of another, which is removed only when that is done."""
    old = output.parent / f"{UNFINISHED}{uuid.uuid4().hex}"
    with uninterrupted():
        output.rename(old)
        try:
            new.rename(output)
        except BaseException:
            old.rename(output)
            raise
    try:
        remove(old)
    except OSError as fault:
        remark(f"the earlier result could not be removed ({fault.strerror}): {old}")


def _copy_tree(source: Path, target: Path, root: Path) -> None:
    """Copy a folder and stop at the first error: `shutil.copytree` goes on, and then tells all of them in one list.

    A stage in a container sees another file system, and a link that it makes may lead here to what it may not read.
    """
    target.mkdir()
    for entry in sorted(source.iterdir()):
        if entry.is_symlink() and not (entry.is_file() and entry.resolve().is_relative_to(root)):
            raise JobError(
                "the result holds a link to a folder, to nowhere, or out of itself",
                remedy="Let the stage leave the file itself",
            )
        if entry.is_dir():
            _copy_tree(entry, target / entry.name, root)
        else:
            shutil.copy2(entry, target / entry.name)


def remove_payload(job: Plan) -> None:
    """Remove all of a payload; what cannot be removed is told."""
    try:
        remove(job.payload)
    except OSError as fault:
        remark(f"the payload could not be removed ({fault.strerror}), and images lie in it: {job.payload}")


def remove_images(job: Plan) -> None:
    """Leave of a failed job what tells why (logs, locks, summaries), and nothing of a patient."""
    payload = Payload(root=job.payload)
    try:
        for path in job.payload.iterdir():
            # Links lead to the user's own files: never followed, only removed.
            if path.is_symlink():
                path.unlink()
            elif path.is_dir() and path not in {payload.logs, payload.locks}:
                _remove_all_but_summaries(path, job.input)
    except OSError as fault:
        remark(f"images could not be removed ({fault.strerror}) from the payload: {job.payload}")


def _remove_all_but_summaries(folder: Path, source: Path) -> None:
    _make_removable(folder)
    for here, folders, names in os.walk(folder, topdown=False):
        for path in (Path(here, name) for name in (*names, *folders)):
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # something that is kept lies in it
                    path.rmdir()
            elif path.name not in SUMMARIES or path.is_relative_to(source):
                path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove(folder: Path) -> None:
    """Remove a folder, also where a stage has left parts of it read-only. Links are not followed.

    Raises
    ------
    OSError
        It cannot be removed.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    _make_removable(folder)
    shutil.rmtree(folder)


def _make_removable(folder: Path) -> None:
    for here, folders, _ in os.walk(folder):
        for path in (Path(here), *(Path(here, name) for name in folders)):
            if not path.is_symlink():
                with contextlib.suppress(OSError):  # somebody else's: its removal tells
                    path.chmod(path.stat().st_mode | 0o700)
