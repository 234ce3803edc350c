"""Finds the beads in an image without knowing where they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from clara_wf.imaging.volume import Volume

_DENSER_THAN_BONE = 850


def bead_centres(image: Volume) -> npt.NDArray[np.float64]:
    """Return the centres of mass (LPS mm, n x 3) of everything denser than bone."""
    array = image.array.astype(np.float64) + 1000
    components, count = ndimage.label(image.array > _DENSER_THAN_BONE)
    centres = []
    for slices in ndimage.find_objects(components)[:count]:
        # Two voxels more on each side hold the soft edge; the skin is further away.
        wider = tuple(slice(max(s.start - 2, 0), s.stop + 2) for s in slices)
        weights = np.where(array[wider] > 150, array[wider], 0)
        offset = np.array([s.start for s in wider])
        centres.append(image.geometry.index_to_world(np.array(ndimage.center_of_mass(weights)) + offset))
    return np.array(centres).reshape(-1, 3)
