"""The abdomen, from the base of the lungs to below the liver, in the portal venous phase.

Places and radii are those of a middle-sized adult, in LPS mm; z = 0 is about the level of the liver's gate. A seed
moves what differs from patient to patient: vessels, lesions, bowel, and the organs by a few millimetres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from clara_wf.phantom import bowel
from clara_wf.phantom.parts import Part, Tissue, rods
from clara_wf.phantom.shapes import (
    BelowDome,
    Box,
    Capsule,
    Carved,
    Grown,
    HalfSpace,
    Point,
    Shape,
    Superellipsoid,
    Turned,
    Union,
    Wobbled,
    distance_at,
)
from clara_wf.phantom.trunk import CAVITY, back_muscles, body_wall, ribs, spine, table
from clara_wf.phantom.vessels import tree

DIAPHRAGM = Union(
    shapes=(
        BelowDome(top=(-66, -14, 92), fall=(50, 66), reach=(75, 85)),
        BelowDome(top=(62, -14, 84), fall=(50, 66), reach=(75, 85)),
    ),
    blend=40,
)

_ABOVE_THE_SULCI = HalfSpace(normal=(0.0, 0.0, -1.0), level=60)
_LESION_RADII = (15.0, 10.5, 7.5)


def abdomen(seed: int, *, organs: bool, lesions: int) -> Iterator[Part]:
    """Yield the parts of an abdomen in the order of painting.

    Parameters
    ----------
    seed
        Same seed, same patient.
    organs
        False leaves an empty cavity full of fat below the diaphragm: a negative case with lungs.
    lesions
        Number of liver lesions; fewer are drawn where they find no room.
    """
    rng = np.random.default_rng([seed, 1])
    yield from table()
    yield from body_wall()
    yield from _chest(rng)
    yield from back_muscles()
    if organs:
        yield from _organs(rng, lesions)
    yield from _great_vessels()
    yield from spine(-6, 7)
    yield from ribs(0, 8)


def _chest(rng: np.random.Generator) -> Iterator[Part]:
    above = ((_ABOVE_THE_SULCI, 0.0, 0.0),)
    muscle = Carved(shape=CAVITY, minus=((DIAPHRAGM, -3.0, 0.0),), within=above)
    yield Part(name="diaphragm", hu=56, shape=muscle, tissue=Tissue.MUSCLE)
    lungs = Carved(shape=CAVITY, minus=((DIAPHRAGM, 0.0, 0.0),), within=above)
    yield Part(name="lungs", hu=-860, shape=lungs, tissue=Tissue.LUNG)
    for side in (-1, 1):
        for _ in range(3):
            root = (side * 40.0, float(rng.uniform(-10, 30)), float(rng.uniform(105, 130)))
            yield from tree(
                rng,
                "lung vessels",
                25,
                start=root,
                direction=(side * 1.0, 0.0, -0.4),
                radius=4.5,
                inside=lungs,
                depth=7,
            )
    mediastinum = Superellipsoid(centre=(4, 30, 150), radii=(30, 62, math.inf), exponent=2.5)
    fat = Carved(shape=mediastinum, minus=((DIAPHRAGM, 0.0, 0.0),), within=(*above, (CAVITY, 0.0, 0.0)))
    yield Part(name="mediastinal fat", hu=-90, shape=fat, tissue=Tissue.FAT)
    outer = Superellipsoid(centre=(22, -26, 112), radii=(66, 50, 52), exponent=2.2)
    heart = Carved(shape=outer, minus=((DIAPHRAGM, 1.0, 4.0),), within=((CAVITY, 4.0, 6.0),))
    yield Part(name="pericardial fat", hu=-85, shape=Grown(shape=heart, by=4), tissue=Tissue.FAT)
    yield Part(name="heart muscle", hu=108, shape=heart, tissue=Tissue.HEART)
    for centre, radii in (((38, -34, 118), (30, 24, 36)), ((-4, -22, 124), (26, 24, 36))):
        chamber = Superellipsoid(centre=centre, radii=radii)
        yield Part(name="heart chamber", hu=158, shape=Carved(shape=chamber, within=((heart, 8.0, 4.0),)))


def _organs(rng: np.random.Generator, lesions: int) -> Iterator[Part]:
    yield from bowel.colon()
    space = Box(low=(-75, -68, -240), high=(90, 10, -72))
    yield from bowel.small_bowel(rng, space, CAVITY, loops=80)
    kidneys = {side: _kidney(rng, side) for side in (-1, 1)}
    stomach = _stomach()
    gallbladder = Superellipsoid(centre=_moved(rng, (-42, -46, -48), 2), radii=(16, 17, 30))
    yield from _pancreas()
    yield from _stomach_parts(stomach)
    spleen = Turned(
        shape=Superellipsoid(centre=_moved(rng, (102, 36, 28), 3), radii=(29, 47, 56), exponent=2.2),
        about=(102, 36, 28),
        axis=0,
        degrees=-14,
    )
    beds = ((kidneys[1], 3.0, 8.0), (stomach, 2.5, 10.0))
    spleen_shape = Carved(shape=spleen, minus=beds, within=((CAVITY, 3.0, 8.0), (DIAPHRAGM, 3.5, 6.0)))
    yield Part(name="spleen", hu=118, shape=spleen_shape, tissue=Tissue.SPLEEN)
    yield from _kidney_parts(kidneys)
    yield from _liver_parts(rng, _liver(rng, kidneys[-1], stomach, gallbladder), lesions)
    yield Part(name="gallbladder wall", hu=70, shape=gallbladder, tissue=Tissue.GALLBLADDER)
    yield Part(name="bile", hu=10, shape=Grown(shape=gallbladder, by=-1.8))


def _liver(rng: np.random.Generator, kidney: Shape, stomach: Shape, gallbladder: Shape) -> Shape:
    right = Superellipsoid(centre=_moved(rng, (-70, -2, 10), 2), radii=(67, 82, 92), exponent=2.3)
    left = Superellipsoid(centre=_moved(rng, (-12, -42, 40), 2), radii=(57, 45, 47))
    spine_bed = Superellipsoid(centre=(0, 50, 0), radii=(36, 36, math.inf))
    back_bed = Superellipsoid(centre=(-36, 82, 0), radii=(31, 22, math.inf), exponent=2.6)
    gate = Superellipsoid(centre=(-14, 0, -36), radii=(38, 28, 42))
    body = Carved(
        shape=Union(shapes=(right, left), blend=34),
        minus=(
            (kidney, 7.0, 12.0),
            (spine_bed, 0.0, 12.0),
            (back_bed, 4.0, 10.0),
            (gate, 0.0, 16.0),
            (stomach, 4.0, 10.0),
            (gallbladder, 1.5, 6.0),
        ),
        within=((DIAPHRAGM, 3.0, 6.0), (CAVITY, 2.5, 6.0)),
    )
    phase = rng.uniform(0, 2 * math.pi, 3)
    return Wobbled(shape=body, amplitude=1.6, wavelength=62, phases=(float(phase[0]), float(phase[1]), float(phase[2])))


def _liver_parts(rng: np.random.Generator, liver: Shape, lesions: int) -> Iterator[Part]:
    yield Part(name="liver", hu=108, shape=liver, tissue=Tissue.LIVER)
    hepatic_root: Point = (-26, 10, 56)
    for direction in ((-1.0, 0.3, -0.4), (-0.6, -0.9, -0.5), (0.5, -1.0, -0.3)):
        yield from tree(
            rng, "hepatic veins", 158, start=hepatic_root, direction=direction, radius=5.0, inside=liver, depth=7
        )
    gate: Point = (-30, -6, 2)
    for start, direction, radius in (
        ((-62, 0, 8), (-0.6, -0.8, 0.4), 4.8),
        ((-62, 0, 8), (-0.6, 0.8, -0.5), 4.8),
        ((-12, -34, 26), (0.7, -0.4, 0.4), 4.0),
    ):
        stem = [gate, (float(start[0]), float(start[1]), float(start[2]))]
        yield from rods("portal vein", 168, stem, (6.5, radius))
        yield from tree(
            rng, "portal vein", 168, start=stem[1], direction=direction, radius=radius, inside=liver, depth=7
        )
    yield from _lesions(rng, liver, lesions)


def _lesions(rng: np.random.Generator, liver: Shape, count: int) -> Iterator[Part]:
    """Yield lesions by rejection: wholly inside the liver, apart from each other."""
    placed: list[tuple[Point, float]] = []
    for _ in range(4000):
        if len(placed) == count:
            return
        radius = _LESION_RADII[len(placed) % len(_LESION_RADII)] * float(rng.uniform(0.9, 1.15))
        centre = _moved(rng, (-65, 0, 8), 60)
        apart = all(math.dist(centre, other) > radius + size + 8 for other, size in placed)
        if apart and distance_at(liver, centre) < -(radius + 5):
            placed.append((centre, radius))
            first, second = rng.uniform(0.88, 1.08, 2)
            ball = Superellipsoid(centre=centre, radii=(radius, radius * float(first), radius * float(second)))
            uneven = Wobbled(shape=ball, amplitude=0.12 * radius, wavelength=2.6 * radius, phases=centre)
            yield Part(name="lesion", hu=float(rng.uniform(50, 70)), shape=uneven, tissue=Tissue.LIVER_TUMOUR)


def _kidney(rng: np.random.Generator, side: int) -> Shape:
    centre = _moved(rng, (64, 42, -44) if side > 0 else (-64, 44, -60), 2)
    bean = Superellipsoid(centre=centre, radii=(27, 24, 55), exponent=2.2)
    sinus = Superellipsoid(centre=(centre[0] - side * 28, centre[1] - 6, centre[2]), radii=(18, 11, 18))
    return Turned(shape=Carved(shape=bean, minus=((sinus, 0.0, 8.0),)), about=centre, axis=1, degrees=side * -9)


def _kidney_parts(kidneys: dict[int, Shape]) -> Iterator[Part]:
    for side, tissue in ((-1, Tissue.KIDNEY_RIGHT), (1, Tissue.KIDNEY_LEFT)):
        kidney = kidneys[side]
        yield Part(name="kidney cortex", hu=185, shape=kidney, tissue=tissue)
        yield Part(name="kidney medulla", hu=150, shape=Grown(shape=kidney, by=-8))
        x, z = side * 58.0, -44.0 if side > 0 else -60.0
        fat = Superellipsoid(centre=(x, 38, z), radii=(12, 6, 20))
        yield Part(name="kidney sinus", hu=-60, shape=fat, tissue=Tissue.FAT)
        yield from rods(
            "renal vein", 160, [(x - side * 6, 36, z), (side * -10.0, 14, z + 18)], (5, 5), Tissue.BACKGROUND
        )


def _stomach() -> Shape:
    fundus = Superellipsoid(centre=(58, -14, 42), radii=(46, 50, 46))
    antrum = Capsule(start=(52, -44, 4), end=(-4, -52, -38), radius=23, end_radius=15)
    melted = Union(shapes=(fundus, antrum), blend=30)
    return Carved(shape=melted, within=((DIAPHRAGM, 4.0, 8.0), (CAVITY, 4.0, 8.0)))


def _stomach_parts(stomach: Shape) -> Iterator[Part]:
    yield Part(name="stomach wall", hu=75, shape=stomach, tissue=Tissue.STOMACH)
    lumen = Grown(shape=stomach, by=-5)
    yield Part(name="stomach fluid", hu=22, shape=lumen)
    front = HalfSpace(normal=(0.0, 1.0, 0.0), level=-44)
    yield Part(name="stomach gas", hu=-985, shape=Carved(shape=lumen, within=((front, 0.0, 0.0),)))


def _pancreas() -> Iterator[Part]:
    path: list[Point] = [(-20, -14, -46), (-12, -18, -24), (12, -24, -12), (44, -4, 0), (82, 20, 14)]
    yield from rods("pancreas", 104, path, (13, 14, 10, 10, 9), Tissue.PANCREAS)
    duodenum: list[Point] = [(-14, -44, -40), (-40, -20, -40), (-42, -4, -84), (10, -2, -96)]
    yield from rods("duodenum wall", 90, duodenum, (14, 14, 14, 12), Tissue.BOWEL)
    yield from rods("duodenum contents", 24, duodenum, (11, 11, 11, 9))


def _great_vessels() -> Iterator[Part]:
    aorta: list[Point] = [(24, 30, 400), (20, 30, 110), (10, 20, 20), (6, 22, -110)]
    yield from rods("aorta", 165, aorta, (11.5, 11.5, 10.5, 9), Tissue.AORTA)
    for side in (-1, 1):
        iliac: list[Point] = [(6, 22, -110), (side * 26, 20, -160), (side * 42, 14, -320)]
        yield from rods("iliac artery", 165, iliac, (7, 6, 6), Tissue.AORTA)
    cava: list[Point] = [(-24, 24, -320), (-24, 22, -60), (-26, 14, 50), (-18, -8, 106)]
    yield from rods("vena cava", 142, cava, (11, 11.5, 12, 13), Tissue.VENA_CAVA)
    portal: list[Point] = [(8, -10, -110), (8, -12, -14), (-30, -6, 2)]
    yield from rods("portal trunk", 168, portal, (5.5, 6.5, 7), Tissue.BACKGROUND)
    splenic: list[Point] = [(8, -12, -14), (46, 6, 4), (84, 30, 22)]
    yield from rods("splenic vein", 168, splenic, (5, 4.5, 4), Tissue.BACKGROUND)


def _moved(rng: np.random.Generator, centre: Point, by: float) -> Point:
    """Return the point moved by up to `by` mm along every axis."""
    x, y, z = (float(c + m) for c, m in zip(centre, rng.uniform(-by, by, 3), strict=True))
    return x, y, z
