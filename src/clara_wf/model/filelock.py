"""One process at a time: a lock that the system gives back when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(file: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock for as long as the block lasts; whoever else wants it waits.

    Parameters
    ----------
    file : Path
        What stands for the lock; made if it is not there, and left: its content means nothing.
    waiting : callable
        Called once if another process holds the lock.

    Raises
    ------
    OSError
        The file can be neither opened nor made.
    """
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
