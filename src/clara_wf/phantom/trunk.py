"""The trunk that every region shares: table, skin, fat, the muscular wall, the spine and the ribs.

All in LPS mm: x grows to the patient's left, y to the back, z to the head. z = 0 lies about at the first lumbar
vertebra.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from clara_wf.phantom.parts import Part, Tissue, rods
from clara_wf.phantom.shapes import Carved, HalfSpace, Point, Superellipsoid, Turned

_ENDLESS = math.inf
_EXPONENT = 2.35  # between an ellipse and a box, as a lying trunk is

BODY = Superellipsoid(centre=(0, 0, 0), radii=(168, 118, _ENDLESS), exponent=_EXPONENT)
# The fat is thin in front of the flanks and thick at the back, so the layers below have their own centres.
UNDER_SKIN = Superellipsoid(centre=(0, 0, 0), radii=(166, 116, _ENDLESS), exponent=_EXPONENT)
MUSCLE = Superellipsoid(centre=(0, -3, 0), radii=(155, 98, _ENDLESS), exponent=_EXPONENT)
CAVITY = Superellipsoid(centre=(0, -4, 0), radii=(142, 85, _ENDLESS), exponent=_EXPONENT)

# Vertebral bodies stand one to a level; level 0 is centred at z = -11.
LEVEL = 33.0
_FIRST_LEVEL_Z = -11.0
_SPINE_Y = 49.0


def table() -> Iterator[Part]:
    """Yield the couch: a thin curved shell below the back, filled with foam."""
    outside = Superellipsoid(centre=(0, -420, 0), radii=(560, 570, _ENDLESS))
    inside = Superellipsoid(centre=(0, -420, 0), radii=(557, 567, _ENDLESS))
    ceiling = Superellipsoid(centre=(0, -420, 0), radii=(535, 545, _ENDLESS))
    width = Superellipsoid(centre=(0, 140, 0), radii=(205, 60, _ENDLESS), exponent=8)
    shell = Carved(shape=width, minus=((ceiling, 0, 0),), within=((outside, 0, 0),))
    foam = Carved(shape=width, minus=((ceiling, 3, 0),), within=((inside, 0, 0), (width, 3, 0)))
    yield Part(name="table", hu=-250, shape=shell)
    yield Part(name="table foam", hu=-930, shape=foam)


def body_wall() -> Iterator[Part]:
    """Yield skin, subcutaneous fat, the muscular wall and the cavity full of fat."""
    yield Part(name="skin", hu=15, shape=BODY, tissue=Tissue.SKIN)
    yield Part(name="subcutaneous fat", hu=-105, shape=UNDER_SKIN, tissue=Tissue.FAT)
    yield Part(name="wall muscle", hu=58, shape=MUSCLE, tissue=Tissue.MUSCLE)
    yield Part(name="visceral fat", hu=-98, shape=CAVITY, tissue=Tissue.FAT)
    # The recti stand apart at the white line; fat planes part the muscles of the flanks.
    yield Part(
        name="white line",
        hu=-60,
        shape=Superellipsoid(centre=(0, -96, 0), radii=(4, 7, _ENDLESS)),
        tissue=Tissue.FAT,
    )


def back_muscles() -> Iterator[Part]:
    """Yield the muscles beside the spine on both sides, and the fat between them."""
    for side in (-1, 1):
        erector = Superellipsoid(centre=(side * 36, 82, 0), radii=(31, 22, _ENDLESS), exponent=2.6)
        yield Part(name="erector spinae", hu=56, shape=erector, tissue=Tissue.MUSCLE)
        psoas = Superellipsoid(centre=(side * 40, 47, -130), radii=(20, 23, 130), exponent=2.2)
        leaning = Turned(shape=psoas, about=(side * 40, 47, -60), axis=1, degrees=side * -7)
        yield Part(name="psoas", hu=60, shape=leaning, tissue=Tissue.MUSCLE)


def spine(low: int, high: int) -> Iterator[Part]:
    """Yield vertebrae and discs of levels `low` to `high` (33 mm apart, level 0 at z = -11)."""
    for level in range(low, high + 1):
        z = _FIRST_LEVEL_Z + LEVEL * level
        size = 1.0 - 0.025 * max(level, 0)
        disc = Superellipsoid(
            centre=(0, _SPINE_Y, z + LEVEL / 2), radii=(22 * size, 17 * size, LEVEL / 2), exponent=2.5
        )
        yield Part(name="disc", hu=85, shape=disc, tissue=Tissue.MUSCLE)
    for level in range(low, high + 1):
        z = _FIRST_LEVEL_Z + LEVEL * level
        yield from _vertebra(z, 1.0 - 0.025 * max(level, 0))
    canal = Superellipsoid(centre=(0, _SPINE_Y + 27, 0), radii=(10, 9, _ENDLESS))
    yield Part(name="spinal canal", hu=20, shape=canal, tissue=Tissue.BACKGROUND)
    cord = Superellipsoid(centre=(0, _SPINE_Y + 27, 0), radii=(5.5, 4.5, _ENDLESS))
    yield Part(name="spinal cord", hu=38, shape=cord, tissue=Tissue.BACKGROUND)


def _vertebra(z: float, size: float) -> Iterator[Part]:
    y = _SPINE_Y
    back = y + 40
    for side in (-1, 1):
        lamina: list[Point] = [(side * 13, y + 14, z + 4), (side * 14, y + 27, z + 2), (0, back, z - 4)]
        yield from rods("vertebral arch", 400, lamina, (4.5, 4.5, 4.5), Tissue.BONE)
        yield from rods(
            "transverse process", 380, [(side * 14, y + 24, z + 3), (side * 36, y + 32, z + 5)], (4, 3), Tissue.BONE
        )
    yield from rods("spinous process", 380, [(0, back, z - 4), (0, back + 18, z - 12)], (3.5, 3.5), Tissue.BONE)
    for name, hu, inset in (("vertebral shell", 420, 0.0), ("vertebral core", 170, 2.2)):
        drum = Superellipsoid(centre=(0, y, z), radii=(23 * size - inset, 18 * size - inset, _ENDLESS), exponent=2.3)
        ends = (
            (HalfSpace(normal=(0.0, 0.0, 1.0), level=z + 13 - inset), 0.0, 1.0),
            (HalfSpace(normal=(0.0, 0.0, -1.0), level=13 - inset - z), 0.0, 1.0),
            (Superellipsoid(centre=(0, y, z), radii=(40, 40, 26)), 0.0, 0.0),
        )
        yield Part(name=name, hu=hu, shape=Carved(shape=drum, within=ends), tissue=Tissue.BONE)


def ribs(low: int, high: int) -> Iterator[Part]:
    """Yield the ribs whose heads stand at levels `low` to `high`; the two lowest are short.

    A rib runs in the wall from the spine around the flank and falls 70 mm on its way to the front.
    """
    for level in range(low, high + 1):
        order = level - low
        reach = (0.50, 0.68, 1.9, 2.15, 2.35)[min(order, 4)]
        for side in (-1, 1):
            path = [_rib_point(side, level, 0.33 + (reach - 0.33) * step / 17) for step in range(18)]
            yield from rods("rib shell", 480, path, [5.5] * len(path), Tissue.BONE)
            yield from rods("rib core", 220, path, [3.2] * len(path), Tissue.BONE)


def _rib_point(side: int, level: int, angle: float) -> Point:
    """Return the point of a rib's axis at an angle (radians) from the back's middle, half-way through the muscle."""
    sine, cosine = math.sin(angle), math.cos(angle)
    # A superellipse in polar angles: the half axes lie between those of the cavity and of the muscle.
    radius = (abs(sine / 149) ** _EXPONENT + abs(cosine / 91) ** _EXPONENT) ** (-1 / _EXPONENT)
    fall = 70 * (1 - math.cos(min(angle, 2.2) / 2.2 * math.pi)) / 2
    z = _FIRST_LEVEL_Z + LEVEL * level + 12 - fall
    return side * radius * sine, radius * cosine - 3.5, z
