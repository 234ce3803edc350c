"""A payload: the folder that holds everything of one job.

::

    <payloads>/<job id>/
      <first stage>/input/...
      <stage>/output/...
      locks/<stage>.lock   logs/<stage>.log   job.json
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from clara_wf.model.errors import UsageError


def job_id(text: str) -> str:
    """Check a job id and return it in its usual form.

    Raises
    ------
    UsageError
        It is no UUID.
    """
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != text.lower():
        raise UsageError(
            f"the job id {text!r} is no UUID",
            remedy="It has 32 hexadecimal digits as in 00000000-0000-0000-0000-000000000000",
        )
    return str(parsed)


@dataclass(frozen=True, kw_only=True)
class Payload:
    """The folder of one job."""

    root: Path  # <payloads>/<job id>

    @property
    def locks(self) -> Path:
        """Where stages leave their locks."""
        return self.root / "locks"

    @property
    def logs(self) -> Path:
        """Where stages write their logs."""
        return self.root / "logs"

    @property
    def job(self) -> Path:
        """The record of the job, written by its runner."""
        return self.root / "job.json"
