"""How patient a runner is, and how much it keeps."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a runner allows every stage, beside what the plan says."""

    tick: float = 0.1  # seconds between two looks at memory, logs and clocks
    grace: float = 5.0  # seconds from SIGTERM to SIGKILL
    patience: float = 2.0  # seconds that the stages after a failed one have to stop by themselves
    overtime: float = 10.0  # seconds past its own time-out, after which a stage that does not keep it is ended
    output_bytes: int = 16 * _MIB  # what is kept of a stage's plain output; the rest is read and dropped
    log_bytes: int = 64 * _MIB  # a log file that grows past this ends its stage
    log_lines: int = 10_000  # lines for people that are passed on, a stage
