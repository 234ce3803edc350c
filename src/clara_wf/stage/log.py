"""The log of a stage: one JSON object a line, to standard error and to the file that the contract names.

A runner reads these lines to show progress; a log collector reads them on a cluster. Lines that are for people carry
`level` and `message`; progress carries `progress`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
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
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class _BoundedHandler(logging.StreamHandler[TextIO]):
    """Write to a file until it has reached its limit, then say so once and stop."""

    def __init__(self, stream: TextIO, limit: int) -> None:
        super().__init__(stream)
        self._left = limit

    def emit(self, record: logging.LogRecord) -> None:
        if self._left <= 0:
            return
        super().emit(record)
        self._left = max(0, self._left - len(self.format(record).encode()) - 1)
        if not self._left:
            self.stream.write(
                '{"level": "WARNING", "message": "the log has reached its limit; nothing more is kept"}\n'
            )
            self.flush()


@contextlib.contextmanager
def logging_to(stage: str, job_id: str, path: Path | None) -> Iterator[logging.Logger]:
    """Give a logger that writes to standard error and, if `path` is given, to that file."""
    logger = logging.getLogger(f"clara_wf.stage.{stage}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    formatter = _JsonFormatter(stage, job_id)
    with contextlib.ExitStack() as stack:
        handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_BoundedHandler(stack.enter_context(path.open("a", encoding="utf-8")), LOG_LIMIT_BYTES))
        for handler in handlers:
            handler.setFormatter(formatter)
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)
        yield logger
