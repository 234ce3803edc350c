"""From a volume to what a network is fed, by the steps that its description lists, and the way back.

The volume's own axes are taken in the order and direction that come nearest to the description's orientation; nothing
is turned by an angle. From then on every step works along the axes, so the way back from the network's voxels to the
volume's is a weighted pair of voxels along each axis (`AxisMap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference.memory import check_fits
from clara_wf.inference.resample import DIRECTIONS, nearest_axes
from clara_wf.inference.steps import Clip, Crop, Normalize, Pad, Resample, Rescale, Scale, Step

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
#: Spacings that differ by less are the same to MONAI, whose grid is `first-voxel`.
_SAME_SPACING_MM = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class AxisMap:
    """How the volume's voxels along an axis follow from the network's: two of them, weighted.

    All arrays have one entry a voxel of the volume. Weights of 0 stand for what is beyond the network's grid.
    """

    low: Indices
    high: Indices
    low_weight: Floats
    high_weight: Floats

    @property
    def is_selection(self) -> bool:
        """Whether every voxel of the volume is one of the network's, or none: nothing is mixed."""
        return not self.high_weight.any() and bool(np.isin(self.low_weight, (0, 1)).all())


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """The volume's axes in the order and direction of the network's."""

    axes: tuple[int, int, int]  # of the volume, in the network's order
    flips: tuple[bool, bool, bool]  # whether that axis runs backwards

    @staticmethod
    def towards(geometry: VolumeGeometry, orientation: str) -> Turn:
        """Find the turn that brings a volume's axes nearest to an orientation."""
        wanted = np.array([DIRECTIONS[letter] for letter in orientation])
        own = np.array(geometry.axes)
        turned = nearest_axes(own, wanted)
        cosines = turned @ own.T
        axes = np.abs(cosines).argmax(axis=1)
        flips = [bool(cosines[index, axis] < 0) for index, axis in enumerate(axes)]
        return Turn(axes=(int(axes[0]), int(axes[1]), int(axes[2])), flips=(flips[0], flips[1], flips[2]))

    def view(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of an array of the volume's shape, along the network's axes."""
        steps = tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)
        return array.transpose(self.axes)[steps]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What a network is fed, and the way back."""

    image: Floats  # [x, y, z], along the network's axes
    maps: tuple[AxisMap, AxisMap, AxisMap]  # from these voxels back to the volume's, axis by axis
    nothing: str  # why there is nothing to look for; empty otherwise


def prepare(volume: Volume, turn: Turn, steps: Sequence[Step]) -> Prepared:
    """Carry out the steps on a volume.

    Parameters
    ----------
    volume : Volume
        In any orientation; may be memory-mapped. It is not changed.
    turn : Turn
        Towards the description's orientation.
    steps : sequence of Step
        As the description lists them.
    """
    check_fits("the volume", volume.array.shape)
    values: Floats = np.array(turn.view(volume.array), np.float32, order="C")
    spacing = [volume.geometry.spacing[axis] for axis in turn.axes]
    maps = [_identity(length) for length in values.shape]
    for step in steps:
        match step:
            case Resample():
                values, maps = _resampled(values, maps, spacing, step)
            case Crop():
                found = values > 0 if step.keep == "positive" else values != 0
                if not found.any():
                    return Prepared(image=values, maps=_three(maps), nothing=f"no voxel of the image is {step.keep}")
                values, maps = _moved(values, maps, _box(found, step), 0.0)
            case Pad():
                values, maps = _moved(values, maps, _grown(values.shape, step), step.value)
            case _:
                _change(values, step)
    return Prepared(image=values, maps=_three(maps), nothing="")


def _three(maps: list[AxisMap]) -> tuple[AxisMap, AxisMap, AxisMap]:
    return maps[0], maps[1], maps[2]


def _change(values: Floats, step: Clip | Scale | Rescale | Normalize) -> None:
    """Change values in place."""
    match step:
        case Clip():
            np.clip(values, np.float32(step.low), np.float32(step.high), out=values)
        case Scale():
            (first, last), (low, high) = step.source, step.target
            values -= np.float32(first)
            values /= np.float32(last - first)
            values *= np.float32(high - low)
            values += np.float32(low)
            if step.clip:
                np.clip(values, np.float32(min(low, high)), np.float32(max(low, high)), out=values)
        case Rescale():
            smallest, largest = values.min(), values.max()
            if smallest == largest:
                values *= np.float32(step.low)
                return
            values -= smallest
            values /= largest - smallest
            values *= np.float32(step.high - step.low)
            values += np.float32(step.low)
        case Normalize():
            _normalize(values, step)


def _normalize(values: Floats, step: Normalize) -> None:
    where = np.ones((1, 1, 1), bool) if step.over == "all" else values != 0
    if step.over == "filled":
        where = ndimage.binary_fill_holes(where)
    chosen = values if step.over == "all" else values[where]
    if not chosen.size:
        return
    mean = chosen.mean(dtype=np.float64) if step.mean is None else step.mean
    sd = chosen.std(dtype=np.float64) if step.sd is None else step.sd
    np.subtract(values, np.float32(mean), out=values, where=where)
    np.divide(values, np.float32(sd or 1.0), out=values, where=where)


def _identity(length: int) -> AxisMap:
    every = np.arange(length)
    return AxisMap(
        low=every, high=every, low_weight=np.ones(length, np.float32), high_weight=np.zeros(length, np.float32)
    )


def _box(found: NDArray[np.bool_], step: Crop) -> list[tuple[int, int]]:
    """Return the first voxel along each axis and the one after the last; they may lie beyond the image."""
    reach = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        marked = np.flatnonzero(found.any(axis=others))
        first, end = int(marked[0]) - step.margin[axis], int(marked[-1]) + 1 + step.margin[axis]
        if not step.beyond:
            first, end = max(first, 0), min(end, found.shape[axis])
        divisor = step.divisible_by[axis]
        grown = ceil((end - first) / divisor) * divisor
        first -= (grown - (end - first)) // 2
        reach.append((first, first + grown))
    return reach


def _grown(shape: Sequence[int], step: Pad) -> list[tuple[int, int]]:
    reach = []
    for length, least, divisor in zip(shape, step.size, step.divisible_by, strict=True):
        grown = ceil(max(length, least) / divisor) * divisor
        before = (grown - length) // 2 if step.method == "symmetric" else 0
        reach.append((-before, grown - before))
    return reach


def _moved(
    values: Floats, maps: list[AxisMap], reach: list[tuple[int, int]], fill: float
) -> tuple[Floats, list[AxisMap]]:
    """Cut or grow the image to a box, and the maps with it."""
    lengths = [end - first for first, end in reach]
    check_fits("the network's image", lengths)
    moved = np.full(lengths, np.float32(fill))
    source, target, changed = [], [], []
    for (first, end), length, axis_map in zip(reach, values.shape, maps, strict=True):
        low, high = max(first, 0), min(end, length)
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
        changed.append(_shifted(axis_map, first, end - first))
    moved[tuple(target)] = values[tuple(source)]
    return moved, changed


def _shifted(axis_map: AxisMap, first: int, length: int) -> AxisMap:
    """Return the map to an image that begins at voxel `first` and has `length` of them; what it lacks weighs 0."""

    def moved(index: Indices, weight: Floats) -> tuple[Indices, Floats]:
        shifted = index - first
        inside = (shifted >= 0) & (shifted < length)
        return np.clip(shifted, 0, length - 1), weight * inside

    low, low_weight = moved(axis_map.low, axis_map.low_weight)
    high, high_weight = moved(axis_map.high, axis_map.high_weight)
    return AxisMap(low=low, high=high, low_weight=low_weight, high_weight=high_weight)


def _resampled(
    values: Floats, maps: list[AxisMap], spacing: list[float], step: Resample
) -> tuple[Floats, list[AxisMap]]:
    """Put the image onto the step's spacing, and the maps with it."""
    tolerance = _SAME_SPACING_MM if step.grid == "first-voxel" else 0.0
    wanted = [old if abs(old - new) < tolerance else new for old, new in zip(spacing, step.spacing, strict=True)]
    ratios = [new / old for new, old in zip(wanted, spacing, strict=True)]
    shape = [_new_length(length, 1 / ratio, step) for length, ratio in zip(values.shape, ratios, strict=True)]
    check_fits("the network's image", shape, copies=2)
    coarse, coarse_back = _coarse_axis(spacing, wanted, step), _coarse_axis(wanted, spacing, step)
    forward, changed = [], []
    for axis, (length, grown, ratio) in enumerate(zip(values.shape, shape, ratios, strict=True)):
        there = _positions(grown, length, ratio, step)
        forward.append(_pairs(there, length, nearest=step.interpolation == "nearest" or axis == coarse, step=step))
        back = _positions(length, grown, 1 / ratio, step)
        homewards = _pairs(back, grown, nearest=step.back == "nearest" or axis == coarse_back, step=step)
        changed.append(_followed(maps[axis], homewards))
    if step.interpolation == "cubic":
        values = _cubic(values, shape, ratios, step, coarse)
        return values if coarse is None else _along(values, forward[coarse], coarse), changed
    for axis in sorted(range(3), key=lambda axis: shape[axis] / values.shape[axis]):
        values = _along(values, forward[axis], axis)
    return values, changed


def _coarse_axis(first: Sequence[float], second: Sequence[float], step: Resample) -> int | None:
    """Return the axis whose voxels are so long that nothing may be interpolated along it, in either spacing."""
    if step.anisotropy is None:
        return None
    for triple in (first, second):
        if max(triple) / min(triple) > step.anisotropy:
            longest = [axis for axis in range(3) if triple[axis] == max(triple)]
            return longest[0] if len(longest) == 1 else None
    return None


def _new_length(length: int, ratio: float, step: Resample) -> int:
    if step.grid == "extent":
        return max(1, round(length * ratio))
    return max(1, round((length - 1) * ratio + 1))


def _positions(count: int, length: int, ratio: float, step: Resample) -> NDArray[np.float64]:
    """Return where the centres of `count` voxels lie among `length` others, in voxels of these.

    `ratio` is the spacing of the first over that of the others.
    """
    if step.grid == "extent":
        return np.clip((np.arange(count) + 0.5) * (length / count) - 0.5, 0, length - 1)
    return np.clip(np.arange(count) * ratio, 0, length - 1)


def _pairs(positions: NDArray[np.float64], length: int, *, nearest: bool, step: Resample) -> AxisMap:
    """Return the two voxels on either side of each position, weighted."""
    if nearest:
        # Halves go where the libraries that the networks were trained with let them go.
        index = np.rint(positions) if step.grid == "first-voxel" else np.floor(positions + 0.5)
        return replace(_identity(len(positions)), low=index.astype(np.intp), high=index.astype(np.intp))
    low = np.minimum(np.floor(positions), length - 1).astype(np.intp)
    share = (positions - low).astype(np.float32)
    return AxisMap(low=low, high=np.minimum(low + 1, length - 1), low_weight=1 - share, high_weight=share)


def _followed(first: AxisMap, second: AxisMap) -> AxisMap:
    """Return the map that selects by `first` and then mixes by `second`: nothing was mixed before a resampling."""
    return AxisMap(
        low=second.low[first.low],
        high=second.high[first.low],
        low_weight=second.low_weight[first.low] * first.low_weight,
        high_weight=second.high_weight[first.low] * first.low_weight,
    )


def _along(values: Floats, pairs: AxisMap, axis: int) -> Floats:
    """Mix voxels along one axis."""
    count, length = len(pairs.low), values.shape[axis]
    if count == length and pairs.is_selection and (pairs.low == np.arange(length)).all():
        return values
    rows = np.arange(count)
    matrix = sparse.csr_array(
        (
            np.concatenate([pairs.low_weight, pairs.high_weight]),
            (np.concatenate([rows, rows]), np.concatenate([pairs.low, pairs.high])),
        ),
        shape=(count, length),
    )
    if axis == 0:
        flat: Floats = matrix @ values.reshape(length, -1)
        return flat.reshape(count, *values.shape[1:])
    mixed = np.empty((*values.shape[:axis], count, *values.shape[axis + 1 :]), np.float32)
    for index, plane in enumerate(values):
        mixed[index] = matrix @ plane if axis == 1 else (matrix @ np.ascontiguousarray(plane.T)).T
    return mixed


def _cubic(values: Floats, shape: list[int], ratios: list[float], step: Resample, coarse: int | None) -> Floats:
    """Interpolate by cubic splines, except along the coarse axis."""
    if step.grid == "first-voxel":
        moved: Floats = ndimage.affine_transform(values, ratios, output_shape=tuple(shape), order=3, mode="nearest")
        return moved
    if coarse is not None:
        planes = np.moveaxis(values, coarse, 0)
        wanted = [length for axis, length in enumerate(shape) if axis != coarse]
        return np.ascontiguousarray(np.moveaxis(np.stack([_spline(plane, wanted) for plane in planes]), 0, coarse))
    return _spline(values, shape)


def _spline(values: Floats, shape: list[int]) -> Floats:
    """Interpolate between the outer borders; results stay within the image's own range."""
    if list(values.shape) == shape:
        return values
    zoom = [new / old for new, old in zip(shape, values.shape, strict=True)]
    curved: Floats = ndimage.zoom(values, zoom, order=3, mode="nearest", grid_mode=True)
    return np.clip(curved, values.min(), values.max(), out=curved)
