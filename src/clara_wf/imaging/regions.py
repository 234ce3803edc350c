"""Regions of a slice, in NumPy alone: the stages that only draw need no SciPy, which is a third of an image's size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask whose four neighbours belong to it too; beyond the border nothing does."""
    padded = np.pad(mask, 1)
    inner: NDArray[np.bool_] = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def opened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask without what is thinner than three pixels: eroded, then grown again by one pixel."""
    core = eroded(mask)
    padded = np.pad(core, 1)
    grown: NDArray[np.bool_] = core | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown


def largest_region(mask: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Return the rows and columns that the largest connected region spans; None where the mask is empty.

    Pixels are connected over their edges. A region is put together of its runs, the unbroken stretches of a row, of
    which a slice has thousands where it has hundreds of thousands of pixels.
    """
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    stops = np.nonzero(steps == -1)[1]
    if not len(rows):
        return None
    roots = _roots(rows, starts, stops, mask.shape[1] + 1)
    sizes = np.bincount(roots, weights=stops - starts)
    runs = roots == sizes.argmax()
    return (
        slice(int(rows[runs].min()), int(rows[runs].max()) + 1),
        slice(int(starts[runs].min()), int(stops[runs].max())),
    )


def _roots(rows: NDArray[np.intp], starts: NDArray[np.intp], stops: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """Return for each run the first run of its region; runs come row by row, and in a row from left to right."""
    # One ascending number a run, so that one search finds the runs of the next row that touch it.
    below = (rows + 1) * width
    first = np.searchsorted(rows * width + stops, below + starts, side="right")
    last = np.searchsorted(rows * width + starts, below + stops, side="left")
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    for run, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for touched in range(begin, end):
            one, other = root(run), root(touched)
            parents[max(one, other)] = min(one, other)
    return np.array([root(run) for run in range(len(rows))], np.intp)
