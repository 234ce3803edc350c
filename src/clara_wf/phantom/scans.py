"""The scans that a phantom is projected by: every kind of beam, each so that nothing of the phantom is cut off."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.phantom.patient import EVERYDAY
from clara_wf.reconstruction.geometry import Beam, Detector, DetectorShape, ScanGeometry

#: The circle in the plane, about the isocentre, that holds body, beads and table.
RADIUS_MM: Final = 234.0
#: A slice of the everyday grid through the middle of the liver.
LIVER_Z: Final = 9.0
#: How far the rotation centre of the parallel scan is from the middle of the detector, in columns.
PARALLEL_OFFSET: Final = 3.3

# Where body, beads and table are in the plane: first and last x and y in mm.
_WIDTH, _DEPTH = (-209.0, 209.0), (-147.0, 153.0)
_COLUMN = 1.5  # mm at the isocentre: the everyday voxel


def helical(views: int | None = None, *, seen: tuple[float, float] | None = None) -> ScanGeometry:
    """Return a helix of pitch 0.9 about an arc of 24 rows of 2 mm, offset by a quarter of a column.

    Parameters
    ----------
    views
        Of each turn; 360 if None.
    seen
        First and last z in mm of what can be reconstructed; all slices of the everyday grid if None.
    """
    views = views or 360
    first, last = seen or (EVERYDAY.origin[2], EVERYDAY.origin[2] + (EVERYDAY.shape[0] - 1) * EVERYDAY.spacing[0])
    source, distance, width, rows = 595.0, 1085.0, 48.0, 24
    feed = 0.9 * width
    # A slice is made of half a turn on both sides of it, and of what half the beam sees beyond.
    count = math.ceil((last - first + feed + width) / feed * views) + 1
    index = np.arange(count, dtype=np.float64)
    half = source * math.asin(RADIUS_MM / source) / _COLUMN
    columns = 2 * math.ceil(half + 1)
    return ScanGeometry(
        beam=Beam.CONE,
        detector=Detector(
            rows=rows,
            columns=columns,
            row_spacing=width / rows * distance / source,
            column_spacing=_COLUMN * distance / source,
            central_row=(rows - 1) / 2,
            central_column=(columns - 1) / 2 + 0.25,
            shape=DetectorShape.ARC,
        ),
        angles=index * (2 * math.pi / views),
        axial=(first + last) / 2 + (index - (count - 1) / 2) * (feed / views),
        source_to_isocenter=source,
        source_to_detector=distance,
    )


def cone(views: int | None = None) -> ScanGeometry:
    """Return a circle before a flat panel that sees the whole liver from everywhere; 240 views if None."""
    views = views or 240
    source, distance, row, rows = 1000.0, 1536.0, 2.0, 128
    columns = 2 * math.ceil(source * math.tan(math.asin(RADIUS_MM / source)) / _COLUMN + 1)
    return ScanGeometry(
        beam=Beam.CONE,
        detector=Detector(
            rows=rows,
            columns=columns,
            row_spacing=row * distance / source,
            column_spacing=_COLUMN * distance / source,
            central_row=(rows - 1) / 2,
            central_column=(columns - 1) / 2,
        ),
        angles=np.arange(views, dtype=np.float64) * (2 * math.pi / views),
        axial=np.full(views, 1.5),
        source_to_isocenter=source,
        source_to_detector=distance,
    )


def fan(views: int | None = None, *, short: bool = False, shape: DetectorShape = DetectorShape.ARC) -> ScanGeometry:
    """Return one slice through the liver.

    Parameters
    ----------
    views
        Of a full turn; 720 if None.
    short
        Half a turn and the angle of the fan instead of a full turn.
    shape
        Of the detector.
    """
    views = views or 720
    source, distance = 595.0, 1085.0
    angle = math.asin(RADIUS_MM / source)
    half = source * (angle if shape is DetectorShape.ARC else math.tan(angle)) / _COLUMN
    columns = 2 * math.ceil(half + 1)
    count = math.ceil((0.5 + 2 * angle / (2 * math.pi)) * views) + 2 if short else views
    return ScanGeometry(
        beam=Beam.FAN,
        detector=Detector(
            rows=1,
            columns=columns,
            row_spacing=EVERYDAY.spacing[0] * distance / source,
            column_spacing=_COLUMN * distance / source,
            central_row=0.0,
            central_column=(columns - 1) / 2 + (0.0 if short else 0.25),
            shape=shape,
        ),
        angles=np.arange(count, dtype=np.float64) * (2 * math.pi / views),
        axial=np.full(count, LIVER_Z),
        source_to_isocenter=source,
        source_to_detector=distance,
    )


def fan_short(views: int | None = None) -> ScanGeometry:
    """Return `fan` without the part of the turn that sees the same rays again."""
    return fan(views, short=True)


def parallel(views: int | None = None) -> ScanGeometry:
    """Return half a turn of a parallel beam, eight slices of the liver high; 480 views if None."""
    views = views or 480
    columns = 2 * math.ceil(RADIUS_MM / _COLUMN + PARALLEL_OFFSET + 1)
    return ScanGeometry(
        beam=Beam.PARALLEL,
        detector=Detector(
            rows=8,
            columns=columns,
            row_spacing=EVERYDAY.spacing[0],
            column_spacing=_COLUMN,
            central_row=4.0,
            central_column=(columns - 1) / 2 + PARALLEL_OFFSET,
        ),
        angles=np.arange(views, dtype=np.float64) * (math.pi / views),
        axial=np.full(views, LIVER_Z),
    )


#: By name: makes the scan of so many views (of a turn, in a helix and a fan).
SCANS: Final[Mapping[str, Callable[[int | None], ScanGeometry]]] = {
    "helical": helical,
    "cone": cone,
    "fan": fan,
    "fan-short": fan_short,
    "parallel": parallel,
}


def seen_grid(geometry: ScanGeometry, spacing: tuple[float, float, float]) -> VolumeGeometry:
    """Return the grid, along the scanner's axes, that holds all of a phantom that a scan sees.

    Parameters
    ----------
    geometry
        The scan.
    spacing
        Slice, row and column, mm. Slices and pixels lie where the everyday grid would have them.
    """
    detector = geometry.detector
    heights = np.array((-0.5 - detector.central_row, detector.rows - 0.5 - detector.central_row)) * detector.row_spacing
    if geometry.beam is not Beam.PARALLEL:
        heights = heights * ((geometry.source_to_isocenter + RADIUS_MM) / geometry.source_to_detector)
    low, high = float(geometry.axial.min() + heights[0]), float(geometry.axial.max() + heights[1])
    limits = ((low - spacing[0], high + spacing[0]), _DEPTH, _WIDTH)
    pairs = list(zip(limits, reversed(EVERYDAY.origin), spacing, strict=True))
    first = [math.floor((limit[0] - origin) / step) for limit, origin, step in pairs]
    stop = [math.ceil((limit[1] - origin) / step) + 1 for limit, origin, step in pairs]
    one = VolumeGeometry(shape=(1, 1, 1), spacing=spacing, origin=EVERYDAY.origin)
    return one.cropped((first[0], first[1], first[2]), (stop[0], stop[1], stop[2]))
