"""Every file below a folder, of any depth and any name, and those that cannot be opened as files.

Pipes, sockets and devices are named, not opened: reading a pipe would wait for ever. Links are followed, but no folder
is read twice.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clara_wf.imaging.dicom_states import FileState


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Something below the folder that is no folder."""

    name: str  # relative to the folder, with slashes
    path: Path
    state: FileState | None = None  # None: a file that can be opened, as far as is known
    reason: str = ""


def find_files(folder: Path) -> Iterator[Found]:
    """Find everything below a folder that is no folder, and the folders that cannot be read; always in one order."""
    status = folder.stat()
    seen = {(status.st_dev, status.st_ino)}
    waiting = [(folder, "")]
    while waiting:
        current, prefix = waiting.pop()
        try:
            with os.scandir(current) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as exc:
            yield Found(name=prefix or ".", path=current, state=FileState.UNREADABLE, reason=_reason(exc))
            continue
        folders = []
        for entry in entries:
            # A name need not be text for the system; series.json has to be.
            name = prefix + os.fsencode(entry.name).decode("utf-8", "backslashreplace")
            found = _look(entry, name, current / entry.name, seen)
            if found is None:
                folders.append((current / entry.name, name + "/"))
            else:
                yield found
        waiting.extend(reversed(folders))


def _look(entry: os.DirEntry[str], name: str, path: Path, seen: set[tuple[int, int]]) -> Found | None:
    """Say what an entry is; None for a folder that is to be read, which then counts as seen."""
    try:
        status = entry.stat()
    except OSError as exc:
        reason = "a link that leads nowhere" if entry.is_symlink() else _reason(exc)
        return Found(name=name, path=path, state=FileState.UNREADABLE, reason=reason)
    if stat.S_ISREG(status.st_mode):
        return Found(name=name, path=path)
    if not stat.S_ISDIR(status.st_mode):
        return Found(name=name, path=path, state=FileState.NOT_FILE, reason=_kind(status.st_mode))
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return Found(name=name, path=path, state=FileState.DUPLICATE, reason="a link to a folder that is read already")
    seen.add(identity)
    return None


def _reason(exc: OSError) -> str:
    return exc.strerror or "the system refuses to read it"


def _kind(mode: int) -> str:
    names = (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISCHR, "a device"),
    )
    return next((name for test, name in names if test(mode)), "no regular file")
