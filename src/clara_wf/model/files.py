"""Files that appear whole or not at all: write beside, fsync, rename."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: Unfinished files begin with this; readers of a folder pass them over.
UNFINISHED = ".unfinished-"

# The system has no call that reads the umask without setting it: done once, before any thread of ours runs.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder that becomes `path` when the block ends well.

    The temporary file keeps the suffix, since some libraries choose a format by it. On an error it is removed and
    whatever stood at `path` stays.

    Raises
    ------
    OSError
        The folder is not there, not writable, or the disk is full.
    """
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, suffix="".join(path.suffixes[-1:]), dir=path.parent)
    os.fchmod(handle, 0o666 & ~_UMASK)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a small file so that a reader sees the old content or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def fsync(path: Path) -> None:
    """Force a file or a folder onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
