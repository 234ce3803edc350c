"""Several files changed as one: all of them or, after a crash, none.

Before the first change, a journal with the old content of every file is forced to the disk; it is removed after the
last change. A journal that is found lying there belongs to an edit that was cut off, and undoes it. It knows the new
content of every file too, so that what a person has written since is never overwritten.

::

    <root>/.clara-wf-edit/
      undo.json     {"files": [{"path": "charts/.../values.yaml", "copy": "0", ...}], "folders": ["images/x"]}
                    appears last, removed first
      0, 1, ...     old contents, with the permissions of their files
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from clara_wf.model.errors import ChartError
from clara_wf.model.files import UNFINISHED, fsync, replacing, write_atomically

#: The journal's folder in the workspace.
JOURNAL = ".clara-wf-edit"
_UNDO = "undo.json"


@dataclass(frozen=True, kw_only=True)
class _File:
    """What a file was before the edit, and what the edit makes of it."""

    path: str  # below the workspace
    copy: str | None  # the old content, in the journal; None: there was no file, or it is a link that is removed
    link: str | None  # where a link led that is removed
    old: str | None  # SHA-256 of the old content
    new: str | None  # SHA-256 of the new content; None: the file is removed


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Let one process at a time edit the workspace at `root`, and undo what an earlier one left half done.

    Raises
    ------
    ChartError
        The workspace cannot be written, or an earlier edit cannot be undone.
    """
    with _locked(root):
        try:
            _undo(root)
            yield
        except OSError as exc:
            raise ChartError(f"{root}: the edit failed and was undone: {exc.strerror}: {exc.filename}") from exc


def recover(root: Path, say: Callable[[str], None] | None = None) -> None:
    """Undo an edit that was cut off; costs one look at the disk where there is none.

    Parameters
    ----------
    root : Path
        The workspace.
    say : callable, optional
        Takes one line if something was undone.

    Raises
    ------
    ChartError
        The edit cannot be undone: the disk refuses it, or somebody has changed a file since.
    """
    if not (root / JOURNAL).exists():
        return
    with _locked(root):
        undone = _undo(root)
    if undone and say is not None:
        say(f"An edit of {root} that was cut off is undone: {', '.join(undone)}")


def change(root: Path, changes: Mapping[Path, str | None]) -> None:
    """Write and remove files as one change, within `exclusive`.

    A link is written through, and its file keeps its permissions; what is removed is the link alone.

    Parameters
    ----------
    root : Path
        The workspace.
    changes : mapping of Path to str or None
        The new content of each file, by its path below `root`; None removes it. Folders are made as they are needed,
        and removed when they have become empty.

    Raises
    ------
    OSError
        A file cannot be written or removed. All is as it was.
    ChartError
        That, and it cannot be undone either.
    """
    try:
        _record(root, changes)
        for path, content in changes.items():
            if content is None:
                _remove(root, path)
            else:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                _write(root / path, content.encode())
        (root / JOURNAL / _UNDO).unlink()  # from here on the change stands
    except BaseException:
        _undo(root)
        raise
    _forget(root)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    try:
        handle = os.open(root / "charts", os.O_RDONLY)
    except OSError as exc:
        raise ChartError(f"{root / 'charts'} cannot be opened: {exc.strerror}") from exc
    try:
        # The system gives the lock back when the process ends, however it ends.
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _record(root: Path, changes: Mapping[Path, str | None]) -> None:
    """Force the old state onto the disk; from here on a crash leads back to it."""
    journal = root / JOURNAL
    journal.mkdir()
    files = []
    for number, (path, content) in enumerate(changes.items()):
        target = root / path
        copy = link = old = None
        if content is None and target.is_symlink():
            link = str(target.readlink())
        elif target.exists():
            copy, data = str(number), target.read_bytes()
            old = _sha256(data)
            _write(journal / copy, data, like=target)
        new = None if content is None else _sha256(content.encode())
        files.append(_File(path=str(path), copy=copy, link=link, old=old, new=new))
    folders = {str(folder) for path in changes for folder in path.parents if not (root / folder).exists()}
    undo = {"files": [asdict(file) for file in files], "folders": sorted(folders, key=len, reverse=True)}
    write_atomically(journal / _UNDO, json.dumps(undo))
    fsync(root)


def _forget(root: Path) -> None:
    """Remove what is left of a journal that says nothing any more."""
    # What stays behind here is removed before the next edit.
    with contextlib.suppress(OSError):
        fsync(root / JOURNAL)
        shutil.rmtree(root / JOURNAL)


def _undo(root: Path) -> list[str]:
    """Put everything back as the journal says; return the paths of what had to be. Doing it twice does no harm.

    Raises
    ------
    ChartError
        Somebody has changed a file since, and nothing is touched; or the disk refuses, and the journal stays.
    """
    journal = root / JOURNAL
    if not journal.exists():
        return []
    try:
        if not (journal / _UNDO).exists():  # nothing was changed yet, or all of it
            shutil.rmtree(journal)
            return []
        files, folders = _read_undo(journal)
        # All are looked at before one is touched.
        changed = [file for file in files if _is_changed(root, file)]
        for file in changed:
            _restore(root, file)
        for folder in folders:
            _remove_new_folder(root / folder)
        for file in files:
            _sweep((root / file.path).parent)
        (journal / _UNDO).unlink()
    except OSError as exc:
        raise ChartError(
            f"{root}: an edit failed and cannot be undone yet: {exc.strerror}: {exc.filename}",
            remedy=f"The old contents are in {journal}, and the next command tries again.",
        ) from exc
    _forget(root)
    return [file.path for file in changed]


def _read_undo(journal: Path) -> tuple[list[_File], list[str]]:
    try:
        undo = json.loads((journal / _UNDO).read_text())
        return [_File(**file) for file in undo["files"]], undo["folders"]
    except (ValueError, TypeError, KeyError) as exc:
        raise ChartError(
            f"{journal / _UNDO} cannot be understood, so an edit that was cut off is not undone",
            remedy=f"The old contents are beside it: put back what you need, then remove {journal}.",
        ) from exc


def _is_changed(root: Path, file: _File) -> bool:
    """Whether the edit has changed a file and nobody has touched it since.

    Raises
    ------
    ChartError
        Somebody has.
    """
    path = root / file.path
    copy = None if file.copy is None else root / JOURNAL / file.copy
    if copy is not None and not copy.exists():
        return False  # put back already, and the user's again
    # Of a link that is removed, where it led takes the place of its content.
    now = str(path.readlink()) if file.link is not None and path.is_symlink() else _content(path)
    if now == (file.old if file.link is None else file.link):
        return False
    # Nothing is lost either by putting back a file that is gone.
    if now in (file.new, None):
        return True
    keep = f"or remove {root / JOURNAL} to keep all as it is"
    if copy is None:
        raise ChartError(
            f"{path} was changed by hand after an edit was cut off, so that edit is not undone",
            remedy=f"Move it away to have the edit undone, {keep}.",
        )
    raise ChartError(
        f"{path} was changed by hand after an edit was cut off, so that edit is not undone",
        remedy=f"The content before the edit is {copy}: put that back to have the rest undone, {keep}.",
    )


def _content(path: Path) -> str | None:
    """Return the SHA-256 of a file's content: None without a file, empty for what is no file."""
    if not path.exists():
        return None
    return _sha256(path.read_bytes()) if path.is_file() else ""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _restore(root: Path, file: _File) -> None:
    path, real = root / file.path, _real(root / file.path)
    if file.link is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(file.link)
    elif file.copy is None:
        real.unlink()
    else:
        copy = root / JOURNAL / file.copy
        real.parent.mkdir(parents=True, exist_ok=True)
        try:
            copy.replace(real)  # needs no room on a disk that may be full
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
            _write(real, copy.read_bytes(), like=copy)
        fsync(real.parent)


def _real(path: Path) -> Path:
    """Return the file that a link leads to; any other path as it is."""
    return Path(os.path.realpath(path))


def _write(path: Path, data: bytes, *, like: Path | None = None) -> None:
    """Write a file at once, through a link, with the permissions of the file `like`, else of what stood there."""
    real = _real(path)
    model = real if like is None else like
    with replacing(real) as temporary, temporary.open("wb") as file:
        if model.exists():
            # Before the content: what only its owner may read is never there for others.
            os.fchmod(file.fileno(), stat.S_IMODE(model.stat().st_mode))
        file.write(data)


def _remove(root: Path, path: Path) -> None:
    """Remove a file or a link, and the folders below `root` that it leaves empty."""
    (root / path).unlink()
    for folder in list(path.parents)[:-1]:
        if any((root / folder).iterdir()):
            break
        (root / folder).rmdir()


def _remove_new_folder(folder: Path) -> None:
    """Remove a folder that the edit made, unless somebody else has put something there since."""
    if folder.is_dir():
        _sweep(folder)
        if not any(folder.iterdir()):
            folder.rmdir()


def _sweep(folder: Path) -> None:
    """Remove temporary files of a write that was cut off."""
    if folder.is_dir():
        for file in folder.glob(f"{UNFINISHED}*"):
            file.unlink()
