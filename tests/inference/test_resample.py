"""Where things end up, in patient millimetres."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference.resample import box_of, canonical_grid, grid_of_box, resample

#: All 48 ways in which an array can lie in the patient (24 of them mirrored).
ORIENTATIONS = [
    tuple(tuple(float(sign * (row == axis)) for row in range(3)) for axis, sign in zip(order, signs, strict=True))
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
#: Three points of the patient that no flip or swap leaves in place.
POINTS = np.array([[31.0, -22.0, 13.0], [-25.0, 18.0, 40.0], [-12.0, -35.0, -20.0]])


def tilted(degrees):
    """Axes turned about an axis of no symmetry."""
    axis = np.array([0.36, 0.48, 0.8])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(degrees)
    matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return tuple(tuple(float(value) for value in row) for row in matrix[[2, 1, 0]])


def volume_of_blobs(axes, spacing=(3.0, 1.6, 2.0)):
    """A volume around the patient's origin with a smooth blob at each of the points, each of its own height."""
    size = np.abs(axes) @ np.array([110, 120, 130.0])
    shape = tuple(int(length / step) for length, step in zip(size, spacing, strict=True))
    first = -((np.array(shape) - 1) / 2 * spacing) @ np.array(axes)
    geometry = VolumeGeometry(shape=shape, spacing=spacing, origin=tuple(first), axes=axes)
    world = geometry.index_to_world(np.moveaxis(np.indices(shape), 0, -1))
    image = sum(
        (index + 1) * 100 * np.exp(-((world - point) ** 2).sum(axis=-1) / (2 * 4.0**2))
        for index, point in enumerate(POINTS)
    )
    return Volume(geometry=geometry, array=image.astype(np.float32))


def centres(image, grid):
    """Where each blob's centre of mass is, LPS mm."""
    world = grid.index_to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    found = []
    for point in POINTS:
        near = np.linalg.norm(world - point, axis=-1) < 14
        found.append((world[near] * image[near, None]).sum(axis=0) / image[near].sum())
    return np.array(found)


@pytest.mark.parametrize("axes", [*ORIENTATIONS, tilted(3), tilted(20), tilted(50)])
def test_points_stay_where_they_are(axes):
    volume = volume_of_blobs(axes)
    grid = canonical_grid(volume.geometry, "RAS", (3.0, 2.0, 2.5))
    image = resample(volume, grid, fill=0)
    assert image.shape == grid.shape
    assert np.abs(centres(image, grid) - POINTS).max() < 0.15
    cosines = np.sum(np.array(grid.axes) * [[-1, 0, 0], [0, -1, 0], [0, 0, 1]], axis=1)
    assert cosines.min() > np.cos(np.radians(5)), "the axes are R, A and S"


@pytest.mark.parametrize("axes", [*ORIENTATIONS[::5], tilted(20)])
def test_and_back_onto_the_volume_s_own_grid(axes):
    volume = volume_of_blobs(axes)
    grid = canonical_grid(volume.geometry, "RAS", (2.0, 2.0, 2.0))
    back = resample(Volume(geometry=grid, array=resample(volume, grid, fill=0)), volume.geometry, fill=0)
    assert back.shape == volume.array.shape
    assert np.abs(centres(back, volume.geometry) - POINTS).max() < 0.15


def test_the_same_grid_changes_nothing():
    volume = volume_of_blobs(ORIENTATIONS[7])
    assert np.array_equal(resample(volume, volume.geometry, fill=-1), volume.array)


def test_larger_voxels_are_means_and_smaller_ones_linear():
    geometry = VolumeGeometry(shape=(2, 4, 4), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
    image = np.random.default_rng(0).integers(-1000, 1000, (2, 4, 4)).astype(np.int16)
    volume = Volume(geometry=geometry, array=image)
    halved = resample(volume, grid_of_box(np.array(geometry.axes), *box_of(geometry), (2.0, 2.0, 2.0)), fill=0)
    assert np.allclose(halved, image.reshape(1, 2, 2, 2, 2, 2).mean(axis=(1, 3, 5)), atol=1e-3)
    between = VolumeGeometry(shape=(1, 1, 1), spacing=(1.0, 1.0, 1.0), origin=(1.25, 2.0, 0.5))
    wanted = image[:, 2, 1].mean() * 0.75 + image[:, 2, 2].mean() * 0.25
    assert resample(volume, between, fill=0)[0, 0, 0] == pytest.approx(wanted, abs=1e-3)


def test_beyond_the_volume_is_the_fill():
    volume = Volume(
        geometry=VolumeGeometry(shape=(2, 2, 2), spacing=(2.0, 2.0, 2.0), origin=(0.0, 0.0, 0.0)),
        array=np.full((2, 2, 2), 50, np.int16),
    )
    far = VolumeGeometry(shape=(3, 3, 3), spacing=(4.0, 4.0, 4.0), origin=(1.0, 1.0, 1.0))
    image = resample(volume, far, fill=-1000)
    assert image[0, 0, 0] == 50  # exactly the whole volume
    assert image[1:].max() == -1000
    half = VolumeGeometry(shape=(1, 1, 1), spacing=(4.0, 4.0, 4.0), origin=(1.0, 1.0, 3.0))
    assert resample(volume, half, fill=-1000)[0, 0, 0] == pytest.approx((50 - 1000) / 2)


def test_only_what_is_covered_is_read():
    read = []

    class Array(np.ndarray):
        def __getitem__(self, key):
            read.append(key)
            return np.asarray(super().__getitem__(key))

    array = np.zeros((50, 8, 8), np.int16).view(Array)
    geometry = VolumeGeometry(shape=(50, 8, 8), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
    part = VolumeGeometry(shape=(4, 2, 2), spacing=(2.0, 2.0, 2.0), origin=(1.0, 1.0, 10.5))
    resample(Volume(geometry=geometry, array=array), part, fill=0)
    numbers = [key for key in read if isinstance(key, int)]
    assert sorted(numbers) == list(range(10, 18)), "each slice once, and no other"
