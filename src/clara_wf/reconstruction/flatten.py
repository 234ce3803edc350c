"""A curved detector as a flat one: what a flat detector in its place would have measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clara_wf.reconstruction.geometry import Detector, DetectorShape, ScanGeometry


@dataclass(frozen=True, kw_only=True, eq=False)
class Flattener:
    """Resamples views from an arc onto the plane that touches it where the central ray does.

    A ray at the fan angle g that meets the arc at the height v meets the plane at ``(D tan g, v / cos g)``.
    """

    flat: Detector  # what the views are resampled to
    columns: NDArray[np.float64]  # (flat columns,) the index of each on the arc
    stretch: NDArray[np.float64]  # (flat columns,) height on the arc over that on the plane
    central_row: float

    @staticmethod
    def of(geometry: ScanGeometry) -> Flattener:
        """Plan the resampling of a scan with a curved detector."""
        detector = geometry.detector
        distance = geometry.source_to_detector
        first, last = (distance * math.tan(angle) for angle in geometry.fan_angles)
        # As fine as the arc in its middle.
        spacing = detector.column_spacing
        below, above = math.floor(-first / spacing), math.floor(last / spacing)
        place = np.arange(-below, above + 1) * spacing
        angles = np.arctan2(place, distance)
        flat = replace(detector, shape=DetectorShape.FLAT, columns=place.size, central_column=float(below))
        return Flattener(
            flat=flat,
            columns=detector.central_column + angles * distance / spacing,
            stretch=np.cos(angles),
            central_row=detector.central_row,
        )

    def apply(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resample views [view, row, column] by cubic splines."""
        rows = np.arange(views.shape[1])
        if views.shape[1] == 1:
            # The plane's row at the middle height is the arc's.
            return np.asarray(
                np.stack([[_along(row, self.columns) for row in view] for view in views]), dtype=np.float32
            )
        height = self.central_row + (rows[:, None] - self.central_row) * self.stretch[None, :]
        place = np.stack([height, np.broadcast_to(self.columns, height.shape)])
        return np.stack([ndimage.map_coordinates(view, place, order=3, mode="nearest") for view in views])


def _along(row: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(ndimage.map_coordinates(row, places[None], order=3, mode="nearest"))
