"""Files and folders that appear whole or not at all: write beside, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

#: Unfinished files begin with this; readers of a folder pass them over.
UNFINISHED = ".unfinished-"
#: What a file system without hard links says.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


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
    temporary, handle = _new_file(path)
    os.close(handle)
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


def create_atomically(path: Path, data: str) -> bool:
    """Write a small file unless one is there; of many writers exactly one succeeds. Return whether it was this one.

    Others may write to the folder, and put a link in the place of the unfinished file: it is written to as it was
    opened, never by its name.

    Raises
    ------
    OSError
        The folder is not there, not writable, or the disk is full.
    """
    temporary, handle = _new_file(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode())
            file.flush()
            os.fsync(handle)
        _link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    fsync(path.parent)
    return True


def _link(temporary: Path, path: Path) -> None:
    """Give a finished file its name, unless the name is taken (`FileExistsError`)."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        # Some network and FAT file systems know no hard links. A look and a rename leave a moment between them in which
        # a second writer replaces the first, but a reader still sees one whole file.
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.replace(path)


def _new_file(path: Path) -> tuple[Path, int]:
    """Make an empty unfinished file beside a path, of the same suffix; return it, open for writing.

    As `tempfile` does, but with the permissions of a common file, and at no cost to a stage's start.
    """
    temporary = path.parent / f"{UNFINISHED}{os.urandom(8).hex()}{path.suffix}"
    return temporary, os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)


@contextlib.contextmanager
def folder_appearing(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` that takes its place when the block ends well, forced onto the disk.

    A folder that stands there is moved aside first and then removed: for a moment it is missing, but never half there.
    Of a link that stands there, the link alone is removed. On an error what was made is removed, and whatever stood at
    `target` stays.

    Raises
    ------
    OSError
        The parent folder is not there or not writable, or the disk is full.
    """
    unfinished = target.parent / f"{UNFINISHED}{os.urandom(8).hex()}"
    old = target.parent / f"{unfinished.name}-old"
    unfinished.mkdir()
    try:
        yield unfinished
        for path in (*unfinished.rglob("*"), unfinished):
            if not path.is_symlink():
                fsync(path)
        if os.path.lexists(target):
            target.rename(old)
        try:
            unfinished.rename(target)
        except OSError:
            if os.path.lexists(old):
                old.rename(target)
            raise
        fsync(target.parent)
    finally:
        for leftover in (unfinished, old):
            clear_away(leftover)


def clear_away(path: Path) -> None:
    """Remove a folder with all that is in it, a file, or a link but not where it leads; what cannot be stays."""
    import shutil  # a stage's start need not wait for it

    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    import hashlib  # nor for this

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Force a file or a folder onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
