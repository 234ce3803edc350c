"""Bowel: loops of wall, contents and gas that always rises to the front of a lying patient."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from clara_wf.phantom.parts import Part, Tissue
from clara_wf.phantom.shapes import Box, Capsule, Carved, Grown, HalfSpace, Point, Shape, Union, distance_at

_WALL = 2.5  # mm

_ASCENDING: tuple[Point, ...] = ((-100, 8, -185), (-104, 12, -140), (-98, 0, -104))
_TRANSVERSE: tuple[Point, ...] = ((-98, 0, -104), (-60, -56, -112), (0, -64, -98), (60, -58, -66), (104, -12, -22))
_DESCENDING: tuple[Point, ...] = ((104, -12, -22), (116, 22, -60), (114, 28, -120), (108, 20, -190))


def colon() -> Iterator[Part]:
    """Yield the large bowel: up the right side, across the front, down the left side."""
    for path, radius, gas in ((_ASCENDING, 22.0, 0.45), (_TRANSVERSE, 16.0, 0.0), (_DESCENDING, 15.0, 0.5)):
        yield from _loop("colon", path, radius, wall=62, content=28, gas=gas)


def small_bowel(rng: np.random.Generator, space: Box, within: Shape, loops: int) -> Iterator[Part]:
    """Yield `loops` random loops that start in `space` (LPS, mm) and stay 4 mm inside of `within`."""
    for _ in range(loops):
        radius = float(rng.uniform(9, 13))
        path = [rng.uniform(space.low, space.high)]
        heading = rng.normal(0, 1, 3)
        for _ in range(4):
            heading = heading / np.linalg.norm(heading) + rng.normal(0, 0.45, 3)
            path.append(path[-1] + 20 * heading / np.linalg.norm(heading))
        points: list[Point] = [(float(x), float(y), float(z)) for x, y, z in path]
        kept = [p for p in points if distance_at(within, p) < -radius - 4]
        if len(kept) >= 2:
            gas = float(rng.choice([0.4, 2.0], p=[0.2, 0.8]))
            yield from _loop(
                "small bowel",
                kept,
                radius,
                wall=float(rng.uniform(85, 110)),
                content=float(rng.uniform(10, 45)),
                gas=gas,
            )


def _loop(
    name: str, path: Sequence[Point], radius: float, *, wall: float, content: float, gas: float
) -> Iterator[Part]:
    """Yield wall, contents and gas of one loop; `gas` is how far in front of the axis it starts, in radii."""
    rods = tuple(Capsule(start=a, end=b, radius=radius) for a, b in itertools.pairwise(path))
    for rod in rods:
        yield Part(name=f"{name} wall", hu=wall, shape=rod, tissue=Tissue.BOWEL)
    for rod in rods:
        yield Part(name=f"{name} contents", hu=content, shape=Grown(shape=rod, by=-_WALL))
    if gas < 1:
        lumen = Grown(shape=Union(shapes=rods), by=-_WALL)
        level = min(y for _, y, _ in path) - gas * radius
        front = HalfSpace(normal=(0.0, 1.0, 0.0), level=level)
        yield Part(name=f"{name} gas", hu=-960, shape=Carved(shape=lumen, within=((front, 0.0, 0.0),)))
