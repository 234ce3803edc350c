"""From a network's scores, part by part, to labels on the volume's own grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clara_wf.inference.description import ModelDescription
from clara_wf.inference.postprocess import winners
from clara_wf.inference.preparation import AxisMap
from clara_wf.inference.reader import IntTriple
from clara_wf.inference.sliding import Band, Block

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


class Drawer:
    """Draws blocks of scores as labels.

    A voxel of the volume is mixed from voxels of the network that may lie in two blocks, so the last slice and the last
    row of a block are kept for the next one. Bands overlap instead, see `beside`.

    Parameters
    ----------
    description : ModelDescription
        Says what the scores mean.
    maps : tuple of AxisMap
        From the network's voxels to the volume's, along the network's axes.
    order : tuple of int
        Of the axes in the blocks.
    target : array of uint8
        Of the volume's shape, along the network's axes; holds background, and receives the labels.
    """

    def __init__(
        self, description: ModelDescription, maps: tuple[AxisMap, AxisMap, AxisMap], order: IntTriple, target: Labels
    ) -> None:
        self._description = description
        self._maps = [maps[axis] for axis in order]
        self._target = target.transpose(order)
        self._selects = [axis_map.is_selection for axis_map in self._maps]
        self._last_slice: Floats | None = None  # of the layer before: [channel, row, column], as long as the image is
        self._next_slice: Floats | None = None  # the same of this layer
        self._last_row: Floats | None = None  # of the block before, with the slice before it

    @property
    def beside(self) -> int:
        """How many voxels before a band its blocks must hold."""
        return 0 if self._selects[2] else 1

    def draw(self, block: Block, rows: int, band: Band) -> None:
        """Draw what a block completes.

        Parameters
        ----------
        block : Block
            The next one of the band; its scores are changed.
        rows : int
            Of the network's whole image along the blocks' second axis.
        band : Band
            That the block is of.
        """
        scores = _activated(block.scores, self._description.activation)
        first, near, begin = block.start
        if near == 0:
            self._last_slice, self._next_slice = None if first == 0 else self._next_slice, None
            self._last_row = None
        scores, first, near, fresh = self._joined(scores, first, near, rows)
        slices, slices_map = _completed(self._maps[0], fresh[0], first + scores.shape[1], first)
        across, rows_map = _completed(self._maps[1], fresh[1], near + scores.shape[2], near)
        columns, columns_map = _completed(self._maps[2], band.low, band.high, begin)
        if not across.size or not columns.size:
            return
        for index, place in enumerate(slices):
            plane = _mixed(scores, _part(slices_map, index), axis=1)[:, 0]
            plane = _mixed(_mixed(plane, rows_map, axis=1), columns_map, axis=2)
            self._target[place, _span(across), _span(columns)] = winners(plane, self._description)

    def _joined(self, scores: Floats, first: int, near: int, rows: int) -> tuple[Floats, int, int, tuple[int, int]]:
        """Put the slice and the row before in front of a block; returns also where its own voxels begin."""
        fresh = (first, near)
        own_rows = scores.shape[2]
        if not self._selects[0]:
            if self._next_slice is None:
                self._next_slice = np.empty((len(scores), rows, scores.shape[3]), np.float32)
            before = None if self._last_slice is None else self._last_slice[:, near : near + own_rows]
            self._next_slice[:, near : near + own_rows] = scores[:, -1]
            if before is not None:
                scores = np.concatenate([before[:, None], scores], axis=1)
                first -= 1
        if not self._selects[1]:
            last_row = self._last_row
            self._last_row = scores[:, :, -1:].copy()
            if last_row is not None:
                scores = np.concatenate([last_row, scores], axis=2)
                near -= 1
        return scores, first, near, fresh


def _completed(axis_map: AxisMap, fresh: int, end: int, first: int) -> tuple[NDArray[np.intp], AxisMap]:
    """Return the volume's voxels whose last source lies from `fresh` up to `end`, and their map from `first` on."""
    used_low, used_high = axis_map.low_weight > 0, axis_map.high_weight > 0
    needed = np.maximum(np.where(used_low, axis_map.low, -1), np.where(used_high, axis_map.high, -1))
    chosen = np.flatnonzero((needed >= fresh) & (needed < end))
    last = end - first - 1
    return chosen, AxisMap(
        low=np.clip(axis_map.low[chosen] - first, 0, last),
        high=np.clip(axis_map.high[chosen] - first, 0, last),
        low_weight=axis_map.low_weight[chosen],
        high_weight=axis_map.high_weight[chosen],
    )


def _span(chosen: NDArray[np.intp]) -> slice:
    """Return voxels that lie side by side as a slice: what a block completes has no gaps."""
    return slice(int(chosen[0]), int(chosen[-1]) + 1)


def _part(axis_map: AxisMap, index: int) -> AxisMap:
    one = slice(index, index + 1)
    return AxisMap(
        low=axis_map.low[one],
        high=axis_map.high[one],
        low_weight=axis_map.low_weight[one],
        high_weight=axis_map.high_weight[one],
    )


def _mixed(scores: Floats, axis_map: AxisMap, *, axis: int) -> Floats:
    """Mix voxels along one axis."""
    weights = [1] * scores.ndim
    weights[axis] = -1
    low = _taken(scores, axis_map.low, axis)
    if axis_map.is_selection and (axis_map.low_weight == 1).all():
        return low
    mixed: Floats = low * axis_map.low_weight.reshape(weights)
    if axis_map.high_weight.any():
        mixed += _taken(scores, axis_map.high, axis) * axis_map.high_weight.reshape(weights)
    return mixed


def _taken(scores: Floats, index: NDArray[np.intp], axis: int) -> Floats:
    """Take voxels along an axis; a view where they lie side by side."""
    if len(index) == 1 or (np.diff(index) == 1).all():
        return scores[(slice(None),) * axis + (slice(int(index[0]), int(index[-1]) + 1),)]
    taken: Floats = np.take(scores, index, axis=axis)
    return taken


def _activated(scores: Floats, activation: str) -> Floats:
    """Turn scores into what the description calls scores, in place."""
    if activation == "softmax":
        scores -= scores.max(axis=0)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=0)
    elif activation == "sigmoid":
        np.negative(scores, out=scores)
        # Beyond the range of float32 a score is 0 all the same.
        with np.errstate(over="ignore"):
            np.exp(scores, out=scores)
        scores += 1
        np.reciprocal(scores, out=scores)
    return scores
