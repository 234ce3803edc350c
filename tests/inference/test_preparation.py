"""The steps from values to a network's input, each beside another way to do the same, and the way back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference.preparation import Turn, prepare
from clara_wf.inference.steps import Clip, Crop, Normalize, Pad, Resample, Rescale, Scale

ARRAY = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((14, 19, 23)), 1) * 1000
VOLUME = Volume(
    geometry=VolumeGeometry(shape=ARRAY.shape, spacing=(3.0, 0.8, 1.25), origin=(10.0, -20.0, 5.0)),
    array=np.rint(ARRAY).astype(np.int16),
)
AS_IT_LIES = Turn(axes=(0, 1, 2), flips=(False, False, False))
VALUES = VOLUME.array.astype(np.float64)


def prepared(*steps, turn=AS_IT_LIES, volume=VOLUME):
    return prepare(volume, turn, steps)


def resample(**changes):
    plain = {"spacing": (2.0, 1.0, 1.0), "interpolation": "linear", "grid": "first-voxel", "back": "linear"}
    return Resample(**{**plain, "anisotropy": None, **changes})


def back(prepared, scores):
    """Bring a network's voxels back onto the volume's, by matrices."""
    for axis, axis_map in enumerate(prepared.maps):
        matrix = np.zeros((len(axis_map.low), scores.shape[axis]))
        rows = np.arange(len(axis_map.low))
        np.add.at(matrix, (rows, axis_map.low), axis_map.low_weight)
        np.add.at(matrix, (rows, axis_map.high), axis_map.high_weight)
        scores = np.moveaxis(np.tensordot(matrix, scores, (1, axis)), 0, axis)
    return scores


@pytest.mark.parametrize("letters", ["RAS", "LPS", "SPL", "ILA", "PSR"])
def test_a_turn_leads_each_axis_where_it_should(letters):
    """Checked in patient millimetres, on a volume whose axes are neither in order nor in direction."""
    axes = ((0.0, 0.0, -1.0), (0.98, 0.199, 0.0), (-0.199, 0.98, 0.0))
    geometry = VolumeGeometry(shape=(4, 5, 6), spacing=(3.0, 1.0, 2.0), origin=(1.0, 2.0, 3.0), axes=axes)
    turn = Turn.towards(geometry, letters)
    positions = geometry.index_to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))
    turned = np.stack([turn.view(positions[..., axis]) for axis in range(3)], axis=-1)
    directions = {"R": (0, -1), "L": (0, 1), "A": (1, -1), "P": (1, 1), "S": (2, 1), "I": (2, -1)}
    for axis, letter in enumerate(letters):
        along, sign = directions[letter]
        assert (np.diff(turned, axis=axis)[..., along] * sign > 0.9).all()


def test_values():
    clipped = prepared(Clip(low=-50, high=80)).image
    assert np.array_equal(clipped, np.clip(VALUES, -50, 80).astype(np.float32))
    scaled = prepared(Scale(source=(-57, 164), target=(-1, 1), clip=True)).image
    assert np.allclose(scaled, np.clip((VALUES + 57) / 221 * 2 - 1, -1, 1), atol=1e-6)
    assert prepared(Scale(source=(-57, 164), target=(-1, 1), clip=False)).image.max() > 1
    rescaled = prepared(Rescale(low=2, high=5)).image
    assert (rescaled.min(), rescaled.max()) == (2, 5)
    own = prepared(Normalize(mean=None, sd=None, over="all")).image
    assert np.allclose(own, (VALUES - VALUES.mean()) / VALUES.std(), atol=1e-5)
    given = prepared(Normalize(mean=10, sd=4, over="all")).image
    assert np.allclose(given, (VALUES - 10) / 4, atol=1e-4)
    some = prepared(Clip(low=0, high=50), Normalize(mean=None, sd=None, over="nonzero")).image
    cut = np.clip(VALUES, 0, 50)
    inside = cut[cut != 0]
    assert np.allclose(some[cut != 0], (inside - inside.mean()) / inside.std(), atol=1e-5)
    assert (some[cut == 0] == 0).all()


def test_holes_count_if_they_should():
    array = np.zeros((9, 9, 9), np.int16)
    array[1:8, 1:8, 1:8] = 10
    array[2:5, 2:5, 2:5] = 0
    volume = Volume(geometry=VolumeGeometry(shape=array.shape, spacing=(1, 1, 1), origin=(0, 0, 0)), array=array)
    filled = prepared(Normalize(mean=None, sd=None, over="filled"), volume=volume).image
    inside = array[1:8, 1:8, 1:8]
    assert np.allclose(filled[1:8, 1:8, 1:8], (inside - inside.mean()) / inside.std(), atol=1e-5)
    assert filled[0, 0, 0] == 0 > filled[3, 3, 3]
    assert (prepared(Normalize(mean=1, sd=1, over="nonzero"), volume=volume).image[array == 0] == 0).all()


def test_an_image_of_one_value():
    flat = Volume(geometry=VOLUME.geometry, array=np.full(VOLUME.array.shape, 7, np.int16))
    assert (prepared(Normalize(mean=None, sd=None, over="all"), volume=flat).image == 0).all()
    assert (prepared(Rescale(low=0, high=1), volume=flat).image == 0).all()
    assert not flat.array.flags.writeable or (flat.array == 7).all()


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("grid", ["first-voxel", "extent"])
@pytest.mark.parametrize("spacing", [(2.1, 1.03, 1.07), (5.0, 2.13, 3.17), (3.0, 0.8, 1.25), (1.1, 0.61, 1.25)])
def test_resampling_is_what_scipy_has_at_those_places(order, grid, spacing):
    name = {0: "nearest", 1: "linear", 3: "cubic"}[order]
    found = prepared(resample(spacing=spacing, interpolation=name, grid=grid))
    places = []
    for length, old, new in zip(ARRAY.shape, VOLUME.geometry.spacing, spacing, strict=True):
        if grid == "extent":
            count = round(length * old / new)
            places.append((np.arange(count) + 0.5) * length / count - 0.5)
        else:
            count = round((length - 1) * old / new + 1)
            places.append(np.arange(count) * new / old)
    wanted = ndimage.map_coordinates(VALUES, np.meshgrid(*places, indexing="ij"), order=order, mode="nearest")
    if grid == "extent" and order == 3:
        wanted = np.clip(wanted, VALUES.min(), VALUES.max())
    assert found.image.shape == wanted.shape
    assert np.allclose(found.image, wanted, atol=0.01)


def test_along_a_coarse_axis_nothing_is_mixed():
    found = prepared(resample(spacing=(2.0, 1.0, 1.0), interpolation="cubic", grid="extent", anisotropy=3.0))
    # 14 slices of 3 mm become 21 of 2 mm; 19 rows of 0.8 become 15, 23 columns of 1.25 become 29.
    assert found.image.shape == (21, 15, 29)
    taken = np.floor((np.arange(21) + 0.5) * 14 / 21 - 0.5 + 0.5).astype(int)
    plane = ndimage.zoom(VALUES[5], (15 / 19, 29 / 23), order=3, mode="nearest", grid_mode=True)
    plane = np.clip(plane, VALUES[5].min(), VALUES[5].max())
    for index in np.flatnonzero(taken == 5):
        assert np.allclose(found.image[index], plane, atol=0.01)
    assert not found.maps[0].high_weight.any()
    assert found.maps[1].high_weight.any()


def test_a_crop_keeps_the_box_of_what_is_there():
    array = np.zeros((20, 21, 22), np.int16)
    array[5:9, 0:4, 10:15] = 3
    array[2, 2, 2] = -3
    volume = Volume(geometry=VolumeGeometry(shape=array.shape, spacing=(1.0, 1.0, 1.0), origin=(0, 0, 0)), array=array)
    crop = {"margin": (2, 2, 2), "divisible_by": (1, 1, 1), "beyond": False}
    inner = prepared(Crop(keep="positive", **crop), volume=volume)
    assert np.array_equal(inner.image, array[3:11, 0:6, 8:17])
    assert prepared(Crop(keep="nonzero", **crop), volume=volume).image.shape == (11, 6, 17)
    reaching = prepared(Crop(keep="positive", **{**crop, "beyond": True}), volume=volume)
    assert reaching.image.shape == (8, 8, 9)
    assert (reaching.image[:, :2] == 0).all()
    grown = prepared(Crop(keep="positive", **{**crop, "divisible_by": (8, 8, 8)}), volume=volume)
    assert grown.image.shape == (8, 8, 16)
    for found in (inner, reaching, grown):
        assert np.array_equal(back(found, found.image), np.where(array > 0, array, 0))
    nothing = prepared(Clip(low=-10, high=-1), Crop(keep="positive", **crop), volume=volume)
    assert nothing.nothing == "no voxel of the image is positive"


def test_padding_comes_off_again():
    pad = Pad(size=(20, 0, 24), divisible_by=(1, 8, 1), value=-5.0, method="symmetric")
    found = prepared(pad)
    assert found.image.shape == (20, 24, 24)
    assert np.array_equal(found.image[3:17, 2:21, :23], VALUES.astype(np.float32))
    assert found.image[0, 0, 0] == -5
    assert np.array_equal(back(found, found.image), VALUES)
    ended = prepared(Pad(size=(20, 20, 24), divisible_by=(1, 1, 1), value=0.0, method="end"))
    assert np.array_equal(ended.image[:14, :19, :23], VALUES.astype(np.float32))


@pytest.mark.parametrize("grid", ["first-voxel", "extent"])
@pytest.mark.parametrize("letters", ["".join(found) for found in itertools.product("RL", "AP", "SI")])
def test_what_is_linear_in_the_patient_comes_back_where_it_was(grid, letters):
    """A ramp along each axis of the patient survives any turn, crop and resampling: nothing is displaced."""
    turn = Turn.towards(VOLUME.geometry, letters)
    world = VOLUME.geometry.index_to_world(np.moveaxis(np.indices(VOLUME.array.shape), 0, -1))
    crop = Crop(keep="nonzero", margin=(0, 0, 0), divisible_by=(1, 1, 1), beyond=False)
    steps = (
        crop,
        resample(spacing=(1.1, 0.9, 1.4), grid=grid),
        Pad(size=(40,) * 3, divisible_by=(1, 1, 1), value=0, method="symmetric"),
    )
    inner = (slice(3, -3),) * 3
    for axis in range(3):
        ramp = Volume(geometry=VOLUME.geometry, array=world[..., axis].astype(np.float32) + 500)
        found = prepare(ramp, turn, steps)
        assert np.allclose(back(found, found.image)[inner], turn.view(ramp.array)[inner], atol=0.01)
