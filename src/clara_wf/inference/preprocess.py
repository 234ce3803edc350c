"""What a network is fed: the volume on the network's grid, filtered and scaled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference.description import Intensity, ModelDescription
from clara_wf.inference.median import median_3x3x3
from clara_wf.inference.resample import box_of, grid_of_box, resample

Floats = NDArray[np.float32]
_INT16 = np.iinfo(np.int16)


def network_grid(box: VolumeGeometry, description: ModelDescription) -> VolumeGeometry:
    """Lay the network's grid over the box of another grid with the same axes."""
    low, high = box_of(box)
    return grid_of_box(np.array(box.axes), low, high, description.spacing)


def values_on_grid(volume: Volume, grid: VolumeGeometry, description: ModelDescription) -> Floats:
    """Put a volume onto the network's grid, through the median that the description asks for.

    Returns
    -------
    array
        float32, of the grid's shape, in the volume's own units.
    """
    fill = beyond(description)
    if description.median_at is None:
        return resample(volume, grid, fill=fill)
    low, high = box_of(grid)
    fine = grid_of_box(np.array(grid.axes), low, high, description.median_at)
    # Whole numbers sort faster, and a fraction of one HU is far below the noise.
    whole = np.clip(np.rint(resample(volume, fine, fill=fill)), _INT16.min, _INT16.max).astype(np.int16)
    return resample(Volume(geometry=fine, array=median_3x3x3(whole)), grid, fill=fill)


def scaled(values: Floats, intensity: Intensity) -> Floats:
    """Scale values as the network wants them."""
    fed: Floats = np.clip(values, np.float32(intensity.low), np.float32(intensity.high))
    fed *= np.float32(intensity.scale)
    fed += np.float32(intensity.offset)
    return fed


def beyond(description: ModelDescription) -> float:
    """Return the value, in the volume's units, that is fed to the network as its padding."""
    intensity = description.intensity
    return (description.window.padding - intensity.offset) / intensity.scale
