"""From a network's scores to labels: which parts stay, and where the borders are on a finer grid."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference.description import KeepLargest, ModelDescription
from clara_wf.inference.resample import align_to, slices

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
#: A voxel with its neighbours across faces and edges.
_NEAR = ndimage.generate_binary_structure(3, 2)
_FACES = ndimage.generate_binary_structure(3, 1)
#: From the number of neighbours to what SciPy calls connectivity.
_CONNECTIVITY = {6: 1, 18: 2, 26: 3}


def winners(scores: Floats, description: ModelDescription) -> NDArray[np.uint8]:
    """Return the label of each voxel: of the largest score, or of the only one if it passes the threshold.

    Parameters
    ----------
    scores : array
        ``[channel, ...]``.

    Returns
    -------
    array of uint8
        Label values; 0 is background.
    """
    values = [label.value for label in description.labels]
    if len(scores) == 1:
        # With steps of its own a network is used as the library has it that it was trained with: from the threshold on.
        passed = scores[0] >= description.threshold if description.preprocess else scores[0] > description.threshold
        return np.where(passed, np.uint8(values[0]), np.uint8(0))
    if description.background:
        values = [0, *values]
    # Plane by plane: NumPy's argmax over the first axis would copy everything to turn it.
    best = scores[0].copy()
    chosen = np.full(best.shape, values[0], np.uint8)
    for channel, value in zip(scores[1:], values[1:], strict=True):
        better = channel > best
        np.copyto(best, channel, where=better)
        np.copyto(chosen, np.uint8(value), where=better)
    if not description.background:
        chosen[best <= description.threshold] = 0
    return chosen


def clean(scores: Floats, description: ModelDescription) -> tuple[Floats, float]:
    """Drop what the description says is no part of a label.

    Scores of dropped voxels become the channel's lowest; all others stay as they are, since they place the borders
    between voxels.

    Returns
    -------
    scores : array
        ``[channel, ...]``, changed in place.
    share : float
        The first label's voxels that stay, as a share of those that the network marked; 0 if there are none.
    """
    found = winners(scores, description)
    share = 0.0
    offset = 1 if description.background and len(scores) > 1 else 0
    for index, label in enumerate(description.labels):
        marked = found == label.value
        kept = _kept(marked, description)
        if index == 0:
            share = float(kept.sum() / max(marked.sum(), 1))
        channel = scores[index + offset]
        channel[marked & ~kept] = channel.min()
    return scores, share


def _kept(marked: Mask, description: ModelDescription) -> Mask:
    kept = marked
    if description.opening:
        kept = ndimage.binary_erosion(kept, _NEAR)
    if description.largest_component:
        kept = largest(kept)
    if description.opening:
        # Once more than eroded, within what was marked: cuts bridges, but does not round the organ's edges off.
        kept = ndimage.binary_dilation(kept, _NEAR, iterations=2) & marked
    return kept


def largest(mask: Mask) -> Mask:
    """Return the largest component, connected across faces; nothing if there is none."""
    labels, count = ndimage.label(mask, _FACES)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def keep_largest(labels: NDArray[np.uint8], rule: KeepLargest) -> None:
    """Let only the largest part of each label stay, in place.

    Parameters
    ----------
    labels : array of uint8
        ``[slice, row, column]``, on the volume's own grid.
    rule : KeepLargest
        Which labels, and what counts as a part.
    """
    structure = ndimage.generate_binary_structure(3, _CONNECTIVITY[rule.neighbours])
    groups = [rule.labels] if rule.together else [(value,) for value in rule.labels]
    for group in groups:
        marked = np.isin(labels, group)
        parts, count = ndimage.label(marked, structure)
        if count > 1:
            sizes = np.bincount(parts.ravel())[1:]
            # Of equals the last one, as in the libraries that the networks were trained with.
            labels[marked & (parts != count - int(sizes[::-1].argmax()))] = 0


def label_slices(
    scores: Floats, grid: VolumeGeometry, target: VolumeGeometry, description: ModelDescription
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Give the labels on another grid, a slice at a time.

    The scores are interpolated and then decided upon, so that a border lies where the score says and not where the
    network's voxels end.

    Parameters
    ----------
    scores : array
        ``[channel, ...]`` on `grid`.
    target : VolumeGeometry
        In any orientation; beyond `grid` there is background.
    """
    background = description.background and len(scores) > 1
    fills = [float(channel.min()) for channel in scores]
    if background:
        fills[0] = float(scores[0].max())
    aligned = [
        align_to(Volume(geometry=grid, array=channel), target, fill=fill)
        for channel, fill in zip(scores, fills, strict=True)
    ]
    streams = [slices(channel, target, fill=fill) for channel, fill in zip(aligned, fills, strict=True)]
    for planes in zip(*streams, strict=True):
        yield planes[0][0], winners(np.stack([plane for _, plane in planes]), description)
