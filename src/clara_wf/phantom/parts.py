"""What an anatomy is made of: named parts with a shape and a density, painted one over the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from clara_wf.phantom.shapes import Capsule, Point, Shape


class Tissue(IntEnum):
    """The values of the tissue map; 0 to 2 are those of the segmentation's truth."""

    BACKGROUND = 0
    LIVER = 1
    LIVER_TUMOUR = 2
    SPLEEN = 3
    KIDNEY_RIGHT = 4
    KIDNEY_LEFT = 5
    STOMACH = 6
    GALLBLADDER = 7
    PANCREAS = 8
    BOWEL = 9
    AORTA = 10
    VENA_CAVA = 11
    HEART = 12
    LUNG = 13
    BONE = 14
    MUSCLE = 15
    FAT = 16
    BLADDER = 17
    SKIN = 18


@dataclass(frozen=True, kw_only=True)
class Part:
    """One shape filled with one density; a later part covers an earlier one."""

    name: str  # unique in meaning, not in spelling: a vessel tree has many parts of one name
    hu: float  # density in Hounsfield units
    shape: Shape  # in LPS mm
    tissue: Tissue | None = None  # what it is in the tissue map; None leaves the map as it was (vessels in the liver)


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A small dense ball that stands at a known place: proof of orientation, spacing and origin in millimetres."""

    name: str
    centre: Point  # LPS mm
    radius: float  # mm
    hu: float  # density in Hounsfield units


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A whole patient, of infinite resolution."""

    parts: tuple[Part, ...]  # in the order of painting; air is what no part covers
    markers: tuple[Marker, ...]  # painted last


def rods(
    name: str, hu: float, points: Sequence[Point], radii: Sequence[float], tissue: Tissue | None = None
) -> Iterable[Part]:
    """Yield a chain of capsules through `points` (LPS mm) with `radii` (mm) there: a vessel, a rib, a bowel loop."""
    for (start, radius), (end, end_radius) in itertools.pairwise(zip(points, radii, strict=True)):
        shape = Capsule(start=start, end=end, radius=radius, end_radius=end_radius)
        yield Part(name=name, hu=hu, shape=shape, tissue=tissue)
