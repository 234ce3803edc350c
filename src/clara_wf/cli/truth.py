"""Comparing a result with the truth of a phantom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.metaimage import read_volume
from clara_wf.imaging.record import read_record
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import GeometryError

#: What the liver network reaches on the phantom; below it, something on this machine is wrong.
LIVER_DICE_AT_LEAST = 0.94
#: Where the phantom went through a scanner and a reconstruction first.
RECONSTRUCTED_DICE_AT_LEAST = 0.90
#: What the truth calls 2.
_TUMOUR = "liver tumour"


def compare(result: Path, truth: Path, *, same_grid: bool = True) -> dict[str, dict[str, Any]]:
    """Compare a label map with the truth.

    A liver holds its tumours: where the result tells them apart, both together are compared with the liver.

    Parameters
    ----------
    result : Path
        Header of a label map with its record.
    truth : Path
        Header of the truth: 0 background, 1 liver, 2 tumour.
    same_grid : bool
        Whether the result has to lie on the truth's grid. Without it, the result is looked up at the truth's voxels:
        what it does not reach to counts as not found.

    Returns
    -------
    dict
        By name of the structure: `dice`, `volume_ml`, `truth_ml`, `centroid_mm`, `centroid_distance_mm`. All
        positions are in LPS millimetres. Only structures that are in both.

    Raises
    ------
    GeometryError
        The two do not lie on the same grid of the patient: slices were lost, flipped or moved.
    """
    found, true = read_volume(result), read_volume(truth)
    labels = np.asarray(found.array)
    if not same_grid:
        labels = _looked_up(found, true.geometry)
    elif not found.geometry.is_close(true.geometry):
        raise GeometryError(
            f"{result.name} does not lie on the grid of the truth: shape {found.geometry.shape} at"
            f" {found.geometry.origin} instead of {true.geometry.shape} at {true.geometry.origin}"
        )
    record = read_record(result)
    names = {label.name: label.value for label in record.labels} if record else {}
    compared = {}
    if "liver" in names:
        compared["liver"] = _compare(labels > 0, np.asarray(true.array) > 0, true.geometry)
    if _TUMOUR in names:
        tumour = labels == names[_TUMOUR]
        compared[_TUMOUR] = _compare(tumour, np.asarray(true.array) == 2, true.geometry)
    return compared


def _looked_up(labels: Volume, grid: VolumeGeometry) -> NDArray[Any]:
    """Return the label nearest to each voxel of another grid; 0 beyond the labels."""
    looked_up = np.zeros(grid.shape, dtype=labels.array.dtype)
    rows_and_columns = np.indices(grid.shape[1:]).reshape(2, -1).T
    last = np.array(labels.geometry.shape) - 1
    for index in range(grid.shape[0]):
        voxels = np.column_stack([np.full(len(rows_and_columns), index), rows_and_columns])
        nearest = np.rint(labels.geometry.world_to_index(grid.index_to_world(voxels))).astype(int)
        inside = ((nearest >= 0) & (nearest <= last)).all(axis=1)
        looked_up[index].reshape(-1)[inside] = labels.array[tuple(nearest[inside].T)]
    return looked_up


def _compare(found: NDArray[np.bool_], true: NDArray[np.bool_], geometry: VolumeGeometry) -> dict[str, Any]:
    total = int(found.sum()) + int(true.sum())
    both = int((found & true).sum())
    ours, theirs = _centroid(found, geometry), _centroid(true, geometry)
    return {
        "dice": 2 * both / total if total else 1.0,
        "volume_ml": int(found.sum()) * geometry.voxel_ml,
        "truth_ml": int(true.sum()) * geometry.voxel_ml,
        "centroid_mm": ours.tolist(),
        "centroid_distance_mm": float(np.linalg.norm(ours - theirs)),
    }


def _centroid(mask: NDArray[np.bool_], geometry: VolumeGeometry) -> NDArray[np.float64]:
    """Return LPS mm (3); not a number where the mask is empty."""
    if not mask.any():
        return np.full(3, np.nan)
    centre = [
        float(np.average(np.arange(size), weights=mask.sum(axis=tuple(other for other in range(3) if other != axis))))
        for axis, size in enumerate(mask.shape)
    ]
    return geometry.index_to_world(centre)
