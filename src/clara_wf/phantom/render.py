"""Paint an anatomy onto a grid, slab by slab, so that memory stays near that of the result."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.phantom.parts import Anatomy, Part
from clara_wf.phantom.physics import NoiseSource, blur
from clara_wf.phantom.shapes import FloatArray, Superellipsoid

AIR = -1000.0
#: What 12 bits with an intercept of -1024 can hold.
LOWEST_HU, HIGHEST_HU = -1024, 3071

_SLAB = 8  # slices; fewer cost more in Python, more in memory
_Slices = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """How the anatomy is seen."""

    noise: float = 12.0  # standard deviation in HU
    blur: float = 1.6  # full width at half maximum of the point spread function within a slice, mm


def render(
    anatomy: Anatomy, geometry: VolumeGeometry, *, seed: int, scanner: Scanner
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Paint an anatomy onto a grid.

    Parameters
    ----------
    anatomy
        What to paint.
    geometry
        Any regular grid, oblique ones too.
    seed
        Of the noise.
    scanner
        Blur and noise.

    Returns
    -------
    image : ndarray of int16, [slice, row, column]
        Densities in HU, within -1024 and 3071.
    tissues : ndarray of uint8, [slice, row, column]
        Values of `Tissue`: what the centre of each voxel is in.
    """
    image = np.empty(geometry.shape, dtype=np.int16)
    tissues = np.zeros(geometry.shape, dtype=np.uint8)
    balls = tuple(
        Part(name=marker.name, hu=marker.hu, shape=Superellipsoid(centre=marker.centre, radii=(marker.radius,) * 3))
        for marker in anatomy.markers
    )
    parts = anatomy.parts + balls
    painter = _Painter(parts, geometry)
    in_plane = (geometry.spacing[1], geometry.spacing[2])
    source = NoiseSource(seed, (geometry.shape[1], geometry.shape[2]), in_plane, scanner.noise)

    def finish(first: int) -> None:
        last = min(first + _SLAB, geometry.shape[0])
        density = painter.paint(first, tissues[first:last])
        density = blur(density, in_plane, scanner.blur)
        if scanner.noise:
            for offset in range(last - first):
                density[offset] += source.slice(first + offset)
        np.clip(np.rint(density, out=density), LOWEST_HU, HIGHEST_HU, out=density)
        image[first:last] = density

    # NumPy and SciPy release the interpreter's lock in their loops, so threads are enough.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(finish, range(0, geometry.shape[0], _SLAB)))
    return image, tissues


class _Painter:
    """Paints slabs of one grid; the boxes of all parts are worked out once."""

    def __init__(self, parts: tuple[Part, ...], geometry: VolumeGeometry) -> None:
        self._parts = parts
        self._affine = geometry.affine
        self._inverse = np.linalg.inv(geometry.affine)
        # The share of a voxel that lies inside grows linearly while the surface passes through it.
        self._edge = float(np.prod(geometry.spacing) ** (1 / 3))
        boxes = np.array([(box.low, box.high) for box in (part.shape.box for part in parts)])
        self._boxes = boxes + np.array([[-self._edge], [self._edge]])

    def paint(self, first: int, tissues: npt.NDArray[np.uint8]) -> FloatArray:
        """Paint all parts onto the slab that begins at slice `first`; fill `tissues`, return the densities."""
        density = np.full(tissues.shape, AIR, dtype=np.float32)
        x, y, z = _coordinates(self._affine, first, tissues.shape)
        for index, crop in self._crops(first, tissues.shape):
            part = self._parts[index]
            distance = part.shape.distance(_cropped(x, crop), _cropped(y, crop), _cropped(z, crop))
            share = np.clip(np.float32(0.5) - distance * np.float32(1 / self._edge), 0, 1)
            if not share.any():
                continue
            view = density[crop]
            view += share * (np.float32(part.hu) - view)
            if part.tissue is not None:
                np.copyto(tissues[crop], np.uint8(part.tissue), where=distance < 0)
        return density

    def _crops(self, first: int, shape: tuple[int, ...]) -> Iterator[tuple[int, _Slices]]:
        """Yield the index of each part that meets the slab, and which part of the slab its box covers."""
        offset = np.array((first, 0, 0))
        choice = np.indices((2, 2, 2)).reshape(3, 8).T
        slab = (choice * (np.array(shape) - 1) + offset) @ self._affine[:3, :3].T + self._affine[:3, 3]
        low = np.maximum(self._boxes[:, 0], slab.min(axis=0) - self._edge)
        high = np.minimum(self._boxes[:, 1], slab.max(axis=0) + self._edge)
        meets = np.all(low <= high, axis=1)
        # The eight corners of each box, as indices into the slab.
        corners = np.where(choice[None] == 0, low[meets, None], high[meets, None])
        indices = corners @ self._inverse[:3, :3].T + self._inverse[:3, 3] - offset
        starts = np.maximum(np.floor(indices.min(axis=1)).astype(int), 0)
        stops = np.minimum(np.ceil(indices.max(axis=1)).astype(int) + 1, shape)
        for index, start, stop in zip(np.flatnonzero(meets), starts.tolist(), stops.tolist(), strict=True):
            if all(a < b for a, b in zip(start, stop, strict=True)):
                yield int(index), (slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2]))


def _coordinates(affine: npt.NDArray[np.float64], first: int, shape: tuple[int, ...]) -> list[FloatArray]:
    """Return x, y, z (LPS, mm) of a slab's voxels, each only as large as the grid's direction demands."""
    slices, rows, columns = np.ogrid[: shape[0], : shape[1], : shape[2]]
    coordinates: list[FloatArray] = []
    for axis in range(3):
        total = np.full((1, 1, 1), affine[axis, 3])
        for index, step in zip((slices + first, rows, columns), affine[axis, :3], strict=True):
            if step:
                total = total + index * step
        coordinates.append(total.astype(np.float32))
    return coordinates


def _cropped(coordinate: FloatArray, crop: _Slices) -> FloatArray:
    """Return the part of a coordinate that belongs to a crop; an axis along which it is constant stays as it is."""
    return coordinate[
        tuple(part if size > 1 else slice(None) for part, size in zip(crop, coordinate.shape, strict=True))
    ]
