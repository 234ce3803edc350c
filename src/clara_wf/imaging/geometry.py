"""Where the voxels of a volume are in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: Two grids whose corners are closer than this are the same. DICOM writes positions as decimal strings of at most 16
#: characters, and scanners print them with three to six decimals.
SAME_GRID_MM = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeGeometry:
    """A regular grid in the patient: no voxels, only where they are.

    All triples but `origin` are in the order of the array's axes, ``[slice, row, column]``.
    """

    shape: tuple[int, int, int]  # slices, rows, columns
    spacing: tuple[float, float, float]  # mm from voxel to voxel along slice, row and column index; positive
    origin: tuple[float, float, float]  # LPS mm of the centre of voxel [0, 0, 0]
    axes: tuple[  # LPS unit vectors along which the slice, row and column index grow
        tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]
    ] = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))

    @cached_property
    def affine(self) -> Array:
        """4x4 matrix from the index (slice, row, column, 1) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(self.axes).T * np.array(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    def index_to_world(self, index: ArrayLike) -> Array:
        """Translate indices (..., 3) as (slice, row, column), fractions allowed, to LPS mm (..., 3)."""
        world: Array = np.asarray(index, float) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return world

    def world_to_index(self, world: ArrayLike) -> Array:
        """Translate LPS mm (..., 3) to indices (..., 3) as (slice, row, column), with fractions."""
        inverse = np.linalg.inv(self.affine)
        index: Array = np.asarray(world, float) @ inverse[:3, :3].T + inverse[:3, 3]
        return index

    @property
    def corners(self) -> Array:
        """LPS mm (8, 3) of the centres of the eight corner voxels."""
        last = np.array(self.shape) - 1
        return self.index_to_world(np.indices((2, 2, 2)).reshape(3, 8).T * last)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def is_close(self, other: VolumeGeometry, *, tolerance_mm: float = SAME_GRID_MM) -> bool:
        """Say whether both are the same grid: same shape, and no corner further apart than the tolerance."""
        return self.shape == other.shape and bool(
            np.linalg.norm(self.corners - other.corners, axis=1).max() <= tolerance_mm
        )

    @staticmethod
    def from_affine(affine: ArrayLike, shape: tuple[int, int, int]) -> VolumeGeometry:
        """Make a grid from a 4x4 matrix (index -> LPS mm) and a shape."""
        matrix = np.asarray(affine, float)
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        axes = (matrix[:3, :3] / spacing).T
        return VolumeGeometry(
            shape=shape,
            spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
            origin=(float(matrix[0, 3]), float(matrix[1, 3]), float(matrix[2, 3])),
            axes=tuple(tuple(float(value) for value in axis) for axis in axes),  # type: ignore[arg-type]
        )

    def cropped(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> VolumeGeometry:
        """Return the grid of ``array[start[0]:stop[0], start[1]:stop[1], start[2]:stop[2]]``."""
        origin = self.index_to_world(start)
        return VolumeGeometry(
            shape=(stop[0] - start[0], stop[1] - start[1], stop[2] - start[2]),
            spacing=self.spacing,
            origin=(float(origin[0]), float(origin[1]), float(origin[2])),
            axes=self.axes,
        )
