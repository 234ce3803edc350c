"""Volumes that are written slice by slice appear whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.metaimage import open_slices, read_volume
from clara_wf.model.errors import VolumeError

GRID = VolumeGeometry(shape=(3, 4, 5), spacing=(2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))


def test_slices_in_any_order(tmp_path):
    planes = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    with open_slices(tmp_path / "a.mhd", GRID, np.int16) as write:
        for index in (2, 0, 1):
            write(index, planes[index].T.copy().T)  # not contiguous
        assert not (tmp_path / "a.raw").exists()
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mhd").array, planes)


def test_a_failure_leaves_nothing(tmp_path):
    with (
        pytest.raises(VolumeError, match=r"a slice of shape \(5, 4\)"),
        open_slices(tmp_path / "a.mhd", GRID, np.int16) as write,
    ):
        write(0, np.zeros((5, 4), np.int16))
    assert list(tmp_path.iterdir()) == []
