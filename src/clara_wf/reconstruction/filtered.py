"""Filtered backprojection of circular scans: FBP for parallel and fan beams, FDK for cones. Views come in pieces.

Sources: A. C. Kak, M. Slaney, Principles of Computerized Tomographic Imaging, chapter 3; L. A. Feldkamp, L. C. Davis,
J. W. Kress, J. Opt. Soc. Am. A 1 (1984) 612; D. L. Parker, Med. Phys. 9 (1982) 254 (short scans); G. Wang, Med. Phys.
29 (2002) 1634 (offset detectors).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from clara_wf.reconstruction.flatten import Flattener
from clara_wf.reconstruction.geometry import OPEN_GAP, Beam, Detector, DetectorShape, ScanGeometry
from clara_wf.reconstruction.grid import Grid
from clara_wf.reconstruction.options import Options
from clara_wf.reconstruction.rtk import Floats, Image, backproject, projection_image, ramp, scan, toolkit, volume_image

#: Gives the views `start` to `stop`, [view, row, column].
Reader = Callable[[int, int], Floats]
#: Told the part done, 0 to 1.
Progress = Callable[[float], None]

#: Bytes of the views that are filtered at once: padded and transformed, they take several times as much.
_CHUNK_BYTES = 24 * 2**20
_CHUNK_VIEWS = 32


def chunk_views(detector: Detector) -> int:
    """Return how many views are filtered at once."""
    return max(1, min(_CHUNK_VIEWS, _CHUNK_BYTES // (detector.rows * detector.columns * 4)))


def filtered_backprojection(
    read: Reader, geometry: ScanGeometry, grid: Grid, options: Options, progress: Progress
) -> Image:
    """Reconstruct a circular scan.

    Parameters
    ----------
    read : callable
        Gives a range of views as line integrals, [view, row, column].
    geometry : ScanGeometry
        Of the scan; circular.
    grid : Grid
        The voxels, in the scanner frame.
    options : Options
        The filter.
    progress : callable
        Told the part done.

    Returns
    -------
    Image
        Attenuation in 1/mm, as RTK lays it out (see `rtk.slices_of`).
    """
    flat = Prepared.of(geometry)
    circle = scan(flat.geometry)
    volume = volume_image(grid, float(geometry.axial[0]))
    step = chunk_views(flat.geometry.detector)
    weights = flat.weights
    for start in range(0, geometry.views, step):
        stop = min(start + step, geometry.views)
        views = flat.apply(read(start, stop))
        if weights is None:
            image = projection_image(flat.geometry.detector, views, start)
            filtered = ramp(_divergent_weights(image, circle), options)
        else:
            views = over_pixels(views * weights[start:stop], geometry.angles[start:stop], flat.column, grid.pixel)
            image = projection_image(flat.halved, views, start)
            filtered = ramp(image.view, options, finer=2)
        filtered.Update()
        backproject(volume, filtered.GetOutput(), circle)
        progress(stop / geometry.views)
    return volume


def _divergent_weights(image: Image, circle: Any) -> Any:  # noqa: ANN401 - RTK has no types
    """Weigh views for redundancy (offset detector, short scan), obliquity and the angle between them, as RTK does."""
    kit = toolkit()
    displaced = kit.rtk.DisplacedDetectorForOffsetFieldOfViewImageFilter[kit.image].New()
    displaced.SetInput(image.view)
    displaced.SetGeometry(circle)
    short = kit.rtk.ParkerShortScanImageFilter[kit.image].New()
    short.SetInput(displaced.GetOutput())
    short.SetGeometry(circle)
    short.SetAngularGapThreshold(OPEN_GAP)
    short.InPlaceOff()
    weighted = kit.rtk.FDKWeightProjectionFilter[kit.image].New()
    weighted.SetInput(short.GetOutput())
    weighted.SetGeometry(circle)
    weighted.InPlaceOff()
    weighted.Update()
    output = weighted.GetOutput()
    output.DisconnectPipeline()
    return output


def over_pixels(views: Floats, angles: NDArray[np.float64], column: float, pixel: float) -> Floats:
    """Interpolate parallel rays to columns of half the width, and average each over the width of a pixel.

    A pixel is then the mean over its square, as a detector's is, and no sample in its middle: seen at the angle b, the
    square is the convolution of two boxes, ``pixel |cos b|`` and ``pixel |sin b|`` wide. Backprojection interpolates
    linearly, which closer columns bring nearer to the truth (cubic splines).

    Parameters
    ----------
    views : ndarray
        [view, row, column].
    angles : ndarray
        Radians.
    column, pixel : float
        Mm.

    Returns
    -------
    ndarray
        [view, row, 2 column - 1].
    """
    coefficients = ndimage.spline_filter1d(views, order=3, axis=-1, output=np.float32, mode="mirror")
    around = np.pad(coefficients, ((0, 0), (0, 0), (1, 1)), mode="reflect")
    count = 2 * views.shape[2] - 1
    length = scipy.fft.next_fast_len(2 * count, real=True)
    before = (length - count) // 2
    padded = np.empty((*views.shape[:2], length), np.float32)
    inner = padded[..., before : before + count]
    inner[..., ::2] = views
    inner[..., 1::2] = ((around[..., :-3] + around[..., 3:]) + 23 * (around[..., 1:-2] + around[..., 2:-1])) / 48
    padded[..., :before], padded[..., before + count :] = inner[..., :1], inner[..., -1:]
    waves = pixel * scipy.fft.rfftfreq(length, column / 2)
    boxes = np.sinc(waves * np.cos(angles)[:, None]) * np.sinc(waves * np.sin(angles)[:, None])
    spectrum = scipy.fft.rfft(padded, axis=-1, workers=-1)
    spectrum *= boxes[:, None, :].astype(np.float32)
    averaged = scipy.fft.irfft(spectrum, length, axis=-1, workers=-1)
    return np.asarray(averaged[..., before : before + count], dtype=np.float32)


class Prepared:
    """A scan as RTK takes it: with a flat detector, of more rows than one, and of both sides of the axis."""

    def __init__(self, geometry: ScanGeometry, flattener: Flattener | None, rows: int, beside: tuple[int, int]) -> None:
        self.geometry = geometry
        self._flattener = flattener
        self._rows = rows  # that are put above and below: a backprojector interpolates between rows
        self._beside = beside  # columns that are put before and after

    @staticmethod
    def of(geometry: ScanGeometry, *, filtered: bool = True) -> Prepared:
        """Find out what has to be done; without a filter, nothing reaches beyond the side that sees less."""
        flattener = Flattener.of(geometry) if geometry.detector.shape is DetectorShape.ARC else None
        detector = flattener.flat if flattener else geometry.detector
        rows = 1 if detector.rows == 1 or (filtered and geometry.beam is Beam.PARALLEL) else 0
        detector = replace(detector, rows=detector.rows + 2 * rows, central_row=detector.central_row + rows)
        beside = (0, 0)
        if filtered and _is_offset(geometry):
            # Filtered rays reach beyond the side that sees less.
            left, right = detector.central_column, detector.columns - 1 - detector.central_column
            beside = (max(0, math.ceil(right - left)), max(0, math.ceil(left - right)))
            columns = detector.columns + sum(beside)
            detector = replace(detector, columns=columns, central_column=detector.central_column + beside[0])
        beam = Beam.CONE if geometry.beam is Beam.FAN else geometry.beam
        return Prepared(replace(geometry, beam=beam, detector=detector), flattener, rows, beside)

    @property
    def column(self) -> float:
        """Mm from column to column."""
        return self.geometry.detector.column_spacing

    @property
    def halved(self) -> Detector:
        """The detector with columns of half the width, as `over_pixels` makes them."""
        detector = self.geometry.detector
        return replace(
            detector,
            columns=2 * detector.columns - 1,
            column_spacing=detector.column_spacing / 2,
            central_column=2 * detector.central_column,
        )

    def apply(self, views: Floats) -> Floats:
        """Return views [view, row, column] as a detector of `geometry` would have measured them."""
        if self._flattener is not None:
            views = self._flattener.apply(views)
        if self._rows:
            views = np.pad(views, ((0, 0), (self._rows, self._rows), (0, 0)), mode="edge")
        return np.pad(views, ((0, 0), (0, 0), self._beside)) if any(self._beside) else views

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """What each ray of a parallel scan counts for; None where RTK weighs them."""
        return _parallel_weights(self.geometry, self._beside) if self.geometry.beam is Beam.PARALLEL else None


def _is_offset(geometry: ScanGeometry) -> bool:
    """Say whether a parallel scan sees one side of the axis further than the other, and both in turn."""
    return geometry.beam is Beam.PARALLEL and geometry.offset_side is not None


def _parallel_weights(geometry: ScanGeometry, beside: tuple[int, int]) -> NDArray[np.float32]:
    """Return what each ray of a parallel scan counts for, (views, 1, columns or 1).

    A view stands for half of the angle to its neighbours on either side, modulo half a turn, in which the same rays
    come again: short, full and uneven scans are all right, and a view that stands twice counts half. Where the detector
    is offset, so that columns were added `beside` it, and the scan is a full turn, rays that one side alone sees count
    twice, with a smooth passage (Wang 2002).
    """
    if not any(beside):
        return np.asarray(voronoi(geometry.angles, math.pi)[:, None, None], dtype=np.float32)
    detector = geometry.detector
    share = voronoi(geometry.angles, 2 * math.pi) / 2
    # Grows towards the side that sees further.
    place = (np.arange(detector.columns) - detector.central_column) * (1 if beside[0] else -1)
    near = max(detector.columns - 1 - detector.central_column, detector.central_column) - max(beside)
    passage = 1 + np.sin(np.clip(place / max(near, 1.0), -1, 1) * math.pi / 2)
    return np.asarray(share[:, None, None] * passage[None, None, :], dtype=np.float32)


def voronoi(angles: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """Return the part of a period that is nearest to each angle; together they are the period."""
    if angles.size == 1:
        return np.array([period])
    place = np.mod(angles, period)
    order = np.argsort(place, kind="stable")
    ahead = np.diff(place[order], append=place[order[0]] + period)
    shares = np.empty_like(place)
    shares[order] = (ahead + np.roll(ahead, 1)) / 2
    return shares
