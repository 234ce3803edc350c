"""The stage as a runner starts it: folders in, folders out, one lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_network import described, install_instead, model_folder

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.metaimage import read_volume, write_volume
from clara_wf.imaging.record import SourceInstance, SourceSeries, Step, VolumeRecord, read_record, write_record
from clara_wf.imaging.volume import Volume
from clara_wf.inference.install import install
from clara_wf.model.locks import Lock

GEOMETRY = VolumeGeometry(shape=(20, 24, 28), spacing=(3.0, 2.0, 2.0), origin=(-30.0, -20.0, 10.0))
RECORD = VolumeRecord(
    kind="image",
    modality="CT",
    units="HU",
    source=SourceSeries(
        study_uid="2.25.1",
        series_uid="2.25.2",
        frame_of_reference_uid="2.25.3",
        instances=tuple(
            SourceInstance(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid=f"2.25.4.{index}")
            for index in range(20)
        ),
        dataset={"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Secret^Name"}]}},
    ),
    provenance=(Step(stage="dicom-reader", version="0", started="", ended=""),),
)
DESCRIPTION = described(
    name="bright",
    version="7",
    title="Brighter than 100",
    spacing_mm=[2, 2, 3],
    labels=[{**described()["labels"][0], "value": 3}],
)


@pytest.fixture
def app(tmp_path):
    """A payload with a network that marks what is bright."""
    folder = model_folder(tmp_path / "own", DESCRIPTION)
    app = tmp_path / "app"
    for name in ("input", "output", "locks", "logs"):
        (app / name).mkdir(parents=True)
    install("bright", app / "models", source=folder)
    return app


def put(app, name, record=RECORD, value=300):
    image = np.full(GEOMETRY.shape, -200, np.int16)
    image[4:9, 5:15, 6:20] = value
    if record is not None:
        write_record(app / "input" / f"{name}.mhd", record)
    write_volume(app / "input" / f"{name}.mhd", Volume(geometry=GEOMETRY, array=image))
    return image


def run(root, app, *, module="ai_vnet", args=("--model", "bright"), **changes):
    variables = {
        "STAGENAME": "ai-vnet",
        "JOBID": "00000000-0000-0000-0000-000000000000",
        "APPDIR": str(app),
        "INPUTS": "input",
        "OUTPUTS": "output",
        "LOCKDIR": "locks",
        "LOCKNAME": "ai-vnet.lock",
        "RUNSIMPLE": "TRUE",
        "LOGNAME": "logs/ai-vnet.log",
        **changes,
    }
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    environment |= {f"NVIDIA_CLARA_{name}": value for name, value in variables.items()}
    done = subprocess.run(
        [sys.executable, "-m", f"clara_wf.operators.{module}", *args],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, Lock.read(app / "locks" / "ai-vnet.lock"), done.stderr


def summary(app):
    volumes = json.loads((app / "output" / "segmentation.json").read_text())["volumes"]
    return {entry["volume"]: entry for entry in volumes}


def test_a_label_map_with_all_that_is_known_of_it(root, app):
    image = put(app, "2.25.2")
    code, lock, log = run(root, app)
    assert (code, lock.state) == (0, "completed"), log
    output = app / "output" / "2.25.2.seg.mhd"
    labels = read_volume(output)
    assert labels.geometry.is_close(GEOMETRY)
    assert labels.array.dtype == np.uint8
    assert np.array_equal(labels.array == 3, image > 100)
    record = read_record(output)
    assert record.kind == "labels"
    assert record.source == RECORD.source
    assert record.verdict.status == "ok"
    assert (record.algorithm.model, record.algorithm.version) == ("bright", "7")
    assert len(record.algorithm.sha256) == 64
    assert "OpenVINO" in record.algorithm.engine
    assert [step.stage for step in record.provenance] == ["dicom-reader", "ai-vnet"]
    assert record.measurements["bright"]["mean_hu"] == 300.0
    with Image.open(output.with_suffix(".preview.png")) as picture:
        assert picture.width > 300
    assert "Secret" not in log


def test_one_volume_does_not_hide_another(root, app):
    put(app, "a", replace(RECORD, modality="MR"))
    put(app, "b")
    put(app, "c", value=-100)
    put(app, "d")
    (app / "input" / "d.raw").write_bytes(b"short")
    put(app, "e", replace(RECORD, kind="labels"))
    code, lock, log = run(root, app)
    assert (code, lock.state) == (0, "completed"), log
    found = summary(app)
    assert {name: entry["status"] for name, entry in found.items()} == {
        "a.mhd": "refused",
        "b.mhd": "ok",
        "c.mhd": "none",
        "d.mhd": "failed",
        "e.mhd": "refused",
    }
    assert "MR" in found["a.mhd"]["reasons"][0]
    assert "d.raw has 5 bytes" in found["d.mhd"]["reasons"][0]
    assert sorted(path.name for path in (app / "output").glob("*.mhd")) == ["b.seg.mhd", "c.seg.mhd"]
    assert not read_volume(app / "output" / "c.seg.mhd").array.any()


def test_a_volume_beyond_a_fixed_window_does_not_hide_another(root, app, tmp_path):
    fixed = {**DESCRIPTION, "window": {"size": [16, 16, 16], "padding": -1000}}
    install_instead("bright", app / "models", source=model_folder(tmp_path / "own", fixed))
    put(app, "large")
    image = np.full((10, 12, 12), -200, np.int16)
    image[3:7, 3:9, 3:9] = 300
    write_volume(app / "input" / "small.mhd", Volume(geometry=replace(GEOMETRY, shape=image.shape), array=image))
    code, _, log = run(root, app)
    assert code == 0, log
    found = summary(app)
    assert (found["large.mhd"]["status"], found["small.mhd"]["status"]) == ("failed", "ok")
    assert "cannot grow" in found["large.mhd"]["reasons"][0]


def test_logs_and_messages_name_a_volume_by_its_place(root, app):
    """A file may be called after a patient, and a UID tells nobody anything."""
    put(app, "secret-1", replace(RECORD, modality="MR"))
    put(app, "secret-2")
    (app / "input" / "secret-2.raw").write_bytes(b"short")
    code, lock, log = run(root, app)
    assert code == 1
    assert "volume 1 of 2: its modality is MR" in lock.message
    assert "volume 2 of 2: raw of volume 2 of 2 has 5 bytes" in lock.message
    put(app, "secret-2")
    code, lock, ended_well = run(root, app)
    assert code == 0, ended_well
    assert "volume 1 of 2: refused; its modality is MR" in ended_well
    assert "volume 2 of 2: ok" in ended_well
    assert "running bright (volume 2 of 2)" in (app / "logs" / "ai-vnet.log").read_text() + ended_well
    for text in (log, ended_well, (app / "logs" / "ai-vnet.log").read_text()):
        assert "secret" not in text
    assert set(summary(app)) == {"secret-1.mhd", "secret-2.mhd"}


def test_inputs_and_outputs_may_name_a_file(root, app):
    put(app, "recon", None)
    put(app, "other")
    code, _, log = run(root, app, INPUTS="input/recon.mhd", OUTPUTS="output/recon.seg.mhd")
    assert code == 0, log
    assert sorted(path.name for path in (app / "output").iterdir()) == [
        "recon.seg.json",
        "recon.seg.mhd",
        "recon.seg.preview.png",
        "recon.seg.raw",
        "segmentation.json",
    ]


@pytest.mark.parametrize("module", ["ai_vnet", "ai_livertumor"])
def test_a_model_that_is_not_installed(root, app, module):
    put(app, "a")
    code, lock, _ = run(root, app, module=module, args=())
    assert code == 3
    assert lock.state == "failed"
    name = "liver" if module == "ai_vnet" else "liver-lesion"
    assert lock.message.endswith(f"Run: clara-wf model install {name}")


def test_an_input_without_a_volume(root, app):
    code, lock, _ = run(root, app)
    assert code == 1
    assert "no volume (*.mhd)" in lock.message


def test_an_input_that_the_model_does_not_take(root, app):
    put(app, "a", replace(RECORD, modality="MR"))
    code, lock, _ = run(root, app)
    assert code == 1
    assert lock.message == "the model bright does not take the volume: its modality is MR, bright takes CT"
    assert summary(app)["a.mhd"]["status"] == "refused"
    assert not list((app / "output").glob("*.mhd"))
