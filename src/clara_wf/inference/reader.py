"""Reading YAML that a person wrote: every fault is noted, none stops the reading."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

Triple = tuple[float, float, float]
IntTriple = tuple[int, int, int]
#: Of a number that means something; YAML has whole numbers of any length, infinity, and numbers that are none.
_LARGEST = 1e300
#: Of voxels along an axis: no image has more.
_MOST = 10_000
#: Of faults, and of characters that are quoted of a value.
_MOST_TOLD, _MOST_QUOTED = 20, 100


def quoted(value: object) -> str:
    """Return a value as Python writes it, cut where it is long; nothing in it acts on a terminal."""
    # Of a large list or mapping only the beginning is written at all: YAML can make a few bytes huge.
    try:
        return _cut(repr(value) if isinstance(value, str | bytes | int | float | date) else reprlib.repr(value))
    except ValueError:  # Python does not write whole numbers of more than 4300 digits
        return "a number of thousands of digits"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}..."


class Reader:
    """Takes values out of YAML, and notes every fault instead of stopping at the first.

    What a method returns for a faulty field stands for nothing.
    """

    def __init__(self) -> None:
        self.faults: dict[str, str] = {}

    def fault(self, where: str, what: str) -> None:
        """Note a fault of a field; those that follow from its first one are not worth a word."""
        self.faults.setdefault(where, f"{_cut(where)} {what}")

    @property
    def message(self) -> str:
        """All faults in one line that a person can read: the first ones, and how many more there are."""
        told = list(self.faults.values())
        more = [f"and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
        return "; ".join([*told[:_MOST_TOLD], *more])

    def section(self, where: str, content: object, names: set[str]) -> Mapping[str, Any]:
        """Read a mapping whose fields are among `names`."""
        if not isinstance(content, Mapping):
            self.fault(where or "the file", "is missing" if where and content is None else "is no mapping")
            return {}
        for name in content:
            if name not in names:
                self.fault(f"{where + '.' if where else ''}{name}", "is unknown")
        return content

    def text(self, where: str, value: object) -> str:
        """Read a text that is not empty, its blanks made single."""
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())
        if value is None:
            self.fault(where, "is missing")
        elif isinstance(value, bool):
            # What was written (no, off, true) is lost.
            self.fault(where, f"is {str(value).lower()}, no text: write it in quotes")
        elif isinstance(value, int | float | date):
            text = value.isoformat() if isinstance(value, date) else quoted(value)
            self.fault(where, f'is {text}: write it in quotes, "{text}"')
        else:
            self.fault(where, "is empty" if isinstance(value, str) else f"is no text: {quoted(value)}")
        return ""

    def flag(self, where: str, value: object) -> bool:
        """Read true or false."""
        if not isinstance(value, bool):
            self.fault(where, f"is neither true nor false: {quoted(value)}")
        return bool(value)

    def number(self, where: str, value: object) -> float:
        """Read a finite number."""
        if value is None:
            self.fault(where, "is missing")
            return 0.0
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
            return float(value)
        self.fault(where, f"is no number: {quoted(value)}")
        return 0.0

    def numbers(self, where: str, value: object, count: int) -> Sequence[float]:
        """Read a list of so many numbers."""
        if not isinstance(value, list) or len(value) != count:
            self.fault(where, "is missing" if value is None else f"is no list of {count} numbers: {quoted(value)}")
            return [0.0] * count
        return [self.number(f"{where}[{index}]", item) for index, item in enumerate(value)]

    def triple(self, where: str, value: object) -> Triple:
        """Read three numbers."""
        first, second, third = self.numbers(where, value, 3)
        return first, second, third

    def whole(self, where: str, value: object) -> IntTriple:
        """Read three whole numbers from 0 to ten thousand: voxels."""
        numbers = self.triple(where, value)
        if any(number != int(number) or not 0 <= number <= _MOST for number in numbers):
            self.fault(where, f"are no whole numbers up to {_MOST:,}: {quoted(value)}")
        return int(numbers[0]), int(numbers[1]), int(numbers[2])

    def choice(self, where: str, value: object, names: Sequence[str]) -> str:
        """Read one of some words."""
        if not isinstance(value, str) or value not in names:
            self.fault(where, f"is {quoted(value)}, none of {', '.join(names)}")
            return names[0]
        return str(value)
