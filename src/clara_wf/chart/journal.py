"""Several files changed as one: all of them or, after a crash, none.

Before the first change, a journal with the old content of every file is forced to the disk; it is removed after the
last change. A journal that is found lying there belongs to an edit that was cut off, and undoes it.

::

    <root>/.clara-wf-edit/
      undo.json     {"files": {"charts/.../values.yaml": "0"}, "folders": ["images/x"]}   appears last, removed first
      0, 1, ...     old contents
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from clara_wf.model.errors import ChartError
from clara_wf.model.files import UNFINISHED, fsync, write_atomically

#: The journal's folder in the workspace.
JOURNAL = ".clara-wf-edit"
_UNDO = "undo.json"


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Let one process at a time edit the workspace at `root`, and undo what an earlier one left half done.

    Raises
    ------
    ChartError
        The workspace cannot be written.
    """
    try:
        handle = os.open(root / "charts", os.O_RDONLY)
    except OSError as exc:
        raise ChartError(f"{root / 'charts'} cannot be opened: {exc.strerror}") from exc
    try:
        # The system gives the lock back when the process ends, however it ends.
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            _undo(root)
            yield
        except OSError as exc:
            raise ChartError(f"{root}: the edit failed and was undone: {exc.strerror}: {exc.filename}") from exc
    finally:
        os.close(handle)


def recover(root: Path) -> None:
    """Undo an edit that was cut off; costs one look at the disk where there is none."""
    if (root / JOURNAL).exists():
        with exclusive(root):
            pass


def change(root: Path, changes: Mapping[Path, str | None]) -> None:
    """Write and remove files as one change, within `exclusive`.

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
    """
    _record(root, changes)
    try:
        for path, content in changes.items():
            if content is None:
                _remove(root, path)
            else:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(root / path, content)
    except BaseException:
        _undo(root)
        raise
    _commit(root)


def _record(root: Path, changes: Mapping[Path, str | None]) -> None:
    """Force the old state onto the disk; from here on a crash leads back to it."""
    journal = root / JOURNAL
    journal.mkdir()
    files: dict[str, str | None] = {}
    for number, path in enumerate(changes):
        if (root / path).exists():
            write_atomically(journal / str(number), (root / path).read_bytes())
            files[str(path)] = str(number)
        else:
            files[str(path)] = None
    new = {str(folder) for path in changes for folder in path.parents if not (root / folder).exists()}
    undo = {"files": files, "folders": sorted(new, key=len, reverse=True)}
    write_atomically(journal / _UNDO, json.dumps(undo))
    fsync(root)


def _commit(root: Path) -> None:
    """Forget the old state: the change stands."""
    (root / JOURNAL / _UNDO).unlink()
    fsync(root / JOURNAL)
    shutil.rmtree(root / JOURNAL)


def _undo(root: Path) -> None:
    """Put everything back as the journal says; doing it twice does no harm."""
    journal = root / JOURNAL
    if not journal.exists():
        return
    if (journal / _UNDO).exists():
        undo = json.loads((journal / _UNDO).read_text())
        for path, number in undo["files"].items():
            target = root / path
            if number is None:
                if target.is_file():  # False also where the folder could not even be made
                    target.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(target, (journal / number).read_bytes())
        for folder in undo["folders"]:
            _remove_new_folder(root / folder)
        for path in undo["files"]:
            _sweep((root / path).parent)
        _commit(root)
    else:  # nothing was changed yet, or all of it
        shutil.rmtree(journal)


def _remove(root: Path, path: Path) -> None:
    """Remove a file, and the folders below `root` that it leaves empty."""
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
