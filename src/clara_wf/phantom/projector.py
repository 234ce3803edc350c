"""Line integrals through a phantom: a projector of our own, so that no reconstruction is tested by its own inverse.

A ray is sampled at even steps from the source to its detector element, linearly between voxels. As the rows of every
detector of ours stand along the axis of rotation, all rows of a column are sampled above the same places of the plane.
So the sampling falls apart into two sparse matrices: one in the plane for each angle, which the turns of a helix share,
and one along z for each view.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse

from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import GeometryError
from clara_wf.phantom.shapes import FloatArray
from clara_wf.reconstruction.geometry import Array, Beam, DetectorShape, ScanGeometry

#: Linear attenuation coefficient of water in 1/mm, at about 70 keV.
WATER_ATTENUATION: Final = 0.0192

_SUB_RAYS: Final = 2  # across the width of an element; their transmissions are averaged
_TOGETHER: Final = 10  # slices that are sampled at once: what fits the processor's cache
_SAME_PLACE: Final = 9  # decimals of an angle up to which two views look the same way


def attenuation(image: Volume) -> Volume:
    """Turn densities in HU into linear attenuation coefficients in 1/mm; nothing is below that of a vacuum."""
    values = np.asarray(image.array, dtype=np.float32) * np.float32(WATER_ATTENUATION / 1000)
    values += np.float32(WATER_ATTENUATION)
    return Volume(geometry=image.geometry, array=np.maximum(values, 0, out=values))


def project(body: Volume, geometry: ScanGeometry) -> Iterator[tuple[int, FloatArray]]:
    """Yield each view's index and its line integrals, [row, column], in an order that suits the work.

    Parameters
    ----------
    body
        Attenuation in 1/mm on a grid along the scanner's axes; around it is nothing.
    geometry
        Where source and detector are.

    Raises
    ------
    GeometryError
        The grid is oblique or flipped.
    """
    if not np.array_equal(body.geometry.axes, np.eye(3)[::-1]):
        raise GeometryError("the phantom to project does not lie along the scanner's axes")
    projector = _Projector(body, geometry)
    workers = os.cpu_count() or 1
    waiting: deque[Future[list[tuple[int, FloatArray]]]] = deque()
    # SciPy releases the interpreter's lock in a sparse product, so threads are enough.
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            for views in _views_by_plane(geometry):
                waiting.append(pool.submit(projector.project, views))
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _views_by_plane(geometry: ScanGeometry) -> list[npt.NDArray[np.intp]]:
    """Return the views in groups whose rays differ along z alone."""
    spot = geometry.focal_spot
    place = [np.cos(geometry.angles), np.sin(geometry.angles)]
    if spot is not None:
        place += [spot.angle, spot.radial]
    _, group = np.unique(np.round(np.stack(place, axis=1), _SAME_PLACE) + 0.0, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return sorted(groups, key=lambda views: int(views[0]))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fan:
    """The rays of a view, seen along the axis of rotation."""

    source: Array  # (columns or 1, 2), mm
    element: Array  # (columns, 2), mm; sub-rays are columns of their own

    @property
    def lengths(self) -> Array:
        """Mm from the source to the elements."""
        return np.asarray(np.linalg.norm(self.element - self.source, axis=1))


class _Projector:
    """Projects one body by one scan."""

    def __init__(self, body: Volume, geometry: ScanGeometry) -> None:
        self._scan = geometry
        self._spacing = body.geometry.spacing
        x, y, z = body.geometry.origin
        # A margin of nothing on all sides lets the outermost voxels fade out, as those inside do.
        self._origin = (z - self._spacing[0], y - self._spacing[1], x - self._spacing[2])
        array = np.pad(np.asarray(body.array, dtype=np.float32), 1)
        self._slices, *self._plane = array.shape
        flat = array.reshape(self._slices, -1)
        self._blocks = [
            np.ascontiguousarray(flat[first : first + _TOGETHER].T) for first in range(0, self._slices, _TOGETHER)
        ]
        filled = np.asarray(array.any(axis=0), dtype=np.bool_)
        self._cells = filled[:-1, :-1] | filled[1:, :-1] | filled[:-1, 1:] | filled[1:, 1:]
        self._shares, self._step = self._steps(filled)
        detector = geometry.detector
        self._heights = (np.arange(detector.rows) - detector.central_row) * detector.row_spacing
        self._memory = threading.local()

    def _steps(self, filled: npt.NDArray[np.bool_]) -> tuple[Array, float]:
        """Return the shares of the way from source to detector at which rays are sampled, and the step between."""
        scan = self._scan
        rows, columns = np.nonzero(filled)
        _, y, x = self._origin
        distances = np.hypot(y + rows * self._spacing[1], x + columns * self._spacing[2])
        self._radius = float(distances.max(initial=0.0)) + 2 * max(self._spacing[1:])
        if scan.beam is Beam.PARALLEL:
            low, high, length = 0.0, 1.0, 2 * self._radius
        else:
            length = scan.source_to_detector
            spot = scan.focal_spot
            flight = 0.0 if spot is None else float(np.abs(spot.radial).max() + np.abs(spot.angle).max() * length)
            low = max((scan.source_to_isocenter - self._radius - flight) / length, 0.0)
            high = min((scan.source_to_isocenter + self._radius + flight) / length, 1.0)
        count = int(np.ceil((high - low) * length / min(self._spacing[1:])))
        step = (high - low) / count
        return low + (np.arange(count, dtype=np.float64) + 0.5) * step, step

    def project(self, views: npt.NDArray[np.intp]) -> list[tuple[int, FloatArray]]:
        """Project views whose rays differ along z alone."""
        fan = self._fan(int(views[0]))
        matrix, shares = self._plane_matrix(fan)
        heights = [self._ray_heights(int(view), shares) for view in views]
        first, samples = self._sampled(matrix, heights)
        return [
            (int(view), self._view(samples, crossed, first=first, lengths=self._lengths(fan, int(view))))
            for view, crossed in zip(views, heights, strict=True)
        ]

    def _fan(self, view: int) -> _Fan:
        """Return the rays of a view in the plane."""
        scan, detector = self._scan, self._scan.detector
        offsets = (np.arange(_SUB_RAYS) + 0.5) / _SUB_RAYS - 0.5
        columns = np.arange(detector.columns)[:, None] + offsets
        across = (columns.ravel() - detector.central_column) * detector.column_spacing
        angle = float(scan.angles[view])
        sideways = np.array((np.cos(angle), np.sin(angle)))
        forwards = np.array((-np.sin(angle), np.cos(angle)))
        if scan.beam is Beam.PARALLEL:
            middle = across[:, None] * sideways
            return _Fan(source=middle - self._radius * forwards, element=middle + self._radius * forwards)
        distance = scan.source_to_detector
        centre = -scan.source_to_isocenter * forwards
        if detector.shape is DetectorShape.ARC:
            turned = across[:, None] / distance
            element = centre + distance * (np.cos(turned) * forwards + np.sin(turned) * sideways)
        else:
            element = centre + distance * forwards + across[:, None] * sideways
        spot = scan.focal_spot
        if spot is not None:
            turned_by = angle + float(spot.angle[view])
            radius = scan.source_to_isocenter + float(spot.radial[view])
            centre = radius * np.array((np.sin(turned_by), -np.cos(turned_by)))
        return _Fan(source=centre[None], element=element)

    def _plane_matrix(self, fan: _Fan) -> tuple[scipy.sparse.csr_array, Array]:
        """Return what samples a slice, (step and column, voxel), and the shares of the way of its steps.

        Steps at which all rays run through air are left out.
        """
        rows, columns = self._plane
        y, x = (
            ((1 - share) * fan.source[:, axis] + share * fan.element[:, axis] - origin) / spacing
            for share in [self._shares[:, None]]
            for axis, origin, spacing in (
                (1, self._origin[1], self._spacing[1]),
                (0, self._origin[2], self._spacing[2]),
            )
        )
        row, column = np.floor(y).astype(np.int32), np.floor(x).astype(np.int32)
        hits = (row >= 0) & (row < rows - 1) & (column >= 0) & (column < columns - 1)
        hits[hits] = self._cells[row[hits], column[hits]]
        steps = np.flatnonzero(hits.any(axis=1))
        kept = slice(steps[0], steps[-1] + 1) if steps.size else slice(0, 1)
        hits, y, x, row, column = hits[kept], y[kept], x[kept], row[kept], column[kept]
        row, column = row[hits], column[hits]
        down, right = (y[hits] - row).astype(np.float32), (x[hits] - column).astype(np.float32)
        corners = np.array((0, 1, columns, columns + 1), dtype=np.int32)
        indices = (row * np.int32(columns) + column)[:, None] + corners
        weights = np.stack(((1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right), axis=1)
        starts = np.zeros(hits.size + 1, dtype=np.int32)
        np.cumsum(4 * hits.ravel(), out=starts[1:])
        matrix = scipy.sparse.csr_array((weights.ravel(), indices.ravel(), starts), shape=(hits.size, rows * columns))
        return matrix, self._shares[kept]

    def _ray_heights(self, view: int, shares: Array) -> Array:
        """Return where the rays of a view are along z, in slices, [row, step]."""
        scan = self._scan
        element = float(scan.axial[view]) + self._heights[:, None]
        source = element if scan.beam is Beam.PARALLEL else np.array(self._source_z(view))
        height: Array = (source + shares * (element - source) - self._origin[0]) / self._spacing[0]
        return height

    def _source_z(self, view: int) -> float:
        spot = self._scan.focal_spot
        return float(self._scan.axial[view]) + (0.0 if spot is None else float(spot.axial[view]))

    def _sampled(self, matrix: scipy.sparse.csr_array, heights: list[Array]) -> tuple[int, FloatArray]:
        """Sample the slices that rays run through; return the first one's index and the samples, [slice, ...]."""
        low = min(float(crossed.min()) for crossed in heights)
        high = max(float(crossed.max()) for crossed in heights)
        first = int(np.clip(low // _TOGETHER, 0, len(self._blocks) - 1))
        last = int(np.clip((high + 1) // _TOGETHER, first, len(self._blocks) - 1))
        blocks = self._blocks[first : last + 1]
        samples = self._workspace(sum(block.shape[1] for block in blocks), matrix.shape[0])
        for index, block in enumerate(blocks):
            samples[index * _TOGETHER : index * _TOGETHER + block.shape[1]] = (matrix @ block).T
        return first * _TOGETHER, samples

    def _workspace(self, slices: int, samples: int) -> FloatArray:
        """Return memory that a thread uses again: the system takes longer to find new pages than we to fill them."""
        size = slices * samples
        kept: FloatArray | None = getattr(self._memory, "samples", None)
        if kept is None or kept.size < size:
            kept = self._memory.samples = np.empty(size, dtype=np.float32)
        return kept[:size].reshape(slices, samples)

    def _lengths(self, fan: _Fan, view: int) -> FloatArray:
        """Return the mm that a step is long in each ray, [row, column]."""
        rise = self._heights[:, None] + float(self._scan.axial[view]) - self._source_z(view)
        if self._scan.beam is Beam.PARALLEL:
            rise = np.zeros_like(rise)
        return np.asarray(self._step * np.hypot(fan.lengths, rise), dtype=np.float32)

    @staticmethod
    def _view(samples: FloatArray, heights: Array, *, first: int, lengths: FloatArray) -> FloatArray:
        """Sum the samples up along the rays of one view."""
        rows, steps = heights.shape
        slices = samples.shape[0]
        heights = heights - first
        lower = np.floor(heights).astype(np.int32)
        upper = (heights - lower).astype(np.float32)
        upper[(lower < 0) | (lower > slices - 2)] = np.nan
        weights = np.nan_to_num(np.stack((1 - upper, upper), axis=2))
        indices = np.clip(lower, 0, max(slices - 2, 0)) * np.int32(steps) + np.arange(steps, dtype=np.int32)
        pairs = np.stack((indices, indices + np.int32(steps)), axis=2)
        matrix = scipy.sparse.csr_array(
            (weights.ravel(), pairs.ravel(), np.arange(rows + 1, dtype=np.int32) * np.int32(2 * steps)),
            shape=(rows, slices * steps),
        )
        integrals = matrix @ samples.reshape(slices * steps, -1) * lengths
        rays = integrals.reshape(rows, -1, _SUB_RAYS)
        return np.asarray(-np.log(np.mean(np.exp(-rays), axis=2)), dtype=np.float32)
