"""Voxels and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.model.errors import VolumeError


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """An image or a label map.

    Raises
    ------
    VolumeError
        The array does not have the shape that the geometry says.
    """

    geometry: VolumeGeometry  # where the voxels are
    array: NDArray[Any]  # [slice, row, column]; may be memory-mapped

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise VolumeError(f"an array of shape {self.array.shape} does not fit a grid of {self.geometry.shape}")
