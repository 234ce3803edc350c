"""`model test`: what an author of a network sees of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from program import Program
from tiny_network import described, model_folder

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.metaimage import write_volume
from clara_wf.imaging.volume import Volume


@pytest.fixture
def bright(clara: Program, tmp_path: Path) -> Program:
    """The program with a network that marks what is brighter than 100, in windows."""
    window = {"size": [48, 48, 48], "tiling": True, "overlap": 0.25, "padding": -1000}
    folder = model_folder(tmp_path / "own", described(window=window))
    ended = clara("model", "install", "tiny", "--from", folder)
    assert ended.code == 0, ended.err
    return clara


def test_on_the_phantom(bright: Program) -> None:
    ended = bright("model", "test", "tiny", "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert report["volume"] == [104, 256, 256]
    (network,) = report["networks"]
    assert network["windows"] > 20
    assert network["given"] == network["gave"] == [1, 1, 48, 48, 48]
    assert network["engine"].startswith("OpenVINO ")
    assert report["seconds"]["all"] >= report["seconds"]["network"] > 0
    assert report["peak_bytes"] > 2**20
    # Liver, kidneys, spleen and bones are; soft tissue is not.
    assert 1000 < report["measurements"]["bright"]["volume_ml"] < 6000
    with Image.open(report["preview"]) as picture:
        assert picture.width > 300


def test_on_a_volume_of_one_s_own_and_in_words(bright: Program, tmp_path: Path) -> None:
    array = np.full((30, 40, 50), -900, np.int16)
    array[10:20, 10:30, 20:40] = 400
    geometry = VolumeGeometry(shape=array.shape, spacing=(2.0, 2.0, 2.0), origin=(0.0, 0.0, 0.0))
    write_volume(tmp_path / "own.mhd", Volume(geometry=geometry, array=array))
    ended = bright("model", "test", "tiny", "--input", tmp_path / "own.mhd")
    assert ended.code == 0, ended.err
    assert "bright: 32 ml" in ended.out
    assert "1 x 1 x 48 x 48 x 48" in ended.out
    assert "Not for clinical use." in ended.out


def test_what_is_not_there(bright: Program, tmp_path: Path) -> None:
    missing = bright("model", "test", "tini")
    assert (missing.code, missing.out) == (3, "")
    assert "Did you mean tiny?" in missing.err
    assert "making the phantom" not in missing.err
    assert bright("model", "test", "tiny", "--input", tmp_path / "none.mhd").code == 1
    silent = bright("model", "test", "tiny", "--trtis", "localhost:9")
    assert silent.code == 3
    assert "does not answer" in silent.err
    wrong = bright("model", "test", "tiny", "--trtis", "http://me:secret@host:80")
    assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)
    assert "secret" not in wrong.err
