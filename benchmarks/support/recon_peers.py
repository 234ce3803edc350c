"""Other programs' reconstructions of a parallel sinogram [view, column], as pictures [y, x] in 1/mm; those installed.

ASTRA's FBP on a CPU is for parallel beams alone: its FBP of a fan, and everything in three dimensions, needs CUDA.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

ASTRA_PROJECTORS = ("strip", "linear", "line")
_PACKAGES = {"astra": "astra-toolbox", "skimage": "scikit-image"}
#: Iterations among which the best counts.
_SIRT_ITERATIONS = (200, 400, 600)
_SART_ITERATIONS = (4, 8, 12, 16, 24)

Image = NDArray[np.float32]


def has(module: str) -> bool:
    """Say whether a peer is there."""
    return importlib.util.find_spec(module) is not None


def print_missing() -> None:
    """Name the peers that are not installed."""
    missing = [package for module, package in _PACKAGES.items() if not has(module)]
    if missing:
        print(f"not installed, and left out: {', '.join(missing)}. Get them by")
        print(f"    .venv/bin/pip install {' '.join(missing)}")


def astra_fbp(sinogram: Image, angles: Image, spacing: float, matrix: int, field: float, *, projector: str) -> Image:
    """Reconstruct by ASTRA; `projector` is what it backprojects with."""
    return next(_astra("FBP", (1,), {}, (sinogram, angles, spacing, matrix, field, projector)))


def astra_sirt(
    sinogram: Image, angles: Image, spacing: float, matrix: int, field: float
) -> Iterator[tuple[int, Image]]:
    """Reconstruct iteratively by ASTRA, without negative densities; yield iterations and picture."""
    scan = (sinogram, angles, spacing, matrix, field, "linear")
    pictures = _astra("SIRT", np.diff(_SIRT_ITERATIONS, prepend=0), {"MinConstraint": 0.0}, scan)
    yield from zip(_SIRT_ITERATIONS, pictures, strict=True)


def _astra(algorithm: str, steps: object, option: dict[str, float], scan: tuple) -> Iterator[Image]:
    astra = importlib.import_module("astra")
    sinogram, angles, spacing, matrix, field, projector = scan
    half = field / 2
    volume = astra.create_vol_geom(matrix, matrix, -half, half, -half, half)
    rays = astra.create_proj_geom("parallel", spacing, sinogram.shape[1], angles)
    content = astra.astra_dict(algorithm)
    content["ProjectorId"] = astra.create_projector(projector, rays, volume)
    content["ProjectionDataId"] = astra.data2d.create("-sino", rays, sinogram)
    content["ReconstructionDataId"] = astra.data2d.create("-vol", volume)
    content["option"] = option
    running = astra.algorithm.create(content)
    for step in steps:
        astra.algorithm.run(running, int(step))
        # Its first row is at the top.
        yield astra.data2d.get(content["ReconstructionDataId"])[::-1]
    astra.clear()


def iradon(sinogram: Image, angles: Image, spacing: float, matrix: int | None = None) -> Image:
    """Reconstruct by scikit-image, on pixels of the columns' size; as many as columns where `matrix` is None."""
    transform = importlib.import_module("skimage.transform")
    size = matrix or sinogram.shape[1]
    found = transform.iradon(sinogram.T, theta=np.rad2deg(angles), filter_name="ramp", output_size=size)
    return found[::-1] / spacing


def sart(sinogram: Image, angles: Image, spacing: float) -> Iterator[tuple[int, Image]]:
    """Reconstruct iteratively by scikit-image, without negative densities; yield iterations and picture."""
    transform = importlib.import_module("skimage.transform")
    found = None
    for iteration in range(1, _SART_ITERATIONS[-1] + 1):
        found = transform.iradon_sart(
            sinogram.T.astype(np.float64), theta=np.rad2deg(angles), image=found, clip=(0, np.inf)
        )
        if iteration in _SART_ITERATIONS:
            yield iteration, found[::-1] / spacing


Best = Callable[[Image], float]


def best(pictures: Iterator[tuple[int, Image]], error: Best) -> tuple[float, int]:
    """Return the smallest error of all pictures, and after how many iterations."""
    return min((error(picture), iterations) for iterations, picture in pictures)
