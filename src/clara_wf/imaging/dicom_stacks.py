"""Frames of a series -> stacks: frames that look along one direction, at one time, with one size.

A series may hold several directions (reformats), several times at each place (a perfusion), several echoes. Each
becomes a stack of its own. Slices are sorted by their position along the normal; numbers and file names are never
looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from clara_wf.imaging.dicom_frame import Frame, Vector

#: Directions closer than this (0.06 degrees) are the same: scanners write cosines with four to six decimals.
SAME_DIRECTION: Final = 1e-3
#: Pixel sizes closer than this part are the same.
SAME_SPACING: Final = 1e-4
#: Frames closer than this lie at one place: slices are 0.1 mm apart or more, positions have up to six decimals.
SAME_PLACE_MM: Final = 0.01
#: What tells frames at one place apart, the surest first; several attributes count together.
_SPLIT_BY: Final = (
    ("TemporalPositionIdentifier",),
    ("TriggerTime",),
    ("EchoNumbers",),
    ("EchoTime",),
    ("DiffusionBValue",),
    ("DiffusionBValue", "DiffusionGradientOrientation"),
    ("TemporalPositionIdentifier", "EchoNumbers"),
    ("ImageType",),
    ("AcquisitionNumber",),
    ("AcquisitionDateTime",),
    ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"),
)
#: Clocks, for frames that each have a time of their own: pass k is the k-th frame at every place.
_CLOCKS: Final = (("AcquisitionDateTime",), ("AcquisitionDate", "AcquisitionTime"), ("ContentDate", "ContentTime"))
#: What makes images that belong to no common volume, even where no two lie at one place. Clocks do not: slices of one
#: volume are taken one after the other.
_CONTRASTS: Final = ("TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "DiffusionBValue")
#: Within this of an axis (25 degrees) a normal has the axis' name.
_NAMED_DIRECTION: Final = 0.9


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Frames that may make a volume."""

    frames: tuple[Frame, ...]  # by their place along the normal, ascending
    normal: Vector  # LPS unit vector: row direction x column direction
    places: tuple[float, ...]  # mm along the normal of each frame
    split: str = ""  # what tells it from other stacks at the same places: "EchoNumbers 2"

    @property
    def orientation(self) -> str:
        """Name the plane: axial, coronal, sagittal or oblique."""
        largest = max(abs(component) for component in self.normal)
        if largest < _NAMED_DIRECTION:
            return "oblique"
        return ("sagittal", "coronal", "axial")[[abs(component) for component in self.normal].index(largest)]


def split_stacks(frames: Iterable[Frame], quality: Callable[[Stack], int]) -> list[Stack]:
    """Split a series' frames, the largest stack first; where it makes no difference, in the order of time and place.

    Parameters
    ----------
    frames : iterable of Frame
        In any order.
    quality : callable
        Says whether a stack would make a volume: 2 as it is, 1 resampled, 0 none. It decides whether to split slices of
        several echoes, say, that lie at places of their own.
    """
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if _alike(group[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    times = [stack for group in groups for stack in _split_times(_stack(group))]
    stacks = [stack for time in times for stack in _split_contrasts(time, quality)]
    order = sorted(range(len(stacks)), key=lambda index: (-len(stacks[index].frames), *_order(stacks[index], index)))
    return [stacks[index] for index in order]


def _order(stack: Stack, index: int) -> tuple[tuple[float, ...], int]:
    # Times of one direction come in order, and the index keeps it; the normal makes the rest independent of names.
    return tuple(round(-abs(component), 3) for component in reversed(stack.normal)), index


def _alike(one: Frame, other: Frame) -> bool:
    """Say whether two frames can be slices of one volume."""
    if (one.format.rows, one.format.columns) != (other.format.rows, other.format.columns):
        return False
    return (one.row_direction, one.column_direction, one.spacing) == (
        other.row_direction,
        other.column_direction,
        other.spacing,
    ) or (
        _close(one.row_direction, other.row_direction, SAME_DIRECTION)
        and _close(one.column_direction, other.column_direction, SAME_DIRECTION)
        and _close(one.spacing, other.spacing, SAME_SPACING * min(one.spacing))
    )


def _close(one: Sequence[float], other: Sequence[float], tolerance: float) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def cross(row: Vector, column: Vector) -> Vector:
    """Return the normal of a plane: row direction x column direction."""
    return (
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    )


def _stack(frames: Sequence[Frame], split: str = "", normal: Vector | None = None) -> Stack:
    if normal is None:
        normal = cross(frames[0].row_direction, frames[0].column_direction)
    x, y, z = normal
    placed = sorted(
        ((f.position[0] * x + f.position[1] * y + f.position[2] * z, index) for index, f in enumerate(frames))
    )
    return Stack(
        frames=tuple(frames[index] for _, index in placed),
        normal=normal,
        places=tuple(place for place, _ in placed),
        split=split,
    )


def _split_times(stack: Stack) -> list[Stack]:
    """Split frames that lie at the same places, if something tells them apart; else leave them to the gate."""
    places = _numbered_places(stack)
    most = max(places.count(place) for place in set(places)) if len(set(places)) < len(places) else 1
    if most == 1:
        return [stack]
    for keys in _SPLIT_BY:
        groups: dict[tuple[str, ...], list[int]] = {}
        for index, frame in enumerate(stack.frames):
            groups.setdefault(tuple(frame.times.get(key, "") for key in keys), []).append(index)
        if len(groups) == most and all(_unique(places[index] for index in group) for group in groups.values()):
            name = " and ".join(keys)
            return [
                _stack([stack.frames[index] for index in groups[value]], f"{name} {' '.join(value)}", stack.normal)
                for value in sorted(groups, key=_ascending)
            ]
    return _split_passes(stack, places, most) or [stack]


def _split_contrasts(stack: Stack, quality: Callable[[Stack], int]) -> list[Stack]:
    """Split frames of several echoes, times or weightings if those of each make as good a volume as all together.

    Echoes at z = 0, 6, 12 and 3, 9, 15 mm lie like one regular volume, and are two.
    """
    for key in _CONTRASTS:
        groups: dict[tuple[int, float, str], list[Frame]] = {}
        for frame in stack.frames:
            groups.setdefault(_contrast(frame.times.get(key, "")), []).append(frame)
        if len(groups) == 1 or min(map(len, groups.values())) < 2:
            continue
        parts = []
        for value in sorted(groups):
            told = f"{key} {groups[value][0].times.get(key) or 'missing'}"
            parts.append(_stack(groups[value], f"{stack.split}, {told}" if stack.split else told, stack.normal))
        if min(map(quality, parts)) >= max(quality(stack), 1):
            return [small for part in parts for small in _split_contrasts(part, quality)]
    return [stack]


def _contrast(text: str) -> tuple[int, float, str]:
    """Return what is the same for "10" and "10.0", in ascending order; nothing comes first, as b = 0 may be nothing."""
    ((kind, number, text),) = _ascending((text,))
    return (-1, 0.0, "") if not text else (kind, number, text if kind else "")


def _numbered_places(stack: Stack) -> list[int]:
    """Give each place along the normal a number; frames at one place have the same."""
    numbers: list[int] = []
    number, start = 0, stack.places[0]
    for place in stack.places:
        if place - start > SAME_PLACE_MM:
            number, start = number + 1, place
        numbers.append(number)
    return numbers


def _unique(values: Iterable[int]) -> bool:
    found = list(values)
    return len(set(found)) == len(found)


def _ascending(value: tuple[str, ...]) -> list[tuple[int, float, str]]:
    """Sort numbers by size, before texts."""
    keys = []
    for text in value:
        try:
            keys.append((0, float(text), text))
        except ValueError:
            keys.append((1, 0.0, text))
    return keys


def _split_passes(stack: Stack, places: list[int], passes: int) -> list[Stack]:
    """Split by a clock: the scanner passed all places `passes` times, each pass after the one before."""
    by_place: dict[int, list[Frame]] = {}
    for place, frame in zip(places, stack.frames, strict=True):
        by_place.setdefault(place, []).append(frame)
    if any(len(frames) != passes for frames in by_place.values()):
        return []
    for keys in _CLOCKS:

        def clock(frame: Frame, keys: tuple[str, ...] = keys) -> tuple[str, ...]:
            return tuple(frame.times.get(key, "") for key in keys)

        ordered = [sorted(frames, key=clock) for frames in by_place.values()]
        rounds = [[frames[number] for frames in ordered] for number in range(passes)]
        if all(max(map(clock, rounds[number])) < min(map(clock, rounds[number + 1])) for number in range(passes - 1)):
            name = " and ".join(keys)
            return [_stack(frames, f"{name}, pass {number + 1}", stack.normal) for number, frames in enumerate(rounds)]
    return []
