"""Lock files: how a stage says that it is done, and how the next one learns it.

A lock appears whole (temporary file, fsync, hard link), holds one JSON object, and is never removed within a run.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from clara_wf.model.errors import StageTimeout, UpstreamFailed
from clara_wf.model.files import create_atomically

#: A look at a file that is not there costs a microsecond; a tenth of this is what a hand-over costs on average.
POLL_SECONDS = 0.02
#: No lock is larger: whoever reads one need not hold what a broken stage has piled up there.
MOST_BYTES = 64 * 1024
#: Kept of a message that would make a lock too large.
_MESSAGE_CHARACTERS = 4096
#: What the system says of a link that is not to be followed (FreeBSD has its own word), and of a socket.
_NO_FILE = {errno.ELOOP, errno.EMLINK, errno.ENXIO}
#: How the message of a stage begins that did not run, since one before it failed.
UPSTREAM_FAILED = "upstream stage"


def now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What a lock file holds."""

    stage: str  # who wrote it
    state: Literal["completed", "failed"]
    message: str = ""  # why it failed, in one line
    started: str = ""  # ISO 8601
    ended: str = ""  # ISO 8601
    image: str = ""  # repository:tag

    def write(self, path: Path) -> None:
        """Create the lock, unless the stage has already said how it ended.

        The first word counts: a runner that ends a stage does not overwrite what the stage itself said, not even where
        both speak at once.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self)) + "\n"
        if len(text) > MOST_BYTES:
            shorter = replace(self, message=f"{self.message[:_MESSAGE_CHARACTERS]}...")
            text = json.dumps(asdict(shorter)) + "\n"
        create_atomically(path, text)

    @staticmethod
    def read(path: Path) -> Lock | None:
        """Read a lock; None if there is none yet.

        A file that holds no such JSON object (another program's stage may merely touch it) counts as completed: its
        presence is the message.

        What is no regular file (a link, a pipe, a folder) or is larger than any lock counts as failed, so that nobody
        takes it for a result or waits for another word. It is neither followed nor waited for: stages write to the
        folder of the locks, and whoever reads there may be somebody with more rights.

        Raises
        ------
        OSError
            It is there, and cannot be read.
        """
        try:
            data = _read_regular(path)
        except FileNotFoundError:
            return None
        if data is None:
            return Lock(stage=path.stem, state="failed", message="what it left for a lock is no regular file")
        if len(data) > MOST_BYTES:
            return Lock(stage=path.stem, state="failed", message=f"its lock is larger than {MOST_BYTES // 1024} KiB")
        try:
            content = json.loads(data.decode("utf-8", "replace"))
            failed = content["state"] == "failed"
            fields = {name: str(content.get(name, "")) for name in ("stage", "message", "started", "ended", "image")}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return Lock(stage=path.stem, state="completed")
        return Lock(state="failed" if failed else "completed", **fields)


def _read_regular(path: Path) -> bytes | None:
    """Return what a file holds, up to one byte more than a lock may; None if it is no regular file."""
    try:
        # Without O_NONBLOCK a pipe would be waited for until somebody writes to it.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        if fault.errno in _NO_FILE:
            return None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    with os.fdopen(handle, "rb") as file:
        return file.read(MOST_BYTES + 1)


def wait_for(path: Path, *, timeout: float | None) -> Lock:
    """Wait until a lock is there.

    Parameters
    ----------
    path : Path
        The lock.
    timeout : float or None
        Seconds; None waits for ever.

    Raises
    ------
    UpstreamFailed
        The lock says that its stage failed.
    StageTimeout
        It did not appear in time.
    """
    start = time.monotonic()
    while (lock := Lock.read(path)) is None:
        if timeout is not None and time.monotonic() - start > timeout:
            raise StageTimeout(f"waited {timeout:g} s for the lock {path.name}, which did not appear")
        time.sleep(POLL_SECONDS)
    if lock.state == "failed":
        # A chain of failures names the first one, not the whole chain.
        cause = (
            lock.message
            if lock.message.startswith(UPSTREAM_FAILED)
            else f"{UPSTREAM_FAILED} {lock.stage} failed: {lock.message}"
        )
        raise UpstreamFailed(cause)
    return lock
