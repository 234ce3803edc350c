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

from clara_wf.inference.description import Window
from clara_wf.inference.engine import Network
from clara_wf.inference.reader import IntTriple
from clara_wf.inference.windows import checked_answer, cut, fitting
from clara_wf.model.errors import InputError

Floats = NDArray[np.float32]
#: The least that a voxel counts, beside 1 in the middle: far from it, a Gaussian vanishes and the mean would be 0 / 0.
_LEAST_WEIGHT = 1e-3
#: Bytes. What is carried from layer to layer is kept in half precision where it takes more in single precision.
_CARRY_LIMIT = 2**31


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
        self._shape = [image.shape[axis] for axis in order]
        self._output = [output[axis] for axis in order]
        self._starts = [
            starts(length, part, overlap=window.overlap, placement=window.placement)
            for length, part in zip(self._shape, self._output, strict=True)
        ]
        self._weights = importance(window, output).transpose(order)
        self._batch = max(1, min(window.batch, network.batch, len(self._starts[2])))
        self._given = np.empty((self._batch, 1, *size), np.float32)
        self._done = 0

    def blocks(self) -> Iterator[Block]:
        layers, rows, _ = self._starts
        carry: NDArray[np.floating] | None = None
        row_buffer: Floats | None = None
        for layer, first in enumerate(layers):
            low, high, final = self._reach(0, layer)
            before = self._reach(0, layer - 1)[1] - low if layer else 0  # slices that earlier layers have added to
            for row in range(len(rows)):
                near, far, done = self._reach(1, row)
                kept = self._reach(1, row - 1)[1] - near if row else 0
                for index, answer in self._ask(first, rows[row]):
                    if row_buffer is None:
                        row_buffer = np.zeros(
                            (len(answer) + 1, high - low, self._widest(1), self._shape[2]), np.float32
                        )
                    if index == 0:
                        self._begin_row(row_buffer, carry, before, kept, (near, far))
                    self._add(row_buffer, answer, (layer, row, index))
                if row_buffer is None:
                    raise ValueError("a row without a window")
                width = done - near
                if final < high:
                    if carry is None:
                        carry = self._new_carry(len(row_buffer))
                    carry[:, : high - final, near:done] = row_buffer[:, final - low :, :width]
                yield Block(start=(low, near), scores=_mean(row_buffer[:, : final - low, :width]))
                # What later rows add to moves to the front.
                row_buffer[:, :, : far - done] = row_buffer[:, :, width : far - near].copy()

    def _reach(self, axis: int, index: int) -> tuple[int, int, int]:
        """Return where a window's output begins and ends in the image, and up to where no later window sees it."""
        along, length = self._starts[axis], self._shape[axis]
        begin = along[index]
        following = along[index + 1] if index + 1 < len(along) else length
        return max(begin, 0), min(begin + self._output[axis], length), following

    def _widest(self, axis: int) -> int:
        return int(min(self._output[axis], self._shape[axis]))

    def _new_carry(self, channels: int) -> NDArray[np.floating]:
        deepest = max(self._reach(0, layer)[1] - self._reach(0, layer)[2] for layer in range(len(self._starts[0])))
        shape = (channels, deepest, self._shape[1], self._shape[2])
        kind = np.float32 if np.prod(shape) * 4 <= _CARRY_LIMIT else np.float16
        return np.zeros(shape, kind)

    def _begin_row(
        self, buffer: Floats, carry: NDArray[np.floating] | None, before: int, kept: int, reach: tuple[int, int]
    ) -> None:
        """Fill what a row of windows sees for the first time with what earlier layers left there."""
        near, far = reach
        fresh = buffer[:, :, kept : far - near]
        fresh[:] = 0
        if carry is not None and before:
            fresh[:, :before] = carry[:, :before, near + kept : far]

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

    def _add(self, buffer: Floats, answer: Floats, index: IntTriple) -> None:
        """Add a window's weighted scores, and in the last channel the weights."""
        source, target = [], []
        for axis in range(3):
            begin = self._starts[axis][index[axis]]
            low, high, _ = self._reach(axis, index[axis])
            source.append(slice(low - begin, high - begin))
            # The buffer begins where the layer and the row do; along the last axis it is whole.
            offset = 0 if axis == 2 else low
            target.append(slice(low - offset, high - offset))
        place, part = tuple(target), tuple(source)
        if self._window.blending == "constant":
            for channel, scores in zip(buffer[:-1], answer, strict=True):
                channel[place] += scores[part]
            buffer[-1][place] += 1
            return
        weights = self._weights[part]
        for channel, scores in zip(buffer[:-1], answer, strict=True):
            channel[place] += scores[part] * weights
        buffer[-1][place] += weights


def _mean(sums: Floats) -> Floats:
    """Divide the sums by the weights in the last channel, in place."""
    scores = sums[:-1]
    scores /= sums[-1]
    if not np.isfinite(np.sum(scores, dtype=np.float64)):
        raise InputError("the network gave values that are no numbers")
    return scores
