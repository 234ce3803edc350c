"""Measurements of labels, gathered a slice at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import Label


class Measurer:
    """Gathers volume, centroid, mean and standard deviation of each label.

    Parameters
    ----------
    geometry : VolumeGeometry
        Of the label map and of the image.
    labels : tuple of Label
        What to measure.
    """

    def __init__(self, geometry: VolumeGeometry, labels: tuple[Label, ...]) -> None:
        self._geometry = geometry
        self._labels = labels
        # A label a row: count, sums of slice, row and column index, sum and sum of squares of the image's values.
        self._sums = np.zeros((len(labels), 6))

    def add(self, index: int, labels: NDArray[np.uint8], image: NDArray[np.generic]) -> None:
        """Take a slice: its index, its labels and its image, both ``[row, column]``."""
        used = np.flatnonzero(labels)
        if not used.size:
            return
        values = labels.ravel()[used]
        grey = np.asarray(image).ravel()[used].astype(float)
        rows, columns = np.divmod(used, labels.shape[1])
        for sums, label in zip(self._sums, self._labels, strict=True):
            mine = values == label.value
            count = mine.sum()
            here = grey[mine]
            sums[:] += (count, count * index, rows[mine].sum(), columns[mine].sum(), here.sum(), (here * here).sum())

    def result(self, *, units: str) -> dict[str, Mapping[str, object]]:
        """Return, by label name, `voxels`, `volume_ml`, and where it is not empty `centroid_mm` (LPS), `mean` and `sd`.

        The last two are named `mean_hu` and `sd_hu` where the image is in HU.
        """
        suffix = "_hu" if units == "HU" else ""
        measured: dict[str, Mapping[str, object]] = {}
        for sums, label in zip(self._sums, self._labels, strict=True):
            count = sums[0]
            entry: dict[str, object] = {
                "voxels": int(count),
                "volume_ml": round(float(count * self._geometry.voxel_ml), 3),
            }
            if count:
                mean = sums[4] / count
                entry["centroid_mm"] = [round(float(x), 3) for x in self._geometry.index_to_world(sums[1:4] / count)]
                entry[f"mean{suffix}"] = round(float(mean), 2)
                entry[f"sd{suffix}"] = round(float(np.sqrt(max(sums[5] / count - mean * mean, 0))), 2)
            measured[label.name] = entry
        return measured
