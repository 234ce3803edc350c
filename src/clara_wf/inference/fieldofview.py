"""What part of the body is in view: asked before a network that would find its organ in any.

The liver network marks a liver in a pelvis, a chest and a head. Where the lungs end tells whether there can be one, and
where. The rules were chosen on 13 cases: they are a guard against nonsense, not a validation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference.description import FieldOfView
from clara_wf.inference.resample import box_of, canonical_grid, resample

Mask = NDArray[np.bool_]

#: Rough enough to be fast, fine enough for a rib.
_GRID_MM = 4.0
_AIR_HU = -1024.0
_BODY_HU, _LUNG_HU, _BONE_HU = -200.0, -500.0, 200.0
#: An image in HU shows air somewhere; without any voxel below this its values are not HU.
_LOWEST_HU = -500.0
#: Gas in the bowel is darker than a lung.
_LUNG_MEAN_HU = -930.0
#: The lowest slices, to see whether the volume ends within the lungs.
_LOWEST_MM = 12.0


@dataclass(frozen=True, kw_only=True)
class View:
    """What was seen."""

    box: VolumeGeometry | None  # the part to show to the network, on the rough grid; None: nothing to look for
    reasons: tuple[str, ...]  # why there is nothing to look for, or why its result wants a review
    body: tuple[float, float]  # the torso's borders along the first axis, mm


def look(volume: Volume, rules: FieldOfView) -> View:
    """Find the part of a volume that a liver can be in.

    Parameters
    ----------
    volume : Volume
        Values in HU, in any orientation.
    rules : FieldOfView
        Of the model.

    Returns
    -------
    View
        With no box and the reasons if there is nothing to look for.
    """
    grid = canonical_grid(volume.geometry, "RAS", (_GRID_MM, _GRID_MM, _GRID_MM))
    # [z, y, x] is the order in which slices are looked at.
    image = resample(volume, grid, fill=_AIR_HU).transpose(2, 1, 0)
    if image.min() > _LOWEST_HU:
        return _nothing(
            f"the darkest voxel is {image.min():.0f}; air would be near -1000, "
            "so the values are not HU or no air is in view"
        )
    body = np.stack([_filled_body(plane) for plane in image])
    area = body.sum(axis=(1, 2)) * (_GRID_MM / 10) ** 2
    bone = (body & (image > _BONE_HU)).sum(axis=(1, 2)) / np.maximum(body.sum(axis=(1, 2)), 1)
    torso = (area > rules.body_cm2) & (bone < rules.bone_share)
    if torso.sum() * _GRID_MM < rules.torso_mm:
        return _nothing(
            f"{torso.sum() * _GRID_MM:.0f} mm of a torso are in view, {rules.torso_mm:.0f} mm are needed "
            f"(the body's cross-section is at most {area.max():.0f} cm2)"
        )
    lungs = _lungs(image, body, rules.lung_ml).sum(axis=(1, 2)) * (_GRID_MM / 10) ** 2
    lowest, highest = int(np.flatnonzero(torso)[0]), int(np.flatnonzero(torso)[-1]) + 1
    limit = rules.lung_share * lungs.max()
    reasons: tuple[str, ...] = ()
    if lungs.max() <= 0:
        reasons = ("no lung is in view, so the top of the liver may be cut off",)
        dome = len(lungs)
    elif lungs[: max(1, round(_LOWEST_MM / _GRID_MM))].mean() > limit:
        return _nothing("the volume ends within the lungs, above the liver")
    else:
        dome = int(np.flatnonzero(lungs > limit)[0])
    start = max(lowest, dome - round(rules.below_dome_mm / _GRID_MM), 0)
    stop = min(highest, dome + round(rules.above_dome_mm / _GRID_MM))
    if (stop - start) * _GRID_MM < rules.torso_mm:
        return _nothing(f"{max(stop - start, 0) * _GRID_MM:.0f} mm of a torso are in view where a liver could be")
    across = _bounds(body[start:stop], (0, 1))
    deep = _bounds(body[start:stop], (0, 2))
    box = grid.cropped((across[0], deep[0], start), (across[1], deep[1], stop))
    low, high = box_of(box)
    return View(box=box, reasons=reasons, body=(float(low[0]), float(high[0])))


def _nothing(reason: str) -> View:
    return View(box=None, reasons=(reason,), body=(0.0, 0.0))


def _filled_body(plane: NDArray[np.float32]) -> Mask:
    """Return the largest thing in an axial slice, with what it encloses; arms and table drop out."""
    # An opening parts the table from the back.
    solid = ndimage.binary_opening(plane > _BODY_HU)
    labels, count = ndimage.label(solid)
    if not count:
        return np.zeros(plane.shape, bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    filled: Mask = ndimage.binary_fill_holes(labels == sizes.argmax())
    return filled


def _lungs(image: NDArray[np.float32], body: Mask, least_ml: float) -> Mask:
    """Return air-filled organs within the body, without gas in the bowel."""
    labels, count = ndimage.label(body & (image < _LUNG_HU))
    if not count:
        return np.zeros(image.shape, bool)
    index = np.arange(1, count + 1)
    ml = np.bincount(labels.ravel(), minlength=count + 1)[1:] * _GRID_MM**3 / 1000
    mean = ndimage.mean(image, labels, index)
    kept = np.concatenate(([False], (ml > least_ml) & (mean > _LUNG_MEAN_HU)))
    lungs: Mask = kept[labels]
    return lungs


def _bounds(mask: Mask, others: tuple[int, int]) -> tuple[int, int]:
    """Return the first index along the axis that is none of `others`, and the one after the last."""
    indices = np.flatnonzero(mask.any(axis=others))
    return int(indices[0]), int(indices[-1]) + 1
