"""The declared resampling: slices that lie unevenly or sheared -> a regular grid.

Along the normal a value is interpolated linearly between the two neighbouring slices; within a slice, linearly between
the pixels that its shift (a tilted gantry) puts around the place. So a field that is linear in space comes out exactly,
and a slice that is where the grid wants it, unshifted, comes out as it is.

Source: any text on linear interpolation; that tilt is a shear of the stack follows from DICOM PS3.3 C.7.6.2.1.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.dicom_gate import Verdict
from clara_wf.imaging.dicom_pixels import Writer
from clara_wf.imaging.dicom_stacks import Stack
from clara_wf.imaging.geometry import VolumeGeometry

#: A part of a voxel that is rounding of floating-point numbers and nothing else.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class Regrid:
    """How a stack is brought onto a regular grid."""

    geometry: VolumeGeometry  # of the result; larger in plane than the slices where they are sheared
    below: tuple[int, ...]  # for each slice of the result, the slice of the stack at or below it
    weight: tuple[float, ...]  # and the part that the slice above it has
    offsets: tuple[tuple[float, float], ...]  # rows and columns of the result at which each slice of the stack begins

    @property
    def nearest(self) -> tuple[int, ...]:
        """For each slice of the result, the nearest slice of the stack."""
        return tuple(i + (w > 0.5) for i, w in zip(self.below, self.weight, strict=True))

    @property
    def interpolated(self) -> int:
        """How many slices of the result lie between two of the stack."""
        return sum(weight > 0 for weight in self.weight)


def plan_regrid(stack: Stack, verdict: Verdict) -> Regrid:
    """Plan the regular grid: from the first slice on, at the usual distance, up to the last slice."""
    frame = stack.frames[0]
    places = np.array(stack.places) - stack.places[0]
    count = math.floor(places[-1] / verdict.spacing + 1e-3) + 1
    below, weight = [], []
    for target in np.minimum(np.arange(count) * verdict.spacing, places[-1]):
        index = int(np.searchsorted(places, target + _ROUNDING * verdict.spacing, side="right")) - 1
        part = 0.0
        if index + 1 < len(places):
            part = float((target - places[index]) / (places[index + 1] - places[index]))
        below.append(index)
        weight.append(0.0 if part < _ROUNDING else part)
    shifts = np.array([(down, right) for right, down in verdict.shifts]) / frame.spacing
    shifts[np.abs(shifts - np.rint(shifts)) < _ROUNDING] = np.rint(shifts)[np.abs(shifts - np.rint(shifts)) < _ROUNDING]
    start, stop = np.floor(shifts.min(axis=0)), np.ceil(shifts.max(axis=0))
    rows, columns = (frame.format.rows, frame.format.columns) + (stop - start)
    origin = (
        np.array(frame.position)
        + np.array(frame.column_direction) * start[0] * frame.spacing[0]
        + np.array(frame.row_direction) * start[1] * frame.spacing[1]
    )
    geometry = VolumeGeometry(
        shape=(count, int(rows), int(columns)),
        spacing=(verdict.spacing, frame.spacing[0], frame.spacing[1]),
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        axes=(stack.normal, frame.column_direction, frame.row_direction),
    )
    offsets = tuple((float(row), float(column)) for row, column in shifts - start)
    return Regrid(geometry=geometry, below=tuple(below), weight=tuple(weight), offsets=offsets)


def regrid(source: NDArray[Any], plan: Regrid, write: Writer, *, outside: float) -> None:
    """Resample.

    Parameters
    ----------
    source : array [slice, row, column]
        The stack's slices as they are.
    plan : Regrid
        From `plan_regrid`.
    write : callable
        Given the index and the values of each slice of the result; of the source's type.
    outside : float
        The value where no slice has a pixel.
    """
    shape = plan.geometry.shape[1:]
    for target, (index, weight) in enumerate(zip(plan.below, plan.weight, strict=True)):
        plane = _placed(source[index], plan.offsets[index], shape, outside)
        if weight > 0:
            plane = plane * (1 - weight) + _placed(source[index + 1], plan.offsets[index + 1], shape, outside) * weight
        write(target, (np.rint(plane) if np.issubdtype(source.dtype, np.integer) else plane).astype(source.dtype))


def _placed(
    plane: NDArray[Any], offset: tuple[float, float], shape: tuple[int, int], outside: float
) -> NDArray[np.float64]:
    """Lay a plane into a larger one, at an offset in rows and columns that may have a fraction."""
    laid = plane.astype(np.float64)
    for axis in (0, 1):
        whole = math.floor(offset[axis])
        part = offset[axis] - whole
        if part:
            # Between pixel k-1 and k, at the part of the way: the ends, which have one neighbour only, are outside.
            low, high = (laid[:-1], laid[1:]) if axis == 0 else (laid[:, :-1], laid[:, 1:])
            laid = low * part + high * (1 - part)
            whole += 1
        wide = np.full((shape[0], laid.shape[1]) if axis == 0 else (laid.shape[0], shape[1]), outside, np.float64)
        if axis == 0:
            wide[whole : whole + laid.shape[0]] = laid
        else:
            wide[:, whole : whole + laid.shape[1]] = laid
        laid = wide
    return laid
