"""Shapes as data: signed distances, boxes and how shapes combine.

A shape knows two things: the box that holds it and, for points in the patient frame (LPS, mm), an approximate
signed distance to its surface (mm, negative inside). Everything else, from painting voxels to integrating along a
ray, is built on these two, so an anatomy is a plain list of shapes.

Coordinates come as three float32 arrays that broadcast against each other: on a grid along the patient's axes they
are three one-dimensional arrays stood on end, which keeps the powers below one-dimensional too; on an oblique grid
they are full volumes. The same code serves both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Point = tuple[float, float, float]

# A radial distance divides by the radial coordinate, which is 0 at the very centre; below this share of a radius is
# the centre.
_CENTRE = np.float32(1e-4)


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box along the axes of the patient frame (LPS, mm); sides may be infinite."""

    low: Point  # the corner with the smallest coordinates
    high: Point  # the corner with the largest coordinates

    def grown(self, margin: float) -> Box:
        """Return the box grown by `margin` mm on every side."""
        return Box(
            low=(self.low[0] - margin, self.low[1] - margin, self.low[2] - margin),
            high=(self.high[0] + margin, self.high[1] + margin, self.high[2] + margin),
        )

    def joined(self, other: Box) -> Box:
        """Return the smallest box that holds both."""
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Box(low=_point(low), high=_point(high))

    def common(self, other: Box) -> Box:
        """Return the box that both share; it is empty (low above high) where they do not meet."""
        low, high = np.maximum(self.low, other.low), np.minimum(self.high, other.high)
        return Box(low=_point(low), high=_point(high))


EVERYWHERE = Box(low=(-math.inf,) * 3, high=(math.inf,) * 3)


class Shape(Protocol):
    """What every shape offers."""

    @property
    def box(self) -> Box:
        """The box outside of which the distance is positive."""
        ...

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the signed distance (mm, negative inside) at LPS points (mm) that broadcast together."""
        ...


@dataclass(frozen=True, kw_only=True)
class Superellipsoid:
    """The body |x/a|^n + |y/b|^n + |z/c|^n <= 1; n = 2 is an ellipsoid, larger is boxier.

    The distance is measured along the ray from the centre: exact for a sphere, and an overestimate by the cosine
    between ray and normal otherwise. An infinite radius makes it a cylinder along that axis.
    """

    centre: Point  # LPS mm
    radii: Point  # half axes in mm, along x, y, z; infinite for a cylinder
    exponent: float = 2.0  # n

    @property
    def box(self) -> Box:
        """The box outside of which the distance is positive."""
        c, r = self.centre, self.radii
        return Box(low=(c[0] - r[0], c[1] - r[1], c[2] - r[2]), high=(c[0] + r[0], c[1] + r[1], c[2] + r[2]))

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the signed distance along the ray from the centre (mm)."""
        powers = squares = np.zeros((), dtype=np.float32)
        for coordinate, centre, radius in zip((x, y, z), self.centre, self.radii, strict=True):
            if math.isinf(radius):
                continue
            offset = coordinate - np.float32(centre)
            square = offset * offset
            scaled = square * np.float32(1 / radius**2)
            power = scaled if self.exponent == 2.0 else scaled ** np.float32(self.exponent / 2)
            squares = squares + square
            powers = powers + power
        level = np.sqrt(powers) if self.exponent == 2.0 else powers ** np.float32(1 / self.exponent)
        # At the very centre every direction is as good: the limits of length and level are in the ratio of a radius.
        length = np.maximum(np.sqrt(squares), _CENTRE * np.float32(min(self.radii)))
        return np.asarray(length - length / np.maximum(level, _CENTRE), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Capsule:
    """A rod with round ends, or a cone of two radii: a piece of a vessel, a rib or a loop of bowel."""

    start: Point  # LPS mm
    end: Point  # LPS mm
    radius: float  # mm at the start
    end_radius: float | None = None  # mm at the end; the same as at the start where None

    @property
    def box(self) -> Box:
        """The box outside of which the distance is positive."""
        ends = Box(low=self.start, high=self.start).joined(Box(low=self.end, high=self.end))
        return ends.grown(max(self.radius, self.end_radius or 0.0))

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the signed distance to the rod (mm)."""
        axis = np.subtract(self.end, self.start)
        along = axis / max(float(axis @ axis), 1e-9)
        offsets = [c - np.float32(s) for c, s in zip((x, y, z), self.start, strict=True)]
        share = sum(o * np.float32(a) for o, a in zip(offsets, along, strict=True))
        share = np.clip(np.asarray(share, dtype=np.float32), 0, 1)
        squares = sum((o - share * np.float32(a)) ** 2 for o, a in zip(offsets, axis, strict=True))
        slope = (self.radius if self.end_radius is None else self.end_radius) - self.radius
        return np.asarray(np.sqrt(squares) - np.float32(self.radius) - np.float32(slope) * share, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class HalfSpace:
    """All points whose projection on a unit normal is below a level."""

    normal: Point  # unit vector, LPS; points out of the half space
    level: float  # mm along the normal

    @property
    def box(self) -> Box:
        """The bounded side, where the plane stands across an axis; everywhere for an oblique plane."""
        low, high = list(EVERYWHERE.low), list(EVERYWHERE.high)
        for axis, component in enumerate(self.normal):
            if component == 1:
                high[axis] = self.level
            elif component == -1:
                low[axis] = -self.level
        return Box(low=_point(np.array(low)), high=_point(np.array(high)))

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the signed distance to the plane (mm)."""
        terms = [c * np.float32(n) for c, n in zip((x, y, z), self.normal, strict=True) if n]
        return np.asarray(sum(terms) - np.float32(self.level), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class BelowDome:
    """All points below a paraboloid that opens downwards (feet): one half of the diaphragm."""

    top: Point  # LPS mm, the highest point of the dome
    fall: tuple[float, float]  # by how many mm it falls at `reach`, along x and along y
    reach: tuple[float, float]  # mm from the top, along x and along y

    @property
    def box(self) -> Box:
        """Everything below the top."""
        return Box(low=EVERYWHERE.low, high=(math.inf, math.inf, self.top[2]))

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the signed distance to the dome (mm), to first order."""
        curves = [f / r**2 for f, r in zip(self.fall, self.reach, strict=True)]
        dx, dy = x - np.float32(self.top[0]), y - np.float32(self.top[1])
        height = np.float32(self.top[2]) - np.float32(curves[0]) * dx**2 - np.float32(curves[1]) * dy**2
        slopes = (np.float32(2 * curves[0]) * dx) ** 2 + (np.float32(2 * curves[1]) * dy) ** 2
        return np.asarray((z - height) / np.sqrt(1 + slopes), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Union:
    """Shapes melted together: a smooth minimum of distances."""

    shapes: tuple[Shape, ...]  # at least one
    blend: float = 0.0  # mm over which the seams are rounded

    @property
    def box(self) -> Box:
        """The box of all, grown by what the blend can add."""
        box = self.shapes[0].box
        for shape in self.shapes[1:]:
            box = box.joined(shape.box)
        return box.grown(self.blend / 4)

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the smooth minimum of the distances (mm)."""
        result = self.shapes[0].distance(x, y, z)
        for shape in self.shapes[1:]:
            result = _smooth_minimum(result, shape.distance(x, y, z), self.blend)
        return result


@dataclass(frozen=True, kw_only=True)
class Carved:
    """A shape with others cut away and confined to yet others: a smooth maximum of distances."""

    shape: Shape  # what is carved
    minus: tuple[tuple[Shape, float, float], ...] = ()  # (what is cut away, margin in mm kept free of it, blend in mm)
    within: tuple[tuple[Shape, float, float], ...] = ()  # (what confines it, margin in mm inside of it, blend in mm)

    @property
    def box(self) -> Box:
        """The box of the shape, confined."""
        box = self.shape.box
        for shape, _, _ in self.within:
            box = box.common(shape.box)
        return box

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the smooth maximum of the distances (mm)."""
        result = self.shape.distance(x, y, z)
        for shape, margin, blend in self.minus:
            result = -_smooth_minimum(-result, shape.distance(x, y, z) - np.float32(margin), blend)
        for shape, margin, blend in self.within:
            result = -_smooth_minimum(-result, -shape.distance(x, y, z) - np.float32(margin), blend)
        return result


@dataclass(frozen=True, kw_only=True)
class Grown:
    """A shape grown outwards, or shrunk where `by` is negative: walls and contents."""

    shape: Shape
    by: float  # mm

    @property
    def box(self) -> Box:
        """The shape's box, grown alike."""
        return self.shape.box.grown(self.by)

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the shape's distance less the growth (mm)."""
        return self.shape.distance(x, y, z) - np.float32(self.by)


@dataclass(frozen=True, kw_only=True)
class Turned:
    """A shape turned about a point, by the right-hand rule about the patient's x, y or z axis."""

    shape: Shape
    about: Point  # LPS mm
    axis: int  # 0, 1, 2: x, y, z
    degrees: float

    @property
    def box(self) -> Box:
        """The box of the corners of the shape's box after the turn."""
        corners = np.array(np.meshgrid(*zip(self.shape.box.low, self.shape.box.high, strict=True))).reshape(3, -1)
        turned = [self._turn(corner, sign=1.0) for corner in corners.T.astype(np.float32)[:, :, None]]
        points = np.hstack([np.stack(t) for t in turned])
        return Box(low=_point(points.min(axis=1)), high=_point(points.max(axis=1)))

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the shape's distance at the points turned back (mm)."""
        return self.shape.distance(*self._turn((x, y, z), sign=-1.0))

    def _turn(self, points: Sequence[FloatArray], *, sign: float) -> list[FloatArray]:
        first, second = (self.axis + 1) % 3, (self.axis + 2) % 3
        cosine, sine = math.cos(math.radians(self.degrees)), sign * math.sin(math.radians(self.degrees))
        u, v = points[first] - np.float32(self.about[first]), points[second] - np.float32(self.about[second])
        turned = list(points)
        turned[first] = u * np.float32(cosine) - v * np.float32(sine) + np.float32(self.about[first])
        turned[second] = u * np.float32(sine) + v * np.float32(cosine) + np.float32(self.about[second])
        return turned


@dataclass(frozen=True, kw_only=True)
class Wobbled:
    """A shape with a gently uneven surface: a product of three sines is added to the distance."""

    shape: Shape
    amplitude: float  # mm
    wavelength: float  # mm
    phases: Point  # radians, along x, y, z

    @property
    def box(self) -> Box:
        """The shape's box, grown by the amplitude."""
        return self.shape.box.grown(self.amplitude)

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the shape's distance plus the wobble (mm)."""
        wave = np.float32(2 * math.pi / self.wavelength)
        sines = [np.sin(c * wave + np.float32(p)) for c, p in zip((x, y, z), self.phases, strict=True)]
        wobble = np.float32(self.amplitude) * (sines[0] * sines[1] * sines[2])
        return np.asarray(self.shape.distance(x, y, z) + wobble, dtype=np.float32)


def distance_at(shape: Shape, point: Point) -> float:
    """Return the signed distance (mm) at one LPS point (mm)."""
    x, y, z = (np.full(1, c, dtype=np.float32) for c in point)
    return float(shape.distance(x, y, z)[0])


def _smooth_minimum(a: FloatArray, b: FloatArray, blend: float) -> FloatArray:
    """Return the polynomial smooth minimum: the minimum, less up to blend / 4 where both are alike."""
    lower = np.minimum(a, b)
    if blend == 0:
        return np.asarray(lower, dtype=np.float32)
    overlap = np.maximum(np.float32(blend) - np.abs(a - b), 0)
    return np.asarray(lower - overlap * overlap * np.float32(1 / (4 * blend)), dtype=np.float32)


def _point(values: npt.NDArray[np.floating]) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z
