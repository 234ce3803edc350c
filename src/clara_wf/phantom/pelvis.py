"""The pelvis: a negative case, in which a liver network must find nothing. All in LPS mm."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from clara_wf.phantom import bowel
from clara_wf.phantom.parts import Part, Tissue, rods
from clara_wf.phantom.shapes import Box, Carved, Grown, HalfSpace, Point, Shape, Superellipsoid, Turned
from clara_wf.phantom.trunk import CAVITY, body_wall, spine, table


def pelvis(seed: int, *, organs: bool) -> Iterator[Part]:
    """Yield the parts of a pelvis in the order of painting; z = 0 is about the level of the sacroiliac joints."""
    rng = np.random.default_rng([seed, 3])
    yield from table()
    yield from body_wall()
    for side in (-1, 1):
        gluteus = Superellipsoid(centre=(side * 78, 70, -40), radii=(58, 40, 140), exponent=2.4)
        yield Part(name="gluteus", hu=57, shape=gluteus, tissue=Tissue.MUSCLE)
        iliacus = Superellipsoid(centre=(side * 72, 14, 10), radii=(32, 26, 110), exponent=2.2)
        yield Part(name="iliopsoas", hu=59, shape=iliacus, tissue=Tissue.MUSCLE)
        thigh = Superellipsoid(centre=(side * 76, -24, -170), radii=(58, 52, 84), exponent=2.6)
        yield Part(name="thigh muscles", hu=58, shape=thigh, tissue=Tissue.MUSCLE)
    if organs:
        space = Box(low=(-70, -65, 0), high=(70, 5, 150))
        yield from bowel.small_bowel(rng, space, CAVITY, loops=34)
        yield Part(name="rectum", hu=50, shape=Superellipsoid(centre=(2, 42, -70), radii=(20, 18, 60)))
        bladder = Superellipsoid(centre=(2, -28, -55), radii=(44, 36, 36), exponent=2.3)
        yield Part(name="bladder wall", hu=45, shape=bladder, tissue=Tissue.BLADDER)
        yield Part(name="urine", hu=6, shape=Grown(shape=bladder, by=-3))
    for side in (-1, 1):
        artery: list[Point] = [(side * 10, 20, 160), (side * 34, 22, 40), (side * 62, -62, -90), (side * 80, -70, -190)]
        yield from rods("iliac artery", 160, artery, (7, 6, 5, 5), Tissue.AORTA)
        yield from _hip(side)
    yield from spine(3, 7)
    yield from _sacrum()


def _sacrum() -> Iterator[Part]:
    for name, hu, inset in (("sacrum shell", 380, 0.0), ("sacrum core", 150, 2.5)):
        for step in range(5):
            z, y = 62 - 26 * step, 58 + 14 * math.sin(step * 0.75)
            width = 52 - 9 * step
            block = Superellipsoid(
                centre=(0, y, z), radii=(width - inset, 19 - 1.5 * step - inset, 18 - inset), exponent=2.6
            )
            yield Part(name=name, hu=hu, shape=block, tissue=Tissue.BONE)


def _hip(side: int) -> Iterator[Part]:
    wing = Superellipsoid(centre=(side * 88, 28, 28), radii=(9, 56, 72), exponent=2.4)
    turned: Shape = Turned(shape=wing, about=(side * 88, 28, 28), axis=2, degrees=side * -28)
    turned = Turned(shape=turned, about=(side * 88, 28, 28), axis=1, degrees=side * 18)
    head: Point = (side * 88, 4, -72)
    joint = Superellipsoid(centre=head, radii=(27, 27, 27))
    cup = Carved(
        shape=Superellipsoid(centre=head, radii=(35, 35, 35)),
        minus=((joint, 0.0, 0.0),),
        within=((HalfSpace(normal=(side * 0.8, 0.0, -0.6), level=side * side * 0.8 * 88 + 0.6 * 72 + 8), 0.0, 2.0),),
    )
    pubis: list[Point] = [(side * 66, -18, -78), (side * 8, -56, -92)]
    ischium: list[Point] = [(side * 76, 30, -92), (side * 58, 40, -130), (side * 12, -46, -112)]
    femur: list[Point] = [head, (side * 122, 12, -104), (side * 128, 12, -260)]
    for name, hu, inset in (("pelvic shell", 440, 0.0), ("pelvic core", 190, 2.6)):
        yield Part(name=name, hu=hu, shape=Grown(shape=turned, by=-inset), tissue=Tissue.BONE)
        yield Part(name=name, hu=hu, shape=Grown(shape=cup, by=-inset * 0.7), tissue=Tissue.BONE)
        yield from rods(name, hu, pubis, (9 - inset, 9 - inset), Tissue.BONE)
        yield from rods(name, hu, ischium, (11 - inset, 11 - inset, 7 - inset), Tissue.BONE)
        yield from rods(name, hu, femur, (14 - inset, 16 - inset, 15 - inset), Tissue.BONE)
        ball = Superellipsoid(centre=head, radii=(24 - inset, 24 - inset, 24 - inset))
        yield Part(name=name, hu=hu, shape=ball, tissue=Tissue.BONE)
