"""The rotation centre of sinograms whose centre is known."""

from __future__ import annotations

import numpy as np
import pytest

from clara_wf.model.errors import GeometryError
from clara_wf.reconstruction.rotation_centre import find_centre

COLUMNS = 256


def sinogram(centre: float, angles: np.ndarray, *, noise: float, seed: int, reach: float = 0.6) -> np.ndarray:
    """Eight discs within a part of the detector's half width."""
    rng = np.random.default_rng(seed)
    s, radius = np.arange(COLUMNS)[None] - centre, reach * COLUMNS / 2
    total = rng.normal(0, noise, (angles.size, COLUMNS))
    for _ in range(8):
        way, far, size = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.7) * radius, rng.uniform(0.05, 0.3) * radius
        d = s - far * np.cos(angles[:, None] - way)
        total += rng.uniform(0.2, 1) * np.sqrt(np.maximum(size**2 - d**2, 0)) / radius
    return total.astype(np.float32)


@pytest.mark.parametrize("offset", [-30, -7.7, 0.25, 30])
@pytest.mark.parametrize(("views", "turn"), [(180, 180), (90, 180), (360, 360)])
def test_it_is_found(offset, views, turn):
    angles = 0.3 + np.deg2rad(np.arange(views) * turn / views)
    for seed in range(2):
        found = find_centre(sinogram(127.5 + offset, angles, noise=0.02, seed=seed), angles)
        assert found == pytest.approx(127.5 + offset, abs=0.25)


def test_an_object_that_is_cut_off():
    centre = 115.2
    angles = np.deg2rad(np.arange(181.0))
    found = find_centre(sinogram(centre, angles, noise=0.01, seed=1, reach=1.3), angles)
    assert found == pytest.approx(centre, abs=0.5)


def test_views_in_any_order_and_dead_rays():
    angles = np.deg2rad(np.arange(180.0))
    rays = sinogram(120.0, angles, noise=0.01, seed=3)
    rays[5, 7] = np.inf
    order = np.random.default_rng(0).permutation(180)
    assert find_centre(rays[order], angles[order]) == pytest.approx(120, abs=0.25)


def test_too_few_views():
    angles = np.deg2rad(np.arange(90.0))
    with pytest.raises(GeometryError, match=r"span 89.0 degrees.*--centre"):
        find_centre(np.ones((90, 8), np.float32), angles)
