"""From projections to slices in Hounsfield units: chooses the method, keeps to the memory, hands on slice by slice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clara_wf.model.errors import GeometryError, InputError, UsageError
from clara_wf.reconstruction.filtered import Progress, Reader, filtered_backprojection
from clara_wf.reconstruction.geometry import Beam, ScanGeometry
from clara_wf.reconstruction.grid import Grid, choose_grid, circular_extent
from clara_wf.reconstruction.helical import Rebinning, choose_sampling
from clara_wf.reconstruction.iterative import WORKING_COPIES, iterations_of, iterative
from clara_wf.reconstruction.options import Method, Options
from clara_wf.reconstruction.rtk import Floats, slices_of

#: A field of view beyond what the scan sees would be filled with nothing.
_FOV_PLAY_MM: Final = 1.0
#: Views are held as they come, mended, and in units of water, at worst all at once.
_VIEW_COPIES: Final = 3
#: What stands outside the circle that the scan sees: no tissue is as thin.
OUTSIDE_HU: Final = -1024
_LARGEST_HU: Final = 32767
#: Takes a slice's index and its HU, [row, column], in the scanner frame.
WriteSlice = Callable[[int, NDArray[np.int16]], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """What will be done with a scan."""

    geometry: ScanGeometry
    grid: Grid
    method: str  # for people: FDK, short scan
    options: Options
    rebinning: Rebinning | None = None  # of a helix

    @property
    def kernel(self) -> str:
        """What made the image as sharp as it is, in a word."""
        return "iterative" if self.options.method is Method.ITERATIVE else self.options.filter.value


def plan(geometry: ScanGeometry, options: Options) -> Planned:
    """Choose method and grid.

    Raises
    ------
    GeometryError
        There is no method for the scan, or no slice that it sees whole.
    UsageError
        The grid that was asked for is not what the scan sees.
    """
    seen = geometry.field_of_view
    field = math.floor(seen * 10) / 10 if options.field_of_view is None else options.field_of_view
    if not 0 < field <= seen + _FOV_PLAY_MM:
        raise UsageError(
            f"a field of view of {field:g} mm: the scan sees {seen:.1f} mm",
            remedy="Ask for less, by --arg recon=--fov=300 for example",
        )
    if geometry.is_helical:
        return _plan_helical(geometry, field, options)
    _check_circle(geometry, options)
    grid = choose_grid(geometry, field, circular_extent(geometry, field), options)
    return _fitting(Planned(geometry=geometry, grid=grid, method=_name(geometry, options), options=options))


def _check_circle(geometry: ScanGeometry, options: Options) -> None:
    """Refuse circles that there is no method for."""
    detector = geometry.detector
    if geometry.focal_spot is not None:
        raise GeometryError("a flying focal spot on a circular scan is not supported")
    if geometry.beam is Beam.PARALLEL:
        return
    if not -0.5 <= detector.central_row <= detector.rows - 0.5:
        raise GeometryError(
            f"central_row {detector.central_row:g} is none of {detector.rows}: no row sees the plane of the source"
        )
    if detector.is_offset and not geometry.is_closed and options.method is not Method.ITERATIVE:
        raise GeometryError(
            "the detector is offset, so that a full turn is needed, and the scan is open or has a gap",
            remedy="Use the iterative method, by --arg recon=--method=iterative",
        )


def _plan_helical(geometry: ScanGeometry, field: float, options: Options) -> Planned:
    if geometry.beam is Beam.PARALLEL:
        raise GeometryError("a helical scan in a parallel beam is not supported")
    sampling = choose_sampling(geometry, field)
    rebinning = Rebinning(geometry, sampling, field)
    grid = choose_grid(geometry, field, rebinning.extent, options)
    name = f"single-slice rebinning, {_name(sampling.geometry(1), options)}"
    return _fitting(Planned(geometry=geometry, grid=grid, method=name, options=options, rebinning=rebinning))


def _fitting(planned: Planned) -> Planned:
    """Return a plan that can be carried out.

    Raises
    ------
    InputError
        It does not fit into the memory.
    """
    _blocks(planned)
    return planned


def _name(geometry: ScanGeometry, options: Options) -> str:
    if options.method is Method.ITERATIVE:
        return f"conjugate gradient with total variation, {iterations_of(options)} iterations"
    name = "FDK" if geometry.beam is Beam.CONE else "FBP"
    short = geometry.beam is not Beam.PARALLEL and not geometry.is_full_turn
    window = f"{options.filter.value} filter" + (f" to {options.cutoff:g}" if options.cutoff < 1 else "")
    return f"{name}, {geometry.beam.value} beam, {'short scan, ' if short else ''}{window}"


def reconstruct(
    planned: Planned, read: Reader, water_attenuation: float, write: WriteSlice, progress: Progress
) -> None:
    """Reconstruct a scan, and hand on its slices in Hounsfield units.

    Memory is bounded whatever the number of views: by `Options.memory` for views and volume, and what filtering a chunk
    of views and the libraries take beside (about 1 GiB, nearly all of it RTK's code).

    Parameters
    ----------
    planned : Planned
        What `plan` chose.
    read : callable
        Gives a range of views as line integrals, [view, row, column].
    water_attenuation : float
        1/mm; what 0 HU is.
    write : callable
        Takes each slice once.
    progress : callable
        Told the part done.

    Raises
    ------
    InputError
        The views are broken, or a method does not fit into the memory.
    """
    grid = planned.grid
    inside = _circle(grid, planned.geometry)
    per_water = np.float32(1 / water_attenuation)

    def read_in_water(first: int, last: int) -> Floats:
        # In units of water, so that a regularisation means the same for every scan.
        return read(first, last) * per_water

    for start, stop in _blocks(planned):
        part = grid.part(start, stop)

        def told(done: float, start: int = start, stop: int = stop) -> None:
            progress((start + done * (stop - start)) / grid.slices)

        for index, plane in enumerate(_slices(planned, part, read_in_water, told)):
            write(start + index, _hounsfield(plane, inside))
        told(1.0)


def _slices(planned: Planned, grid: Grid, read: Reader, progress: Progress) -> Iterable[Floats]:
    """Reconstruct a block of slices, in units of water."""
    method = iterative if planned.options.method is Method.ITERATIVE else filtered_backprojection
    rebinning = planned.rebinning
    if rebinning is None:
        return slices_of(method(read, planned.geometry, grid, planned.options, progress))
    positions = rebinning.tilted(grid)
    angles, places = rebinning.sampling.angles, rebinning.sampling.places
    first, last = rebinning.views(float(positions[0]), float(positions[-1]))
    views = read(first, last)
    sinograms = np.empty((angles.size, positions.size, places.size), np.float32)
    for index, rays in rebinning.rebin(views, first, positions):
        sinograms[index] = rays
        progress(0.5 * (index + 1) / angles.size)
    del views
    tilted = method(
        lambda start, stop: sinograms[start:stop],
        rebinning.sampling.geometry(positions.size),
        replace(grid, slices=positions.size, first=0.0, thickness=1.0),
        planned.options,
        lambda done: progress(0.5 + 0.5 * done),
    )
    return rebinning.straighten(slices_of(tilted), positions, grid)


def _blocks(planned: Planned) -> list[tuple[int, int]]:
    """Cut the slices into blocks that keep to the memory.

    Raises
    ------
    InputError
        Not even one slice does.
    """
    grid, memory = planned.grid, planned.options.memory
    if planned.options.method is Method.ITERATIVE and planned.rebinning is None:
        return [(0, grid.slices)]  # it looks at the memory itself, since a cone's slices hang together

    def needed(count: int) -> int:
        rebinning = planned.rebinning
        if rebinning is None:
            return count * grid.slice_bytes
        middle = (grid.slices - count) // 2  # the first and the last block need fewer tilted slices
        tilted = rebinning.tilted(grid.part(middle, middle + count))
        first, last = rebinning.views(float(tilted[0]), float(tilted[-1]))
        detector, sampling = planned.geometry.detector, rebinning.sampling
        views = _VIEW_COPIES * (last - first) * detector.rows * detector.columns
        rebinned = tilted.size * (sampling.angles.size * sampling.places.size + grid.matrix**2)
        copies = WORKING_COPIES if planned.options.method is Method.ITERATIVE else 1
        # The views are let go before the slices are reconstructed.
        return round(4 * max(views + rebinned, copies * rebinned))

    size = next((count for count in range(grid.slices, 0, -1) if needed(count) <= memory), 0)
    if size == 0:
        raise InputError(
            f"a single slice needs {needed(1) / 2**30:.1f} GiB, and {memory / 2**30:.1f} GiB are allowed",
            remedy="Allow more GiB, by --arg recon=--memory=4 for example",
        )
    count = math.ceil(grid.slices / size)
    edges = [round(grid.slices * index / count) for index in range(count + 1)]
    return list(itertools.pairwise(edges))


def _circle(grid: Grid, geometry: ScanGeometry) -> NDArray[np.bool_]:
    """Return which pixels the scan sees, [row, column]."""
    place = grid.edge + np.arange(grid.matrix) * grid.pixel
    radius = max(geometry.field_of_view, grid.matrix * grid.pixel) / 2
    seen: NDArray[np.bool_] = np.hypot(place[:, None], place[None, :]) <= radius
    return seen


def _hounsfield(plane: Floats, inside: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Turn attenuation in units of water into HU: 1000 (mu - 1)."""
    values = plane * np.float32(1000) - np.float32(1000)
    np.clip(np.rint(values, out=values), OUTSIDE_HU, _LARGEST_HU, out=values)
    return np.where(inside, values, np.float32(OUTSIDE_HU)).astype(np.int16)
