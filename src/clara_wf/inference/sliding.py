"""A network over a whole image, window by window, in bounded memory.

Windows overlap, and a voxel's scores are the weighted mean of all windows that see it. Nothing holds the scores of the
whole image: as soon as no later window will see a part of it, that part is given away. What is kept is one row of
windows, and what the next layer of windows still has to add to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from clara_wf.inference.accumulator import Accumulator, Reach, accumulator
from clara_wf.inference.description import Window
from clara_wf.inference.engine import Network
from clara_wf.inference.reader import IntTriple
from clara_wf.inference.windows import checked_answer, cut, fitting
from clara_wf.model.errors import InputError

Floats = NDArray[np.float32]
#: The least that a voxel counts, beside 1 in the middle: far from it, a Gaussian vanishes and the mean would be 0 / 0.
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A part of the image with final scores, valid until the next one is asked for."""

    start: tuple[int, int]  # its first voxel along the first two axes, in the image; the third is whole
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

    A Gaussian around the middle, its standard deviation `sigma` of the window along each axis; or 1 everywhere.
    """
    if window.blending == "constant":
        return np.ones((1, 1, 1), np.float32)
    lines = []
    for length in output:
        away = np.arange(length) - (length - 1) / 2
        lines.append(np.exp(-((away / (window.sigma * length)) ** 2) / 2).astype(np.float32))
    bell: Floats = np.maximum(lines[0][:, None, None] * lines[1][:, None] * lines[2], np.float32(_LEAST_WEIGHT))
    return bell


def order_of_axes(shape: Sequence[int]) -> IntTriple:
    """Return the axes in the order in which windows advance: the longest first, which keeps least in memory."""
    first, second, third = sorted(range(3), key=lambda axis: -shape[axis])
    return first, second, third


def blocks(
    network: Network,
    window: Window,
    image: Floats,
    order: IntTriple,
    *,
    progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Block]:
    """Ask a network about a whole image, and give its scores part by part.

    Parameters
    ----------
    network : Network
        Takes ``[n, 1, x, y, z]``, gives ``[n, channel, x, y, z]`` shorter by the window's margin on each side.
    window : Window
        As the model's description says.
    image : array
        ``[x, y, z]`` on the network's grid, as the network wants it.
    order : tuple of int
        Axes of the image in the order in which windows advance; the blocks' axes follow it.
    progress : callable
        Told the share of windows done.

    Yields
    ------
    Block
        They cover the image once, row by row and layer by layer, each with the whole of the last axis.

    Raises
    ------
    InputError
        The network gives something of another shape than its description says, or values that are no numbers.
    """
    size = fitting(window, (image.shape[0], image.shape[1], image.shape[2]))
    yield from _Sliding(network, window, image, size=size, order=order, progress=progress).blocks()


class _Sliding:
    """One pass over an image. Axes are in the order of advance: layer, row, column."""

    def __init__(
        self,
        network: Network,
        window: Window,
        image: Floats,
        *,
        size: IntTriple,
        order: IntTriple,
        progress: Callable[[float], None],
    ) -> None:
        self._network, self._window, self._image, self._size, self._order = network, window, image, size, order
        self._progress = progress
        output = [length - 2 * edge for length, edge in zip(size, window.margin, strict=True)]
        self._shape = (image.shape[order[0]], image.shape[order[1]], image.shape[order[2]])
        self._output = [output[axis] for axis in order]
        self._starts = [
            starts(length, part, overlap=window.overlap, placement=window.placement)
            for length, part in zip(self._shape, self._output, strict=True)
        ]
        self._weights = importance(window, output).transpose(order)
        self._batch = max(1, min(window.batch, network.batch, len(self._starts[2])))
        self._given = np.empty((self._batch, 1, *size), np.float32)
        self._weighted = np.empty(self._weights.shape, np.float32)
        self._done = 0

    def blocks(self) -> Iterator[Block]:
        layers, rows, columns = (
            [self._reach(axis, index) for index in range(len(self._starts[axis]))] for axis in range(3)
        )
        sums: Accumulator | None = None
        for first, layer in zip(self._starts[0], layers, strict=True):
            for near, row in zip(self._starts[1], rows, strict=True):
                place: Floats | None = None
                for index, answer in self._ask(first, near):
                    if sums is None:
                        sums = accumulator(len(answer), self._shape, layers, rows)
                    if place is None:
                        place = sums.begin(layer, row)
                    column = columns[index]
                    parts = [
                        slice(reach.low - start, reach.high - start)
                        for reach, start in zip(
                            (layer, row, column), (first, near, self._starts[2][index]), strict=True
                        )
                    ]
                    self._add(place[..., column.low : column.high], answer, (parts[0], parts[1], parts[2]))
                if sums is None:
                    raise ValueError("a row without a window")
                yield Block(start=(layer.low, row.low), scores=_mean(sums.finish(layer, row)))
                sums.end_row(layer, row)
            if sums is not None:
                sums.end_layer(layer)

    def _reach(self, axis: int, index: int) -> Reach:
        along, length = self._starts[axis], self._shape[axis]

        def end(begin: int) -> int:
            return int(min(begin + self._output[axis], length))

        low = max(along[index], 0)
        return Reach(
            low=low,
            high=end(along[index]),
            final=along[index + 1] if index + 1 < len(along) else length,
            before=end(along[index - 1]) - low if index else 0,
        )

    def _ask(self, layer: int, row: int) -> Iterator[tuple[int, Floats]]:
        """Ask about the windows of a row; gives the index of the column and ``[channel, ...]``, axes in order."""
        columns = self._starts[2]
        total = len(self._starts[0]) * len(self._starts[1]) * len(columns)
        for first in range(0, len(columns), self._batch):
            part = columns[first : first + self._batch]
            for place, column in enumerate(part):
                start = [0, 0, 0]
                for axis, value in zip(self._order, (layer, row, column), strict=True):
                    start[axis] = value
                cut(self._image, start, self._window, out=self._given[place, 0])
            answers = self._network.infer(self._given[: len(part)])
            checked_answer(answers, self._size, self._window, len(part))
            for place in range(len(part)):
                yield first + place, answers[place].transpose(0, *(axis + 1 for axis in self._order))
            self._done += len(part)
            self._progress(self._done / total)

    def _add(self, sums: Floats, answer: Floats, part: tuple[slice, slice, slice]) -> None:
        """Add the part of a window's scores that lies in the image, weighted, and in the last channel the weights."""
        if self._window.blending == "constant":
            for total, scores in zip(sums, answer, strict=False):
                np.add(total, scores[part], out=total)
            sums[-1] += 1
            return
        weights = self._weights[part]
        # One channel's worth of memory for all: asking the system for it anew takes longer than the product.
        weighted = self._weighted[tuple(slice(0, length) for length in weights.shape)]
        for total, scores in zip(sums, answer, strict=False):
            np.add(total, np.multiply(scores[part], weights, out=weighted), out=total)
        sums[-1] += weights


def _mean(sums: Floats) -> Floats:
    """Divide the sums by the weights in the last channel, in place."""
    scores = sums[:-1]
    scores /= sums[-1]
    if not np.isfinite(np.sum(scores, dtype=np.float64)):
        raise InputError("the network gave values that are no numbers")
    return scores
