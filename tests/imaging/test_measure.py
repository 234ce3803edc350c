"""Measurements of labels: those of the voxels that carry them, in mm and in the image's units."""

from __future__ import annotations

import numpy as np
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.measure import Measurer
from clara_wf.imaging.record import Code, Label

CODE = Code(value="10200004", scheme="SCT", meaning="Liver")
LABELS = tuple(
    Label(value=value, name=name, category=CODE, type=CODE) for name, value in (("b", 300), ("a", 2), ("c", 7))
)
GEOMETRY = VolumeGeometry(
    shape=(5, 6, 7), spacing=(3.0, 0.8, 0.7), origin=(-8.0, 4.5, 90.0), axes=((0, 0, 1), (0, 1, 0), (1, 0, 0))
)


@pytest.fixture
def volumes():
    random = np.random.default_rng(5)
    labels = random.choice(np.array([0, 2, 300, 65535], np.uint16), GEOMETRY.shape, p=[0.6, 0.2, 0.1, 0.1])
    labels[1] = 0
    return labels, random.integers(-1000, 1000, GEOMETRY.shape).astype(np.int16)


@pytest.mark.parametrize("has_image", [False, True])
def test_it_measures_what_carries_the_label(volumes, has_image):
    labels, image = volumes
    measurer = Measurer(GEOMETRY, LABELS)
    for index, plane in enumerate(labels):
        measurer.add(index, plane, *([image[index]] if has_image else []))
    measured = measurer.result(units="HU")
    assert list(measured) == ["b", "a", "c"]
    assert measured["c"] == {"voxels": 0, "volume_ml": 0.0}
    for name, value in (("a", 2), ("b", 300)):
        where = np.argwhere(labels == value)
        found = measured[name]
        assert found["voxels"] == len(where)
        assert found["volume_ml"] == pytest.approx(len(where) * 3 * 0.8 * 0.7 / 1000, abs=1e-3)
        along_z, along_y, along_x = where.mean(axis=0)
        wanted = [-8 + 0.7 * along_x, 4.5 + 0.8 * along_y, 90 + 3 * along_z]
        np.testing.assert_allclose(found["centroid_mm"], wanted, atol=1e-3)
        assert ("mean_hu" in found) == ("sd_hu" in found) == has_image
        if has_image:
            assert found["mean_hu"] == pytest.approx(image[labels == value].mean(), abs=0.006)
            assert found["sd_hu"] == pytest.approx(image[labels == value].std(), abs=0.006)
