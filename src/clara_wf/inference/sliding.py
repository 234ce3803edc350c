"""A network over a whole image, window by window, in bounded memory.

Windows overlap, and a voxel's scores are the weighted mean of all windows that see it. Nothing holds the scores of the
whole image: as soon as no later window will see a part of it, that part is given away. What is kept is one row of
windows, and what the next layer of windows still has to add to; see `accumulator`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from clara_wf.inference.accumulator import Reach, accumulator, column_limit
from clara_wf.inference.description import Window
from clara_wf.inference.engine import Network
from clara_wf.inference.memory import check_fits
from clara_wf.inference.reader import IntTriple
from clara_wf.inference.windows import checked_answer, cut, fitting
from clara_wf.model.errors import InputError

Floats = NDArray[np.float32]
#: The least that a voxel counts, beside 1 in the middle: far from it, a Gaussian vanishes and the mean would be 0 / 0.
#: MONAI's, and what half precision leaves of nnU-Net's.
_LEAST_WEIGHT = {"gaussian": 1e-3, "gaussian-nnunet": 6e-9}

#: Slices that are added at once.
_SLAB = 8
#: Days of work on a processor.
_MOST_WINDOWS = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A part of the image with final scores, valid until the next one is asked for."""

    start: IntTriple  # its first voxel, in the image
    scores: Floats  # [channel, ...]; may be changed


def starts(length: int, size: int, *, overlap: float, placement: str) -> list[int]:
    """Return the first voxel of each window along an axis.

    Parameters
    ----------
    length : int
        Of the image.
    size : int
        Of a window's output.
    overlap : float
        Share that neighbours have in common.
    placement : {"even", "stride"}
        even: equal steps, none larger than asked for (nnU-Net). stride: whole steps, and the last window moved back
        until it ends with the image (MONAI).

    Returns
    -------
    list of int
        Growing. An image smaller than a window lies in its middle: one negative number.
    """
    spare = length - size
    if spare <= 0:
        return [-(-spare // 2)]
    if placement == "even":
        count = ceil(spare / max(1.0, size * (1 - overlap))) + 1
        return [round(spare / (count - 1) * index) for index in range(count)]
    step = max(1, int(size * (1 - overlap)))
    return [*range(0, spare, step), spare]


def importance(window: Window, output: Sequence[int]) -> Floats:
    """Return what each voxel of a window's output counts.

    A Gaussian around the middle, its standard deviation `sigma` of the window along each axis; or 1 everywhere. The
    middle of an even number of voxels is between two of them for MONAI, and the second of these for nnU-Net.
    """
    if window.blending == "constant":
        return np.ones((1, 1, 1), np.float32)
    lines = []
    for length in output:
        away = np.arange(length) - (length // 2 if window.blending == "gaussian-nnunet" else (length - 1) / 2)
        lines.append(np.exp(-((away / (window.sigma * length)) ** 2) / 2).astype(np.float32))
    bell: Floats = np.maximum(
        lines[0][:, None, None] * lines[1][:, None] * lines[2], np.float32(_LEAST_WEIGHT[window.blending])
    )
    return bell


@dataclass(frozen=True, kw_only=True)
class Band:
    """A part of the image along the last of the axes in order, gone through by itself."""

    low: int  # its first voxel
    high: int  # the one after its last


class Sliding:
    """A network's windows over an image.

    Parameters
    ----------
    network : Network
        Takes ``[n, 1, x, y, z]``, gives ``[n, channel, x, y, z]`` shorter by the window's margin on each side.
    window : Window
        As the model's description says.
    image : array
        ``[x, y, z]`` on the network's grid, as the network wants it.
    channels : int
        Of the network's output.
    progress : callable
        Told the share of windows done.

    Attributes
    ----------
    order : tuple of int
        Axes of the image in the order in which windows advance, the longest first: that keeps least in memory.
    shape : tuple of int
        Of the image, in that order.

    Raises
    ------
    InputError
        The image is larger than the window, which can neither grow nor be one of several; or there would be too many
        windows, or too large ones.
    """

    def __init__(
        self,
        network: Network,
        window: Window,
        image: Floats,
        *,
        channels: int,
        progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._network, self._window, self._image, self._channels = network, window, image, channels
        self._progress = progress
        self._size = fitting(window, (image.shape[0], image.shape[1], image.shape[2]))
        first, second, third = sorted(range(3), key=lambda axis: -image.shape[axis])
        self.order = (first, second, third)
        self.shape = (image.shape[first], image.shape[second], image.shape[third])
        output = [length - 2 * edge for length, edge in zip(self._size, window.margin, strict=True)]
        self._output = [output[axis] for axis in self.order]
        self._starts = [
            starts(length, part, overlap=window.overlap, placement=window.placement)
            for length, part in zip(self.shape, self._output, strict=True)
        ]
        asked = prod(len(along) for along in self._starts)
        if asked > _MOST_WINDOWS:
            raise InputError(
                f"the image would take {asked:,} windows, {_MOST_WINDOWS:,} are the most",
                remedy="Lower the overlap in the model's description",
            )
        # A network holds its input and its output at least, and much more in between.
        check_fits("a window", self._size, copies=1 + channels)
        self._layers, self._rows = self._reaches(0), self._reaches(1)
        self._weights = importance(window, output).transpose(self.order)
        self._batch = max(1, min(window.batch, network.batch, len(self._starts[2])))
        self._given = np.empty((self._batch, 1, *self._size), np.float32)
        self._pool = ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0)))

    def bands(self) -> list[Band]:
        """Return the bands in which the image fits into memory: one, unless there are many channels."""
        length = self.shape[2]
        count = ceil(length / column_limit(self._channels, self.shape, self._layers, self._rows))
        borders = [round(length * index / count) for index in range(count + 1)]
        return [Band(low=low, high=high) for low, high in pairwise(borders)]

    def blocks(self, band: Band, *, beside: int = 0) -> Iterator[Block]:
        """Ask about a band, and give its scores part by part.

        Parameters
        ----------
        band : Band
            One of `bands`; each is asked for once.
        beside : int
            So many voxels before the band are given as well.

        Yields
        ------
        Block
            They cover the band once, row by row and layer by layer, each with all of the band along the last axis.

        Raises
        ------
        InputError
            The network gives something of another shape than its description says, or values that are no numbers.
        """
        low = max(0, band.low - beside)
        shape = (self.shape[0], self.shape[1], band.high - low)
        columns = [
            start
            for start in self._starts[2]
            if start < band.high and min(start + self._output[2], self.shape[2]) > low
        ]
        sums = accumulator(self._channels, shape, self._layers, self._rows)
        asked = len(self._starts[0]) * len(self._starts[1]) * len(columns)
        share = (band.high - band.low) / self.shape[2]
        done = 0
        for first, layer in zip(self._starts[0], self._layers, strict=True):
            for near, row in zip(self._starts[1], self._rows, strict=True):
                place = sums.begin(layer, row)
                for column, answer in self._ask((first, near), columns):
                    begin, end = max(column, low), min(column + self._output[2], band.high)
                    part = (
                        slice(layer.low - first, layer.high - first),
                        slice(row.low - near, row.high - near),
                        slice(begin - column, end - column),
                    )
                    self._add(place[..., begin - low : end - low], answer, part)
                    done += 1
                    self._progress((band.low / self.shape[2]) + share * done / asked)
                yield Block(start=(layer.low, row.low, low), scores=_mean(sums.finish(layer, row)))
                sums.end_row(layer, row)
            sums.end_layer(layer)

    def _reaches(self, axis: int) -> list[Reach]:
        along, length = self._starts[axis], self.shape[axis]
        highs = [min(start + self._output[axis], length) for start in along]
        return [
            Reach(
                low=max(start, 0),
                high=highs[index],
                final=along[index + 1] if index + 1 < len(along) else length,
                before=highs[index - 1] - start if index else 0,
            )
            for index, start in enumerate(along)
        ]

    def _ask(self, place: tuple[int, int], columns: Sequence[int]) -> Iterator[tuple[int, Floats]]:
        """Ask about the windows of a row; gives where each begins and ``[channel, ...]``, axes in order."""
        for first in range(0, len(columns), self._batch):
            part = columns[first : first + self._batch]
            for index, column in enumerate(part):
                start = [0, 0, 0]
                for axis, value in zip(self.order, (*place, column), strict=True):
                    start[axis] = value
                cut(self._image, start, self._window, out=self._given[index, 0])
            answers = self._network.infer(self._given[: len(part)])
            checked_answer(answers, self._size, self._window, batch=len(part), channels=self._channels)
            for index, column in enumerate(part):
                yield column, answers[index].transpose(0, *(axis + 1 for axis in self.order))

    def _add(self, sums: Floats, answer: Floats, part: tuple[slice, slice, slice]) -> None:
        """Add the part of a window's scores that lies in the image, weighted, and in the last channel the weights."""
        scores = answer[(slice(None), *part)]
        weights = self._weights[part] if self._window.blending != "constant" else None
        # While a network computes it has all cores; so has what is done between two windows.
        slabs = [slice(first, first + _SLAB) for first in range(0, sums.shape[1], _SLAB)]
        for _ in self._pool.map(lambda slab: _add_slab(sums[:, slab], scores[:, slab], _of(weights, slab)), slabs):
            pass


def _of(weights: Floats | None, slab: slice) -> Floats | None:
    return None if weights is None else weights[slab]


def _add_slab(sums: Floats, scores: Floats, weights: Floats | None) -> None:
    """Add scores, weighted, and in the last channel the weights: a few slices, which stay near the processor."""
    if weights is None:
        sums[:-1] += scores
        sums[-1] += 1
        return
    weighted = np.empty(weights.shape, np.float32)
    for total, channel in zip(sums, scores, strict=False):
        np.add(total, np.multiply(channel, weights, out=weighted), out=total)
    sums[-1] += weights


def _mean(sums: Floats) -> Floats:
    """Divide the sums by the weights in the last channel, in place."""
    scores = sums[:-1]
    scores /= sums[-1]
    # In double precision, which takes long, only where single precision may just have overflowed.
    if not np.isfinite(scores.sum()) and not np.isfinite(np.sum(scores, dtype=np.float64)):
        raise InputError("the network gave values that are no numbers")
    return scores
