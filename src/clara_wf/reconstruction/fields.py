"""Reading the fields of a JSON object so that all that is wrong with them is told at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np

from clara_wf.model.errors import GeometryError
from clara_wf.reconstruction.geometry import Array

Choice = TypeVar("Choice", bound=StrEnum)


class Fields:
    """Fields of an object, and of the objects in it; what is wrong with any of them is raised by `finish`.

    A field that is missing or null has its default; one without a default is then at fault, and something harmless
    stands in for it until `finish`.
    """

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self._content = content
        self._where = where  # what messages call the object: a file's name
        self._prefix = ""
        self._faults: list[str] = []
        self._asked: set[str] = set()
        self._parts: list[tuple[str, Mapping[str, Any], set[str]]] = []  # prefix, content and what was asked for

    def __contains__(self, name: str) -> bool:
        return self._get(name) is not None

    def part(self, name: str) -> Fields:
        """Return the object in a field; an empty one if it is missing."""
        value = self._get(name)
        if value is not None and not isinstance(value, dict):
            self._fault(name, "an object", value)
        part = Fields(value if isinstance(value, dict) else {}, self._where)
        part._prefix = f"{self._prefix}{name}."
        part._faults = self._faults
        self._parts.append((part._prefix, part._content, part._asked))
        return part

    def _get(self, name: str) -> object:
        self._asked.add(name)
        return self._content.get(name)

    def number(self, name: str, default: float | None = None, *, positive: bool = False) -> float:
        """Return a finite number."""
        value = self._get(name)
        if value is None and default is not None:
            return default
        found = _floats(value)
        if found.ndim or not np.isfinite(found) or (positive and found <= 0):
            self._fault(name, "a positive number" if positive else "a number", value)
            return 1.0
        return float(found)

    def optional_number(self, name: str) -> float | None:
        """Return a positive number, or None if there is none."""
        return self.number(name, positive=True) if name in self else None

    def numbers(self, name: str, count: int, default: float | None = None) -> Array:
        """Return `count` numbers, one for each view; with a default, one number may stand for all."""
        value = default if (given := self._get(name)) is None else given
        found = _floats(value)
        if default is not None and not found.ndim and np.isfinite(found):
            return np.full(count, float(found))
        if found.ndim != 1 or not np.isfinite(found).all():
            self._fault(name, "a list of numbers, one for each view", value)
        elif found.size != count:
            self._faults.append(f"{self._prefix}{name} has {found.size} entries for {count} views")
        else:
            return found
        return np.zeros(count)

    def choice(self, name: str, kind: type[Choice], default: Choice | None = None) -> Choice:
        """Return a member of an enumeration."""
        value = default if (given := self._get(name)) is None else given
        try:
            return kind(str(value))
        except ValueError:
            self._fault(name, "one of " + ", ".join(kind), value)
            return next(iter(kind))

    def text(self, name: str, allowed: tuple[str, ...]) -> str | None:
        """Return one of some texts, or None if it is missing."""
        value = self._get(name)
        if value is not None and value not in allowed:
            self._fault(name, "one of " + ", ".join(allowed), value)
        return value if isinstance(value, str) else None

    def finish(self, *others: str) -> None:
        """Raise a GeometryError that tells everything that is wrong, in all parts, if anything is.

        A field that nobody asked for, and that is none of the `others`, is at fault too: it may be a misspelt one.
        """
        for prefix, content, asked in ((self._prefix, self._content, self._asked | set(others)), *self._parts):
            self._faults += [f"{prefix}{field} is no field of it" for field in sorted(content.keys() - asked)]
        if self._faults:
            raise GeometryError(f"{self._where}: " + "; ".join(self._faults))

    def _fault(self, name: str, wanted: str, value: object) -> None:
        self._faults.append(f"{self._prefix}{name} is {'missing' if value is None else f'not {wanted}'}")


def _floats(value: object) -> Array:
    """Return what a value is as numbers; not a number if it is none."""
    if isinstance(value, int | float | list) and not isinstance(value, bool):
        try:
            return np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            pass
    return np.array(math.nan)
