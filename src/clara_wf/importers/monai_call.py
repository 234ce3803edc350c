"""One entry of a bundle's list of transforms: what it is called and what it is given, without calling it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from clara_wf.importers.bundle_config import BundleConfig, Unresolved
from clara_wf.importers.translation import Notes, is_number, shown

#: Of every transform: which keys, on what device, and for whom to read.
_MOOT = {"keys", "allow_missing_keys", "device", "lazy"}
_FLOATS = re.compile(r"\$?((torch|np|numpy)\.)?(float(16|32|64)?|half|double)")
_INTEGERS = re.compile(r"\$?((torch|np|numpy)\.)?u?int(8|16|32|64)?")


class Call:
    """A transform that a bundle would make, and its arguments.

    Every argument that is asked for is resolved; `finish` refuses those that nobody asked for.
    """

    def __init__(self, entry: Mapping[str, Any], config: BundleConfig, notes: Notes, *, known: Collection[str]) -> None:
        self._arguments = {name: value for name, value in entry.items() if not str(name).startswith("_")}
        self._config = config
        self._notes = notes
        self._asked = set(_MOOT)
        target = config.shallow(entry.get("_target_"))
        self.path = shown(str(target) if isinstance(target, Unresolved) else target)
        self.name = self.path.rsplit(".", 1)[-1]
        own = "." not in self.path or self.path.startswith("monai.")
        self.kind = _kind(self.name, known) if own else ""
        self._keys = self._read_keys() if "keys" in self._arguments else None
        if self.value("lazy", default=False):
            self.refuse("lazy", "it merges resampling steps")

    def disabled(self, entry: Mapping[str, Any]) -> bool:
        """Whether the bundle's author has switched it off."""
        flag = self._config.shallow(entry.get("_disabled_", False))
        if isinstance(flag, Unresolved):
            self.fault(f"_disabled_ {flag}")
        return flag.strip().lower() == "true" if isinstance(flag, str) else bool(flag)

    def concerns(self, key: str) -> bool:
        """Whether it works on this key; what has no keys works on whatever it is given."""
        return self._keys is None or key in self._keys

    @property
    def keys(self) -> list[str]:
        """What it works on, as far as it says so."""
        return self._keys or []

    @property
    def arguments(self) -> list[str]:
        """The names of what it is given."""
        return list(self._arguments)

    def fault(self, text: str) -> None:
        """Note what cannot be translated."""
        self._notes.fault(f"{self.name}: {text}")

    def refuse(self, argument: str, why: str = "") -> None:
        """Note an argument whose value is not taken."""
        found = self._config.deep(self._arguments.get(argument))
        text = shown(str(found) if isinstance(found, Unresolved) else found)
        self._notes.fault(f"{self.name}({shown(str(argument))}={text})" + (f": {why}" if why else ""))

    def value(self, argument: str, *, default: Any = None) -> Any:  # noqa: ANN401 - whatever JSON can hold
        """Return an argument; what cannot be resolved is a fault, and then the default."""
        self._asked.add(argument)
        if argument not in self._arguments:
            return default
        found = self._config.deep(self._arguments[argument])
        if isinstance(found, Unresolved):
            self._notes.fault(f"{self.name}({shown(argument)}): {found}")
            return default
        return found

    def value_if_known(self, argument: str, *, default: Any) -> Any:  # noqa: ANN401
        """Return an argument that changes no result; what cannot be resolved is the default."""
        self._asked.add(argument)
        found = self._config.deep(self._arguments.get(argument, default))
        return default if isinstance(found, Unresolved) else found

    def raw(self, argument: str) -> Any:  # noqa: ANN401
        """Return an argument as it stands there."""
        self._asked.add(argument)
        return self._arguments.get(argument)

    def for_key(self, argument: str, key: str, *, default: Any = None) -> Any:  # noqa: ANN401
        """Return an argument that may have an entry for each key."""
        found = self.value(argument, default=default)
        if isinstance(found, list):
            if self._keys is None or len(found) != len(self._keys):
                self.refuse(argument, "it has not one entry for each key")
                return default
            return found[self._keys.index(key)] if key in self._keys else default
        return found

    def number(self, argument: str, *, default: float | None = None) -> float | None:
        """Return a finite number, or the default; a list of one is one."""
        found = self.value(argument, default=default)
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        if found is None:
            return default
        if not is_number(found):
            self.refuse(argument, "it is no number, or a far too large one")
            return default
        return found

    def whole_triple(self, argument: str, *, default: int) -> list[int]:
        """Return three whole numbers; one stands for all three."""
        found = self.value(argument, default=default)
        numbers = found if isinstance(found, list) else [found] * 3
        if len(numbers) != 3 or any(not is_number(one) or not isinstance(one, int) for one in numbers):
            self.refuse(argument, "it is neither one nor three whole numbers")
            return [default] * 3
        return numbers

    def only(self, **values: Any) -> None:  # noqa: ANN401
        """Refuse every one of these arguments that has another value, or one that is not known."""
        for argument, wanted in values.items():
            found = self.value(argument, default=wanted)
            entries = found if isinstance(found, list) and not isinstance(wanted, list) else [found]
            if any(entry != wanted for entry in entries):
                self.refuse(argument)

    def moot(self, *arguments: str) -> None:
        """Pass over arguments that change no voxel, whatever they are."""
        self._asked.update(arguments)

    def floating(self, argument: str = "dtype") -> None:
        """Refuse a number type that would round values; its text is compared, not evaluated."""
        self._typed(argument, _FLOATS)

    def any_number(self, argument: str = "dtype") -> None:
        """Refuse a type that is no number's."""
        self._typed(argument, re.compile(f"{_FLOATS.pattern}|{_INTEGERS.pattern}"))

    def _typed(self, argument: str, allowed: re.Pattern[str]) -> None:
        self._asked.add(argument)
        found = self._config.deep(self._arguments.get(argument))
        found = found.text if isinstance(found, Unresolved) else found
        for entry in found if isinstance(found, list) else [found]:
            if entry is not None and not (isinstance(entry, str) and allowed.fullmatch(entry.strip())):
                self.refuse(argument, "values would be rounded")

    def finish(self) -> None:
        """Refuse the arguments that nobody asked for."""
        for argument in self._arguments:
            if argument not in self._asked:
                self.refuse(argument)

    def _read_keys(self) -> list[str]:
        found = self.value("keys")
        return [str(key) for key in found] if isinstance(found, list) else [str(found)]


def _kind(name: str, known: Collection[str]) -> str:
    """Return a transform's plain name, without what says that it takes dictionaries; empty if it is unknown."""
    forms = (name, name.removesuffix("Dict"), name.removesuffix("d"), name.removesuffix("D"))
    return next((form for form in forms if form in known), "")
