"""Measurements of labels, gathered a slice at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        # A row for each label value: count, sums of slice, row and column index, sum and sum of squares of the image.
        self._sums = np.zeros((max((label.value for label in labels), default=0) + 1, 6))
        self._has_image = False

    def add(self, index: int, labels: NDArray[Any], image: NDArray[np.generic] | None = None) -> None:
        """Take a slice: its index, its labels and its image, both ``[row, column]``; no slice or each has an image."""
        used = np.flatnonzero(labels)
        if not used.size:
            return
        values = labels.ravel()[used].astype(np.intp)
        rows, columns = np.divmod(used, labels.shape[1])
        size = len(self._sums)
        counts = np.bincount(values, minlength=size)[:size]
        sums = [counts, counts * index]
        weights: list[NDArray[Any]] = [rows, columns]
        if image is not None:
            self._has_image = True
            grey = np.asarray(image).ravel()[used].astype(float)
            weights += [grey, grey * grey]
        sums += [np.bincount(values, each, minlength=size)[:size] for each in weights]
        self._sums[:, : len(sums)] += np.stack(sums, axis=1)

    def result(self, *, units: str = "") -> dict[str, Mapping[str, object]]:
        """Return, by label name, `voxels`, `volume_ml`, and where it is not empty `centroid_mm` (LPS), `mean` and `sd`.

        The last two are named `mean_hu` and `sd_hu` where the image is in HU, and missing where there was no image.
        """
        suffix = "_hu" if units == "HU" else ""
        measured: dict[str, Mapping[str, object]] = {}
        for label in self._labels:
            sums = self._sums[label.value]
            count = sums[0]
            entry: dict[str, object] = {
                "voxels": int(count),
                "volume_ml": round(float(count * self._geometry.voxel_ml), 3),
            }
            if count:
                entry["centroid_mm"] = [round(float(x), 3) for x in self._geometry.index_to_world(sums[1:4] / count)]
            if count and self._has_image:
                mean = sums[4] / count
                entry[f"mean{suffix}"] = round(float(mean), 2)
                entry[f"sd{suffix}"] = round(float(np.sqrt(max(sums[5] / count - mean * mean, 0))), 2)
            measured[label.name] = entry
        return measured
