"""The input of a job: put into its payload, found there again, and taken back where the job does not start."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from clara_wf.model.errors import ClaraError, JobError, UsageError
from clara_wf.model.files import folder_appearing
from clara_wf.model.payload import Payload
from clara_wf.model.plan import Plan


@contextlib.contextmanager
def staged_in(source: Path, job: Plan, *, link: bool) -> Iterator[None]:
    """Put the input into the payload, unless it is there; take it back if the job cannot even be started.

    Parameters
    ----------
    source : Path
        Folder or file, absolute.
    job : Plan
        Whose payload it is.
    link : bool
        By links, since stages read the input and never write there; else as a copy.

    Raises
    ------
    UsageError
        The payload is there, with another input.
    JobError
        The job is still running.
    OSError
        The input cannot be read, or the payload cannot be written.
    """
    is_new = not job.payload.exists()
    with _taken(job):
        try:
            is_brought = _bring(source, job, link=link)
        except BaseException:
            if is_new:
                shutil.rmtree(job.payload, ignore_errors=True)
            raise
    try:
        yield
    except ClaraError as fault:
        # A job that has a record may go on in a cluster that has stopped answering.
        if is_brought and not (fault.retriable and Payload(root=job.payload).job.is_file()):
            _take_back(job, is_new=is_new)
        raise


def _taken(job: Plan) -> contextlib.AbstractContextManager[object]:
    """Take the payload as a runner does: of two that start the same job, one brings its input."""
    from clara_wf.runners.workspace import Workspace

    return contextlib.closing(Workspace(job))


def _bring(source: Path, job: Plan, *, link: bool) -> bool:
    """Put the input into the payload; False if it is there already."""
    there = _files_of(job.input) if job.input.is_dir() else {}
    if there:
        if not _is_same(there, _files_of(source)) or (not link and _has_links(job.input)):
            raise UsageError(f"job {job.job_id} has another input", remedy="Give yours another id by --job")
        return False
    job.input.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        _copy(_files_of(source), job.input)
    elif source.is_dir():
        job.input.symlink_to(source, target_is_directory=True)
    else:
        job.input.mkdir()
        for name, file in _files_of(source).items():
            (job.input / name).symlink_to(file)
    return True


def _copy(files: dict[Path, Path], target: Path) -> None:
    """Copy the files alone: who may read them in a container is not who may read them here."""
    with folder_appearing(target) as unfinished:
        for name, file in files.items():
            copied = unfinished / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)


def _files_of(source: Path) -> dict[Path, Path]:
    """Return the files of an input by their names in the payload; links are followed."""
    if not source.is_dir():
        return {Path(file.name): file for file in _belonging(source)}
    walk = os.walk(source, followlinks=True, onerror=_raise)
    found = (Path(here, name) for here, _, names in walk for name in names)
    return {file.relative_to(source): file for file in found}


def _raise(fault: OSError) -> None:
    raise fault


def _belonging(file: Path) -> Sequence[Path]:
    """Return a file and those without which it is nothing: a MetaImage has its voxels and its record beside it."""
    if file.suffix != ".mhd":
        return [file]
    from clara_wf.imaging.metaimage import files_of

    return files_of(file)


def _is_same(there: dict[Path, Path], wanted: dict[Path, Path]) -> bool:
    """Whether two inputs are one: of two patients, files may have the same names and sizes."""
    return there.keys() == wanted.keys() and all(
        filecmp.cmp(file, wanted[name], shallow=False) for name, file in there.items()
    )


def _has_links(folder: Path) -> bool:
    """Whether a folder was filled for a runner that follows links."""
    return folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*"))


def _take_back(job: Plan, *, is_new: bool) -> None:
    """Remove an input that nobody works on, and a payload that holds nothing else."""
    with contextlib.suppress(JobError), _taken(job):  # another may have the payload by now
        shutil.rmtree(job.payload if is_new else job.input)
