"""One process at a time changes a model repository."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from clara_wf.model.filelock import locked
from clara_wf.model.files import UNFINISHED, clear_away

_LOCK = ".install.lock"


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Let one process at a time change a repository, and clear what an interrupted one left."""
    with locked(root / _LOCK):
        for leftover in root.glob(f"{UNFINISHED}*"):
            clear_away(leftover)
        yield
