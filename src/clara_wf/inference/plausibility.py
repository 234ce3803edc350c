"""Whether a result may be believed: bounds on what an organ can be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import Verdict
from clara_wf.inference.description import Plausibility
from clara_wf.inference.fieldofview import View


def judge(
    mask: NDArray[np.bool_],
    values: NDArray[np.float32],
    grid: VolumeGeometry,
    *,
    bounds: Plausibility | None,
    share: float,
    view: View,
    name: str,
) -> Verdict:
    """Judge a label on the network's grid.

    Parameters
    ----------
    mask : array of bool
        The label, after cleaning.
    values : array
        The volume on the same grid, in its own units.
    grid : VolumeGeometry
        Of both; the first axis grows to the patient's right.
    bounds : Plausibility or None
        Of the model; None: none are known.
    share : float
        Of the marked voxels that cleaning kept.
    view : View
        What was in view.
    name : str
        Of the label, for the reasons.
    """
    if not mask.any():
        return Verdict(status="none", reasons=(f"the network found no {name}", *view.reasons))
    if bounds is not None:
        mean = float(values[mask].mean())
        low, high = bounds.possible_mean
        if not low <= mean <= high:
            impossible = f"what the network marked has a mean of {mean:.0f} HU, which no {name} has"
            return Verdict(status="none", reasons=(impossible, *view.reasons))
    reasons = list(view.reasons)
    implausible = (
        [] if bounds is None else _faults(mask, values, grid, bounds=bounds, share=share, view=view, name=name)
    )
    reasons += implausible
    # Where not even a lung is in view, an odd find is most likely none at all: a pelvis.
    if view.reasons and implausible:
        return Verdict(status="none", reasons=tuple(reasons))
    return Verdict(status="review" if reasons else "ok", reasons=tuple(reasons))


def _faults(
    mask: NDArray[np.bool_],
    values: NDArray[np.float32],
    grid: VolumeGeometry,
    *,
    bounds: Plausibility,
    share: float,
    view: View,
    name: str,
) -> list[str]:
    faults = []
    mean = float(values[mask].mean())
    if not bounds.mean[0] <= mean <= bounds.mean[1]:
        faults.append(f"the {name}'s mean of {mean:.0f} HU is not within {bounds.mean[0]:.0f} to {bounds.mean[1]:.0f}")
    inner = ndimage.binary_erosion(mask)
    sd = float(values[inner].std()) if inner.any() else float("inf")
    if sd > bounds.sd:
        faults.append(f"the {name}'s standard deviation of {sd:.0f} HU is above {bounds.sd:.0f}")
    if share < bounds.largest_share:
        faults.append(f"the largest part is only {share:.0%} of what the network marked")
    if view.body[1] > view.body[0]:
        centre = grid.index_to_world(np.argwhere(mask).mean(axis=0)) @ np.array(grid.axes[0])
        place = float((centre - view.body[0]) / (view.body[1] - view.body[0]))
        if not bounds.right_share[0] <= place <= bounds.right_share[1]:
            faults.append(
                f"the {name}'s centre is at {place:.2f} from the body's left to its right, "
                f"not within {bounds.right_share[0]:.2f} to {bounds.right_share[1]:.2f}"
            )
    ml = float(mask.sum()) * grid.voxel_ml
    if not bounds.volume_ml[0] <= ml <= bounds.volume_ml[1]:
        faults.append(f"the {name}'s {ml:.0f} ml are not within {bounds.volume_ml[0]:.0f} to {bounds.volume_ml[1]:.0f}")
    return faults
