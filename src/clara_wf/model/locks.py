"""Lock files: how a stage says that it is done, and how the next one learns it.

A lock appears whole (temporary file, fsync, hard link), holds one JSON object, and is never removed within a run.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from clara_wf.model.errors import StageTimeout, UpstreamFailed
from clara_wf.model.files import create_atomically

#: A look at a file that is not there costs a microsecond; a tenth of this is what a hand-over costs on average.
POLL_SECONDS = 0.02
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
        create_atomically(path, json.dumps(asdict(self)) + "\n")

    @staticmethod
    def read(path: Path) -> Lock | None:
        """Read a lock; None if there is none yet.

        A lock that is no such JSON object (another program's stage may merely touch the file) counts as completed: its
        presence is the message.
        """
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        try:
            content = json.loads(text)
            failed = content["state"] == "failed"
            fields = {name: str(content.get(name, "")) for name in ("stage", "message", "started", "ended", "image")}
        except (ValueError, TypeError, KeyError, AttributeError):
            return Lock(stage=path.stem, state="completed")
        return Lock(state="failed" if failed else "completed", **fields)


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
