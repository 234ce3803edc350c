"""Keep what the DICOM libraries warn about from reaching a log: their warnings quote what they read.

A warning such as "invalid value for VR PN" carries the patient's name. Warnings are therefore counted by who warned,
and their text is thrown away.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator

from pydicom import config

_LIBRARIES = ("pydicom", "highdicom")
#: The counts of the blocks that are open now, outermost first.
_OPEN: list[Counter[str]] = []


class _Counting(logging.Handler):
    """Count records by the library that made them, and drop them."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__(logging.WARNING)
        self._counts = counts

    def emit(self, record: logging.LogRecord) -> None:
        self._counts[record.name.partition(".")[0]] += 1


@contextlib.contextmanager
def discreet() -> Iterator[Counter[str]]:
    """Swallow the warnings of pydicom and highdicom within the block and count them.

    Values that break the rules of their type are taken as they are: a hospital's patient ids are longer than the
    standard allows, and an object with a mended id would be filed under another patient.

    Yields
    ------
    Counter
        Warnings by library (or by category where Python's warnings do not say), for a line in the log without values.

    Notes
    -----
    Python's warning filters and the libraries' settings belong to the process: not for use in two threads at once.
    A block within a block adds its counts to the outer one's.
    """
    counts: Counter[str] = Counter()

    def count(message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object) -> None:  # noqa: ARG001
        counts[next((name for name in _LIBRARIES if name in filename), category.__name__)] += 1

    settings = config.settings
    modes = settings.reading_validation_mode, settings.writing_validation_mode
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    states = [(logger, logger.propagate, logger.handlers) for logger in loggers]
    handler = _Counting(counts)
    _OPEN.append(counts)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        settings.reading_validation_mode = settings.writing_validation_mode = config.IGNORE
        for logger in loggers:
            logger.propagate, logger.handlers = False, [handler]
        try:
            yield counts
        finally:
            settings.reading_validation_mode, settings.writing_validation_mode = modes
            for logger, propagate, handlers in states:
                logger.propagate, logger.handlers = propagate, handlers
            _OPEN.pop()
            if _OPEN:
                _OPEN[-1].update(counts)


def describe(counts: Counter[str]) -> str:
    """Say how many warnings were withheld: "3 warnings of pydicom"; empty if none."""
    return ", ".join(f"{number} warnings of {name}" for name, number in sorted(counts.items()))
