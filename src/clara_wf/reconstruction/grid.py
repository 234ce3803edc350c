"""The voxels of a reconstruction, in the scanner frame, and the same voxels in the patient."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.model.errors import UsageError
from clara_wf.reconstruction.geometry import Beam, ScanGeometry, patient_axes
from clara_wf.reconstruction.options import Options

#: Matrices that are chosen without being asked.
_USUAL_MATRICES: Final = (64, 128, 256, 512, 1024, 2048)
#: Slices may be this part of a row at the isocentre.
_FINEST: Final = 0.1
#: Pixels may be this much larger than a column at the isocentre before the next matrix is taken.
_PLAY: Final = 1.1


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Square pixels about the isocentre, on slices along z."""

    matrix: int  # rows and columns
    pixel: float  # mm
    slices: int
    thickness: float  # mm, and from slice to slice
    first: float  # mm along z of the first slice's centre

    @property
    def positions(self) -> NDArray[np.float64]:
        """Mm along z of the slices' centres."""
        return self.first + self.thickness * np.arange(self.slices, dtype=np.float64)

    @property
    def edge(self) -> float:
        """Mm of the centre of the first column, and row."""
        return -(self.matrix - 1) / 2 * self.pixel

    @property
    def slice_bytes(self) -> int:
        """Bytes of a slice in 32-bit floats."""
        return self.matrix * self.matrix * 4

    def part(self, start: int, stop: int) -> Grid:
        """Return the grid of some of the slices."""
        return replace(self, slices=stop - start, first=self.first + start * self.thickness)

    def patient_geometry(self, position: str) -> VolumeGeometry:
        """Return the voxels in the patient (LPS): slices grow to the head, rows to the back, columns to the left."""
        turn = patient_axes(position)
        low = np.array([self.edge, self.edge, self.first])
        high = np.array([-self.edge, -self.edge, float(self.positions[-1])])
        corner = np.minimum(turn @ low, turn @ high)
        return VolumeGeometry(
            shape=(self.slices, self.matrix, self.matrix),
            spacing=(self.thickness, self.pixel, self.pixel),
            origin=(float(corner[0]), float(corner[1]), float(corner[2])),
        )

    def patient_slice(self, position: str, index: int, plane: NDArray[Any]) -> tuple[int, NDArray[Any]]:
        """Turn a slice [row, column] of the scanner frame into the patient's; return its index there, and it."""
        turn = patient_axes(position)
        if turn[0, 0] == 0:  # on a side: the patient's left is up or down
            plane = plane.T
            left, back = turn[0, 1], turn[1, 0]
        else:
            left, back = turn[0, 0], turn[1, 1]
        plane = plane[:: -1 if back < 0 else 1, :: -1 if left < 0 else 1]
        return (index if turn[2, 2] > 0 else self.slices - 1 - index), plane


def choose_grid(geometry: ScanGeometry, field: float, extent: tuple[float, float], options: Options) -> Grid:
    """Choose the grid that a user asked for, or what suits the scan.

    Parameters
    ----------
    geometry : ScanGeometry
        Of the scan.
    field : float
        The field of view, mm.
    extent : tuple of float
        From where to where along z, in mm, the scan can be reconstructed.
    options : Options
        What was asked for.

    Raises
    ------
    UsageError
        The slices are far finer than the rows.
    """
    detector = geometry.detector
    column = detector.column_spacing / geometry.magnification
    matrix = options.matrix or next((size for size in _USUAL_MATRICES if field / size <= column * _PLAY), 2048)
    thickness = options.slice_thickness or detector.row_spacing / geometry.magnification
    if geometry.beam is Beam.FAN and not geometry.is_helical:
        return Grid(matrix=matrix, pixel=field / matrix, slices=1, thickness=thickness, first=float(geometry.axial[0]))
    row = detector.row_spacing / geometry.magnification
    if thickness < _FINEST * row:
        raise UsageError(
            f"slices of {thickness:g} mm are finer than anything that rows of {row:.3g} mm tell",
            remedy="Ask for thicker ones, by --arg recon=--slice-thickness=1 for example",
        )
    low, high = extent
    slices = max(1, math.floor((high - low) / thickness + 1e-6) + 1)
    first = (low + high) / 2 - (slices - 1) / 2 * thickness
    return Grid(matrix=matrix, pixel=field / matrix, slices=slices, thickness=thickness, first=first)


def circular_extent(geometry: ScanGeometry, field_of_view: float) -> tuple[float, float]:
    """Return from where to where along z a circular scan sees slices, over a field of view (mm) about the isocentre.

    In a cone, that is what the rows see where the field's edge is nearest to the source.
    """
    detector = geometry.detector
    rows = np.array([-detector.central_row, detector.rows - 1 - detector.central_row]) * detector.row_spacing
    if geometry.beam is not Beam.PARALLEL:
        nearest = geometry.source_to_isocenter - field_of_view / 2
        rows = rows * max(nearest, 0.0) / geometry.source_to_detector
    middle = float(geometry.axial[0])
    return middle + float(rows[0]), middle + float(rows[1])
