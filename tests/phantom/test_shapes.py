from __future__ import annotations

import math

import numpy as np
import pytest

from clara_wf.phantom.patient import make_anatomy
from clara_wf.phantom.shapes import (
    BelowDome,
    Capsule,
    Carved,
    Grown,
    HalfSpace,
    Shape,
    Superellipsoid,
    Turned,
    Union,
    Wobbled,
    distance_at,
)

BALL = Superellipsoid(centre=(1, 2, 3), radii=(5, 5, 5))


def volume(shape: Shape, half: float = 40.0, step: float = 0.8) -> float:
    ticks = np.arange(-half, half, step, dtype=np.float32)
    x, y, z = np.meshgrid(ticks, ticks, ticks, indexing="ij", sparse=True)
    return float(np.count_nonzero(shape.distance(x, y, z) < 0)) * step**3


def test_a_ball_has_its_exact_distance_inside_and_outside():
    assert distance_at(BALL, (1, 2, 10)) == pytest.approx(2, abs=1e-4)
    assert distance_at(BALL, (4, 2, 3)) == pytest.approx(-2, abs=1e-4)
    assert distance_at(BALL, BALL.centre) == pytest.approx(-5, abs=1e-2)


@pytest.mark.parametrize("exponent", [2.0, 2.3, 4.0])
def test_a_superellipsoid_has_the_volume_of_its_formula(exponent):
    a, b, c = 30.0, 22.0, 14.0
    # Gamma-function formula of the body |x/a|^n + |y/b|^n + |z/c|^n <= 1.
    expected = 8 * a * b * c * math.gamma(1 + 1 / exponent) ** 3 / math.gamma(1 + 3 / exponent)
    assert volume(Superellipsoid(centre=(0, 0, 0), radii=(a, b, c), exponent=exponent)) == pytest.approx(
        expected, rel=0.01
    )


def test_a_cylinder_is_endless_along_its_infinite_axis():
    rod = Superellipsoid(centre=(0, 0, 0), radii=(10, 10, math.inf))
    assert distance_at(rod, (12, 0, 1e4)) == pytest.approx(2, abs=1e-3)
    assert rod.box.high[2] == math.inf


def test_a_cone_thins_from_start_to_end():
    cone = Capsule(start=(0, 0, 0), end=(0, 0, 20), radius=6, end_radius=2)
    assert distance_at(cone, (6, 0, 0)) == pytest.approx(0, abs=1e-4)
    assert distance_at(cone, (4, 0, 10)) == pytest.approx(0, abs=1e-4)
    assert distance_at(cone, (0, 0, 22)) == pytest.approx(0, abs=1e-4)


def test_a_carved_shape_loses_the_cut_and_its_margin():
    carved = Carved(
        shape=BALL,
        minus=((HalfSpace(normal=(0.0, 0.0, -1.0), level=-3), 1.0, 0.0),),
        within=((Superellipsoid(centre=(1, 2, 3), radii=(4, 9, 9)), 0.5, 0.0),),
    )
    assert distance_at(carved, (1, 2, 2.5)) > 0
    assert distance_at(carved, (1, 2, 1.5)) < 0
    assert distance_at(carved, (1, 2, 4)) > 0
    assert distance_at(carved, (-2.8, 2, 1.5)) > 0


def test_a_turn_follows_the_right_hand_rule():
    bar = Superellipsoid(centre=(10, 0, 0), radii=(8, 2, 2))
    turned = Turned(shape=bar, about=(0, 0, 0), axis=2, degrees=90)
    assert distance_at(turned, (0, 15, 0)) < 0
    assert distance_at(turned, (0, -15, 0)) > 0
    assert turned.box.high == pytest.approx((2, 18, 2), abs=1e-4)


def test_a_dome_falls_away_from_its_top():
    dome = BelowDome(top=(0, 0, 90), fall=(50, 60), reach=(75, 85))
    assert distance_at(dome, (0, 0, 91)) > 0 > distance_at(dome, (0, 0, 89))
    assert distance_at(dome, (75, 0, 41)) > 0 > distance_at(dome, (75, 0, 39))
    assert distance_at(dome, (0, 85, 31)) > 0 > distance_at(dome, (0, 85, 29))


def test_a_union_rounds_its_seam_outwards():
    pair = (Superellipsoid(centre=(-6, 0, 0), radii=(8, 8, 8)), Superellipsoid(centre=(6, 0, 0), radii=(8, 8, 8)))
    sharp, soft = Union(shapes=pair), Union(shapes=pair, blend=6)
    assert volume(soft, 20) > 1.02 * volume(sharp, 20)
    assert volume(Grown(shape=sharp, by=-1), 20) < volume(sharp, 20)


@pytest.mark.parametrize("region", ["abdomen", "pelvis"])
def test_every_part_lies_within_its_box(region):
    rng = np.random.default_rng(5)
    parts = make_anatomy(3, region=region).parts
    assert len(parts) > 300
    for part in parts:
        low, high = np.array(part.shape.box.low), np.array(part.shape.box.high)
        # Points on a cloud about the box, of which those outside must be outside of the shape too.
        centre = np.clip(
            np.where(np.isfinite(low) & np.isfinite(high), np.nan_to_num(low) / 2 + np.nan_to_num(high) / 2, 0),
            -300,
            300,
        )
        size = np.minimum(high - low, 600)
        points = centre + rng.uniform(-0.75, 0.75, (400, 3)) * size
        outside = points[np.any((points < low - 1e-3) | (points > high + 1e-3), axis=1)].astype(np.float32)
        if len(outside):
            distance = part.shape.distance(outside[:, 0], outside[:, 1], outside[:, 2])
            assert distance.min() > -1e-3, part.name


def test_a_wobble_stays_within_its_amplitude():
    points = np.random.default_rng(1).uniform(-20, 20, (3, 500)).astype(np.float32)
    wobbled = Wobbled(shape=BALL, amplitude=1.5, wavelength=9, phases=(1, 2, 3))
    change = wobbled.distance(*points) - BALL.distance(*points)
    assert 0.8 < np.abs(change).max() <= 1.5
