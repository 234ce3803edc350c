"""`model add`, as a person uses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from packages import bundle_config, bundle_metadata, make_bundle, make_export
from program import Program
from tiny_network import described, model_folder


def test_a_bundle_is_translated_and_installed(clara: Program, tmp_path: Path) -> None:
    file = shutil.make_archive(str(tmp_path / "bundle"), "zip", make_bundle(tmp_path / "two"))
    ended = clara("model", "add", file)
    assert ended.code == 0, ended.err
    assert "This is: MONAI bundle" in ended.out
    rows = [line.split("  ")[0].strip() for line in ended.out.splitlines()]
    for name in ("Orientationd", "Spacingd", "ScaleIntensityRanged", "SlidingWindowInferer", "Invertd", "AsDiscreted"):
        assert name in rows
    assert "spacing_mm: [1.5, 1.5, 2]" in ended.out
    assert "changes no voxel: LoadImaged, EnsureChannelFirstd, EnsureTyped, SaveImaged" in ended.out
    assert f"Model 'two-things' is installed at: {clara.workspace / 'models/two-things'}" in ended.out
    assert "clara-wf model test two-things" in ended.out
    (listed,) = json.loads(clara("model", "list", "--json").out)
    assert (listed["name"], listed["version"]) == ("two-things", "0.2.1")
    assert "Not checked by clara-wf" in clara("model", "show", "two-things").out


def test_a_dry_run_prints_what_would_be_written(clara: Program, tmp_path: Path) -> None:
    export = make_export(tmp_path / "export")
    ended = clara("model", "add", export, "--dry-run", "--name", "spleen")
    assert ended.code == 0, ended.err
    description = yaml.safe_load(ended.out)
    assert (description["name"], description["orientation"]) == ("spleen", "SAR")
    assert "This is: nnU-Net export" in ended.err
    assert "The configuration is taken to be 3d_fullres" in ended.err
    assert json.loads(clara("model", "list", "--json").out) == []
    # What was printed installs the same model by hand.
    (export / "model.yaml").write_text(ended.out)
    (export / "fold_all/network.onnx").rename(export / "network.onnx")
    assert clara("model", "install", "spleen", "--from", export).code == 0


def test_for_programs_it_is_json(clara: Program, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    dry = json.loads(clara("model", "add", bundle, "--dry-run", "--json").out)
    assert (dry["kind"], dry["folder"]) == ("MONAI bundle", None)
    added = json.loads(clara("model", "add", bundle, "--json").out)
    assert added["folder"] == str(clara.workspace / "models/two-things")
    assert added["description"] == dry["description"]
    assert {"there": "Orientationd", "here": "orientation: RAS"} in added["became"]
    assert "LoadImaged" in added["ignored"]


def test_what_cannot_be_translated_is_named_and_nothing_is_installed(clara: Program, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    harm = f"$__import__('os').system('touch {marker}')"
    before = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": harm},
        {"_target_": "Lambdad", "keys": "image", "func": harm},
        {"_target_": "RandFlipd", "keys": "image"},
    ]
    metadata = bundle_metadata(("background", ""))
    ended = clara("model", "add", make_bundle(tmp_path / "bundle", bundle_config(before=before), metadata))
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    for text in ("Lambdad is unknown", "RandFlipd is unknown", "Spacingd(pixdim)", "channels 1", "--orientation RAS"):
        assert text in line
    assert not marker.exists()
    assert json.loads(clara("model", "list", "--json").out) == []
    assert not list((clara.workspace / "models").glob("*"))


def test_another_model_is_replaced_only_by_force(clara: Program, tmp_path: Path) -> None:
    first = model_folder(tmp_path / "first", described())
    second = model_folder(tmp_path / "second", described(title="Another"))
    assert clara("model", "add", first).code == 0
    assert clara("model", "add", first).code == 0, "the same again changes nothing"
    refused = clara("model", "add", second)
    assert refused.code == 2
    assert "another model is installed as tiny" in refused.err
    assert "--force" in refused.err
    assert clara("model", "add", second, "--name", "other").code == 0
    assert clara("model", "add", second / "network.onnx", "--force").code == 0
    assert json.loads(clara("model", "show", "tiny", "--json").out)["title"] == "Another"
    assert {entry["name"] for entry in json.loads(clara("model", "list", "--json").out)} == {"tiny", "other"}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--name", "No Name"], 2, "is no name of a model"),
        (["--orientation", "XYZ"], 2, "three of R/L"),
        (["--configuration", "2d"], 2, "for an nnU-Net export"),
        (["--orientation", "LPS"], 1, "Orientation says RAS, --orientation says LPS"),
    ],
)
def test_options_that_do_not_fit(clara: Program, tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    ended = clara("model", "add", make_bundle(tmp_path / "bundle"), *arguments)
    assert ended.code == code
    assert text in ended.err


def test_torchscript_without_torch_says_how(clara: Program, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", onnx_channels=0)
    (bundle / "models").mkdir()
    (bundle / "models/model.ts").write_bytes(b"PK")
    ended = clara("model", "add", bundle)
    assert ended.code == 3
    assert "torch.onnx.export" in ended.err
