"""Where the scores of overlapping windows add up, until no later window sees them.

Windows come layer by layer, and in a layer row by row; along the last axis all is held. Arrays are ``[channel, layer
axis, row axis, column axis]``; the last channel holds the sum of the weights.

Where that would take too much, an image is gone through in bands along the last axis: the windows on a border are asked
for both bands, and the result is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_BYTES = 4  # of a float32
#: Bytes. Up to here a whole layer is held, which moves the least; beyond, a row of it.
_LAYER_LIMIT = 2**30
#: Bytes. Beyond, an image is gone through in bands.
_BAND_LIMIT = 3 * 2**30


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a window sees along an axis, in voxels of the image."""

    low: int  # its first voxel
    high: int  # the one after its last
    final: int  # from `low` up to here no later window sees anything
    before: int  # from `low` on, so many voxels earlier windows have seen


class Accumulator(Protocol):
    """Sums of one layer of windows, and what later ones add to."""

    def begin(self, layer: Reach, row: Reach) -> Floats:
        """Return the sums where a row of windows lies, ready to be added to."""

    def finish(self, layer: Reach, row: Reach) -> Floats:
        """Return the sums that are final after a row; they may be changed until the next call."""

    def end_row(self, layer: Reach, row: Reach) -> None:
        """Make room for the next row."""

    def end_layer(self, layer: Reach) -> None:
        """Make room for the next layer."""


def accumulator(channels: int, shape: tuple[int, int, int], layers: list[Reach], rows: list[Reach]) -> Accumulator:
    """Choose how to add up the scores of an image.

    Parameters
    ----------
    channels : int
        Those of the network; the weights get one more.
    shape : tuple of int
        Of the image.
    layers, rows : list of Reach
        All there will be.
    """
    depth = max(layer.high - layer.low for layer in layers)
    if (channels + 1) * depth * shape[1] * shape[2] * _BYTES <= _LAYER_LIMIT:
        return _WholeLayer((channels + 1, depth, shape[1], shape[2]))
    width = max(row.high - row.low for row in rows)
    carried = max(layer.high - layer.final for layer in layers)
    return _RowByRow((channels + 1, depth, width, shape[2]), (channels + 1, carried, shape[1], shape[2]))


def column_limit(channels: int, shape: tuple[int, int, int], layers: list[Reach], rows: list[Reach]) -> int:
    """Return how many voxels along the last axis can be gone through at once."""
    depth = max(layer.high - layer.low for layer in layers)
    width = max(row.high - row.low for row in rows)
    carried = max(layer.high - layer.final for layer in layers)
    return max(1, _BAND_LIMIT // ((channels + 1) * (depth * width + carried * shape[1]) * _BYTES))


class _WholeLayer:
    """A layer at full width."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self._sums = np.zeros(shape, np.float32)

    def begin(self, layer: Reach, row: Reach) -> Floats:
        self._sums[:, layer.before :, row.low + row.before : row.high] = 0
        return self._sums[:, : layer.high - layer.low, row.low : row.high]

    def finish(self, layer: Reach, row: Reach) -> Floats:
        return self._sums[:, : layer.final - layer.low, row.low : row.final]

    def end_row(self, layer: Reach, row: Reach) -> None:
        """Do nothing: every row has its place."""

    def end_layer(self, layer: Reach) -> None:
        # Channel by channel: NumPy then sees that nothing overlaps, and makes no copy in between.
        for channel in self._sums:
            channel[: layer.high - layer.final] = channel[layer.final - layer.low : layer.high - layer.low]


class _RowByRow:
    """A row of a layer, and apart from it what the next layer adds to."""

    def __init__(self, row: tuple[int, int, int, int], carry: tuple[int, int, int, int]) -> None:
        self._sums = np.zeros(row, np.float32)
        self._carry = np.zeros(carry, np.float32)

    def begin(self, layer: Reach, row: Reach) -> Floats:
        fresh = self._sums[:, :, row.before : row.high - row.low]
        fresh[:, : layer.before] = self._carry[:, : layer.before, row.low + row.before : row.high]
        fresh[:, layer.before :] = 0
        return self._sums[:, : layer.high - layer.low, : row.high - row.low]

    def finish(self, layer: Reach, row: Reach) -> Floats:
        width, deep = row.final - row.low, layer.final - layer.low
        left = layer.high - layer.final
        self._carry[:, :left, row.low : row.final] = self._sums[:, deep : deep + left, :width]
        return self._sums[:, :deep, :width]

    def end_row(self, layer: Reach, row: Reach) -> None:  # noqa: ARG002 - see Accumulator
        # What the next row adds to moves to the front.
        for channel in self._sums:
            for plane in channel:
                plane[: row.high - row.final] = plane[row.final - row.low : row.high - row.low]

    def end_layer(self, layer: Reach) -> None:
        """Do nothing: what the next layer adds to is in its place."""
