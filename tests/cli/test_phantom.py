from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from program import Program

from clara_wf.reconstruction.inputs import InputOptions, open_inputs


def test_a_phantom_is_a_series_and_its_truth(clara: Program, tmp_path: Path) -> None:
    ended = clara("phantom", tmp_path / "made", "--seed", "2")
    assert ended.code == 0, ended.err
    assert len(list((tmp_path / "made/dicom").rglob("*.dcm"))) == 104
    assert json.loads((tmp_path / "made/truth/truth.json").read_text())["seed"] == 2


def test_projections_take_the_place_of_images(clara: Program, tmp_path: Path) -> None:
    ended = clara("phantom", tmp_path / "made", "--projections", "fan", "--views", "12")
    assert ended.code == 0, ended.err
    assert "12 projections are created at" in ended.out
    assert "projected 50 % of 12 views" in ended.err
    files = list((tmp_path / "made/projections").rglob("*.dcm"))
    assert len(files) == 12
    assert pydicom.dcmread(files[0])[0x7037, 0x100A].value == "FANBEAM"
    assert (tmp_path / "made/truth/liver.mhd").is_file()
    assert not (tmp_path / "made/dicom").exists()


def test_rods_in_a_parallel_beam_are_a_stack_with_their_places_beside(clara: Program, tmp_path: Path) -> None:
    options = ("--anatomy", "inserts", "--views", "6", "--no-noise")
    ended = clara("phantom", tmp_path / "made", "--projections", "parallel", *options)
    assert ended.code == 0, ended.err
    (stack,) = open_inputs(tmp_path / "made/projections", InputOptions())
    assert stack.geometry.views == 6
    truth = json.loads((tmp_path / "made/truth/truth.json").read_text())
    assert {"air", "bone"} < {rod["name"] for rod in truth["inserts"]}
    assert not (tmp_path / "made/truth/liver.mhd").exists()


def test_data_exchange_is_one_file(clara: Program, tmp_path: Path) -> None:
    wish = ("--projections", "parallel", "--format", "data-exchange", "--views", "4", "--anatomy", "inserts")
    assert clara("phantom", tmp_path / "made", *wish).code == 0
    assert [path.name for path in (tmp_path / "made/projections").iterdir()] == ["projections.h5"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--projections", "cone", "--format", "data-exchange"), "data-exchange holds no cone scan"),
        (("--projections", "parallel", "--format", "dicom-ct-pd"), "dicom-ct-pd holds no parallel scan"),
        (("--views", "12"), "are of projections"),
        (("--no-noise",), "are of projections"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(
    clara: Program, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    ended = clara("phantom", tmp_path / "made", *options)
    assert ended.code == 2
    assert told in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "made").exists()
