"""Whether an organ is cut off by the edge of the volume: its measurements are then those of a part."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.geometry import VolumeGeometry

#: An organ that ends within the volume touches its outermost plane with a tip at most, and a network may mark some
#: voxels too many there. The face of a cut through the middle of a liver has 150 cm2.
EDGE_CM2 = 2.0
#: Of thin slices, the outermost may lie outside of the network's grid, which is laid within the volume in whole voxels:
#: a quarter of a voxel is lost to rounding on each side, and 1 mm more where a rough grid of 4 mm chose what to show.
EDGE_MM = 2.0

_PLANES = ("slice", "row", "column")
#: Where a plane is in the patient, by the LPS axis that its outward normal is nearest to, and the normal's sign.
_PLACES = {
    (0, -1): "rightmost",
    (0, 1): "leftmost",
    (1, -1): "front",
    (1, 1): "back",
    (2, -1): "lowest",
    (2, 1): "highest",
}


def cut_off(
    labels: NDArray[np.uint8], geometry: VolumeGeometry, structures: Mapping[str, AbstractSet[int]]
) -> tuple[str, ...]:
    """Say which structures reach the edge of the volume, and where.

    Parameters
    ----------
    labels : array of uint8
        ``[slice, row, column]``; only what is within `EDGE_MM` of the outermost planes is read.
    geometry : VolumeGeometry
        Of the labels.
    structures : mapping
        Name to the label values that make the structure up.

    Returns
    -------
    tuple of str
        A reason for a review for each structure that fills more than `EDGE_CM2` of an outermost plane, or of one within
        `EDGE_MM` of it.
    """
    reasons = []
    for name, values in structures.items():
        wanted = list(values)
        places = [
            place
            for place, planes, cm2 in _outermost(labels, geometry)
            if np.isin(planes, wanted).sum(axis=(1, 2)).max() * cm2 > EDGE_CM2
        ]
        if places:
            where = ", ".join(f"its {place}" for place in places)
            reasons.append(f"the {name} reaches the edge of the volume ({where}): what is beyond it is not measured")
    return tuple(reasons)


def _outermost(labels: NDArray[np.uint8], geometry: VolumeGeometry) -> list[tuple[str, NDArray[np.uint8], float]]:
    """Return what lies at each of the six edges: where in the patient, its planes, and the cm2 of a voxel in them."""
    # The inverse's rows are normal to the other two axes, whether or not these are normal to each other.
    normals = np.linalg.inv(np.array(geometry.axes).T)
    found = []
    for axis, normal in enumerate(normals):
        nearest = int(np.abs(normal).argmax())
        along, across = (mm for index, mm in enumerate(geometry.spacing) if index != axis)
        depth = 1 + int(EDGE_MM / geometry.spacing[axis])
        for part, sign in ((slice(depth), -1), (slice(-depth, None), 1)):
            place = _PLACES[nearest, sign * int(np.sign(normal[nearest]))]
            found.append((f"{place} {_PLANES[axis]}", np.moveaxis(labels, axis, 0)[part], along * across / 100))
    return found
