"""What is wrong with the views and the rays of a scan: what would show as streaks, rings or false densities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clara_wf.model.errors import GeometryError, InputError
from clara_wf.reconstruction.geometry import Array, Beam, ScanGeometry

_REMEDY: Final = "Go on with the views as they are by --arg recon=--missing-projections=reweight"
#: A step of more than so many usual ones is a gap.
_GAP_STEPS: Final = 1.5
#: A step of less than this part of the usual one is none.
_SAME_STEPS: Final = 0.02
#: Axial positions closer than this are the same.
_SAME_MM: Final = 1e-3
#: A gap in a helix up to which its rays are interpolated, if views may be missing.
_BRIDGED: Final = math.radians(10)
#: With fewer views, filtered backprojection shows little but streaks.
_FEWEST_VIEWS: Final = 16
_ITERATIVE: Final = "Use the iterative method, by --arg recon=--method=iterative"
#: So many faults are named in words; the rest are counted.
_NAMED: Final = 3

#: The part of all rays that may be without a measurement and are mended.
MENDED_PART: Final = 1e-3
#: A line integral below this was measured with a detector that was overexposed, or with a wrong white field.
SATURATED: Final = -0.2
#: A ray with fewer photons says little, and its logarithm is biased; and the part of the rays that is worth a word.
_FEW_PHOTONS: Final = 10
_STARVED_PART: Final = 1e-3
#: Water that the outermost columns may see, and the part of the views that may see more.
_EDGE_WATER_MM: Final = 10.0
_EDGE_VIEWS: Final = 0.05
_EDGE_COLUMNS: Final = 3


def check_views(geometry: ScanGeometry, *, reweight: bool, iterative: bool = False) -> tuple[str, ...]:
    """Look for views that are missing or double, and for a scan that is too short.

    Parameters
    ----------
    geometry : ScanGeometry
        Of the scan.
    reweight : bool
        Gaps and double views are only told: the method weighs the views that there are.
    iterative : bool
        The method needs no whole half turn.

    Returns
    -------
    tuple of str
        What a user should know, a sentence each.

    Raises
    ------
    GeometryError
        Views are missing or double, or the scan is too short.
    """
    faults = [*_gaps(geometry), *_doubles(geometry)]
    if faults and not reweight:
        more = f"; and {len(faults) - _NAMED} more faults of this kind" if len(faults) > _NAMED else ""
        raise GeometryError("; ".join(faults[:_NAMED]) + more, remedy=_REMEDY)
    if geometry.is_helical and float(np.abs(np.diff(geometry.angles)).max()) > _BRIDGED:
        raise GeometryError(
            f"{next(_gaps(geometry))}: more of a helix than can be bridged, {math.degrees(_BRIDGED):g} degrees",
            remedy="Reconstruct what is before and what is behind it on their own",
        )
    if not iterative and geometry.views < _FEWEST_VIEWS:
        raise GeometryError(f"{geometry.views} views are too few to be filtered and backprojected", remedy=_ITERATIVE)
    if not iterative:
        _check_span(geometry)
    return tuple(faults)


def _order(geometry: ScanGeometry) -> NDArray[np.intp]:
    """Return the views as source and detector pass them: on a circle by angle, else in the order of acquisition."""
    if geometry.is_helical:
        return np.arange(geometry.views)
    return np.argsort(geometry.angles, kind="stable")


def _usual(steps: Array) -> float:
    moving = steps[steps > 1e-9]
    return float(np.median(moving)) if moving.size else 0.0


def _gaps(geometry: ScanGeometry) -> Iterator[str]:
    order = _order(geometry)
    angles = geometry.angles[order]
    steps = np.abs(np.diff(angles))
    usual = _usual(steps)
    for index in np.flatnonzero(steps > _GAP_STEPS * usual):
        before, after = order[index] + 1, order[index + 1] + 1
        missing = max(1, round(float(steps[index]) / usual) - 1)
        start, end = (math.degrees(angle) for angle in angles[index : index + 2])
        yield (
            f"{missing} view{'s are' if missing > 1 else ' is'} missing between view {before} at {start:.6g} degrees"
            f" and view {after} at {end:.6g} degrees"
        )


def _doubles(geometry: ScanGeometry) -> Iterator[str]:
    """Find views of one angle, modulo a turn, at one axial position."""
    order = _order(geometry)
    usual = _usual(np.abs(np.diff(geometry.angles[order])))
    if not geometry.is_helical:
        # The largest angles may be a hair below a whole turn: they are those of 0.
        within = np.mod(geometry.angles - geometry.angles.min() + _SAME_STEPS * usual, 2 * math.pi)
        order = np.argsort(within, kind="stable")
        steps = np.diff(within[order])
    else:
        steps = np.abs(np.diff(geometry.angles))
    same = (steps <= _SAME_STEPS * usual) & (np.abs(np.diff(geometry.axial[order])) <= _SAME_MM)
    for index in np.flatnonzero(same):
        before, after = sorted((int(order[index]) + 1, int(order[index + 1]) + 1))
        angle = math.degrees(geometry.angles[before - 1])
        yield f"views {before} and {after} are both at {angle:.6g} degrees"


def _check_span(geometry: ScanGeometry) -> None:
    """Refuse a scan that does not see each point from half a turn."""
    needed = math.pi
    if geometry.beam is not Beam.PARALLEL and not geometry.is_helical:
        needed = min(math.pi + 2 * max(map(abs, geometry.fan_angles)), 2 * math.pi)
    step = geometry.span / geometry.views
    short = math.degrees(needed - geometry.span)
    if needed - geometry.span > step:
        raise GeometryError(
            f"the views span {math.degrees(geometry.span):.1f} degrees, and a scan of this kind needs"
            f" {math.degrees(needed):.1f}: it is short by {short:.1f} degrees",
            remedy=_ITERATIVE,
        )


class RayCheck:
    """Looks at the rays as they come, mends those that measured nothing, and says at the end what it saw.

    Views may come several times, as they do where a volume is made in blocks; they count once.

    Parameters
    ----------
    geometry : ScanGeometry
        Of the scan.
    water_attenuation : float
        1/mm, to tell the object from air at the edges.
    incident_photons : float, optional
        Of a ray in air, to tell rays that hardly any come through.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        water_attenuation: float,
        incident_photons: float | None = None,
    ) -> None:
        detector = geometry.detector
        self._rays = geometry.views * detector.rows * detector.columns
        self._water = _EDGE_WATER_MM * water_attenuation
        # Of a detector that is offset on purpose, one side is within the object.
        self._sides = [geometry.offset_side] if geometry.offset_side else ["first", "last"]
        # The line integral beyond which too few photons are left.
        self._dark = math.log(incident_photons / _FEW_PHOTONS) if incident_photons else math.inf
        self._starved = 0
        self._mended = 0
        self._seen = np.zeros(geometry.views, dtype=bool)
        self._cut = dict.fromkeys(self._sides, 0)

    def mend(self, first_view: int, chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return line integrals [view, row, column] with every ray measured.

        Parameters
        ----------
        first_view : int
            Index of the chunk's first view.
        chunk : array
            Line integrals; not changed.

        Raises
        ------
        InputError
            A ray is not a number, or too many are without a measurement.
        """
        broken = np.isnan(chunk).sum(axis=(1, 2))
        if broken.any():
            view = int(broken.argmax())
            raise InputError(
                f"{broken[view]} rays of view {first_view + view + 1} are no numbers",
                remedy="The projections are damaged: make them again",
            )
        bad = ~np.isfinite(chunk) | (chunk < SATURATED)
        views = slice(first_view, first_view + chunk.shape[0])
        new = ~self._seen[views]
        self._mended += int(bad[new].sum())
        mended = self._mend(first_view, chunk, bad) if bad.any() else chunk
        fresh = mended if new.all() else mended[new]
        self._watch_edges(fresh)
        self._starved += int((fresh > self._dark).sum())
        self._seen[views] = True
        return mended

    def _mend(self, first_view: int, chunk: NDArray[np.float32], bad: NDArray[np.bool_]) -> NDArray[np.float32]:
        worst = int(bad.sum(axis=(1, 2)).argmax())
        if self._mended > MENDED_PART * self._rays:
            empty = int(np.isposinf(chunk[worst]).sum())
            raise InputError(
                f"more than {MENDED_PART:.1%} of the rays measured nothing: in view {first_view + worst + 1} alone,"
                f" {empty} are without a photon and {int(bad[worst].sum()) - empty} saturated"
            )
        mended = chunk.copy()
        for view, row, column in np.argwhere(bad):
            near = (view, slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
            good = chunk[near][~bad[near]]
            if not good.size:
                raise InputError(
                    f"rays around row {row + 1}, column {column + 1} of view {first_view + view + 1} measured nothing"
                )
            mended[view, row, column] = np.median(good)
        return mended

    def _watch_edges(self, chunk: NDArray[np.float32]) -> None:
        width = min(_EDGE_COLUMNS, chunk.shape[2])
        for side in self._sides:
            edge = chunk[:, :, :width] if side == "first" else chunk[:, :, -width:]
            # In a quarter of the rows: the object need not be cut off in all.
            seen = np.quantile(edge.mean(axis=2), 0.75, axis=1)
            self._cut[side] += int((seen > self._water).sum())

    def notes(self) -> tuple[str, ...]:
        """Say what a user should know of the rays that were seen so far, a sentence each."""
        notes = []
        if self._mended:
            notes.append(
                f"{self._mended} rays measured nothing ({self._mended / self._rays:.2g} of all) and are the median of"
                " their neighbours"
            )
        if self._starved > _STARVED_PART * self._rays:
            notes.append(
                f"{self._starved / self._rays:.2%} of the rays have fewer than {_FEW_PHOTONS} photons left:"
                " expect streaks"
            )
        views = int(self._seen.sum())
        cut = [side for side, count in self._cut.items() if count > _EDGE_VIEWS * views]
        if cut:
            worst = max(self._cut[side] for side in cut)
            where = " and the ".join(f"{side} column" for side in cut)
            notes.append(
                f"the object is cut off at the {where} of the detector in {worst} of {views} views:"
                f" densities near the edge of the field of view are too high"
            )
        return tuple(notes)
