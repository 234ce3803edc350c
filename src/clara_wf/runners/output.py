"""What a stage says while it runs: its log lines become events, everything else is kept in a file of bounded size."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from clara_wf.model.events import Event, StageLogged, StageProgress, StageWorking
from clara_wf.runners.limits import Limits

#: A line longer than this is no line of ours, and is kept in pieces.
_LINE_BYTES = 64 * 1024


class StageOutput:
    """Reads what a stage writes to standard output and standard error.

    A line counts as the stage's log if it is a JSON object that names the stage and the job. Any other text may hold
    anything, a patient's name too: it goes to the file alone, and into no event.
    """

    def __init__(self, stage: str, job_id: str, path: Path, limits: Limits) -> None:
        self.has_spoken = False  # the stage writes log lines as ours do
        self._stage = stage
        self._job_id = job_id
        self._path = path
        self._file: BinaryIO | None = None
        self._left = limits.output_bytes
        self._lines_left = limits.log_lines
        self._pending: dict[str, bytes] = {}

    def feed(self, stream: str, data: bytes) -> Iterator[Event]:
        """Take bytes of one of the two streams; empty bytes mean its end."""
        *lines, rest = (self._pending.get(stream, b"") + data).split(b"\n")
        if not data or len(rest) > _LINE_BYTES:
            lines, rest = [*lines, rest], b""
        self._pending[stream] = rest
        progress: StageProgress | None = None
        for line in lines:
            entry = self._entry(line)
            if entry is None:
                yield from self._keep(line)
                continue
            self.has_spoken = True
            for event in self._events(entry):
                if isinstance(event, StageProgress):
                    progress = event  # of several at once, the last says it all
                else:
                    yield event
        if progress is not None:
            yield progress

    def _entry(self, line: bytes) -> dict[str, object] | None:
        if not line.startswith(b"{"):
            return None
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return None
        ours = isinstance(entry, dict) and entry.get("stage") == self._stage and entry.get("job") == self._job_id
        return entry if ours else None

    def _events(self, entry: dict[str, object]) -> Iterator[Event]:
        message = str(entry.get("message", ""))
        if entry.get("state") == "working":
            yield StageWorking(stage=self._stage)
        elif "state" in entry:
            return  # its end is told by the runner
        elif isinstance(fraction := entry.get("progress"), int | float):
            yield StageProgress(stage=self._stage, fraction=float(fraction), message=message)
        elif self._lines_left > 0:
            self._lines_left -= 1
            yield StageLogged(stage=self._stage, level=str(entry.get("level", "INFO")), message=message)
            if not self._lines_left:
                yield self._warning("too many log lines: the rest is only in its log file")

    def _keep(self, line: bytes) -> Iterator[Event]:
        if self._left <= 0 or not line:
            return
        self._left -= len(line) + 1
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(line + b"\n")
        except OSError as fault:
            self._left = 0
            yield self._warning(f"its output is not kept any more: {fault.strerror or type(fault).__name__}")
            return
        if self._left <= 0:
            yield self._warning(f"wrote too much to standard output: the rest is not kept ({self._path.name})")

    def _open(self) -> BinaryIO:
        """Make the file.

        Stages write to its folder, and we may be somebody with more rights: a link that lies there under its name
        would lead us to a file that is none of theirs, a pipe would hold us up. So what lies there is removed, and only
        a file that is new is written to.
        """
        self._path.unlink(missing_ok=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(self._path, flags, 0o666), "wb", buffering=0)

    def _warning(self, message: str) -> StageLogged:
        return StageLogged(stage=self._stage, level="WARNING", message=message)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
