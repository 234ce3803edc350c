"""System shared memory: what a stage and a server on the same machine both see, instead of sending it.

A region is a file in `/dev/shm`. Its owner holds a lock on it for as long as it lives. The kernel drops the lock
however the owner ends: so what a killed owner has left is told from what is in use, whatever process ids mean here.

tritonclient's own regions are not used: nothing tells one that is in use from one whose owner was killed, and their
pages are not reserved, so that a full memory ends the process.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import mmap
import os
import secrets
import weakref
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clara_wf.model.errors import LackError

Floats = NDArray[np.float32]
#: What the names of our regions begin with, in the folder and at a server.
PREFIX = "clara-wf-"
#: Where Linux has POSIX shared memory.
FOLDER = Path("/dev/shm")  # noqa: S108 - its files are created for their owner alone


class SharedMemoryLacking(LackError):
    """There is no shared memory, or not enough of it."""


class Region:
    """A piece of shared memory: created here, mapped by another process too.

    Parameters
    ----------
    size : int
        In bytes, at least 1.

    Raises
    ------
    SharedMemoryLacking
        This system has none, or not as much.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.name, self._descriptor = _create(size)
        _LIVE.add(self)
        self._memory: mmap.mmap | None = mmap.mmap(self._descriptor, size)

    @property
    def key(self) -> str:
        """What another process opens it by (`shm_open`)."""
        return f"/{self.name}"

    def array(self, shape: tuple[int, ...]) -> Floats:
        """Return its beginning as an array of a shape; not to be used after `close`."""
        if self._memory is None:
            raise ValueError("the region is closed")
        return np.frombuffer(self._memory, np.float32, count=int(np.prod(shape))).reshape(shape)

    def close(self) -> None:
        """Remove it; what another process has mapped stays there until that lets go."""
        if self._descriptor < 0:
            return
        (FOLDER / self.name).unlink(missing_ok=True)
        # The name went first: without the lock, a region with a name would be swept by others.
        os.close(self._descriptor)
        self._descriptor = -1
        memory, self._memory = self._memory, None
        if memory is not None:
            # Somebody may still hold an array of it: then the mapping goes with that.
            with contextlib.suppress(BufferError):
                memory.close()


#: What this process has to remove when it ends.
_LIVE: weakref.WeakSet[Region] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for region in list(_LIVE):
        region.close()


def _create(size: int) -> tuple[str, int]:
    """Create a locked file of a size; returns its name and descriptor."""
    if not FOLDER.is_dir():
        raise SharedMemoryLacking(f"this system has no {FOLDER}")
    while True:
        name = PREFIX + secrets.token_hex(16)
        try:
            descriptor = os.open(FOLDER / name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise SharedMemoryLacking(f"{FOLDER} takes no file: {exc.strerror}") from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                # Reserved now: a page that is missing when it is written to ends a process with SIGBUS.
                os.posix_fallocate(descriptor, 0, size)
                return name, descriptor
        except BaseException as exc:
            (FOLDER / name).unlink(missing_ok=True)
            os.close(descriptor)
            if isinstance(exc, OSError):
                raise SharedMemoryLacking(f"{FOLDER} has no room for {ceil(size / 2**20)} MiB: {exc.strerror}") from exc
            raise
        # A sweep came between the two lines above, and took it for one whose owner is gone.
        os.close(descriptor)


def sweep() -> int:
    """Remove the regions whose owners are gone; returns how many there were."""
    removed = 0
    for path in FOLDER.glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # somebody else's, or gone meanwhile
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            removed += 1
        except OSError:  # in use, or not ours to remove
            continue
        finally:
            os.close(descriptor)
    return removed


def is_orphan(key: str) -> bool:
    """Say whether a server's region was one of ours, and its file is gone."""
    name = key.removeprefix("/")
    return name.startswith(PREFIX) and "/" not in name and not (FOLDER / name).exists()
