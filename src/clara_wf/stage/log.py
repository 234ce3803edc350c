"""The log of a stage: one JSON object a line, to standard error and to the file that the contract names.

A runner reads these lines to show progress; a log collector reads them on a cluster. Lines that are for people carry
`level` and `message`; progress carries `progress`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

#: A log that grows past this stops growing: a stage in a loop must not fill the disk that the payload needs.
LOG_LIMIT_BYTES = 16 * 1024 * 1024


class _JsonFormatter(logging.Formatter):
    """Format a record as one JSON object."""

    def __init__(self, stage: str, job_id: str) -> None:
        super().__init__()
        self._fixed = {"stage": stage, "job": job_id}

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            **self._fixed,
            "message": record.getMessage(),
        }
        for name in ("progress", "state"):
            if hasattr(record, name):
                entry[name] = getattr(record, name)
        if record.exc_info:
            # The place and the type, never the text of the error: it may quote what was read, and so a patient.
            kind, _, trace = record.exc_info
            entry["trace"] = "".join(traceback.format_tb(trace)) + (kind.__name__ if kind else "")
        # A file name that is no text holds lone surrogates, which cannot be written: they become JSON's own escapes.
        return json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


class _BoundedHandler(logging.StreamHandler[TextIO]):
    """Write to a file until it has reached its limit or cannot be written; a log never ends the stage that it is of."""

    def __init__(self, stream: TextIO, limit: int) -> None:
        super().__init__(stream)
        self._left = limit

    def emit(self, record: logging.LogRecord) -> None:
        if self._left <= 0:
            return
        line = self.format(record) + "\n"
        self._left = max(0, self._left - len(line))
        if not self._left:
            line += '{"level": "WARNING", "message": "the log has reached its limit; nothing more is kept"}\n'
        try:
            self.stream.write(line)
            self.stream.flush()
        except OSError:  # the disk is full: standard error still has the line
            self._left = 0


@contextlib.contextmanager
def logging_to(stage: str, job_id: str, path: Path | None) -> Iterator[logging.Logger]:
    """Give a logger that writes to standard error and, if `path` is given and can be written, to that file."""
    logger = logging.getLogger(f"clara_wf.stage.{stage}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    formatter = _JsonFormatter(stage, job_id)
    with contextlib.ExitStack() as stack:

        def add(handler: logging.Handler) -> None:
            handler.setFormatter(formatter)
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)

        add(logging.StreamHandler(sys.stderr))
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                stream = path.open("a", encoding="utf-8", errors="backslashreplace")
            except OSError as fault:
                logger.warning("the log file cannot be opened (errno %s); standard error has the log", fault.errno)
            else:
                stack.callback(_close, stream)
                add(_BoundedHandler(stream, LOG_LIMIT_BYTES))
        yield logger


def _close(stream: TextIO) -> None:
    # On a full disk, closing tries once more to write what is left.
    with contextlib.suppress(OSError):
        stream.close()
