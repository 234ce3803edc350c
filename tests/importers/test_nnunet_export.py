"""An nnU-Net export becomes a description, or it is said why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from packages import dataset, make_export, plans

from clara_wf.importers.adding import candidate
from clara_wf.importers.nnunet_export import translate_export
from clara_wf.importers.translation import Translation, Untranslatable
from clara_wf.inference.description import parse


@pytest.fixture
def translate(tmp_path: Path):
    def run(plan: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **options: Any) -> Translation:
        found = translate_export(make_export(tmp_path / "export", plan, data), **options)
        parse(found.description, where="test")
        return found

    return run


def test_a_usual_export(translate):
    found = translate()
    description = found.description
    assert description["name"] == "dataset009-spleen"
    assert description["modality"] == "CT"
    assert description["orientation"] == "SAR", "the reader turns to RAS and gives [z, y, x]"
    assert description["preprocess"] == [
        {"crop": {"keep": "nonzero"}},
        {"clip": [-42, 201]},
        {"normalize": {"mean": 99.5, "sd": 41.25}},
        {
            "resample": {
                "spacing_mm": [2.5, 0.8, 0.75],
                "interpolation": "cubic",
                "grid": "extent",
                "back": "linear",
                "anisotropy": 3,
            }
        },
    ]
    assert description["window"] == {
        "size": [16, 32, 48],
        "tiling": True,
        "placement": "even",
        "overlap": 0.5,
        "blending": "gaussian-nnunet",
        "sigma": 0.125,
    }
    assert (description["activation"], description["background"]) == ("none", True)
    assert [(label["value"], label["name"]) for label in description["labels"]] == [(1, "spleen"), (2, "kidney_left")]
    assert description["labels"][1]["type"]["meaning"] == "Kidney"
    assert "mirrors images" in description["limits"]
    assert description["licence"] == "not stated by the export"
    assert any("--configuration" in text for text in found.remarks)


def test_transposing_turns_the_axes_but_neither_spacing_nor_patch(translate):
    """nnU-Net keeps both as they are after the transposing."""
    description = translate(plans(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])).description
    assert description["orientation"] == "RSA"
    assert description["window"]["size"] == [16, 32, 48]
    assert description["preprocess"][-1]["resample"]["spacing_mm"] == [2.5, 0.8, 0.75]


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "Tiff3DIO"])
def test_a_reader_that_turns_nothing_leaves_the_orientation_to_the_user(translate, tmp_path, reader):
    plan = plans(image_reader_writer=reader, transpose_forward=[1, 0, 2])
    with pytest.raises(Untranslatable, match=rf"{reader} takes images as they lie.*--orientation SPL for axial DICOM"):
        translate(plan)
    found = translate_export(tmp_path / "export", orientation="SPL")
    assert found.description["orientation"] == "PSL", "said of the arrays, which are then transposed"


def test_a_reader_that_turns_is_not_contradicted(translate):
    with pytest.raises(Untranslatable, match="turns every image to SAR, --orientation says SPL"):
        translate(orientation="SPL")


@pytest.mark.parametrize(
    ("scheme", "steps"),
    [
        ("ZScoreNormalization", [{"normalize": {"over": "all"}}]),
        ("RescaleTo01Normalization", [{"rescale": [0, 1]}]),
        ("NoNormalization", []),
    ],
)
def test_every_normalization(translate, scheme, steps):
    assert translate(plans({"normalization_schemes": [scheme]})).description["preprocess"][1:-1] == steps


def test_a_mask_takes_the_holes_with_it(translate):
    masked = plans({"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [True]})
    assert translate(masked).description["preprocess"][1] == {"normalize": {"over": "filled"}}


def test_a_mask_of_ct_is_ignored_as_nnunet_does(translate):
    assert translate(plans({"use_mask_for_norm": [True]})).description["preprocess"][1] == {"clip": [-42, 201]}


def test_another_configuration_inherits(translate, tmp_path):
    found = translate(configuration="3d_lowres")
    assert found.description["window"]["size"] == [24, 40, 40]
    assert found.description["preprocess"][-1]["resample"]["spacing_mm"] == [3, 1.6, 1.5]
    assert found.description["preprocess"][1] == {"clip": [-42, 201]}, "inherited"
    assert not found.remarks
    named = make_export(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_lowres")
    assert translate_export(named).description["window"]["size"] == [24, 40, 40], "as nnU-Net names its folders"


@pytest.mark.parametrize(
    ("configuration", "text"),
    [
        ("2d", "2d is 2-D"),
        ("3d_cascade_fullres", "is a cascade: it needs the labels of 3d_lowres first"),
        ("3d_fulres", r"no configuration 3d_fulres \(there are: 2d, 3d_fullres"),
    ],
)
def test_configurations_that_are_refused(translate, configuration, text):
    with pytest.raises(Untranslatable, match=text):
        translate(configuration=configuration)


def test_a_circle_of_configurations(translate):
    with pytest.raises(Untranslatable, match="inherits from itself"):
        translate(plans({"inherits_from": "3d_lowres"}))


@pytest.mark.parametrize(
    ("plan", "data", "text"),
    [
        (plans({"normalization_schemes": ["OwnNormalization"]}), None, "OwnNormalization is unknown"),
        (plans({"resampling_fn_data": "resample_torch_fornnunet"}), None, "resample_torch_fornnunet"),
        (plans({"resampling_fn_data_kwargs": {"is_seg": False, "order": 1}}), None, "order=1"),
        (
            plans({"resampling_fn_probabilities_kwargs": {"order": 1, "force_separate_z": True}}),
            None,
            "separate_z=True",
        ),
        (plans({"preprocessor_name": "OwnPreprocessor"}), None, "OwnPreprocessor is unknown"),
        (plans({"spacing": [1, 1, -1]}), None, r"spacing is \[1, 1, -1\]"),
        (plans({"patch_size": None}), None, "patch size is None"),
        (plans(transpose_forward=[0, 0, 1]), None, "transpose_forward"),
        (plans(foreground_intensity_properties_per_channel={}), None, "percentile_00_5"),
        (plans(configurations=None), None, "no configuration"),
        (None, dataset(channel_names={"0": "T1", "1": "T2"}), r"2 channels \(T1, T2\)"),
        (None, dataset(channel_names=None), "channel_names is missing"),
        (None, dataset(labels={"background": 0, "whole": [1, 2], "core": 2}), "whole are regions"),
        (None, dataset(labels={"background": 0, "a": 1, "ignore": 2}), "the label ignore"),
        (None, dataset(labels={"a": 1}), "no background"),
        (None, dataset(labels={"background": 0, "a": 1, "b": 3}), "without a gap"),
        (None, dataset(labels={"background": 0, "a": "1"}), "without a gap"),
    ],
)
def test_every_refusal(translate, plan, data, text):
    with pytest.raises(Untranslatable, match=text):
        translate(plan, data)


@pytest.mark.parametrize(
    ("plan", "labels", "text"),
    [
        (None, {"\ud800": 1}, r"the label 1, '\\ud800', holds control characters"),
        (None, {"a\x1b[2J": 1}, r"the label 1, 'a\\x1b\[2J', holds control characters"),
        (None, {"x" * 65: 1}, "has 65 characters, 64 at most"),
        (None, {"a b": 1, "a  b": 2}, "labels uses a name twice: a b"),
        (None, {" ": 1}, "the labels 1 have no name"),
        (plans(dataset_name="\x1b[2J"), {"a": 1}, r"title '.*' holds control characters"),
    ],
)
def test_names_that_nobody_can_be_shown_or_that_are_the_same(translate, plan, labels, text):
    with pytest.raises(Untranslatable, match=text) as caught:
        translate(plan, dataset(labels={"background": 0, **labels}))
    assert str(caught.value).isprintable()


def test_all_faults_are_named_at_once(translate):
    plan = plans({"normalization_schemes": ["Own"], "patch_size": [1]}, image_reader_writer="SimpleITKIO")
    with pytest.raises(Untranslatable, match=r"ignore.*as they lie.*Own.*patch size"):
        translate(plan, dataset(labels={"background": 0, "ignore": 1}))


def test_a_channel_that_is_no_modality_is_any(translate):
    found = translate(None, dataset(channel_names={"0": "noNorm"}))
    assert "modality" not in found.description
    assert any("called noNorm" in text for text in found.remarks)


def test_older_files_call_the_channels_modality(tmp_path):
    data = {**dataset(), "modality": {"0": "MRI"}}
    del data["channel_names"]
    assert translate_export(make_export(tmp_path / "old", None, data)).description["modality"] == "MR"


def test_the_network_has_to_have_a_channel_for_each_label(tmp_path):
    root = make_export(tmp_path / "export", channels=4)
    with pytest.raises(Untranslatable, match="it gives 4 channels, the labels are 2 and a background"), candidate(root):
        pass
