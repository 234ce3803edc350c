"""The head phantom of Shepp and Logan as ellipses: its line integrals are known exactly, and so is every pixel's mean.

Sources: L. A. Shepp, B. F. Logan, IEEE Trans. Nucl. Sci. 21 (1974) 21; P. Toft, The Radon Transform (1996), whose
contrast is higher.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

#: Mm for one unit of the list: the head is 184 mm long.
SCALE = 100.0
#: Density, half axes, centre x and y, and turn in degrees; densities add up. The skull is 1.
_ELLIPSES = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)
#: A pixel's mean is that of so many points along either side.
_POINTS = 16


def line_integrals(angles: Floats, offsets: Floats) -> NDArray[np.float32]:
    """Return the integrals along the lines x cos a + y sin a = s, mm; angles and offsets are broadcast."""
    total = np.zeros(np.broadcast(angles, offsets).shape)
    for density, a, b, x, y, turn in _ELLIPSES:
        turned = angles - np.deg2rad(turn)
        across = (a * np.cos(turned)) ** 2 + (b * np.sin(turned)) ** 2
        beside = offsets / SCALE - x * np.cos(angles) - y * np.sin(angles)
        total += density * SCALE * 2 * a * b * np.sqrt(np.maximum(across - beside**2, 0)) / across
    return total.astype(np.float32)


@cache
def pixels(matrix: int, pixel: float) -> NDArray[np.float64]:
    """Return each pixel's mean density, [y, x], of a square grid about the middle; `pixel` in mm."""
    steps = ((np.arange(_POINTS) + 0.5) / _POINTS - 0.5) * pixel
    place = (np.arange(matrix) - (matrix - 1) / 2) * pixel
    total = np.zeros((matrix, matrix))
    for y in steps:
        for x in steps:
            total += _density(place[None, :] + x, place[:, None] + y)
    return total / _POINTS**2


def _density(x: Floats, y: Floats) -> Floats:
    total = np.zeros(np.broadcast(x, y).shape)
    for density, a, b, middle_x, middle_y, turn in _ELLIPSES:
        cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        beside_x, beside_y = x / SCALE - middle_x, y / SCALE - middle_y
        along, across = cosine * beside_x + sine * beside_y, cosine * beside_y - sine * beside_x
        total += density * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return total
