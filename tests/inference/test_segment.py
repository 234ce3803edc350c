"""The whole way through a network of a user's own, which is described and not programmed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from tiny_network import install_instead

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference.description import DescriptionError
from clara_wf.inference.install import install
from clara_wf.inference.segment import Segmenter, UnsuitableVolume
from clara_wf.model.errors import InputError

#: LPS mm: a body that no flip, swap or turn leaves in place.
CENTRE = np.array([12.0, -20.0, 31.0])


def brightness(geometry):
    """A bright, asymmetric thing in the patient: three joined boxes."""
    world = geometry.index_to_world(np.moveaxis(np.indices(geometry.shape), 0, -1)) - CENTRE
    inside = np.zeros(geometry.shape, bool)
    for low, high in (((-20, -8, -8), (20, 8, 8)), ((8, -8, -8), (20, 24, 8)), ((-20, -8, -8), (-8, 8, 32))):
        inside |= ((world > low) & (world < high)).all(axis=-1)
    return inside


def volume(axes=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)), spacing=(2.0, 2.0, 2.0), shape=(48, 52, 56)):
    first = np.array((5.0, -8.0, 21.0)) - ((np.array(shape) - 1) / 2 * spacing) @ np.array(axes)
    geometry = VolumeGeometry(shape=shape, spacing=spacing, origin=tuple(first), axes=axes)
    image = np.where(brightness(geometry), 300, -100).astype(np.int16)
    return Volume(geometry=geometry, array=image)


@pytest.fixture
def segmenter(own_model, tmp_path, tiny):
    def make(**changes):
        description = {**copy.deepcopy(tiny), **changes}
        install_instead("tiny", tmp_path / "models", source=own_model(description))
        return Segmenter(tmp_path / "models", "tiny")

    return make


def labelled(segmenter, given):
    out = np.full(given.array.shape, 99, np.uint8)
    return out, segmenter.segment(given, out)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize(
    "axes",
    [
        ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),  # axial, as DICOM has it
        ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),  # head first
        ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)),  # prone
        ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),  # coronal
        ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),  # sagittal
        ((0.0, -1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    ],
)
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "IPL"])
def test_labels_land_on_exactly_the_volume_s_grid(segmenter, axes, orientation):
    given = volume(axes)
    out, result = labelled(segmenter(orientation=orientation), given)
    # Grids of the same spacing may lie half a voxel apart, so an edge may move by that.
    assert dice(out == 1, given.array > 100) > 0.97
    assert np.allclose(result.measurements["bright"]["centroid_mm"], centroid(given), atol=0.3)
    assert set(np.unique(out)) == {0, 1}


def test_the_network_s_grid_on_the_volume_s_own_changes_no_voxel(segmenter):
    given = volume()
    out, result = labelled(segmenter(), given)
    assert np.array_equal(out == 1, given.array > 100)
    assert result.measurements["bright"] == {
        "voxels": (given.array > 100).sum(),
        "volume_ml": pytest.approx((given.array > 100).sum() * 0.008),
        "centroid_mm": pytest.approx(centroid(given), abs=1e-2),
        "mean_hu": 300.0,
        "sd_hu": 0.0,
    }
    assert result.verdict.status == "ok"


def test_an_oblique_volume_of_other_spacing(segmenter):
    angle = np.radians(30)
    axes = (
        (0.0, float(np.sin(angle)), float(np.cos(angle))),
        (0.0, float(np.cos(angle)), float(-np.sin(angle))),
        (1.0, 0.0, 0.0),
    )
    given = volume(axes, spacing=(2.5, 1.0, 1.5), shape=(60, 130, 80))
    out, result = labelled(segmenter(), given)
    assert dice(out == 1, given.array > 100) > 0.93
    assert np.allclose(result.measurements["bright"]["centroid_mm"], centroid(given), atol=0.5)


def centroid(given):
    return given.geometry.index_to_world(np.argwhere(given.array > 100).mean(axis=0))


def test_only_the_largest_part_stays_where_the_description_says_so(segmenter):
    given = volume()
    given.array[2:5, 2:5, 2:5] = 300
    everything, _ = labelled(segmenter(), given)
    largest, _ = labelled(segmenter(largest_component=True), given)
    assert everything[3, 3, 3] == 1
    assert largest[3, 3, 3] == 0
    assert largest.sum() == everything.sum() - 27


def test_windows_instead_of_one(segmenter):
    given = volume()
    whole, _ = labelled(segmenter(), given)
    tiled, _ = labelled(segmenter(window={"size": [16, 16, 16], "padding": -1000, "tiling": True}), given)
    assert np.array_equal(whole, tiled)


def test_nothing_found_is_said_and_drawn_as_nothing(segmenter):
    given = volume()
    given.array[...] = -100
    out, result = labelled(segmenter(), given)
    assert out.max() == 0
    assert result.verdict.status == "none"
    assert result.verdict.reasons == ("the network found no bright",)
    assert result.measurements["bright"] == {"voxels": 0, "volume_ml": 0.0}


def test_an_implausible_find_wants_a_review_and_says_why(segmenter):
    bounds = {
        "possible_mean": [0, 1000],
        "mean": [0, 200],
        "sd": 40,
        "largest_share": 0.75,
        "right_share": [0, 1],
        "volume_ml": [1000, 2000],
    }
    out, result = labelled(segmenter(plausibility=bounds), volume())
    assert out.max() == 1
    assert result.verdict.status == "review"
    assert any("mean of 300 HU" in reason for reason in result.verdict.reasons)
    assert any("ml are not within 1000 to 2000" in reason for reason in result.verdict.reasons)


def test_an_impossible_find_is_none(segmenter):
    bounds = {
        "possible_mean": [-40, 250],
        "mean": [0, 200],
        "sd": 40,
        "largest_share": 0.75,
        "right_share": [0, 1],
        "volume_ml": [0, 2000],
    }
    out, result = labelled(segmenter(plausibility=bounds), volume())
    assert not out.any()
    assert result.verdict.status == "none"
    assert result.verdict.reasons == ("what the network marked has a mean of 300 HU, which no bright has",)


def test_a_volume_that_the_model_does_not_take(segmenter):
    ready = segmenter(max_spacing_mm=5)
    with pytest.raises(UnsuitableVolume, match="MR, tiny takes CT"):
        ready.check(volume(), "MR")
    with pytest.raises(UnsuitableVolume, match=r"6\.0 mm apart"):
        ready.check(volume(spacing=(6.0, 1.0, 1.0)), "CT")
    ready.check(volume(), "")  # nothing is known, so nothing speaks against it


def test_a_network_with_other_channels_than_described(segmenter, tiny):
    two = [tiny["labels"][0], {**tiny["labels"][0], "value": 2, "name": "other"}]
    with pytest.raises(InputError, match="gives 1 channels, the labels are 2"):
        labelled(segmenter(labels=two), volume())


@pytest.mark.parametrize("orientation", ["RAS", "SPL"])
def test_a_network_for_the_inside_of_an_organ(own_model, tmp_path, tiny, orientation):
    """The second network marks what is brighter than 400, and is shown nothing but what the first one marked."""
    root = tmp_path / "models"
    install("tiny", root, source=own_model(tiny))
    inner = {
        **copy.deepcopy(tiny),
        "name": "inner",
        "orientation": orientation,
        "within": {"model": "tiny", "dilation": 0, "outside": -1000},
        "threshold": 400,
    }
    inner["labels"][0] |= {"name": "brightest", "value": 2}
    install("inner", root, source=own_model(inner))
    given = volume()
    spot, elsewhere = CENTRE + np.array((14, 10, 0)), CENTRE + np.array((-40, 0, 0))
    for point in (spot, elsewhere):
        i, j, k = np.round(given.geometry.world_to_index(point)).astype(int)
        given.array[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = 800
    install_instead("tiny", root, source=own_model({**tiny, "largest_component": True}))
    out, result = labelled(Segmenter(root, "inner"), given)
    assert [label.name for label in result.labels] == ["bright", "brightest"]
    assert np.allclose(result.measurements["brightest"]["centroid_mm"], spot, atol=1.1)
    assert result.measurements["brightest"]["voxels"] == pytest.approx(27, abs=8)
    assert np.array_equal(out > 0, brightness(given.geometry))


def test_one_value_does_not_mean_organ_and_inside(own_model, tmp_path, tiny):
    root = tmp_path / "models"
    install("tiny", root, source=own_model(tiny))
    inner = {**copy.deepcopy(tiny), "name": "inner", "within": {"model": "tiny", "dilation": 0, "outside": -1000}}
    install("inner", root, source=own_model(inner))
    with pytest.raises(DescriptionError, match="one label value for two things"):
        Segmenter(root, "inner")


@pytest.mark.parametrize("chain", [("tiny", "other"), ("other", "third")])
def test_models_that_work_within_one_another_in_a_circle(own_model, tmp_path, tiny, chain):
    """One that names the other and is named by it; and one that leads into such a circle."""
    root = tmp_path / "models"
    pairs = (("tiny", "other"), ("other", chain[0] if chain[0] == "tiny" else "third"), ("third", "other"))
    for name, within in pairs:
        install(name, root, source=own_model({**tiny, "name": name, "within": {"model": within}}))
    with pytest.raises(DescriptionError, match=r"in a circle: tiny within other within (tiny|third within other)"):
        Segmenter(root, "tiny")


def test_an_organ_that_goes_on_beyond_the_volume_wants_a_review(segmenter):
    given = volume()
    low = int(np.argwhere(given.array > 100)[:, 0].min()) + 2
    part = Volume(
        geometry=given.geometry.cropped((low, 0, 0), given.geometry.shape),
        array=np.ascontiguousarray(given.array[low:]),
    )
    out, result = labelled(segmenter(), part)
    assert out[0].any()
    assert result.verdict.status == "review"
    assert result.verdict.reasons == (
        "the bright reaches the edge of the volume (its lowest slice): what is beyond it is not measured",
    )


def test_what_is_found_within_an_organ_belongs_to_it_at_the_edge(own_model, tmp_path, tiny):
    """The organ's cut face is all but filled by what the second network marks; the two together are the organ."""
    root = tmp_path / "models"
    install("tiny", root, source=own_model(tiny))
    inner = {**copy.deepcopy(tiny), "name": "inner", "within": {"model": "tiny"}, "threshold": 400}
    inner["labels"][0] |= {"name": "brightest", "value": 2}
    install("inner", root, source=own_model(inner))
    given = volume()
    given.array[...] = -100
    given.array[:6, 20:30, 20:30] = 300
    given.array[:6, 21:30, 20:30] = 800
    out, result = labelled(Segmenter(root, "inner"), given)
    assert 0 < (out[0] == 1).sum() * 0.04 < 2
    assert [reason.split(" (")[0] for reason in result.verdict.reasons] == ["the bright reaches the edge of the volume"]


def test_a_value_beyond_sixteen_bits_stays_bright_through_the_median(segmenter):
    given = volume()
    bright = given.array > 100
    huge = Volume(geometry=given.geometry, array=np.where(bright, 40000.0, given.array).astype(np.float32))
    out, _ = labelled(segmenter(median_at_mm=[1, 1, 1]), huge)
    assert (out[bright] > 0).mean() > 0.8
