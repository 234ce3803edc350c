"""The geometry gate: whether the slices of a stack make a regular grid, and what is wrong if not, in millimetres.

A volume with a missing slice or a tilted gantry looks like any other once it is an array; what a network or a surgeon
measures in it is then wrong. So such a stack is refused unless the user asks for the declared resampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from clara_wf.imaging.dicom_frame import Vector
from clara_wf.imaging.dicom_stacks import SAME_PLACE_MM, Stack
from clara_wf.imaging.geometry import VolumeGeometry

#: A slice may be this far from its place on the grid: positions with one decimal are 0.05 mm off by rounding.
PLACE_TOLERANCE_MM: Final = 0.06
#: Or this part of the distance of slices, where that is more: the table of a step-and-shoot scan has play.
PLACE_TOLERANCE_PART: Final = 0.02
#: But never more than this part: on a grid finer than a scanner's decimals, nothing could be told from rounding.
PLACE_TOLERANCE_LIMIT: Final = 0.1
#: A slice may be this part of a pixel off the line of the others, in its own plane: a tenth is not seen.
SHIFT_TOLERANCE_PIXELS: Final = 0.1
#: So many faults are named in words; the rest are counted.
_NAMED_FAULTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate found."""

    spacing: float  # mm from slice to slice that is usual in the stack; 0 if unknown
    shifts: tuple[
        tuple[float, float], ...
    ]  # mm of each slice off the first's normal, along the row and column direction
    faults: tuple[str, ...]  # what is wrong, in words; empty: a regular grid
    resamplable: bool  # whether resampling can mend it: not where two slices lie at one place
    notes: tuple[str, ...] = ()  # what a user should know though it is no fault


def check_stack(stack: Stack) -> Verdict:
    """Hold a stack against a regular grid."""
    shifts = tuple(_shift(stack, index) for index in range(len(stack.frames)))
    if len(stack.frames) == 1:
        return _single(stack)
    gaps = [after - before for before, after in zip(stack.places, stack.places[1:], strict=False)]
    real = [gap for gap in gaps if gap > SAME_PLACE_MM]
    usual = median(real) if real else 0.0
    doubles = [index for index, gap in enumerate(gaps) if gap <= SAME_PLACE_MM]
    if doubles:
        faults = [f"slices {i + 1} and {i + 2} are both at {_place(stack, i)}" for i in doubles]
        return Verdict(spacing=usual, shifts=shifts, faults=_named(faults), resamplable=False)
    even = _even_spacing(stack.places)
    gap_faults = [] if even else _gap_faults(stack, gaps, usual)
    shift_faults = _shift_faults(stack, shifts)
    return Verdict(
        spacing=even or usual,
        shifts=shifts,
        faults=_named(gap_faults) + _named(shift_faults),
        resamplable=_is_resamplable(stack, even or usual, shifts),
    )


def _is_resamplable(stack: Stack, spacing: float, shifts: Sequence[tuple[float, float]]) -> bool:
    """Say whether resampling would keep to what was measured: no more is missing than there is, slices overlap."""
    pixels = stack.frames[0].format
    rows, columns = stack.frames[0].spacing
    wanted = (stack.places[-1] - stack.places[0]) / spacing + 1
    return wanted <= 2 * len(stack.frames) and all(
        abs(right) < pixels.columns * columns and abs(down) < pixels.rows * rows for right, down in shifts
    )


def _single(stack: Stack) -> Verdict:
    """One slice alone has no neighbour: its header must say how thick it is."""
    frame = stack.frames[0]
    for name, spacing in (("SpacingBetweenSlices", frame.gap), ("SliceThickness", frame.thickness)):
        if spacing is not None and spacing > 0:
            note = f"one slice alone: its spacing is its {name}"
            return Verdict(spacing=spacing, shifts=((0.0, 0.0),), faults=(), resamplable=False, notes=(note,))
    fault = "one slice alone, without SliceThickness or SpacingBetweenSlices"
    return Verdict(spacing=0.0, shifts=((0.0, 0.0),), faults=(fault,), resamplable=False)


def _tolerance(spacing: float) -> float:
    return min(max(PLACE_TOLERANCE_MM, PLACE_TOLERANCE_PART * spacing), PLACE_TOLERANCE_LIMIT * spacing)


def _even_spacing(places: Sequence[float]) -> float | None:
    """Return the distance of evenly spaced slices; None if they are not.

    From end to end first, which is exact where the positions are; then by regression, since rounded ends would lay the
    blame for their rounding on all between.
    """
    count = len(places)
    spacing = (places[-1] - places[0]) / (count - 1)
    middle = (count - 1) / 2
    mean = sum(places) / count
    slope = sum((index - middle) * (place - mean) for index, place in enumerate(places))
    slope /= sum((index - middle) ** 2 for index in range(count))
    for candidate, start in ((spacing, places[0]), (slope, mean - slope * middle)):
        if all(abs(place - start - index * candidate) <= _tolerance(candidate) for index, place in enumerate(places)):
            return candidate
    return None


def _gap_faults(stack: Stack, gaps: Sequence[float], usual: float) -> list[str]:
    faults = []
    for index, gap in enumerate(gaps):
        # Both ends of a gap may be off by rounding.
        if abs(gap - usual) <= 2 * _tolerance(usual):
            continue
        text = f"slices {index + 1} and {index + 2} are {_mm(gap)} mm apart where {_mm(usual)} is usual"
        steps = round(gap / usual)
        if steps >= 2 and abs(gap - steps * usual) <= 2 * _tolerance(usual):
            is_are = "is" if steps == 2 else "are"
            text += f": {steps - 1} {is_are} missing between {_place(stack, index)} and {_place(stack, index + 1)}"
        else:
            text += f", between {_place(stack, index)} and {_place(stack, index + 1)}"
        faults.append(text)
    if not faults:
        low, high = min(gaps), max(gaps)
        faults.append(f"the distance of slices drifts between {_mm(low)} and {_mm(high)} mm")
    return faults


def _shift_faults(stack: Stack, shifts: Sequence[tuple[float, float]]) -> list[str]:
    """Find a tilted gantry (shifts that grow evenly), and single slices that are displaced."""
    frame = stack.frames[0]
    tolerance = SHIFT_TOLERANCE_PIXELS * min(frame.spacing)
    length = stack.places[-1] - stack.places[0]
    lean = (shifts[-1][0] / length, shifts[-1][1] / length)
    faults = []
    if math.hypot(*shifts[-1]) > tolerance:
        angle = math.degrees(math.atan(math.hypot(*lean)))
        step = math.hypot(*lean) * length / (len(shifts) - 1)
        faults.append(
            f"the gantry was tilted: the slices are sheared by {angle:.2f} degrees, {_mm(step)} mm from slice to slice"
        )
    for index, (shift, place) in enumerate(zip(shifts, stack.places, strict=True)):
        along = place - stack.places[0]
        off = math.hypot(shift[0] - lean[0] * along, shift[1] - lean[1] * along)
        if off > tolerance:
            faults.append(f"slice {index + 1} at {_place(stack, index)} is displaced by {_mm(off)} mm in its plane")
    return faults


def _shift(stack: Stack, index: int) -> tuple[float, float]:
    first, frame = stack.frames[0], stack.frames[index]
    delta = tuple(b - a for a, b in zip(first.position, frame.position, strict=True))
    return _dot(delta, first.row_direction), _dot(delta, first.column_direction)


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _place(stack: Stack, index: int) -> str:
    """Name a slice's place by the patient's axis where the normal is one, else along the normal."""
    for axis, name in enumerate("xyz"):
        if abs(abs(stack.normal[axis]) - 1) < 1e-6:
            return f"{name}={stack.frames[index].position[axis]:.1f} mm"
    return f"{stack.places[index]:.1f} mm along the normal"


def _mm(value: float) -> str:
    return f"{value:.4g}"


def _named(faults: Sequence[str]) -> tuple[str, ...]:
    more = len(faults) - _NAMED_FAULTS
    return (*faults[:_NAMED_FAULTS], f"and {more} more of this kind") if more > 0 else tuple(faults)


def regular_geometry(stack: Stack, spacing: float) -> VolumeGeometry:
    """Return the grid of a stack without faults."""
    frame = stack.frames[0]
    normal: Vector = stack.normal
    return VolumeGeometry(
        shape=(len(stack.frames), frame.format.rows, frame.format.columns),
        spacing=(spacing, frame.spacing[0], frame.spacing[1]),
        origin=frame.position,
        axes=(normal, frame.column_direction, frame.row_direction),
    )
