"""Real images of several scanners: each gives a result or a clear refusal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import highdicom
import numpy as np
import pytest
from program import Program

from clara_wf.imaging.metaimage import read_volume


@pytest.mark.slow
@pytest.mark.xdist_group("network")
@pytest.mark.parametrize("workflow", ["liver-seg", "organ-seg"])
def test_a_patient_s_liver_is_about_a_litre(
    clara_with_models: Program, shared_data: Path, tmp_path: Path, workflow: str
) -> None:
    output = tmp_path / "out"
    ended = clara_with_models(
        "run", workflow, "-i", shared_data / "ct-abdomen-siemens", "-o", output, "--keep", "--json"
    )
    assert ended.code == 0, ended.err
    result = ended.events[-1]["result"]
    (axial,) = (labelled for labelled in result["labelled"] if labelled["verdict"] != "none")
    # The images end within the liver, so the litre is not all of it.
    assert axial["verdict"] == "review"
    assert any("its lowest slice" in reason for reason in axial["reasons"])
    assert sum(values["volume_ml"] for values in axial["structures"].values()) == pytest.approx(1000, abs=60)
    (reformats,) = (labelled for labelled in result["labelled"] if labelled["verdict"] == "none")
    assert reformats["reasons"]
    (file,) = output.glob("*.dcm")
    segmentation = highdicom.seg.segread(file)
    (read,) = clara_with_models.workspace.glob(f"payloads/*/dicom-reader/output/{_series(axial['volume'])}.mhd")
    volume = read_volume(read)
    geometry = segmentation.get_volume_geometry()
    assert geometry is not None
    # Both describe the same grid: every corner of ours, in patient millimetres, is a corner of theirs.
    theirs = geometry.map_indices_to_reference(
        np.indices((2, 2, 2)).reshape(3, 8).T * (np.array(geometry.spatial_shape) - 1)
    )
    assert np.allclose(_sorted(theirs), _sorted(volume.geometry.corners), atol=0.01)
    for text in (ended.out, ended.err, (output / "report.json").read_text()):
        assert not re.search(r"ACRIN|FLT-Breast", text)


def _series(volume: str) -> str:
    return Path(volume).name.removesuffix(".seg.mhd")


def _sorted(corners: np.ndarray) -> np.ndarray:
    return np.array(sorted(np.round(corners, 1).tolist()))


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("ct-abdomen-siemens", 0),
        ("ct-head-small", 0),
        ("mr-one-image-nine-encodings", 1),  # nine images at one place are no volume
        ("seg-tiny", 0),
    ],
)
@pytest.mark.parametrize("workflow", ["dicom-reader-only", "dicom-reader-writer"])
def test_every_file_gives_a_result_or_a_clear_refusal(
    clara: Program, shared_data: Path, tmp_path: Path, folder: str, code: int, workflow: str
) -> None:
    ended = clara("run", workflow, "-i", shared_data / folder, "-o", tmp_path / "out", "--keep", "--json")
    assert "Traceback" not in ended.err
    (summary,) = clara.workspace.glob("payloads/*/dicom-reader/output/series.json")
    found = json.loads(summary.read_text())
    files = [file for file in (shared_data / folder).rglob("*") if file.is_file()]
    assert len(found["files"]) == len(files) == found["counts"]["files"]
    for file in found["files"]:
        assert file["state"] == "read" or file["reason"], file
    assert ended.code == code, ended.err
    assert ended.err.count("error: ") == code


@pytest.mark.slow
@pytest.mark.xdist_group("network")
def test_a_head_gets_no_liver(clara_with_models: Program, shared_data: Path, tmp_path: Path) -> None:
    ended = clara_with_models("run", "organ-seg", "-i", shared_data / "ct-head-small", "-o", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    (labelled,) = ended.events[-1]["result"]["labelled"]
    assert labelled["verdict"] == "none"
    assert labelled["reasons"] == [
        "the darkest voxel is -64; air would be near -1000, so the values are not HU or no air is in view"
    ]
    assert labelled["structures"]["liver"]["voxels"] == 0
    assert not list((tmp_path / "out").glob("*.dcm"))


def test_nine_encodings_of_one_image_are_one_volume(clara: Program, shared_data: Path, tmp_path: Path) -> None:
    voxels = set()
    for number in range(1, 10):
        output = tmp_path / str(number)
        file = shared_data / "mr-one-image-nine-encodings" / f"{number}.dcm"
        ended = clara("run", "dicom-reader-only", "-i", file, "-o", output)
        assert ended.code == 0, ended.err
        (raw,) = output.glob("*.raw")
        voxels.add(raw.read_bytes())
    assert len(voxels) == 1
