"""What an importer makes of somebody else's description: ours, and how it came about."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import yaml

from clara_wf.inference.install import text_fault
from clara_wf.inference.onnx_file import printable
from clara_wf.inference.reader import quoted
from clara_wf.model.errors import InputError

_HUGE = 1e30
#: Of faults, and of characters of one: more is not read.
MOST_TOLD, _MOST_LONG = 30, 400
_MOST_LISTED = 8
#: What stands where the author said nothing.
NOT_STATED = "not stated by the {kind}"
#: From what authors write to DICOM's codes.
_MODALITIES = {"CT": "CT", "MR": "MR", "MRI": "MR", "PT": "PT", "PET": "PT"}


class Untranslatable(InputError):
    """A package asks for what clara-wf does not do; the message names all of it."""


@dataclass(frozen=True, kw_only=True)
class Translation:
    """A description as `model.yaml` will hold it."""

    description: dict[str, Any]
    became: tuple[tuple[str, str], ...]  # what stood there, what it is here; in the order of the work
    ignored: tuple[str, ...]  # what changes no voxel: reading, writing, devices
    remarks: tuple[str, ...]  # a sentence each: what was taken for granted


@dataclass(kw_only=True)
class Notes:
    """What an importer finds out on its way."""

    became: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Note what cannot be translated, once; what is quoted in it was made printable where it was."""
        text = text if len(text) <= _MOST_LONG else f"{text[:_MOST_LONG]}..."
        if text not in self.faults:
            self.faults.append(text)

    def ignore(self, name: str) -> None:
        """Note what changes no voxel, once."""
        if name not in self.ignored:
            self.ignored.append(name)

    def finish(self, what: str, description: dict[str, Any], *, remedy: str | None = None) -> Translation:
        """Return the translation if nothing stands against it.

        Raises
        ------
        Untranslatable
            There are faults; all in one message.
        """
        for name, text in description.items():
            if isinstance(text, str) and (why := text_fault(text)):
                self.fault(f"{name} {quoted(text)} {why}")
        if self.faults:
            more = len(self.faults) - MOST_TOLD
            told = "; ".join(self.faults[:MOST_TOLD]) + (f"; and {more} more" if more > 0 else "")
            raise Untranslatable(f"{what} cannot be added: {told}", remedy=remedy)
        return Translation(
            description=description,
            became=tuple(self.became),
            ignored=tuple(self.ignored),
            remarks=tuple(self.remarks),
        )


def shown(value: object) -> str:
    """Return a value of a package as a message may hold it: a text as it is, all else as Python writes it, cut."""
    if isinstance(value, str):
        return printable(value)
    try:
        return quoted(value)
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a number of thousands of digits"


def listed(values: Iterable[object]) -> str:
    """Return some values of a package as a message may hold them: the first ones, each cut."""
    entries = list(values)
    more = f" and {len(entries) - _MOST_LISTED} more" if len(entries) > _MOST_LISTED else ""
    return ", ".join(shown(entry) for entry in entries[:_MOST_LISTED]) + more


def twice(names: Iterable[str]) -> list[str]:
    """Return the names that are there more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


class _Dumper(yaml.SafeDumper):
    """YAML as a person would write it: lists of numbers and short mappings in one line."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - the base's own
        """Indent the entries of a list beneath its name."""
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        """Write what occurs twice twice."""
        return True


def _represent_list(dumper: _Dumper, data: Sequence[Any]) -> yaml.Node:
    plain = not any(isinstance(entry, Mapping | list) for entry in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=plain)


def _represent_mapping(dumper: _Dumper, data: Mapping[str, Any]) -> yaml.Node:
    nested = any(isinstance(entry, Mapping) for entry in data.values())
    short = not nested and len(data) <= 8 and not {"name", "schema"} & set(data)
    return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=short)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(dict, _represent_mapping)


def as_yaml(description: Mapping[str, Any]) -> str:
    """Write a description as `model.yaml`."""
    return yaml.dump(dict(description), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def in_one_line(content: object) -> str:
    """Write a piece of a description in one line: ``resample: {spacing_mm: [1, 1, 1]}``."""
    text = yaml.safe_dump(content, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    text = text.strip().removesuffix("...").strip()
    return text[1:-1] if isinstance(content, Mapping) else text


def model_name(text: str) -> str:
    """Make a model's name of any text: lower-case letters, digits and hyphens; empty if none is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")


def known_modality(text: str) -> str:
    """Return what DICOM calls a modality; empty for one that is not known here."""
    return _MODALITIES.get(text.strip().upper(), "")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of JSON is a number that means something: finite, and not of hundreds of digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE


def plain_number(value: float) -> float | int:
    """Return a number as a person would write it: 2 for 2.0."""
    return int(value) if math.isfinite(value) and abs(value) < 1e15 and value == int(value) else value
