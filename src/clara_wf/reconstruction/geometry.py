"""Where source and detector are in each view of a scan, in the scanner frame (see the package's docstring).

The source is at ``(R sin b, -R cos b, z)``: at the angle b = 0 it is above the patient, and it turns to the patient's
left (who lies head first, supine). Columns grow along ``(cos b, sin b, 0)``, rows along z. That is the fixed frame of
RTK (IEC 61217) with its x, y, z as ours x, z, -y, and in a parallel beam the usual sinogram, ``s = x cos b + y sin b``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from clara_wf.model.errors import GeometryError

Array = NDArray[np.float64]

#: Axial positions that differ by less than this over a whole scan are a circle: a table's play.
CIRCULAR_MM: Final = 0.01

#: A detector counts as offset if it sees this much more on one side.
_OFFSET: Final = 1.1
#: A wider gap opens a circle (RTK's own number for short scans).
OPEN_GAP: Final = math.radians(20)
#: Rows are LPS unit vectors in the scanner frame, by Patient Position (PS3.3, C.7.3.1.1.2).
_PATIENT_AXES: Final[dict[str, tuple[tuple[int, int, int], ...]]] = {
    "HFS": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "HFP": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "FFS": ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "FFP": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "HFDR": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "HFDL": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    "FFDR": ((0, -1, 0), (-1, 0, 0), (0, 0, -1)),
    "FFDL": ((0, 1, 0), (1, 0, 0), (0, 0, -1)),
}
PATIENT_POSITIONS: Final = tuple(_PATIENT_AXES)


def patient_axes(position: str) -> Array:
    """Return the 3x3 rotation from the scanner frame to the patient's (LPS).

    Raises
    ------
    GeometryError
        The position is none of DICOM's.
    """
    if position not in _PATIENT_AXES:
        raise GeometryError(
            f"Patient Position {position or '(missing)'} is none of {', '.join(PATIENT_POSITIONS)}, so left and right"
            " of the patient are unknown",
            remedy="State how the patient lay, by --arg recon=--patient-position=HFS for example",
        )
    return np.array(_PATIENT_AXES[position], dtype=float)


class Beam(StrEnum):
    """How the rays run."""

    PARALLEL = "parallel"  # rays side by side: synchrotrons
    FAN = "fan"  # from a point, in one plane: a single detector row
    CONE = "cone"  # from a point, onto many rows


class DetectorShape(StrEnum):
    """How the detector is bent."""

    FLAT = "flat"
    ARC = "arc"  # a cylinder about the focal spot, whose axis is parallel to the axis of rotation


@dataclass(frozen=True, kw_only=True)
class Detector:
    """The elements that measure.

    The central ray runs from the source through the isocentre, perpendicular to the axis of rotation. Where the centre
    of the detector is not on it, the detector is offset.
    """

    rows: int
    columns: int
    row_spacing: float  # mm from row to row, at the detector
    column_spacing: float  # mm from column to column, at the detector; along the arc of a curved one
    central_row: float  # index from 0, with fractions, that the central ray meets
    central_column: float  # likewise; in a parallel beam it is the rotation centre
    shape: DetectorShape = DetectorShape.FLAT

    @property
    def is_offset(self) -> bool:
        """Say whether one side of the axis is seen markedly further than the other."""
        near, far = sorted((self.central_column, self.columns - 1 - self.central_column))
        return far > _OFFSET * near

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1 or not self.row_spacing > 0 or not self.column_spacing > 0:
            raise GeometryError(
                f"a detector of {self.rows} rows of {self.row_spacing} mm and {self.columns} columns of"
                f" {self.column_spacing} mm is none"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class FocalSpot:
    """Where a flying focal spot is, view by view, beside the focal centre that the detector is built around."""

    angle: Array  # (views,) radians
    axial: Array  # (views,) mm
    radial: Array  # (views,) mm, away from the axis


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanGeometry:
    """The path of source and detector.

    Raises
    ------
    GeometryError
        A parameter is missing, not finite, or impossible: all that are, are named at once.
    """

    beam: Beam
    detector: Detector
    angles: Array  # (views,) radians, counter-clockwise about +z, from above the patient; in the order of acquisition
    axial: Array  # (views,) mm along z of the focal centre (or of the central row, in a parallel beam)
    source_to_isocenter: float = 0.0  # mm; 0 in a parallel beam
    source_to_detector: float = 0.0  # mm; 0 in a parallel beam
    focal_spot: FocalSpot | None = field(default=None)  # None: it does not fly

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise GeometryError("the scan's geometry cannot be used: " + "; ".join(faults))

    def _faults(self) -> list[str]:
        faults = []
        if self.angles.ndim != 1 or not self.views:
            faults.append("no view has an angle")
        if self.axial.shape != self.angles.shape:
            faults.append(f"there are {self.axial.size} axial positions for {self.angles.size} angles")
        faults += [
            f"{name} are not all finite numbers"
            for name, values in (("angles", self.angles), ("axial positions", self.axial))
            if not np.isfinite(values).all()
        ]
        if not -0.5 <= self.detector.central_column <= self.detector.columns - 0.5:
            faults.append(
                f"central_column {self.detector.central_column:g} is none of {self.detector.columns}: the axis of"
                " rotation is not seen"
            )
        if self.beam is Beam.FAN and self.detector.rows != 1:
            faults.append(f"a fan beam has one detector row, not {self.detector.rows}")
        if self.beam is Beam.PARALLEL and self.detector.shape is not DetectorShape.FLAT:
            faults.append("a parallel beam has a flat detector")
        if self.beam is not Beam.PARALLEL:
            if not self.source_to_isocenter > 0:
                faults.append("source_to_isocenter is missing")
            if not self.source_to_detector > 0:
                faults.append("source_to_detector is missing")
            elif self.source_to_detector <= self.source_to_isocenter:
                faults.append(
                    f"source_to_detector, {self.source_to_detector:g} mm, is not more than source_to_isocenter,"
                    f" {self.source_to_isocenter:g} mm"
                )
        return faults

    @property
    def views(self) -> int:
        """Number of views."""
        return int(self.angles.size)

    @property
    def is_helical(self) -> bool:
        """Say whether the table moves."""
        return float(np.ptp(self.axial)) > CIRCULAR_MM

    @property
    def magnification(self) -> float:
        """Source-to-detector over source-to-isocentre; 1 in a parallel beam."""
        return 1.0 if self.beam is Beam.PARALLEL else self.source_to_detector / self.source_to_isocenter

    @property
    def span(self) -> float:
        """Radians from the first view to the last, one step included: a full scan has 2 pi."""
        if self.views < 2:
            return 0.0
        return float(np.ptp(self.angles)) * self.views / (self.views - 1)

    @property
    def feed_per_rotation(self) -> float:
        """Table feed in mm for each rotation, positive along z; 0 on a circle."""
        if not self.is_helical or not np.ptp(self.angles):
            return 0.0
        slope = np.polyfit(self.angles, self.axial, 1)[0]
        return float(slope * np.sign(self.angles[-1] - self.angles[0]) * 2 * math.pi)

    @property
    def pitch(self) -> float:
        """Table feed for each rotation over the beam's width at the isocentre (IEC 60601-2-44)."""
        width = self.detector.rows * self.detector.row_spacing / self.magnification
        return abs(self.feed_per_rotation) / width

    @property
    def fan_angles(self) -> tuple[float, float]:
        """Radians between the central ray and the centres of the first and the last column; 0, 0 if parallel."""
        if self.beam is Beam.PARALLEL:
            return 0.0, 0.0
        first, last = self._edges
        if self.detector.shape is DetectorShape.ARC:
            return first / self.source_to_detector, last / self.source_to_detector
        return math.atan(first / self.source_to_detector), math.atan(last / self.source_to_detector)

    @property
    def _edges(self) -> tuple[float, float]:
        """Mm at the detector from the central ray to the centres of the first and the last column."""
        detector = self.detector
        return (
            -detector.central_column * detector.column_spacing,
            (detector.columns - 1 - detector.central_column) * detector.column_spacing,
        )

    @property
    def field_of_view(self) -> float:
        """Diameter in mm of the circle about the isocentre that every view sees whole.

        With a detector that is offset, and a full rotation, it is the circle that either side of the axis is seen of.
        """
        if self.beam is Beam.PARALLEL:
            reach = [abs(edge) for edge in self._edges]
        else:
            reach = [self.source_to_isocenter * math.sin(abs(angle)) for angle in self.fan_angles]
        return 2 * (max(reach) if self.offset_side else min(reach))

    @property
    def is_full_turn(self) -> bool:
        """Say whether the source goes all the way round, but for rounding."""
        return self.span > 2 * math.pi * 0.99

    @property
    def offset_side(self) -> Literal["first", "last"] | None:
        """The end of the detector that sees further, if on a full circle it is to see for the other, too; else None."""
        detector = self.detector
        if self.is_helical or not self.is_full_turn or not detector.is_offset:
            return None
        return "first" if detector.central_column > (detector.columns - 1) / 2 else "last"

    @property
    def is_closed(self) -> bool:
        """Say whether views stand all around the circle, without a gap of more than 20 degrees."""
        places = np.sort(np.mod(self.angles, 2 * math.pi))
        return float(np.diff(places, append=places[0] + 2 * math.pi).max()) < OPEN_GAP
