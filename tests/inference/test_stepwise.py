"""The whole way through a network with steps of its own: Segmenter on volumes in the patient."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from scipy import ndimage
from tiny_network import described, install_instead

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference import accumulator
from clara_wf.inference.description import DescriptionError
from clara_wf.inference.segment import Segmenter
from clara_wf.model.errors import InputError


def save_thresholds(path, levels):
    """Save a network with a channel for each level: channel k is the largest from level k on."""
    weights = np.arange(1, len(levels) + 1, dtype=np.float32)
    # Lines of growing slope that cross at the levels.
    offsets = -np.cumsum(np.asarray(levels, np.float32) * np.diff(weights, prepend=np.float32(0)))
    kernel = numpy_helper.from_array(weights.reshape(-1, 1, 1, 1, 1), "kernel")
    bias = numpy_helper.from_array(offsets.astype(np.float32), "bias")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "x", "y", "z"])
        for name, channels in (("image", 1), ("score", len(levels)))
    ]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "kernel", "bias"], ["score"])], "levels", ends[:1], ends[1:], [kernel, bias]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def labels_of(count):
    one = described()["labels"][0]
    return [{**one, "value": value, "name": f"level {value}"} for value in range(1, count + 1)]


@pytest.fixture
def stepwise(tmp_path):
    """Install a network that labels by levels, with steps, and give its segmenter."""

    def make(levels=(0, 100), **changes):
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        save_thresholds(folder / "network.onnx", levels)
        content = described(
            name="levels",
            preprocess=[{"clip": [-1000, 3000]}],
            window={"size": [16, 12, 20], "tiling": True, "overlap": 0.5, "blending": "gaussian", "padding": -1000},
            background=True,
            precision="f32",
            labels=labels_of(len(levels) - 1),
        )
        for name in ("spacing_mm", "intensity", "threshold"):
            del content[name]
        (folder / "model.yaml").write_text(yaml.safe_dump({**content, **changes}))
        install_instead("levels", tmp_path / "models", source=folder)
        return Segmenter(tmp_path / "models", "levels")

    return make


def ball_and_box(spacing=(3.0, 1.5, 1.2), ball=300, axes=((0, 0, 1), (0, 1, 0), (1, 0, 0))):
    """A ball and, towards the patient's left and head, a box of 700; in air."""
    geometry = VolumeGeometry(shape=(30, 40, 50), spacing=spacing, origin=(-31.0, -12.0, 4.0), axes=axes)
    world = geometry.index_to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))
    middle = geometry.index_to_world((np.array(geometry.shape) - 1) / 2)
    array = np.full(geometry.shape, -900, np.int16)
    array[np.linalg.norm(world - middle, axis=-1) < 15] = ball
    array[(np.abs(world - middle - (14, 0, 24)) < (9, 12, 8)).all(axis=-1)] = 700
    return Volume(geometry=geometry, array=array)


@pytest.mark.parametrize("letters", ["RAS", "SPL", "LIA"])
def test_without_resampling_every_voxel_is_as_the_network_says(stepwise, letters):
    volume = ball_and_box()
    out = np.full(volume.array.shape, 9, np.uint8)
    result = stepwise(levels=(0, 100, 500), orientation=letters).segment(volume, out)
    assert np.array_equal(out, np.digitize(volume.array, [100, 500]).astype(np.uint8))
    assert result.verdict.status in {"ok", "review"}
    assert result.measurements["level 2"]["mean_hu"] == 700


@pytest.mark.parametrize("grid", ["first-voxel", "extent"])
@pytest.mark.parametrize("letters", ["RAS", "LPI", "SAR"])
def test_labels_lie_where_the_things_are_in_the_patient(stepwise, grid, letters):
    """In millimetres, on axes that are turned by 10 degrees: a mirrored or shifted label would show."""
    c, s = np.cos(np.radians(10)), np.sin(np.radians(10))
    volume = ball_and_box(ball=-200, axes=((0.0, 0.0, 1.0), (-s, c, 0.0), (c, s, 0.0)))
    steps = [{"resample": {"spacing_mm": [2.0, 1.7, 2.2], "grid": grid}}, {"crop": {"keep": "nonzero"}}]
    out = np.zeros(volume.array.shape, np.uint8)
    # Levels halfway between the things and the air: a border stays where it was.
    stepwise(levels=(0, -550, -100), orientation=letters, preprocess=steps).segment(volume, out)
    for value, level in ((1, -200), (2, 700)):
        marked = volume.geometry.index_to_world(np.argwhere(out >= value))
        true = volume.geometry.index_to_world(np.argwhere(volume.array >= level))
        assert np.abs(marked.mean(axis=0) - true.mean(axis=0)).max() < 1.2  # less than half a slice
        assert len(marked) == pytest.approx(len(true), rel=0.15)


@pytest.mark.parametrize("limits", [(2**30, 2**31), (0, 2**31), (0, 120_000)])
def test_drawing_by_parts_is_drawing_at_once(stepwise, monkeypatch, limits):
    """Beside an interpolation of all scores by SciPy: by whole layers, by rows, and in bands."""
    monkeypatch.setattr(accumulator, "_LAYER_LIMIT", limits[0])
    monkeypatch.setattr(accumulator, "_BAND_LIMIT", limits[1])
    rough = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((33, 41, 37)), 1.5) * 3000
    geometry = VolumeGeometry(shape=rough.shape, spacing=(2.0, 1.0, 1.5), origin=(0.0, 0.0, 0.0))
    volume = Volume(geometry=geometry, array=rough.astype(np.float32))
    spacing, levels = (2.7, 1.9, 1.1), (0, 30, 120, 400)
    out = np.zeros(rough.shape, np.uint8)
    for batch in (1, 3):
        window = {"size": [9, 8, 10], "tiling": True, "overlap": 0.6, "batch": batch}
        steps = [{"resample": {"spacing_mm": list(spacing)}}]
        stepwise(levels=levels, orientation="SPL", preprocess=steps, window=window).segment(volume, out)
        shape = [
            round((n - 1) * old / new + 1) for n, old, new in zip(rough.shape, geometry.spacing, spacing, strict=True)
        ]
        places = [np.arange(n) * new / old for n, old, new in zip(shape, geometry.spacing, spacing, strict=True)]
        fed = ndimage.map_coordinates(rough, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
        slopes = np.arange(1, 5)[:, None, None, None]
        scores = slopes * fed - np.cumsum(np.array(levels))[:, None, None, None]
        home = [np.arange(n) * old / new for n, old, new in zip(rough.shape, geometry.spacing, spacing, strict=True)]
        mixed = [
            ndimage.map_coordinates(channel, np.meshgrid(*home, indexing="ij"), order=1, mode="nearest")
            for channel in scores
        ]
        assert (out == np.argmax(mixed, axis=0)).mean() > 0.9999


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({}, {1: 1, 2: 1}),
        ({"labels": [1]}, {1: 1, 2: 2}),
        ({"together": True}, {1: 1, 2: 1}),
        ({"neighbours": 6}, {1: 1, 2: 1}),
    ],
)
def test_only_the_largest_part_stays(stepwise, rule, kept):
    array = np.full((24, 24, 24), -900, np.int16)
    array[2:10, 2:10, 2:10] = 300
    array[14:18, 14:18, 14:18] = 300
    array[10:13, 2:10, 2:10] = 700
    array[20:22, 20:22, 20:22] = 700
    geometry = VolumeGeometry(shape=array.shape, spacing=(1.0, 1.0, 1.0), origin=(0, 0, 0))
    out = np.zeros(array.shape, np.uint8)
    stepwise(levels=(0, 100, 500), keep_largest=rule).segment(Volume(geometry=geometry, array=array), out)
    assert {value: ndimage.label(out == value)[1] for value in (1, 2)} == kept


@pytest.mark.parametrize(("activation", "threshold"), [("sigmoid", 0.5), ("none", 0.0)])
def test_one_channel_and_its_threshold(stepwise, activation, threshold):
    volume = ball_and_box()
    out = np.zeros(volume.array.shape, np.uint8)
    # What was cut away is background, whatever the threshold says of 0.
    steps = [{"clip": [0, 3000]}, {"crop": {"keep": "positive"}}]
    stepwise(
        levels=(300,),
        background=False,
        activation=activation,
        threshold=threshold,
        labels=labels_of(1),
        preprocess=steps,
    ).segment(volume, out)
    assert np.array_equal(out, (volume.array >= 300).astype(np.uint8))


def test_a_window_that_holds_the_whole_image(stepwise):
    volume = ball_and_box()
    out = np.zeros(volume.array.shape, np.uint8)
    whole = {"size": [1, 1, 1], "step": [1, 1, 1], "tiling": False}
    stepwise(levels=(0, 100), window=whole, activation="softmax").segment(volume, out)
    assert np.array_equal(out, (volume.array > 100).astype(np.uint8))


def test_nothing_to_find_and_nothing_found(stepwise):
    volume = ball_and_box()
    out = np.full(volume.array.shape, 9, np.uint8)
    empty = stepwise(preprocess=[{"clip": [-1000, -1]}, {"crop": {"keep": "positive"}}]).segment(volume, out)
    assert (empty.verdict.status, empty.verdict.reasons) == ("none", ("no voxel of the image is positive",))
    assert not out.any()
    found = stepwise(levels=(0, 5000)).segment(volume, out)
    assert found.verdict.reasons == ("the network found none of its labels",)


def test_what_would_not_fit_is_refused_before_it_is_asked_for(stepwise):
    out = np.zeros((30, 40, 50), np.uint8)
    fine = stepwise(preprocess=[{"resample": {"spacing_mm": [0.001, 0.002, 0.003]}}])
    with pytest.raises(
        InputError, match=r"the network's image of \d+ x \d+ x \d+ voxels needs .* GiB, .* are available"
    ):
        fine.segment(ball_and_box(), out)
    window = {"size": [8, 8, 8], "tiling": True, "overlap": 0.999999}
    many = stepwise(window=window, preprocess=[{"pad": {"size": [99, 99, 99]}}])
    with pytest.raises(InputError, match=r"would take 778,688 windows, 100,000 are the most"):
        many.segment(ball_and_box(), out)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_volume_without_values_somewhere(stepwise, value):
    volume = ball_and_box()
    array = volume.array.astype(np.float32)
    array[3, 4, 5] = value
    with pytest.raises(InputError, match="some of its values are no numbers, or infinite"):
        stepwise().segment(Volume(geometry=volume.geometry, array=array), np.zeros(array.shape, np.uint8))


def test_more_channels_than_labels(stepwise):
    with pytest.raises(InputError, match="gives 3 channels, the labels are 1 and a background"):
        stepwise(levels=(0, 100, 500), labels=labels_of(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocess": []}, "preprocess is no list of steps"),
        ({"preprocess": ["clip"]}, r"preprocess\[0\] is no mapping of one step"),
        ({"preprocess": [{"warp": {}}]}, r"unknown step 'warp', none of clip, scale"),
        ({"preprocess": [{"clip": [3, 2]}]}, r"preprocess\[0\].clip \[3.0, 2.0\] does not grow"),
        ({"preprocess": [{"resample": {"spacing_mm": [1, 1, 0]}}]}, "not positive"),
        ({"preprocess": [{"resample": {"spacing_mm": [1, 1, 1], "grid": "any"}}]}, "none of first-voxel, extent"),
        ({"preprocess": [{"resample": {"spacing_mm": [1, 1, 1]}}] * 2}, "resamples twice"),
        ({"preprocess": [{"crop": {"divisible_by": [0, 1, 1]}}]}, "not positive"),
        ({"preprocess": [{"pad": {"width": 3}}]}, "pad.width is unknown"),
        ({"opening": True}, "opening does not go with preprocess"),
        ({"spacing_mm": [1, 1, 1]}, "spacing_mm does not go with preprocess"),
        ({"keep_largest": {"neighbours": 8}}, "none of 6, 18 and 26"),
        ({"keep_largest": {"labels": [7]}}, "no list of values that labels have"),
        ({"activation": "relu"}, "none of none, softmax, sigmoid"),
        ({"window": {"size": [8, 8, 8], "batch": 0}}, "no whole number from 1"),
        ({"window": {"size": [8, 8, 8], "blending": "cosine"}}, "none of constant, gaussian"),
        ({"window": {"size": [8, 8, 8], "sigma": 1e-299}}, r"1e-299 is not from 0.01 to 100"),
        ({"window": {"size": [3000, 3000, 3000]}}, "is more than 268,435,456 voxels"),
        ({"preprocess": [{"resample": {"spacing_mm": [1, 1, 1e-9]}}]}, "is not from 0.001 to 1000 mm"),
        ({"preprocess": [{"pad": {"size": [10**9, 1, 1]}}]}, "no whole numbers up to 10,000"),
        ({"preprocess": [{"clip": [0, 1e-60]}]}, "does not grow"),
        ({"preprocess": [{"clip": ["x" * 10**6, 1]}]}, r"is no number: 'x{99}\.\.\."),
        ({"precision": ["f32"]}, r"precision is \['f32'\], none of auto, f32, bf16"),
        ({"keep_largest": {"neighbours": [6]}}, "none of 6, 18 and 26"),
        ({"labels": [{**described()["labels"][0], "color": [-5, 300, 3]}]}, "no list of whole numbers from 0 to 255"),
        ({"labels": [{"value": 1}] * 300}, "and 2681 more"),
    ],
)
def test_faults_of_a_description(stepwise, changes, message):
    with pytest.raises(DescriptionError, match=message):
        stepwise(**changes)


MANY = """
import resource, sys
import numpy as np
from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.inference.segment import Segmenter
from pathlib import Path
array = (np.arange(96**3, dtype=np.int64) * 2654435761 % 1200).astype(np.int16).reshape(96, 96, 96)
volume = Volume(geometry=VolumeGeometry(shape=array.shape, spacing=(1, 1, 1), origin=(0, 0, 0)), array=array)
segmenter = Segmenter(Path(sys.argv[1]), "levels")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out = np.zeros(array.shape, np.uint8)
segmenter.segment(volume, out)
assert np.array_equal(out, np.digitize(array, np.arange(1, 104) * 10 + 0.5))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_many_classes_are_never_held_at_once(stepwise, tmp_path):
    """All scores would be 368 MB; the rest of the work takes some memory too."""
    levels = (0, *(value * 10 + 0.5 for value in range(1, 104)))
    window = {"size": [24, 24, 24], "tiling": True, "overlap": 0.25}
    stepwise(levels=levels, window=window, orientation="SPL")
    done = subprocess.run(
        [sys.executable, "-c", MANY, tmp_path / "models"], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout) < 0.75 * 104 * 96**3 * 4
