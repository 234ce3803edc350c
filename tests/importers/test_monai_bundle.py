"""A MONAI bundle becomes a description, or it is said why not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from packages import bundle_config, bundle_metadata, make_bundle

from clara_wf.importers.adding import candidate
from clara_wf.importers.monai_bundle import translate_bundle
from clara_wf.importers.translation import Translation, Untranslatable
from clara_wf.inference.description import parse
from clara_wf.model.errors import InputError

IMAGE, PRED = {"keys": ["image"]}, {"keys": "pred"}
LOAD = {"_target_": "LoadImaged", **IMAGE}
RAS = {"_target_": "Orientationd", **IMAGE, "axcodes": "RAS"}
INVERT = {"_target_": "Invertd", **PRED, "transform": "@preprocessing", "orig_keys": "image"}
LARGEST = {"_target_": "AsDiscreted", **PRED, "argmax": True}


def on(target: str, keys: dict[str, Any] = IMAGE, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, **keys, **arguments}


@pytest.fixture
def translate(tmp_path: Path):
    def run(config: dict[str, Any], metadata: dict[str, Any] | None = None, **options: Any) -> Translation:
        root = make_bundle(tmp_path / "bundle", config, metadata, onnx_channels=0)
        found = translate_bundle(root, root / "configs/inference.json", **options)
        parse(found.description, where="test")
        return found

    return run


def step(translate, *transforms: dict[str, Any], metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the one step that a transform after Orientation becomes."""
    (found,) = translate(bundle_config(before=[LOAD, RAS, *transforms]), metadata).description["preprocess"]
    return found


def test_a_usual_bundle(translate):
    found = translate(bundle_config())
    description = found.description
    assert description["name"] == "two-things"
    assert description["version"] == "0.2.1"
    assert description["modality"] == "CT"
    assert description["orientation"] == "RAS"
    assert description["preprocess"] == [
        {
            "resample": {
                "spacing_mm": [1.5, 1.5, 2],
                "interpolation": "linear",
                "grid": "first-voxel",
                "back": "linear",
            }
        },
        {"scale": {"from": [-57, 164], "to": [0, 1], "clip": True}},
    ]
    assert description["window"] == {
        "size": [32, 32, 16],
        "tiling": True,
        "placement": "stride",
        "overlap": 0.5,
        "blending": "constant",
        "padding": 0,
        "batch": 4,
    }
    assert description["activation"] == "softmax"
    assert description["background"] is True
    assert [(label["value"], label["name"]) for label in description["labels"]] == [(1, "liver"), (2, "tumour")]
    assert [label["type"]["value"] for label in description["labels"]] == ["10200004", "108369006"]
    assert description["labels"][0]["color"] != description["labels"][1]["color"]
    assert description["citation"] == "A paper."
    assert "Somebody" in description["licence"]
    assert "Intended use: Research" in description["limits"]
    assert found.ignored == ("LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "SaveImaged")
    assert ("Orientationd", "orientation: RAS") in found.became


def test_what_the_author_did_not_say_is_said_to_be_missing(translate):
    metadata = {"network_data_format": bundle_metadata()["network_data_format"]}
    description = translate(bundle_config(), metadata).description
    assert description["name"] == "bundle", "its folder's name"
    for field in ("version", "licence", "citation"):
        assert description[field] == "not stated by the bundle"
    assert "Intended use: not stated by the bundle" in description["limits"]


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (
            on("Spacingd", pixdim=2),
            {"resample": {"spacing_mm": [2, 2, 2], "interpolation": "linear", "grid": "first-voxel", "back": "linear"}},
        ),
        (
            on("Spacingd", pixdim=[1, 2], mode=["nearest"], padding_mode="border", align_corners=[True]),
            {
                "resample": {
                    "spacing_mm": [1, 2, 2],
                    "interpolation": "nearest",
                    "grid": "first-voxel",
                    "back": "nearest",
                }
            },
        ),
        (
            on("monai.transforms.ScaleIntensityRangeD", a_min=-1, a_max=3),
            {"scale": {"from": [-1, 3], "to": [0, 1], "clip": False}},
        ),
        (on("ScaleIntensityDict"), {"rescale": [0, 1]}),
        (on("ScaleIntensityd", minv=-1, maxv=1, channel_wise=True), {"rescale": [-1, 1]}),
        (on("NormalizeIntensityd"), {"normalize": {"over": "all"}}),
        (
            on("NormalizeIntensityd", subtrahend=[10], divisor=2.5, nonzero=True, channel_wise=True),
            {"normalize": {"mean": 10, "sd": 2.5, "over": "nonzero"}},
        ),
        (
            on("CropForegroundd", source_key="image"),
            {"crop": {"keep": "positive", "margin": [0, 0, 0], "divisible_by": [1, 1, 1], "beyond": True}},
        ),
        (
            on(
                "CropForegroundd",
                source_key="image",
                margin=[1, 2, 3],
                k_divisible=8,
                allow_smaller=True,
                select_fn="$lambda x: x != 0",
            ),
            {"crop": {"keep": "nonzero", "margin": [1, 2, 3], "divisible_by": [8, 8, 8], "beyond": False}},
        ),
        (
            on("SpatialPadd", spatial_size=[64, -1, 32], method="end", value=-1.5),
            {"pad": {"size": [64, 0, 32], "value": -1.5, "method": "end"}},
        ),
        (on("DivisiblePadd", k=[16, 16, 0]), {"pad": {"divisible_by": [16, 16, 1], "value": 0, "method": "symmetric"}}),
    ],
)
def test_every_transform_before_the_network(translate, transform, expected):
    assert step(translate, transform) == expected


def test_an_array_s_transform_needs_no_keys(translate):
    before = [{"_target_": "LoadImage"}, {"_target_": "Orientation", "axcodes": "LPS"}, {"_target_": "ScaleIntensity"}]
    description = translate(bundle_config(before=before)).description
    assert (description["orientation"], description["preprocess"]) == ("LPS", [{"rescale": [0, 1]}])


def test_an_argument_for_each_key_is_the_image_s(translate):
    two = {"keys": ["label", "image"]}
    load = {"_target_": "LoadImaged", "keys": "image"}
    before = [load, RAS, on("Spacingd", two, pixdim=[1, 1, 1], mode=["nearest", "bilinear"])]
    found = translate(bundle_config(before=before))
    assert found.description["preprocess"][0]["resample"]["interpolation"] == "linear"


def test_what_works_on_other_keys_is_left_out(translate):
    other = {"keys": "label"}
    before = [LOAD, RAS, on("SpatialPadd", other, spatial_size=9, mode="edge"), on("ScaleIntensityd")]
    found = translate(bundle_config(before=before))
    assert found.description["preprocess"] == [{"rescale": [0, 1]}]
    assert "SpatialPadd (label)" in found.ignored


def test_before_monai_1_5_a_crop_ended_at_the_image(translate):
    crop = on("CropForegroundd", source_key="image", margin=5)
    assert step(translate, crop, metadata=bundle_metadata(monai_version="1.3.0"))["crop"]["beyond"] is False


def test_references_are_followed(translate):
    config = bundle_config(
        spacing=["@edge", "@edge", "$@edge"],
        edge=1.25,
        key="image",
        roi={"size": [32, 32, 32]},
        steps=[
            on("LoadImaged"),
            RAS,
            {"_target_": "Spacingd", "keys": "@key", "pixdim": "@spacing"},
            "@scaling",
        ],
        scaling=on("ScaleIntensityd", minv="%low"),
        low=-1,
        inferer={"_target_": "SlidingWindowInferer", "roi_size": "@roi#size", "overlap": "@_meta_::share"},
    )
    config["preprocessing"]["transforms"] = "@steps"
    found = translate(config, bundle_metadata(share=0.25)).description
    assert found["preprocess"][0]["resample"]["spacing_mm"] == [1.25, 1.25, 1.25]
    assert found["preprocess"][1] == {"rescale": [-1, 1]}
    assert (found["window"]["size"], found["window"]["overlap"]) == ([32, 32, 32], 0.25)


def test_references_between_lists_of_transforms(translate):
    inner = {"_target_": "Compose", "transforms": ["@turns#0", on("ScaleIntensityd")]}
    description = translate(bundle_config(before=["@first", inner], first=LOAD, turns=[RAS])).description
    assert (description["orientation"], description["preprocess"]) == ("RAS", [{"rescale": [0, 1]}])


@pytest.mark.parametrize(
    ("spacing", "why"),
    [
        ("@nowhere", "refers to nothing"),
        ("@circle", "refers to itself"),
        ("@list", "refers to itself"),
        ("@##other", "relative reference"),
        ("%other.json#pixdim", "refers to another file"),
        ("$[1, 2, 3]", "an expression, which is never evaluated"),
        ("$@edge * 2", "an expression, which is never evaluated"),
    ],
)
def test_a_value_that_is_not_known_is_named(translate, spacing, why):
    config = bundle_config(
        before=[LOAD, RAS, on("Spacingd", pixdim=spacing)], circle="@round", round="@circle", list=["@list", 1], edge=1
    )
    with pytest.raises(Untranslatable, match=rf"Spacingd\(pixdim\): .*{why}"):
        translate(config)


def test_lists_that_hold_themselves_end(translate):
    config = bundle_config()
    config["preprocessing"]["transforms"] = ["@preprocessing", "@preprocessing"]
    with pytest.raises(Untranslatable, match="hold themselves"):
        translate(config)


def test_references_that_multiply_end(translate):
    config = bundle_config(before=[LOAD, RAS, on("Spacingd", pixdim="@a0")])
    config |= {f"a{index}": [f"@a{index + 1}"] * 9 for index in range(12)}
    with pytest.raises(InputError, match="beyond reading"):
        translate(config)


def test_no_code_of_a_bundle_ever_runs(translate, tmp_path):
    marker = tmp_path / "it-ran"
    harm = f"$import os; os.system('touch {marker}')"
    call = f"$__import__('pathlib').Path('{marker}').touch()"
    config = bundle_config(
        imports=[harm],
        initialize=[call],
        run=[call],
        device=call,
        network_def={"_target_": "os.system", "_requires_": call, "command": f"touch {marker}"},
    )
    config["preprocessing"]["_requires_"] = harm
    config["postprocessing"]["transforms"][-1]["output_postfix"] = call
    config["inferer"]["device"] = call
    translate(config)
    refused = copy.deepcopy(config)
    refused["preprocessing"]["transforms"] += [
        on("Spacingd", pixdim=call),
        on("Lambdad", func=harm),
        {"_target_": "os.system", "command": f"touch {marker}"},
    ]
    root = make_bundle(tmp_path / "second", refused, onnx_channels=0)
    with pytest.raises(Untranslatable) as caught:
        translate_bundle(root, root / "configs/inference.json")
    assert "os.system is unknown" in str(caught.value)
    assert not marker.exists()


def test_yaml_is_read_without_its_objects(tmp_path):
    root = make_bundle(tmp_path / "bundle")
    (root / "configs/inference.json").unlink()
    file = root / "configs/inference.yaml"
    file.write_text(yaml.safe_dump(bundle_config()))
    with candidate(root) as found:
        assert found.description.orientation == "RAS"
    file.write_text("x: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InputError, match=r"inference\.yaml cannot be read"), candidate(root):
        pass


def test_everything_that_is_not_known_is_named_at_once(translate):
    before = [
        LOAD,
        on("RandFlipd"),
        RAS,
        on("Spacingd", pixdim=[1, 1, 1], recompute_affine=True, diagonal=True, mode="bicubic"),
        on("scripts.own.ScaleIntensityd"),
        on("ThresholdIntensityd", threshold=3),
    ]
    after = [on("FillHolesd", PRED), LARGEST]
    with pytest.raises(Untranslatable) as caught:
        translate(bundle_config(before=before, after=after, inferer={"_target_": "SliceInferer"}))
    message = str(caught.value)
    for text in (
        "transform RandFlipd is unknown",
        "Spacingd(recompute_affine=True)",
        "Spacingd(diagonal=True)",
        "Spacingd(mode=bicubic)",
        "transform scripts.own.ScaleIntensityd is unknown",
        "transform ThresholdIntensityd is unknown",
        "transform FillHolesd is unknown",
        "inferer SliceInferer is unknown",
    ):
        assert text in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (on("Spacingd", pixdim=[1, 1, 1], padding_mode="zeros"), "padding_mode=zeros"),
        (on("Spacingd", pixdim=[1, 1, 1], mode=3, align_corners=True), "shifts the image"),
        (on("Spacingd", pixdim=[1, 1, 1], mode=2), "mode=2"),
        (on("Spacingd", pixdim=[1, -1, 1]), "three positive spacings"),
        (on("Spacingd", pixdim=[1, 1, 1], scale_extent=True), "scale_extent=True"),
        (on("Spacingd", pixdim=[1, 1, 1], min_pixdim=[1, 1, 1]), "min_pixdim"),
        (on("Spacingd", pixdim=[1, 1, 1], invented=1), r"invented=1"),
        (on("Spacingd", pixdim=[1, 1, 1], lazy=True), "merges resampling"),
        (on("Orientationd", axcodes="LPS"), "the second one"),
        (on("ScaleIntensityRanged", a_min=3, a_max=1), "does not grow"),
        (on("ScaleIntensityRanged", a_min=0, a_max=1, clip=True), "clips"),
        (on("ScaleIntensityRanged", a_min=0, a_max=1, b_min=0), "maps to 0 and None"),
        (on("ScaleIntensityRanged", a_min=0, a_max=1, b_min=0, b_max=255, dtype="uint8"), "rounded"),
        (on("ScaleIntensityd", minv=None, maxv=None, factor=0.5), "factor=0.5"),
        (on("NormalizeIntensityd", subtrahend="much"), "no number"),
        (on("CropForegroundd", source_key="label"), "source_key=label"),
        (on("CropForegroundd", source_key="image", select_fn="$lambda x: x > 0.3"), "never evaluated"),
        (on("CropForegroundd", source_key="image", channel_indices=1), "channel_indices"),
        (on("CropForegroundd", source_key="image", mode="edge"), "mode=edge"),
        (on("CropForegroundd", source_key="image", margin=-1), "margin=-1"),
        (on("CropForegroundd", source_key="image", margin=[1, 2]), "neither one nor three"),
        (on("SpatialPadd", spatial_size=8, mode="reflect"), "mode=reflect"),
        (on("DivisiblePadd", k=8, method="start"), "method=start"),
        (on("CastToTyped", dtype="$np.int16"), "rounded"),
        (on("ScaleIntensityd", _mode_="callable"), "_mode_"),
        (on("ScaleIntensityd", _disabled_="$not x"), "never evaluated"),
    ],
)
def test_every_refusal_before_the_network(translate, transform, text):
    with pytest.raises(Untranslatable, match=text):
        translate(bundle_config(before=[LOAD, RAS, on("ScaleIntensityd"), transform]))


def test_what_its_author_switched_off_is_not_done(translate):
    before = [LOAD, RAS, on("ScaleIntensityd"), on("RandFlipd", _disabled_="True"), on("Spacingd", _disabled_=True)]
    found = translate(bundle_config(before=before))
    assert len(found.description["preprocess"]) == 1
    assert {"RandFlipd (disabled)", "Spacingd (disabled)"} <= set(found.ignored)


def test_without_an_orientation_the_user_has_to_say_it(translate, tmp_path):
    config = bundle_config(before=[LOAD, on("ScaleIntensityd")])
    with pytest.raises(Untranslatable, match=r"how the network's axes lie.*--orientation RAS"):
        translate(config)
    found = translate_bundle(tmp_path / "bundle", tmp_path / "bundle/configs/inference.json", orientation="LAS")
    assert found.description["orientation"] == "LAS"


def test_an_orientation_that_comes_late_or_is_another(translate, tmp_path):
    with pytest.raises(Untranslatable, match="after Spacingd, which has changed the grid"):
        translate(bundle_config(before=[LOAD, on("Spacingd", pixdim=[1, 1, 1]), RAS]))
    root = make_bundle(tmp_path / "second", onnx_channels=0)
    with pytest.raises(Untranslatable, match="Orientation says RAS, --orientation says LPS"):
        translate_bundle(root, root / "configs/inference.json", orientation="LPS")


@pytest.mark.parametrize(
    ("inferer", "expected"),
    [
        (
            {"_target_": "SlidingWindowInferer", "roi_size": 64, "mode": "gaussian", "sigma_scale": 0.2, "cval": -1},
            {
                "size": [64, 64, 64],
                "tiling": True,
                "placement": "stride",
                "overlap": 0.25,
                "blending": "gaussian",
                "padding": -1,
                "batch": 1,
                "sigma": 0.2,
            },
        ),
        ({"_target_": "monai.inferers.SimpleInferer"}, {"size": [1, 1, 1], "step": [1, 1, 1], "tiling": False}),
        (
            {"_target_": "SlidingWindowInferer", "roi_size": [-1, -1, -1]},
            {"size": [1, 1, 1], "step": [1, 1, 1], "tiling": False},
        ),
    ],
)
def test_every_inferer(translate, inferer, expected):
    assert translate(bundle_config(inferer=inferer)).description["window"] == expected


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"roi_size": [96, 96, -1]}, "one axis is the image's own"),
        ({"roi_size": [96, 96]}, "neither one nor three"),
        ({"roi_size": 96, "overlap": [0.5, 0.5, 0.25]}, "not one number for all axes"),
        ({"roi_size": 96, "overlap": 1}, "overlap=1"),
        ({"roi_size": 96, "overlap": 1e299}, r"overlap=1e\+299\): it is no number, or a far too large one"),
        ({"roi_size": 96, "sw_batch_size": -1}, "sw_batch_size=-1.: it is no whole number from 1 to 1024"),
        ({"roi_size": 96, "sw_batch_size": 10**400}, r"sw_batch_size=10+\.\.\.\): it is no whole number"),
        ({"roi_size": 96, "sw_batch_size": True}, "sw_batch_size=True"),
        ({"roi_size": 96, "padding_mode": "reflect"}, "padding_mode=reflect"),
        ({"roi_size": 96, "mode": "cosine"}, "mode=cosine"),
        ({"roi_size": 96, "with_coord": True}, "with_coord=True"),
        ({"roi_size": "$@size"}, None),
    ],
)
def test_every_refusal_of_an_inferer(translate, arguments, text):
    config = bundle_config(inferer={"_target_": "SlidingWindowInferer", **arguments}, size=[96, 96, 96])
    if text is None:
        assert translate(config).description["window"]["size"] == [96, 96, 96]
        return
    with pytest.raises(Untranslatable, match=text):
        translate(config)


ONE = ("spleen",)


def test_activation_after_the_way_back_needs_none_for_the_largest_score(translate):
    after = [{**INVERT, "nearest_interp": False}, on("Activationsd", PRED, softmax=True), LARGEST]
    description = translate(bundle_config(after=after)).description
    assert description["activation"] == "none"
    assert description["preprocess"][0]["resample"]["back"] == "linear"


def test_a_threshold_after_the_way_back_is_moved_to_the_scores_scale(translate):
    after = [INVERT, on("Activationsd", PRED, sigmoid=True), on("AsDiscreted", PRED, threshold=0.4)]
    found = translate(bundle_config(after=after), bundle_metadata(ONE))
    assert found.description["activation"] == "none"
    assert found.description["threshold"] == pytest.approx(-0.405465, abs=1e-6)
    assert found.description["background"] is False
    assert any("count from -0.4055" in text for text in found.remarks)


def test_a_threshold_before_the_way_back_stays(translate):
    after = [on("Activationsd", PRED, sigmoid=True), on("AsDiscreted", PRED, threshold=0.4), INVERT]
    description = translate(bundle_config(after=after), bundle_metadata(ONE)).description
    assert (description["activation"], description["threshold"]) == ("sigmoid", 0.4)
    assert description["preprocess"][0]["resample"]["back"] == "nearest"
    assert description["labels"][0]["value"] == 1


def test_a_mask_described_by_both_of_its_values_is_one_channel(translate):
    metadata = bundle_metadata(("background", "spleen"))
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = 1
    after = [INVERT, on("AsDiscreted", PRED, threshold=0.5)]
    description = translate(bundle_config(after=after), metadata).description
    assert [label["name"] for label in description["labels"]] == ["spleen"]


def test_labels_that_stay_on_the_network_s_grid_come_back_here(translate):
    found = translate(bundle_config(after=[LARGEST]))
    assert found.description["preprocess"][0]["resample"]["back"] == "nearest"
    assert any("there is no Invert" in text for text in found.remarks)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"labels": [1, 2], "neighbours": 26, "together": False}),
        (
            {"applied_labels": [2], "connectivity": 1, "independent": False},
            {"labels": [2], "neighbours": 6, "together": True},
        ),
        ({"applied_labels": 1, "connectivity": 2}, {"labels": [1], "neighbours": 18, "together": False}),
    ],
)
def test_the_largest_component(translate, arguments, expected):
    after = [INVERT, LARGEST, on("KeepLargestConnectedComponentd", PRED, **arguments)]
    assert translate(bundle_config(after=after)).description["keep_largest"] == expected


@pytest.mark.parametrize(
    ("after", "names", "text"),
    [
        ([INVERT], None, "no AsDiscrete says"),
        ([INVERT, INVERT, LARGEST], None, "Invertd: the second one"),
        ([INVERT, LARGEST, LARGEST], None, "AsDiscreted: the second one"),
        ([LARGEST, {**INVERT, "nearest_interp": False}], None, "labels can only come back by the nearest"),
        ([{**INVERT, "transform": "@other"}, LARGEST], None, "something else than @preprocessing"),
        ([{**INVERT, "post_func": "$lambda x: x"}, LARGEST], None, "never evaluated"),
        ([LARGEST, on("Activationsd", PRED, softmax=True)], None, "after AsDiscreted"),
        ([on("Activationsd", PRED, softmax=True, sigmoid=True), LARGEST], None, "both"),
        ([on("Activationsd", PRED, other="$torch.tanh"), LARGEST], None, "never evaluated"),
        ([on("AsDiscreted", PRED, argmax=True, to_onehot=3)], None, "to_onehot=3"),
        ([on("AsDiscreted", PRED, threshold=0.5)], None, "lets labels overlap"),
        ([on("AsDiscreted", PRED, argmax=True, threshold=0.5)], None, "neither just"),
        ([LARGEST], ONE, "the largest of one channel"),
        ([on("Activationsd", PRED, softmax=True), on("AsDiscreted", PRED, threshold=0.5)], ONE, "is always 1"),
        (
            [INVERT, on("Activationsd", PRED, sigmoid=True), on("AsDiscreted", PRED, threshold=1.0)],
            ONE,
            "no probability is beyond it",
        ),
        ([on("KeepLargestConnectedComponentd", PRED), INVERT, LARGEST], None, "before there are labels"),
        ([LARGEST, on("KeepLargestConnectedComponentd", PRED), INVERT], None, "on the network's grid"),
        (
            [INVERT, LARGEST, on("KeepLargestConnectedComponentd", PRED, applied_labels=[3])],
            None,
            "the labels are 1, 2",
        ),
        ([INVERT, LARGEST, on("KeepLargestConnectedComponentd", PRED, num_components=2)], None, "num_components=2"),
        ([INVERT, LARGEST, on("KeepLargestConnectedComponentd", PRED, is_onehot=True)], None, "is_onehot"),
        ([on("CastToTyped", PRED, dtype="uint8"), LARGEST], None, "rounded"),
    ],
)
def test_every_refusal_after_the_network(translate, after, names, text):
    with pytest.raises(Untranslatable, match=text):
        translate(bundle_config(after=after), bundle_metadata(names) if names else None)


def test_a_spline_does_not_come_back(translate):
    before = [LOAD, RAS, on("Spacingd", pixdim=[1, 1, 1], mode=3, padding_mode="nearest")]
    after = [{**INVERT, "nearest_interp": False}, LARGEST]
    with pytest.raises(Untranslatable, match="cannot come back by a spline"):
        translate(bundle_config(before=before, after=after))


def test_labels_may_be_cast_to_whole_numbers(translate):
    assert (
        "CastToTyped"
        in translate(bundle_config(after=[LARGEST, on("CastToTyped", PRED, dtype="$torch.uint8")])).ignored
    )


def changed(side: str, **fields: Any) -> dict[str, Any]:
    metadata = bundle_metadata()
    (entry,) = metadata["network_data_format"][side].values()
    entry |= fields
    return metadata


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        (changed("inputs", num_channels=4), "takes 4 channels"),
        (changed("inputs", spatial_shape=[96, 96]), "takes 2 spatial dimensions"),
        (changed("outputs", channel_def={}), "no name to the channels 0, 1, 2"),
        (changed("outputs", channel_def={"0": "background", "2": "x"}), "no name to the channels 1"),
        (changed("outputs", channel_def=None, num_channels=None), "no name to the channels all"),
        (changed("outputs", num_channels=2), "names 3 channels of 2"),
        (bundle_metadata(("liver", "spleen")), "channel 0 is 'liver', not the background"),
        (bundle_metadata(("background", "x", "x")), "uses a name twice: x"),
        ({"network_data_format": {"inputs": {}, "outputs": {}}}, "no known inputs.*no known outputs"),
        ({}, "no known inputs.*no known outputs"),
    ],
)
def test_metadata_that_says_too_little_or_too_much(translate, metadata, text):
    with pytest.raises(Untranslatable, match=text):
        translate(bundle_config(), metadata)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("\ud800", r"the label 1, '\\ud800', holds control characters"),
        ("a\x1b[2Jb", r"'a\\x1b\[2Jb', holds control characters"),
        ("a\x00", r"'a\\x00', holds control characters"),
        ("x" * 65, "has 65 characters, 64 at most"),
        ("x" * 9_000_00, "has 900000 characters, 64 at most"),
    ],
)
def test_a_label_s_name_that_nobody_can_be_shown(translate, name, text):
    with pytest.raises(Untranslatable, match=text) as caught:
        translate(bundle_config(), bundle_metadata(("background", name, "spleen")))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("field", ["name", "version", "license", "copyright", "references", "intended_use"])
def test_a_text_that_nobody_can_be_shown(translate, field):
    with pytest.raises(Untranslatable, match="holds control characters") as caught:
        translate(bundle_config(), bundle_metadata(**{field: "a\x1b[31m\ud800" + "b" * 5000}))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_what_is_quoted_is_cut(translate, tmp_path):
    before = [LOAD, RAS, on("ScaleIntensityd"), on("\x1b" + "N" * 9999), on("Spacingd", pixdim=["\x07" * 9999] * 99)]
    before += [on("Spacingd", pixdim=1, **{f"a{index}": 1 for index in range(999)})]
    with pytest.raises(Untranslatable, match=r"; and \d+ more$") as caught:
        translate(bundle_config(before=before))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 4000
    root = make_bundle(tmp_path / "second")
    (root / "configs/inference.json").unlink()
    lines = ["a0: &a0 [x, x]", *(f"a{index}: &a{index} [{f'*a{index - 1}, ' * 9}]" for index in range(1, 9))]
    lines += ["inferer: {_target_: *a8}", "preprocessing: {_target_: *a8}", "postprocessing: {_target_: *a8}"]
    (root / "configs/inference.yaml").write_text("\n".join(lines))
    with pytest.raises(Untranslatable) as caught, candidate(root):
        pass
    assert len(str(caught.value)) < 1500


def test_a_modality_that_is_not_known_is_any(translate):
    found = translate(bundle_config(), changed("inputs", modality="n/a"))
    assert "modality" not in found.description
    assert any("any modality" in text for text in found.remarks)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": NaN' + "[" * 100_000])
def test_a_configuration_that_is_none(tmp_path, text):
    root = make_bundle(tmp_path / "bundle")
    (root / "configs/inference.json").write_text(text)
    with pytest.raises(InputError, match=r"inference\.json (cannot be read|holds no mapping)"), candidate(root):
        pass


def test_parts_that_are_missing_are_named(translate):
    config = {"postprocessing": json.loads(json.dumps(bundle_config()["postprocessing"]))}
    with pytest.raises(Untranslatable, match=r"preprocessing is missing.*inferer is missing"):
        translate(config)
