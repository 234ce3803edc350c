"""Which column of a parallel beam's detector sees the axis of rotation.

A sinogram of half a turn, followed by itself mirrored about the right column, is one of a whole turn; its Fourier
transform is then empty outside a double wedge. About a wrong column it is not. Nothing is asked of the object: it may
be cut off at both sides, and the scan may lack the view that would close the half turn.

Source: N. T. Vo, M. Drakopoulos, R. C. Atwood, C. Reinhard, "Reliable method for calculating the center of rotation in
parallel-beam tomography", Optics Express 22 (2014) 19078.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from clara_wf.model.errors import GeometryError
from clara_wf.reconstruction.geometry import Array

#: The search is coarse on a sinogram of no more views and columns than these.
_COARSE: Final = 512
#: How far from the middle the axis is looked for, as a part of the detector.
_REACH: Final = 0.3
#: The object's radius, as a part of the detector's half width, that the wedge is drawn for.
_RADIUS: Final = 1.0
#: Columns of a Gaussian: noise of single columns is left out.
_SMOOTH: Final = 3.0
#: Columns from candidate to candidate, in the coarse and the fine search; a parabola does the rest.
_COARSE_STEP: Final = 0.5
_FINE_STEP: Final = 0.25
#: A scan of less than this cannot be mirrored into a whole turn.
_LEAST_TURN: Final = math.radians(170)


def check_centre(centre: float, columns: int) -> None:
    """Refuse a centre of rotation that is not on the detector.

    Raises
    ------
    GeometryError
        It is not, or is no number.
    """
    if not 0 <= centre <= columns - 1:
        raise GeometryError(
            f"the rotation centre {centre:g} is not on the detector, whose columns are 0 to {columns - 1}",
            remedy="Pass the column of the axis by --arg recon=--centre=COLUMN, or leave it out to have it found",
        )


def find_centre(sinogram: NDArray[np.float32], angles: Array) -> float:
    """Return the column, from 0 and with fractions, of the axis of rotation.

    Parameters
    ----------
    sinogram : array
        Line integrals [view, column]; infinite where nothing was measured.
    angles : array
        Radians of each view.

    Raises
    ------
    GeometryError
        The scan is shorter than half a turn.
    """
    half = _half_turn(sinogram, angles)
    columns = half.shape[1]
    step = max(1, math.ceil(columns / _COARSE))
    small = half[:: max(1, half.shape[0] // _COARSE), : columns // step * step]
    small = small.reshape(small.shape[0], -1, step).mean(axis=2)
    middle, reach = (small.shape[1] - 1) / 2, _REACH * small.shape[1]
    coarse = _best(small, middle, reach, _COARSE_STEP)
    # A column of the small sinogram is `step` of the whole one.
    start = coarse * step + (step - 1) / 2
    return _best(half, start, 2.0 * step, _FINE_STEP)


def _half_turn(sinogram: NDArray[np.float32], angles: Array) -> NDArray[np.float32]:
    """Return the views of the first half turn, in the order of their angles, with what was not measured filled."""
    order = np.argsort(angles, kind="stable")
    turned = angles[order] - angles[order[0]]
    usual = float(np.median(np.diff(turned))) if turned.size > 1 else math.inf
    if turned[-1] + usual < _LEAST_TURN:
        raise GeometryError(
            f"the views span {math.degrees(turned[-1]):.1f} degrees, too few to find the rotation centre",
            remedy="Pass it by --arg recon=--centre=COLUMN",
        )
    # Half a step less, so that the view that repeats the first one, mirrored, is left out.
    half = np.array(sinogram[order[turned < math.pi - usual / 2]], dtype=np.float32)
    broken = ~np.isfinite(half)
    if broken.any():
        half[broken] = np.median(half[~broken]) if not broken.all() else 0.0
    return half


def _best(half: NDArray[np.float32], start: float, reach: float, step: float) -> float:
    """Return the best centre within `reach` of `start`, finer than the steps that are tried."""
    views, columns = half.shape
    weights = _outside_wedge(2 * views, columns)
    # How much each column tells: where nothing changes as the object turns, nothing is compared.
    told = np.concatenate(([0.0], np.cumsum(half.var(axis=0, dtype=np.float64))))
    lowest, highest = max(start - reach, 1.0), min(start + reach, columns - 2.0)
    candidates = np.arange(lowest, highest + step / 2, step)
    costs = np.array([_cost(half, centre, weights, told) for centre in candidates])
    best = int(costs.argmin())
    if not 0 < best < costs.size - 1:
        return float(candidates[best])
    before, here, after = costs[best - 1 : best + 2]
    bend = before - 2 * here + after
    return float(candidates[best] + (step * (before - after) / (2 * bend) if bend > 0 else 0.0))


def _cost(half: NDArray[np.float32], centre: float, weights: Array, told: Array) -> float:
    """Return how much of the spectrum lies where a whole turn has none."""
    columns = half.shape[1]
    shift = 2 * centre - (columns - 1)
    mirrored = ndimage.shift(half[:, ::-1], (0, shift), order=1, mode="nearest")
    # What the mirror does not show stands as the views of the other end, upside down: they fit at the seams.
    seen = math.ceil(abs(shift))
    unseen = slice(0, seen) if shift > 0 else slice(columns - seen, columns)
    mirrored[:, unseen] = half[::-1, unseen]
    compared = told[-1] - (told[unseen.stop] - told[unseen.start])
    spectrum = np.abs(fft.rfft2(np.concatenate((half, mirrored))))
    return float((spectrum * weights).sum() / max(math.sqrt(compared), 1e-12))


def _outside_wedge(views: int, columns: int) -> Array:
    """Return the weights of the spectrum [along angles, along columns], as `rfft2` orders it: 0 within the wedge."""
    angular = np.abs(fft.fftfreq(views, 1 / views))[:, None]  # periods a turn
    radial = 2 * math.pi * fft.rfftfreq(columns)[None, :]  # radians a column
    weights = np.where(angular > radial * _RADIUS * columns / 2, np.exp(-((radial * _SMOOTH) ** 2) / 2), 0.0)
    # The lowest frequencies are those of the seams.
    weights[angular[:, 0] <= 2] = 0.0
    return np.asarray(weights, dtype=np.float64)
