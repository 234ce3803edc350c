"""Helical scans as parallel sinograms of tilted slices: advanced single-slice rebinning.

Half a turn of a helix nearly lies in a plane: through the source in its middle, and tilted about the line from there to
the axis. So a slice is reconstructed along such a plane from half a turn of views, as if they all lay in it: for every
ray of the plane the measured one is taken that is in the same vertical plane, and meets the tilted one in the middle of
the chord. The fan is resorted to parallel rays in the same interpolation. Upright slices are then interpolated between
tilted ones.

A fan's ray at the source angle b and the fan angle g is the parallel ray at the angle ``b - g``, at ``R sin g`` mm from
the axis; and a parallel ray (t, s) is the same as (t + pi, -s).

Sources: M. Kachelriess, S. Schaller, W. A. Kalender, Med. Phys. 27 (2000) 754 (tilted slices); F. Noo, M. Defrise, R.
Clackdoyle, Phys. Med. Biol. 44 (1999) 561 (single-slice rebinning); K. Stierstorfer et al., Phys. Med. Biol. 49 (2004)
2209 (parallel rebinning, flying focal spots).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clara_wf.model.errors import GeometryError
from clara_wf.reconstruction.geometry import Array, Beam, Detector, DetectorShape, ScanGeometry
from clara_wf.reconstruction.grid import Grid
from clara_wf.reconstruction.rtk import Floats

#: How far the tilted plane rises to meet the helix, against the helix itself in its middle. At this number the largest
#: distances between the two are alike, a quarter and half a turn's end from there: 3 % of the table feed.
_TILT: Final = 1.38
#: Radians beyond a quarter turn on either side over which a view gives way to the opposite one.
_OVERLAP: Final = math.radians(15)
#: A table may be this part of its feed from an even movement.
_EVEN: Final = 0.05
#: Tilted slices for each upright one.
_TILTED_PER_SLICE: Final = 2
#: A ray may pass this many rows beside the centres of the outermost: half a row is still measured.
_BESIDE: Final = 0.5
#: Rays at which a slice's coverage is looked at: it changes slowly.
_COVERAGE_ANGLES, _COVERAGE_PLACES = 24, 9


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampling:
    """The parallel rays that every slice is rebinned to."""

    angles: Array  # (views,) radians, half a turn
    places: Array  # (columns,) mm from the axis

    @property
    def spacing(self) -> float:
        """Mm from ray to ray."""
        return float(self.places[1] - self.places[0])

    def geometry(self, slices: int) -> ScanGeometry:
        """Return slices' sinograms as a parallel scan, whose rows are the slices, 1 mm apart."""
        detector = Detector(
            rows=slices,
            columns=self.places.size,
            row_spacing=1.0,
            column_spacing=self.spacing,
            central_row=0.0,
            central_column=-float(self.places[0]) / self.spacing,
        )
        return ScanGeometry(beam=Beam.PARALLEL, detector=detector, angles=self.angles, axial=np.zeros(self.angles.size))


def choose_sampling(geometry: ScanGeometry, field_of_view: float) -> Sampling:
    """Choose rays as close as columns at the isocentre, and angles as close as views.

    Rays beyond the field of view are kept as far as the detector sees them: the ramp filter needs all of an object.
    """
    spacing = geometry.detector.column_spacing / geometry.magnification
    seen = geometry.source_to_isocenter * math.sin(min(abs(angle) for angle in geometry.fan_angles))
    count = math.floor(max(field_of_view / 2, seen) / spacing)
    step = abs(float(np.median(np.diff(geometry.angles)))) * len(_phases(geometry))
    angles = max(4, round(math.pi / step))
    return Sampling(
        angles=np.arange(angles, dtype=np.float64) * (math.pi / angles),
        places=np.arange(-count, count + 1, dtype=np.float64) * spacing,
    )


class Rebinning:
    """Rebins a helical scan, block by block of slices.

    Raises
    ------
    GeometryError
        Table and source do not move evenly, or the scan is too short or too fast for any slice.
    """

    def __init__(self, geometry: ScanGeometry, sampling: Sampling, field_of_view: float) -> None:
        off = np.abs(geometry.axial - np.polyval(np.polyfit(geometry.angles, geometry.axial, 1), geometry.angles)).max()
        if off > _EVEN * abs(geometry.feed_per_rotation):
            raise GeometryError(
                f"table and source do not move evenly: the table is up to {off:.4g} mm from where a helix of"
                f" {abs(geometry.feed_per_rotation):.4g} mm for each rotation would have it"
            )
        self.geometry = geometry
        self.sampling = sampling
        self._phases = _phases(geometry)
        # The corners of the matrix, as far as the scan sees them.
        self._radius = min(field_of_view / math.sqrt(2), geometry.field_of_view / 2)
        # Radians of the source's angle for each mm of the table.
        self._turn = float(np.polyfit(geometry.axial, geometry.angles, 1)[0])
        self.slope = _TILT / (self._turn * geometry.source_to_isocenter)
        fan = max(abs(angle) for angle in geometry.fan_angles)
        #: Mm along z from a slice to the last view that it needs.
        self.reach = (math.pi / 2 + _OVERLAP + fan) / abs(self._turn)
        self.extent = self._extent(fan)

    @property
    def rise(self) -> float:
        """Mm by which a tilted slice leaves the upright one at the edge of the field of view."""
        return abs(self.slope) * self._radius

    def _extent(self, fan: float) -> tuple[float, float]:
        """Return from where to where along z, in mm, upright slices have all their rays."""
        geometry = self.geometry
        needed = (math.pi / 2 + fan) / abs(self._turn)
        low, high = float(geometry.axial.min()) + needed, float(geometry.axial.max()) - needed
        if low + self.rise <= high - self.rise:
            step = 1 / abs(self._turn)
            slices = np.unique(np.clip(np.arange(low, high + step, step), low, high))
            places = np.linspace(self.sampling.places[0], self.sampling.places[-1], _COVERAGE_PLACES)
            covered = np.ones(slices.size, dtype=bool)
            for angle in np.linspace(0, math.pi, _COVERAGE_ANGLES, endpoint=False):
                weights = np.zeros((slices.size, places.size))
                for rays in self._rays(float(angle), places, slices, 0, geometry.views):
                    weights[rays.first : rays.last] += rays.weight
                covered &= (weights > 0).all(axis=1)
            if covered.all():
                return low + self.rise, high - self.rise
        raise GeometryError(
            "no slice of the helical scan has all its rays: the table moves"
            f" {abs(geometry.feed_per_rotation):.4g} mm for each rotation, at a pitch of {geometry.pitch:.2f}, for"
            f" {geometry.span / (2 * math.pi):.2f} rotations"
        )

    def tilted(self, grid: Grid) -> Array:
        """Return where, in mm along z, the tilted slices are (in their middle) that a grid's slices need."""
        step = grid.thickness / _TILTED_PER_SLICE
        beyond = math.ceil((self.rise + grid.thickness) / step)
        count = (grid.slices - 1) * _TILTED_PER_SLICE + 1
        positions = grid.first + step * np.arange(-beyond, count + beyond, dtype=np.float64)
        margin = self.rise + 1e-6
        low, high = self.extent[0] - margin, self.extent[1] + margin
        return positions[(positions >= low) & (positions <= high)]

    def views(self, low: float, high: float) -> tuple[int, int]:
        """Return which views are needed for tilted slices from `low` to `high` mm: the first, and one past the last."""
        axial = self.geometry.axial
        margin = self.reach + 2 * abs(float(np.median(np.diff(axial)))) * len(self._phases)
        near = np.flatnonzero((axial >= low - margin) & (axial <= high + margin))
        return int(near[0]), int(near[-1]) + 1

    def rebin(self, views: Floats, first_view: int, slices: Array) -> Iterator[tuple[int, Floats]]:
        """Yield for each angle of the sampling its index and the rays of all tilted slices, [slice, place].

        Parameters
        ----------
        views : ndarray
            Line integrals [view, row, column] of the views that `views` names.
        first_view : int
            The first of them.
        slices : ndarray
            Positions in mm along z, of the slices' middles.
        """
        places = self.sampling.places
        for index, angle in enumerate(self.sampling.angles):
            total = np.zeros((slices.size, places.size), np.float32)
            weights = np.zeros_like(total)
            for rays in self._rays(float(angle), places, slices, first_view, first_view + len(views)):
                part = slice(rays.first, rays.last)
                total[part] += rays.weight * rays.look_up(views, first_view)
                weights[part] += rays.weight
            np.maximum(weights, np.finfo(np.float32).tiny, out=weights)
            yield index, np.divide(total, weights, out=total)

    def straighten(self, tilted: Floats, positions: Array, grid: Grid) -> Iterator[Floats]:
        """Yield a grid's slices [row, column], interpolated along z between tilted ones [slice, row, column].

        Each is a mean over the slice's thickness to either side, the nearer the heavier.
        """
        place = (grid.edge + np.arange(grid.matrix) * grid.pixel).astype(np.float32)
        angles = self._angles(positions)
        reach = self.rise + grid.thickness
        for middle in grid.positions:
            total = np.zeros((grid.matrix, grid.matrix), np.float32)
            weights = np.full_like(total, np.finfo(np.float32).tiny)
            for index in np.flatnonzero(np.abs(positions - middle) < reach):
                across = np.float32(self.slope * math.cos(angles[index])) * place
                along = np.float32(self.slope * math.sin(angles[index])) * place
                distance = np.float32(positions[index] - middle) + along[:, None] + across[None, :]
                weight = np.maximum(1 - np.abs(distance) / np.float32(grid.thickness), 0)
                total += weight * tilted[index]
                weights += weight
            yield total / weights

    def _angles(self, slices: Array) -> Array:
        """Return the source's angle in the middle of each slice's half turn."""
        axial, angles = self.geometry.axial, self.geometry.angles
        order = 1 if axial[-1] > axial[0] else -1
        return np.interp(slices, axial[::order], angles[::order])

    def _rays(self, angle: float, places: Array, slices: Array, start: int, stop: int) -> Iterator[_Rays]:
        """Yield the measured rays of tilted slices at an angle, direct and opposite ones."""
        middles = self._angles(slices)
        for phase in self._phases:
            views = phase.indices[(phase.indices >= start) & (phase.indices < stop)]
            if views.size < 2:
                continue
            limit = math.pi / 2 + _OVERLAP
            first = math.ceil((float(middles.min()) - limit - angle) / math.pi)
            last = math.floor((float(middles.max()) + limit - angle) / math.pi)
            for half_turn in range(first, last + 1):
                # The same rays, as the source sees them from the other side.
                turned = angle + half_turn * math.pi
                near = np.flatnonzero(np.abs(turned - middles) < limit)
                if near.size:
                    part = slice(int(near[0]), int(near[-1]) + 1)
                    sign = -1 if half_turn % 2 else 1
                    yield self._half_turn(phase, views, turned, sign * places, slices, middles, part)

    def _half_turn(  # noqa: PLR0917 - private, and each is another type
        self,
        phase: _Phase,
        views: NDArray[np.intp],
        angle: float,
        places: Array,
        slices: Array,
        middles: Array,
        part: slice,
    ) -> _Rays:
        """Find the measured rays of some slices at an angle of one half turn."""
        geometry, detector = self.geometry, self.geometry.detector
        source = geometry.source_to_isocenter + phase.radial
        gamma = np.arcsin(places / source)
        wanted = angle + gamma - phase.angle  # of the focal centre, around which the detector is built
        ascending = 1 if geometry.angles[views[-1]] > geometry.angles[views[0]] else -1
        known = geometry.angles[views][::ascending]
        inside = (wanted >= known[0]) & (wanted <= known[-1])
        order = np.interp(wanted, known, np.arange(views.size, dtype=float))
        if ascending < 0:
            order = views.size - 1 - order
        before = np.minimum(order.astype(np.intp), views.size - 2)
        share = order - before
        centre = geometry.axial[views[before]] * (1 - share) + geometry.axial[views[before + 1]] * share
        spot = centre + phase.axial
        off = angle - middles[part]
        column, length = _on_detector(geometry, source, gamma, phase.angle)
        # Of the tilted plane in the middle of the chord, above the focal spot.
        height = slices[part, None] + self.slope * np.cos(off)[:, None] * places - spot
        middle = source * np.cos(gamma)  # mm in the plane from the focal spot to the middle of the chord
        row = detector.central_row + (spot - centre + height * (length / middle)) / detector.row_spacing
        fading = np.clip((math.pi / 2 + _OVERLAP - np.abs(off)) / (2 * _OVERLAP), 0, 1)
        weight = np.sin(fading * math.pi / 2)[:, None] ** 2 * (
            inside & (column >= 0) & (column <= detector.columns - 1)
        )
        weight = weight * ((row >= -_BESIDE) & (row <= detector.rows - 1 + _BESIDE))
        return _Rays(
            first=part.start,
            last=part.stop,
            weight=weight.astype(np.float32),
            before=views[before],
            after=views[before + 1],
            share=share.astype(np.float32),
            row=np.clip(row, 0, detector.rows - 1),
            column=np.clip(column, 0, detector.columns - 1),
            # Seen from above, a chord is shorter than the slanted ray along it.
            shortening=(1 / np.sqrt(1 + (height / middle) ** 2)).astype(np.float32),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rays:
    """The measured rays, one for each place and slice of a range."""

    first: int  # of the slices
    last: int  # the one after the last
    weight: Floats  # [slice, place]
    before: NDArray[np.intp]  # (places,) the view before
    after: NDArray[np.intp]  # (places,) the view after
    share: Floats  # (places,) how far between them
    row: Array  # [slice, place] index, with fractions
    column: Array  # (places,) likewise
    shortening: Floats  # [slice, place]

    def look_up(self, views: Floats, first_view: int) -> Floats:
        """Interpolate linearly between views, columns and rows; return [slice, place]."""
        left = np.minimum(self.column.astype(np.intp), max(views.shape[2] - 2, 0))
        right = np.minimum(left + 1, views.shape[2] - 1)
        along = (self.column - left).astype(np.float32)[:, None]
        share = self.share[:, None]
        before, after = self.before - first_view, self.after - first_view
        rows = (1 - share) * ((1 - along) * views[before, :, left] + along * views[before, :, right]) + share * (
            (1 - along) * views[after, :, left] + along * views[after, :, right]
        )
        lower = np.minimum(self.row.astype(np.intp), max(rows.shape[1] - 2, 0))
        upper = np.minimum(lower + 1, rows.shape[1] - 1)
        above = (self.row - lower).astype(np.float32)
        place = np.arange(rows.shape[0])
        found = (1 - above) * rows[place, lower] + above * rows[place, upper]
        return np.asarray(found * self.shortening, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Phase:
    """The views in which a flying focal spot is at the same place: a scan of their own."""

    indices: NDArray[np.intp]
    angle: float = 0.0  # radians from the focal centre
    axial: float = 0.0  # mm
    radial: float = 0.0  # mm


def _phases(geometry: ScanGeometry) -> list[_Phase]:
    spot = geometry.focal_spot
    if spot is None:
        return [_Phase(indices=np.arange(geometry.views))]
    places = np.stack([spot.angle, spot.axial, spot.radial], axis=1)
    # Scanners write the places of a phase with single precision.
    kinds, which = np.unique(np.round(places, 5), axis=0, return_inverse=True)
    return [
        _Phase(
            indices=np.flatnonzero(which.ravel() == kind),
            angle=float(place[0]),
            axial=float(place[1]),
            radial=float(place[2]),
        )
        for kind, place in enumerate(kinds)
    ]


def _on_detector(geometry: ScanGeometry, source: float, gamma: Array, shift: float) -> tuple[Array, Array]:
    """Return the column that each ray of a (shifted) focal spot meets, and how far away in the plane it does, in mm.

    The detector is built around the focal centre; the spot is at `source` mm from the axis, `shift` radians further.
    """
    detector = geometry.detector
    near, far = geometry.source_to_isocenter, geometry.source_to_detector
    place = source * np.sin(gamma)  # of the ray, mm from the axis
    turn = gamma - shift  # from the ray's angle to the focal centre's
    if detector.shape is DetectorShape.ARC:
        beside = place - near * np.sin(turn)  # of the ray, mm from the focal centre
        angle = turn + np.arcsin(beside / far)
        along = angle * far
        length = far * np.cos(angle - turn) - near * np.cos(turn) + source * np.cos(gamma)
    else:
        along = (place - (near - far) * np.sin(turn)) / np.cos(turn)
        length = far * np.cos(turn) + along * np.sin(turn) - near * np.cos(turn) + source * np.cos(gamma)
    return detector.central_column + along / detector.column_spacing, length
