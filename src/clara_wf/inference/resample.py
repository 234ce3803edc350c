"""From one grid to another, a slice at a time.

Two grids whose axes are parallel need no general interpolation: a value on the new grid is a weighted mean along each
axis on its own, so a slice takes two products with sparse matrices. That holds a few slices at most and reads no more
of a memory-mapped volume than the target covers. An oblique volume is first put onto parallel axes by SimpleITK.

Towards larger voxels the mean is over the new voxel's whole length (no aliasing), towards smaller ones it is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import sparse

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference.memory import check_fits

Floats = NDArray[np.float32]
_ITK: Any = SimpleITK  # its functions carry no types
#: Axes count as parallel while this share of a voxel of the finer grid is the most that any corner is displaced.
_PARALLEL_SHARE = 0.1
#: A patient lies no straighter in the scanner.
_OWN_AXES_DEGREES = 5.0


def canonical_grid(geometry: VolumeGeometry, orientation: str, spacing: tuple[float, float, float]) -> VolumeGeometry:
    """Lay a grid over a volume, with axes as `orientation` names them.

    Parameters
    ----------
    geometry : VolumeGeometry
        The volume to cover.
    orientation : str
        Where the indices grow to, axis by axis: three of R/L, A/P, S/I.
    spacing : tuple of float
        mm, in the order of `orientation`.

    Returns
    -------
    VolumeGeometry
        Its box is centred on the volume's; the array's axes are in the order of `orientation`. They are the volume's
        own where those are a few degrees from the patient's at most (nothing is then blurred between slices that a
        network would not notice), and exactly the patient's otherwise.
    """
    wanted = np.array([DIRECTIONS[letter] for letter in orientation])
    own = nearest_axes(np.array(geometry.axes), wanted)
    nearly = np.einsum("ij,ij->i", own, wanted).min() >= np.cos(np.radians(_OWN_AXES_DEGREES))
    axes = own if nearly else wanted
    low, high = _extent(geometry, axes)
    return grid_of_box(axes, low, high, spacing)


def grid_of_box(
    axes: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], spacing: tuple[float, float, float]
) -> VolumeGeometry:
    """Fill a box with voxels; the grid is centred where the box is.

    Parameters
    ----------
    axes : array (3, 3)
        LPS unit vectors, a row an axis.
    low, high : array (3,)
        The box's borders (of voxels, not their centres) along each axis, mm.
    spacing : tuple of float
        mm along each axis.
    """
    shape = np.maximum(1, np.round((high - low) / spacing)).astype(int)
    first = (low + high) / 2 - (shape - 1) / 2 * spacing
    origin = first @ axes
    return VolumeGeometry(
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        spacing=spacing,
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        axes=tuple(tuple(float(value) for value in axis) for axis in axes),  # type: ignore[arg-type]
    )


def box_of(geometry: VolumeGeometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the borders of a grid along its own axes: the inverse of `grid_of_box`."""
    return _extent(geometry, np.array(geometry.axes))


def resample(volume: Volume, target: VolumeGeometry, *, fill: float) -> Floats:
    """Put a volume onto another grid.

    Parameters
    ----------
    volume : Volume
        May be memory-mapped; only what the target covers is read.
    target : VolumeGeometry
        In any orientation.
    fill : float
        Value beyond the volume.

    Returns
    -------
    array
        float32, of the target's shape.
    """
    source, order = _parallel(volume, target, fill)
    turned = _permuted(target, np.argsort(order))
    check_fits("the network's image", turned.shape)
    out: Floats = np.empty(turned.shape, np.float32)
    for index, plane in slices(source, turned, fill=fill):
        out[index] = plane
    return out.transpose(order)


def slices(volume: Volume, target: VolumeGeometry, *, fill: float) -> Iterator[tuple[int, Floats]]:
    """Give the target's slices one by one: ``(index, [row, column])``. The axes must be parallel, in the same order.

    Slices that lie wholly beyond the volume are given as well.
    """
    along, rows, columns = (_weights(volume.geometry, target, axis) for axis in range(3))
    reduce = _reducer(rows, columns)
    # Where the weights do not add up to 1, the rest is beyond the volume.
    inside = np.outer(rows.sum(axis=1), columns.sum(axis=1))
    # Neighbouring slices of the target share slices of the source.
    ready: dict[int, Floats] = {}
    for index in range(target.shape[0]):
        used = [int(number) for number in np.flatnonzero(along[index])]
        ready = {number: ready[number] if number in ready else reduce(volume.array[number]) for number in used}
        value: Floats = np.multiply(np.float32(fill), 1 - inside * along[index].sum(), dtype=np.float32)
        for number in used:
            value += ready[number] * along[index, number]
        yield index, value


def align_to(volume: Volume, target: VolumeGeometry, *, fill: float) -> Volume:
    """Return the volume on axes parallel to the target's and in their order: ready for `slices`."""
    source, order = _parallel(volume, target, fill)
    return Volume(geometry=_permuted(source.geometry, order), array=source.array.transpose(order))


DIRECTIONS = {
    "R": (-1.0, 0.0, 0.0),
    "L": (1.0, 0.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}


def nearest_axes(axes: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Order and turn `axes` so that they come as near to `wanted` as they can."""
    cosines = wanted @ axes.T
    best = max(permutations(range(3)), key=lambda order: sum(abs(cosines[row, order[row]]) for row in range(3)))
    return np.array([axes[best[row]] * np.sign(cosines[row, best[row]] or 1.0) for row in range(3)])


def _extent(geometry: VolumeGeometry, axes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the borders of a grid's voxels (half a voxel beyond their centres) along some axes."""
    along = geometry.corners @ axes.T
    half = np.abs(np.array(geometry.axes) @ axes.T * np.array(geometry.spacing)[:, None]).sum(axis=0) / 2
    return along.min(axis=0) - half, along.max(axis=0) + half


def _order(source: VolumeGeometry, target: VolumeGeometry) -> tuple[int, int, int] | None:
    """Return which axis of the source each axis of the target runs along; None if they are oblique."""
    cosines = np.array(target.axes) @ np.array(source.axes).T
    order = np.abs(cosines).argmax(axis=1)
    if len(set(order)) < 3:
        return None
    # How far the target's corners stray if its axes are taken for the source's.
    snapped = np.zeros((3, 3))
    snapped[range(3), order] = np.sign(cosines[range(3), order])
    half = (np.array(target.shape) - 1) / 2 * target.spacing
    astray = np.abs((cosines - snapped).T * half).sum(axis=1).max()
    limit = _PARALLEL_SHARE * min(*source.spacing, *target.spacing)
    return (int(order[0]), int(order[1]), int(order[2])) if astray <= limit else None


def _parallel(volume: Volume, target: VolumeGeometry, fill: float) -> tuple[Volume, tuple[int, int, int]]:
    """Return the volume on axes parallel to the target's, and which of its axes each of the target's runs along."""
    order = _order(volume.geometry, target)
    if order is not None:
        return volume, order
    # Voxels as small as the volume's own along the nearest axis, never larger than the target's; over its box alone.
    axes = np.array(target.axes)
    nearest = np.abs(axes @ np.array(volume.geometry.axes).T).argmax(axis=1)
    spacing = [min(volume.geometry.spacing[axis], target.spacing[index]) for index, axis in enumerate(nearest)]
    low, high = _extent(target, axes)
    own_low, own_high = _extent(volume.geometry, axes)
    low, high = np.maximum(low, own_low), np.minimum(high, own_high)
    grid = grid_of_box(axes, low, np.maximum(high, low), (spacing[0], spacing[1], spacing[2]))
    filtered = _ITK.Resample(
        _to_itk(volume),
        _to_itk(Volume(geometry=grid, array=np.zeros(grid.shape, np.uint8))),
        _ITK.Transform(),
        _ITK.sitkLinear,
        fill,
        _ITK.sitkFloat32,
    )
    return Volume(geometry=grid, array=_ITK.GetArrayViewFromImage(filtered).copy()), (0, 1, 2)


def _to_itk(volume: Volume) -> Any:  # noqa: ANN401 - see _ITK
    image = _ITK.GetImageFromArray(np.ascontiguousarray(volume.array))
    geometry = volume.geometry
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(np.array(geometry.axes)[::-1].T.ravel().tolist())
    return image


def _permuted(geometry: VolumeGeometry, order: NDArray[np.intp] | tuple[int, ...]) -> VolumeGeometry:
    """Return the same grid with its array's axes in another order."""
    return VolumeGeometry(
        shape=tuple(geometry.shape[axis] for axis in order),  # type: ignore[arg-type]
        spacing=tuple(geometry.spacing[axis] for axis in order),  # type: ignore[arg-type]
        origin=geometry.origin,
        axes=tuple(geometry.axes[axis] for axis in order),  # type: ignore[arg-type]
    )


def _weights(source: VolumeGeometry, target: VolumeGeometry, axis: int) -> Floats:
    """Return the weights (target voxel, source voxel) along an axis; a row adds up to 1 inside the volume.

    Up to half a source voxel beyond the outermost centres the volume goes on as it ends.
    """
    count = source.shape[axis]
    first = source.world_to_index(target.origin)[axis]
    sign = np.sign(np.dot(source.axes[axis], target.axes[axis]))
    step = target.spacing[axis] / source.spacing[axis]
    centres = first + sign * step * np.arange(target.shape[axis])
    voxels = np.arange(count)
    if step > 1:
        low = np.maximum(centres[:, None] - step / 2, voxels - 0.5)
        high = np.minimum(centres[:, None] + step / 2, voxels + 0.5)
        weights = np.maximum(high - low, 0) / step
    else:
        inside = (centres >= -0.5) & (centres <= count - 0.5)
        held = np.clip(centres, 0, count - 1)
        weights = np.maximum(1 - np.abs(held[:, None] - voxels), 0) * inside[:, None]
    # Rounding must not make a weight of what is not covered at all.
    weights[weights < 1e-6] = 0
    rounded: Floats = weights.astype(np.float32)
    return rounded


def _reducer(rows: Floats, columns: Floats) -> Callable[[NDArray[Any]], Floats]:
    """Return what puts a slice of the source onto the target's rows and columns."""
    row_part, column_part = _covered(rows), _covered(columns)
    # A weight or three in each row: BLAS would multiply zeros, and its threads wait for each other at this size.
    left = sparse.csr_array(rows[:, row_part])
    right = sparse.csr_array(columns[:, column_part])

    def reduce(plane: NDArray[Any]) -> Floats:
        part = np.asarray(plane[row_part, column_part], np.float32)
        reduced: Floats = (right @ np.ascontiguousarray((left @ part).T)).T
        return reduced

    return reduce


def _covered(weights: Floats) -> slice:
    used = np.flatnonzero(weights.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0)
