"""The input of a job: put into its payload, found there again, and taken back where the job does not start."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from clara_wf.cli.delivery import remove
from clara_wf.model.errors import ClaraError, InputError, UsageError
from clara_wf.model.files import folder_appearing
from clara_wf.model.payload import Payload
from clara_wf.model.plan import Plan

#: What a disk says that takes no more, whichever file it is asked about.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@contextlib.contextmanager
def staged_in(source: Path, job: Plan, *, link: bool, outlived: bool) -> Iterator[None]:
    """Put the input into the payload, unless it is there; take it back if the job cannot even be started.

    Parameters
    ----------
    source : Path
        Folder or file, absolute.
    job : Plan
        Whose payload it is.
    link : bool
        By links, since stages read the input and never write there; else as a copy.
    outlived : bool
        The job may go on without this program, as in a cluster.

    Raises
    ------
    UsageError
        The payload is there, with another input; or the input has links that lead nowhere, pipes or devices.
    JobError
        The job is still running.
    InputError
        The input cannot be read, or the payload cannot be written.
    """
    files = {} if link and source.is_dir() else _files_of(source)
    is_new, is_brought = not job.payload.exists(), False
    try:
        with _taken(job):
            is_brought = is_new and not job.input.exists()  # from here on a half of it may be there
            is_brought = _bring(source, files, job, link=link)
        yield
    except BaseException as fault:
        # A job that has a record may go on in a cluster that has stopped answering, or that was not asked to end.
        has_record = outlived and Payload(root=job.payload).job.is_file()
        may_go_on = has_record and (not isinstance(fault, ClaraError) or fault.retriable)
        if is_brought and not may_go_on:
            _take_back(job, is_new=is_new)
        raise


def _taken(job: Plan) -> contextlib.AbstractContextManager[object]:
    """Take the payload as a runner does: of two that start the same job, one brings its input."""
    from clara_wf.runners.workspace import Workspace

    return contextlib.closing(Workspace(job))


def _bring(source: Path, files: dict[Path, Path], job: Plan, *, link: bool) -> bool:
    """Put the input into the payload; False if it is there already."""
    from clara_wf.runners.workspace import unwritable

    if job.input.is_dir() and any(job.input.iterdir()):
        # One of links is for a runner that follows them, and leads where no container sees.
        if link or _has_links(job.input) or not _is_same(_files_of(job.input), files):
            raise UsageError(f"job {job.job_id} has another input", remedy="Give yours another id by --job")
        return False
    try:
        job.input.parent.mkdir(parents=True, exist_ok=True)
        if not link:
            _copy(files, job.input)
        elif source.is_dir():
            job.input.symlink_to(source, target_is_directory=True)
        else:
            job.input.mkdir()
            for name, file in files.items():
                (job.input / name).symlink_to(file)
    except OSError as fault:
        raise unwritable(job, fault) from fault
    return True


def _copy(files: dict[Path, Path], target: Path) -> None:
    """Copy the files alone, for the user of the stages and nobody else, whatever the umask and the files say."""
    from clara_wf.runners.sharing import stage_user

    with folder_appearing(target) as unfinished:
        unfinished.chmod(0o700)
        for name, file in files.items():
            copied = unfinished / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(file, copied)
            except OSError as fault:
                if fault.errno in _FULL or fault.filename == str(copied):
                    raise
                raise _unreadable(fault) from fault
        for path in (*unfinished.rglob("*"), unfinished):
            path.chmod(0o700 if path.is_dir() else 0o600)
            if os.getuid() == 0:
                os.chown(path, *stage_user())


def _files_of(source: Path) -> dict[Path, Path]:
    """Return the files of an input by their names in the payload.

    Links are followed, each folder is looked into once: what is reached by a link too has the name that it has without.

    Raises
    ------
    UsageError
        There is anything else than files, folders and links to them.
    InputError
        A folder may not be read.
    """
    if not source.is_dir():
        return {Path(file.name): file for file in _belonging(source)}
    files: dict[Path, Path] = {}
    folders, linked = [source], list[Path]()
    seen: set[tuple[int, int]] = set()
    lost, strange = 0, 0
    while folders or linked:
        here = folders.pop() if folders else linked.pop()
        try:
            about = here.stat()
            entries = sorted(here.iterdir(), reverse=True)
        except OSError as fault:
            raise _unreadable(fault) from fault
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        for entry in entries:
            mode = _mode(entry)
            if mode is None:
                lost += 1
            elif stat.S_ISDIR(mode):
                (linked if entry.is_symlink() else folders).append(entry)
            elif stat.S_ISREG(mode):
                files[entry.relative_to(source)] = entry
            else:
                strange += 1
    _refuse(lost, strange)
    return files


def _refuse(lost: int, strange: int) -> None:
    if lost:
        raise UsageError(f"the input has {_count(lost, 'link')} leading nowhere", remedy="Remove or mend them")
    if strange:
        raise UsageError(
            f"the input has {_count(strange, 'pipe, socket or device', 'pipes, sockets or devices')}",
            remedy="Name a folder of files by --input",
        )


def _mode(path: Path) -> int | None:
    """Return of what kind a path is, where links lead; None where they lead nowhere."""
    try:
        return path.stat().st_mode
    except OSError as fault:
        if fault.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR} and path.is_symlink():
            return None
        raise _unreadable(fault) from fault


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or f'{one}s'}"


def _unreadable(fault: OSError) -> InputError:
    """Say why the input cannot be read; the file is not named, since a patient may be in its name."""
    return InputError(
        f"a part of the input cannot be read: {fault.strerror or type(fault).__name__}", remedy="Check its permissions"
    )


def _belonging(file: Path) -> Sequence[Path]:
    """Return a file and those without which it is nothing: a MetaImage has its voxels and its record beside it."""
    if file.suffix != ".mhd":
        return [file]
    from clara_wf.imaging.metaimage import files_of

    return files_of(file)


def _is_same(there: dict[Path, Path], wanted: dict[Path, Path]) -> bool:
    """Whether two inputs are one: of two patients, files may have the same names and sizes."""
    try:
        return there.keys() == wanted.keys() and all(
            filecmp.cmp(file, wanted[name], shallow=False) for name, file in there.items()
        )
    except OSError as fault:
        raise _unreadable(fault) from fault


def _has_links(folder: Path) -> bool:
    """Whether a folder was filled for a runner that follows links."""
    return folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*"))


def _take_back(job: Plan, *, is_new: bool) -> None:
    """Remove an input that nobody works on, and a payload that holds nothing else."""
    # Another may have the payload by now; and what is the matter with it is told already.
    with contextlib.suppress(ClaraError, OSError), _taken(job):
        remove(job.payload if is_new else job.input)
