"""Windows: which parts of a grid a network is given, and how its answers become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from math import ceil

import numpy as np
from numpy.typing import NDArray

from clara_wf.inference.description import Window
from clara_wf.inference.engine import Network
from clara_wf.inference.reader import IntTriple
from clara_wf.model.errors import InputError

Floats = NDArray[np.float32]


def fitting(window: Window, shape: IntTriple) -> IntTriple:
    """Return the window's size for an image of `shape`: as described, or grown until its output covers the image.

    Raises
    ------
    InputError
        The image is larger, and the network takes neither a larger window nor several.
    """
    if window.tiling:
        return window.size
    size = []
    for axis in range(3):
        lack = shape[axis] + 2 * window.margin[axis] - window.size[axis]
        if lack > 0 and window.step[axis] == 0:
            raise InputError(
                f"the image has {shape[axis]} voxels on the network's grid, its window holds "
                f"{window.size[axis] - 2 * window.margin[axis]} and cannot grow"
            )
        size.append(window.size[axis] + (ceil(lack / window.step[axis]) * window.step[axis] if lack > 0 else 0))
    return size[0], size[1], size[2]


def tiles(window: Window, shape: IntTriple, wanted: NDArray[np.bool_] | None = None) -> list[IntTriple]:
    """Return the first voxel of each window's output, in voxels of the image; negative where that is smaller.

    As few windows as cover what is wanted, with the overlap asked for: it is cut into layers along one axis, these into
    rows along the next, these into windows along the last, in the order of axes that takes the fewest.

    Parameters
    ----------
    window : Window
        As the model's description says.
    shape : tuple of int
        Of the image.
    wanted : array of bool, optional
        What is to be covered; all of the image if None.
    """
    size = fitting(window, shape)
    output = [length - 2 * edge for length, edge in zip(size, window.margin, strict=True)]
    mask = np.ones(shape, bool) if wanted is None else wanted
    covers = (_cover(mask, output, window.overlap, order) for order in permutations(range(3)))
    return [(starts[0], starts[1], starts[2]) for starts in min(covers, key=len)]


def _cover(
    mask: NDArray[np.bool_], output: Sequence[int], overlap: float, order: Sequence[int]
) -> list[Mapping[int, int]]:
    """Cover what a mask marks, axis by axis; returns the first voxel along each axis for each window."""
    axis, *others = order
    used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    if not used.size:
        return []
    first, length = int(used[0]), int(used[-1] - used[0]) + 1
    spare = length - output[axis]
    if spare <= 0:
        # What is wanted in the middle of the window.
        starts = [first + spare // 2]
    else:
        count = ceil(spare / max(1.0, output[axis] * (1 - overlap))) + 1
        starts = [first + round(spare * index / (count - 1)) for index in range(count)]
    found: list[Mapping[int, int]] = []
    for start in starts:
        if not others:
            found.append({axis: start})
            continue
        layer = np.zeros_like(mask)
        part = (slice(None),) * axis + (slice(max(start, 0), max(start + output[axis], 0)),)
        layer[part] = mask[part]
        found += [{axis: start, **rest} for rest in _cover(layer, output, overlap, others)]
    return found


def infer(
    network: Network,
    window: Window,
    image: Floats,
    *,
    channels: int,
    wanted: NDArray[np.bool_] | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Floats:
    """Ask a network for its scores on a whole image.

    Parameters
    ----------
    network : Network
        Takes ``[1, 1, x, y, z]``, gives ``[1, channel, x, y, z]`` shorter by the window's margin on each side.
    window : Window
        As the model's description says.
    image : array
        float32 on the network's grid, scaled.
    channels : int
        Of the network's output.
    wanted : array of bool, optional
        Where scores are needed; elsewhere they may be missing, and are the lowest of all.
    progress : callable
        Told the share of windows done.

    Returns
    -------
    array
        ``[channel, x, y, z]``, float32; the mean where windows overlap.

    Raises
    ------
    InputError
        The image does not fit the window, see `fitting`; or the network gives something of another shape than its
        description says, or values that are no numbers.
    """
    shape = (image.shape[0], image.shape[1], image.shape[2])
    size = fitting(window, shape)
    chosen = tiles(window, shape, wanted)
    total: Floats = np.zeros((channels, *shape), np.float32)
    count = np.zeros(shape, np.float32)
    given = np.empty((1, 1, *size), np.float32)
    for index, start in enumerate(chosen):
        cut(image, start, window, out=given[0, 0])
        answer = checked_answer(network.infer(given), size, window, batch=1, channels=channels)[0]
        place = _inside(start, size, window, shape)
        part = tuple(
            slice(position.start - first, position.stop - first) for position, first in zip(place, start, strict=True)
        )
        total[(slice(None), *place)] += answer[(slice(None), *part)]
        count[place] += 1
        progress((index + 1) / len(chosen))
    if not np.isfinite(np.sum(total, dtype=np.float64)):
        raise InputError("the network gave values that are no numbers")
    lowest = total.min()
    np.divide(total, count, out=total, where=count > 0)
    total[:, count == 0] = lowest
    return total


def checked_answer(answers: Floats, size: IntTriple, window: Window, *, batch: int, channels: int) -> Floats:
    """Return a network's answers if they have the shape that its description says.

    Parameters
    ----------
    answers : array
        ``[n, channel, x, y, z]``.
    size : tuple of int
        Of the windows that it was given.
    window : Window
        As the model's description says.
    batch : int
        How many windows it was given.
    channels : int
        That it should have.

    Raises
    ------
    InputError
        They do not.
    """
    expected = tuple(length - 2 * edge for length, edge in zip(size, window.margin, strict=True))
    if answers.ndim != 5 or len(answers) != batch or answers.shape[2:] != expected:
        raise InputError(
            f"the network gave {answers.shape[2:]} voxels for a window of {size}; "
            f"with the margin that its description names it should be {expected}"
        )
    if answers.shape[1] != channels:
        raise InputError(f"the network gives {answers.shape[1]} channels, its description names {channels}")
    return answers


def cut(image: Floats, start: Sequence[int], window: Window, *, out: Floats) -> None:
    """Copy a window of the image, padded where it looks beyond.

    Parameters
    ----------
    image : array
        ``[x, y, z]``.
    start : sequence of int
        First voxel of the window's output; its input begins a margin earlier.
    out : array
        Of the window's size.
    """
    source, target = [], []
    for first, length, edge, limit in zip(start, out.shape, window.margin, image.shape, strict=True):
        begin = first - edge
        low, high = max(begin, 0), min(begin + length, limit)
        source.append(slice(low, high))
        target.append(slice(low - begin, high - begin))
    if any(part.stop - part.start < length for part, length in zip(target, out.shape, strict=True)):
        out[:] = np.float32(window.padding)
    out[tuple(target)] = image[tuple(source)]


def _inside(start: IntTriple, size: IntTriple, window: Window, shape: IntTriple) -> tuple[slice, slice, slice]:
    """Return the part of the image that a window's output covers."""
    x, y, z = (
        slice(max(first, 0), min(first + length - 2 * edge, limit))
        for first, length, edge, limit in zip(start, size, window.margin, shape, strict=True)
    )
    return x, y, z
