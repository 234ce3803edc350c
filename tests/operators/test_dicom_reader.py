"""The stage `dicom-reader` under its contract: exit code, lock, log, files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest
from ct_pd_files import SERIES, Scan

from clara_wf.model.locks import Lock
from clara_wf.operators.dicom_reader import arguments, execute
from clara_wf.stage import run


@pytest.fixture
def app(tmp_path: Path, shared_data: Path) -> Path:
    """A payload with 93 slices of a head."""
    shutil.copytree(shared_data / "ct-head-small", tmp_path / "app" / "input", copy_function=shutil.copyfile)
    (tmp_path / "app" / "input").chmod(0o755)
    return tmp_path / "app"


def start(app: Path, *argv: str) -> int:
    names = {"STAGENAME": "dicom-reader", "JOBID": "6b1b1f3c-0f9a-4c57-8a61-0d8f0a3b1a11", "APPDIR": str(app)}
    names |= {
        "INPUTS": "input",
        "OUTPUTS": "output",
        "LOCKDIR": "locks",
        "LOCKNAME": "reader.lock",
        "RUNSIMPLE": "TRUE",
    }
    environment = {f"NVIDIA_CLARA_{name}": value for name, value in names.items()}
    return run(list(argv), environment, execute=execute, arguments=arguments)


def messages(text: str) -> list[str]:
    return [json.loads(line)["message"] for line in text.splitlines()]


def test_a_series_becomes_a_volume(app, capsys):
    assert start(app) == 0
    lock = Lock.read(app / "locks" / "reader.lock")
    assert lock is not None
    assert lock.state == "completed"
    (header,) = (app / "output").glob("*.mhd")
    assert header.with_suffix(".raw").stat().st_size == 93 * 64 * 64 * 2
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert f"series {header.stem}: axial, 93 slices of 64x64, 1.5 mm apart" in [line["message"] for line in lines]
    progress = [line["progress"] for line in lines if "progress" in line]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0


def test_a_missing_slice_fails_the_stage_in_one_line(app, capsys):
    (app / "input" / "CTHead27.dcm").unlink()
    assert start(app) == 1
    lock = Lock.read(app / "locks" / "reader.lock")
    assert lock is not None
    assert lock.state == "failed"
    assert "1 is missing between z=37.5 mm and z=40.5 mm" in lock.message
    assert "--resample" in lock.message
    assert sorted(path.name for path in (app / "output").iterdir()) == ["series.json"]


def test_resample_mends_it(app, capsys):
    (app / "input" / "CTHead27.dcm").unlink()
    assert start(app, "--resample") == 0
    assert any("resampled" in message for message in messages(capsys.readouterr().err))
    (header,) = (app / "output").glob("*.mhd")
    assert header.with_suffix(".raw").stat().st_size == 93 * 64 * 64 * 2


def test_a_series_that_is_not_there(app):
    assert start(app, "--series", "1.2.3") == 1


def test_the_log_tells_nothing_of_the_patient(app, capsys):
    for path in (app / "input").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "MARKERNAME", "MARKERID", "19661224"
        dataset.save_as(app / "input" / f"MARKERNAME-{path.name}")
        path.unlink()
    (app / "input" / "MARKERNAME.txt").write_text("x")
    assert start(app) == 0
    output = capsys.readouterr()
    assert "1 not DICOM" in output.err
    assert not any(word in output.err + output.out for word in ("MARKER", "19661224"))


def test_projections_become_a_stack(tmp_path, capsys):
    Scan(tmp_path / "app" / "input").fill()
    assert start(tmp_path / "app") == 0
    assert f"series {SERIES}: 5 projections of 6x4" in messages(capsys.readouterr().err)
    names = {path.name for path in (tmp_path / "app" / "output").iterdir()}
    suffixes = ("mhd", "raw", "json", "geometry.json")
    assert names == {"series.json", *(f"{SERIES}.{suffix}" for suffix in suffixes)}


def test_missing_projections_are_named_and_passed_over_on_demand(tmp_path):
    Scan(tmp_path / "app" / "input").fill().add(8)
    assert start(tmp_path / "app") == 1
    lock = tmp_path / "app" / "locks" / "reader.lock"
    assert "projections 6 to 8 of 9 are missing" in lock.read_text()
    lock.unlink()
    assert start(tmp_path / "app", "--missing-projections", "reweight") == 0
