"""Vessel trees that grow at random within an organ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clara_wf.phantom.parts import Part, rods
from clara_wf.phantom.shapes import Point, Shape, distance_at

_Vector = npt.NDArray[np.float64]

_TRIES = 8  # directions tried before a branch ends
_THINNEST = 1.2  # mm; thinner vessels are below the resolution of CT
_STEP = 4.0  # a twig is so many radii long, and at least 9 mm


def tree(
    rng: np.random.Generator,
    name: str,
    hu: float,
    *,
    start: Point,
    direction: Point,
    radius: float,
    inside: Shape,
    depth: int = 6,
) -> Iterator[Part]:
    """Yield a random tree of vessels that stays within a shape.

    Parameters
    ----------
    rng
        Source of chance; the same state gives the same tree.
    name, hu
        Of every part; the tissue map is left as it is, as a vessel counts as part of its organ.
    start, direction
        Root (LPS, mm) and first direction (any length).
    radius
        Of the root in mm; it follows Murray's law (the cubes of two twigs add up to their stem's).
    inside
        Where it may grow; every joint stays more than its radius plus 3 mm below the surface.
    depth
        Number of forks from root to tip.
    """
    growth = _Growth(rng=rng, name=name, hu=hu, inside=inside)
    yield from growth.grow(np.asarray(start, dtype=float), np.asarray(direction, dtype=float), radius, depth)


@dataclass(frozen=True, kw_only=True)
class _Growth:
    """What all branches of a tree share."""

    rng: np.random.Generator
    name: str
    hu: float
    inside: Shape

    def grow(self, start: _Vector, direction: _Vector, radius: float, depth: int) -> Iterator[Part]:
        """Yield a branch and its twigs; a branch that finds no room in some tries ends."""
        if depth == 0 or radius < _THINNEST:
            return
        length = max(_STEP * radius, 9.0) * self.rng.uniform(0.8, 1.3)
        for attempt in range(_TRIES):
            heading = direction / np.linalg.norm(direction) + self.rng.normal(0, 0.2 + 0.12 * attempt, 3)
            heading /= np.linalg.norm(heading)
            end = start + length * heading
            if distance_at(self.inside, _point(end)) < -(radius + 3):
                break
        else:
            return
        yield from rods(self.name, self.hu, [_point(start), _point(end)], (radius, radius * 0.92))
        side = np.cross(heading, self.rng.normal(0, 1, 3))
        side /= np.linalg.norm(side)
        share = self.rng.uniform(0.35, 0.6)
        for sign, fraction in ((1.0, share), (-1.0, 1 - share)):
            yield from self.grow(end, heading + sign * 0.75 * side, radius * fraction ** (1 / 3), depth - 1)


def _point(vector: _Vector) -> Point:
    x, y, z = (float(value) for value in vector)
    return x, y, z
