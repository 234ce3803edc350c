"""The stage dicom-writer, run as the runner runs it: by its contract."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

from clara_wf.imaging.discretion import discreet
from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.metaimage import write_volume
from clara_wf.imaging.record import (
    Algorithm,
    Code,
    Label,
    SourceInstance,
    SourceSeries,
    Step,
    Verdict,
    VolumeRecord,
    write_record,
)
from clara_wf.imaging.volume import Volume
from clara_wf.operators import dicom_writer
from clara_wf.stage import run

SERIES = "1.2.840.99.1"
#: Strings that are the patient's: nothing but the DICOM objects may hold them.
MARKERS = ("MARKERNAME", "MARKERID", "19661224", "MARKERACC", "1.2.840.99.7.")
GRID = VolumeGeometry(shape=(6, 20, 24), spacing=(3.0, 0.8, 0.7), origin=(-8.0, 4.5, 90.0))
CT = "1.2.840.10008.5.1.4.1.1.2"


def source(**changes: Any) -> SourceSeries:
    fields: dict[str, Any] = {
        "study_uid": "1.2.840.99",
        "series_uid": SERIES,
        "frame_of_reference_uid": "1.2.840.99.3",
        "instances": tuple(
            SourceInstance(sop_class_uid=CT, sop_instance_uid=f"1.2.840.99.7.{i}", position=(-8.0, 4.5, 90.0 + 3 * i))
            for i in range(6)
        ),
        "dataset": {
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "MARKERNAME^" + "X" * 70}]},
            "00100020": {"vr": "LO", "Value": ["MARKERID" * 9]},
            "00100030": {"vr": "DA", "Value": ["19661224"]},
            "00080050": {"vr": "SH", "Value": ["MARKERACC-of-more-than-16"]},
            "00080020": {"vr": "DA", "Value": ["20230405"]},
            "00200037": {"vr": "DS", "Value": [1, 0, 0, 0, 1, 0]},
            "00280030": {"vr": "DS", "Value": [0.8, 0.7]},
        },
    }
    return SourceSeries(**(fields | changes))


def labels_record(**changes: Any) -> VolumeRecord:
    organ = Code(value="123037004", scheme="SCT", meaning="Anatomical Structure")
    liver = Label(value=1, name="liver", category=organ, type=Code(value="10200004", scheme="SCT", meaning="Liver"))
    spleen = Label(value=2, name="spleen", category=organ, type=Code(value="78961009", scheme="SCT", meaning="Spleen"))
    fields: dict[str, Any] = {
        "kind": "labels",
        "modality": "CT",
        "source": source(),
        "labels": (liver, spleen),
        "verdict": Verdict(status="ok"),
        "algorithm": Algorithm(name="Liver", version="3", model="liver", sha256="cd" * 32),
        "measurements": {"liver": {"mean_hu": 101.5, "voxels": 1}},
        "provenance": (
            Step(
                stage="ai-vnet", version="0.1", started="2026-01-01T00:00:00+00:00", ended="2026-01-01T00:00:09.5+00:00"
            ),
        ),
    }
    return VolumeRecord(**(fields | changes))


def liver() -> Volume:
    array = np.zeros(GRID.shape, np.uint8)
    array[2:5, 4:10, 6:18] = 1
    return Volume(geometry=GRID, array=array)


def grey() -> Volume:
    return Volume(geometry=GRID, array=np.arange(2880, dtype=np.int16).reshape(GRID.shape) - 1024)


@pytest.fixture
def stage(tmp_path):
    """A payload's folders, with what a runner says of them."""

    class Payload:
        inputs, outputs, lock = tmp_path / "in", tmp_path / "out", tmp_path / "locks" / "dicom-writer.lock"
        log = tmp_path / "logs" / "dicom-writer.log"

        def put(self, name: str, volume: Volume, record: VolumeRecord | None) -> Path:
            path = self.inputs / f"{name}.mhd"
            if record is not None:
                write_record(path, record)
            write_volume(path, volume)
            return path

        @property
        def environment(self) -> dict[str, str]:
            contract = {
                "STAGENAME": "dicom-writer",
                "JOBID": "00000000-0000-0000-0000-000000000000",
                "APPDIR": str(tmp_path),
                "INPUTS": "in",
                "OUTPUTS": "out",
                "LOCKDIR": "locks",
                "LOCKNAME": "dicom-writer.lock",
                "LOGNAME": "logs/dicom-writer.log",
                "RUNSIMPLE": "TRUE",
            }
            return {f"NVIDIA_CLARA_{name}": value for name, value in contract.items()}

        def run(self, *options: str) -> int:
            options = options or ("--workflow", "liver-seg")
            return run(options, self.environment, execute=dicom_writer.execute, arguments=dicom_writer.arguments)

        @property
        def message(self) -> str:
            return json.loads(self.lock.read_text())["message"]

        @property
        def report(self) -> dict[str, Any]:
            return json.loads((self.outputs / "report.json").read_text())

        @property
        def written(self) -> list[str]:
            return sorted(str(path.relative_to(self.outputs)) for path in self.outputs.rglob("*") if path.is_file())

    payload = Payload()
    payload.inputs.mkdir()
    payload.lock.parent.mkdir()
    return payload


def test_labels_become_an_object_with_report_and_preview(stage) -> None:
    path = stage.put(f"{SERIES}.seg", liver(), labels_record())
    path.with_name(f"{SERIES}.seg.preview.png").write_bytes(b"a picture")
    assert stage.run() == 0
    assert stage.written == [f"{SERIES}.seg.dcm", "preview.png", "report.json"]
    assert (stage.outputs / "preview.png").read_bytes() == b"a picture"
    with discreet():
        seg = highdicom.seg.segread(stage.outputs / f"{SERIES}.seg.dcm")
        images = [instance.sop_instance_uid for instance in source().instances]
        found = seg.get_pixels_by_source_instance(images, combine_segments=True)
    np.testing.assert_array_equal(found, liver().array)

    report = stage.report
    assert (report["notice"], report["workflow"], report["verdict"]) == ("not for clinical use", "liver-seg", "ok")
    (volume,) = report["volumes"]
    # 3 x 6 x 12 voxels of 3 x 0.8 x 0.7 mm, around slice 3, row 6.5, column 11.5.
    assert volume["labels"]["liver"]["voxels"] == 216
    assert volume["labels"]["liver"]["volume_ml"] == pytest.approx(216 * 1.68 / 1000, abs=1e-3)
    np.testing.assert_allclose(
        volume["labels"]["liver"]["centroid_mm"], [-8 + 0.7 * 11.5, 4.5 + 0.8 * 6.5, 99], atol=0.01
    )
    assert volume["labels"]["spleen"] | {"type": None} == {
        "value": 2,
        "type": None,
        "voxels": 0,
        "volume_ml": 0.0,
        "centroid_mm": None,
    }
    assert volume["labels"]["liver"]["mean_hu"] == 101.5
    assert "measurements" not in volume  # the same labels are told of once
    assert volume["algorithm"]["sha256"] == "cd" * 32
    assert volume["timings_s"]["ai-vnet"] == 9.5
    assert volume["timings_s"]["dicom-writer"] >= 0
    (written,) = volume["objects"]
    assert written["file"] == f"{SERIES}.seg.dcm"
    assert written["sop_instance_uid"] == seg.SOPInstanceUID
    assert written["sha256"] == hashlib.sha256((stage.outputs / written["file"]).read_bytes()).hexdigest()


def test_grey_values_become_a_series(stage) -> None:
    stage.put(SERIES, grey(), VolumeRecord(kind="image", modality="CT", units="HU", source=source()))
    assert stage.run() == 0
    objects = stage.report["volumes"][0]["objects"]
    series = objects[0]["series_uid"]
    assert stage.written == [*(f"{series}/{number:04d}.dcm" for number in range(1, 7)), "preview.png", "report.json"]
    for item in objects:
        assert item["sha256"] == hashlib.sha256((stage.outputs / item["file"]).read_bytes()).hexdigest()
    image = pydicom.dcmread(stage.outputs / objects[3]["file"])
    np.testing.assert_array_equal(image.pixel_array, grey().array[3])
    assert (stage.outputs / "preview.png").read_bytes().startswith(b"\x89PNG")


def test_several_volumes(stage) -> None:
    stage.put("a.seg", liver(), labels_record())
    stage.put("b", grey(), VolumeRecord(kind="image", modality="MR", source=source(series_uid="1.2.840.99.2")))
    stage.put("c.seg", liver(), labels_record(verdict=Verdict(status="review", reasons=("It is small.",))))
    assert stage.run() == 0
    assert [volume["name"] for volume in stage.report["volumes"]] == ["a.seg", "b", "c.seg"]
    assert stage.report["verdict"] == "review"
    assert {"a.seg.dcm", "b.preview.png", "c.seg.dcm", "report.json"} < set(stage.written)


def test_an_input_file_is_taken_alone(stage) -> None:
    stage.put("a.seg", liver(), labels_record())
    stage.put("b.seg", liver(), None)
    environment = stage.environment | {"NVIDIA_CLARA_INPUTS": "in/a.seg.mhd"}
    assert run([], environment, execute=dicom_writer.execute, arguments=dicom_writer.arguments) == 0
    assert stage.written == ["a.seg.dcm", "report.json"]


def test_a_series_with_nothing_to_find_hides_no_result_of_another(stage) -> None:
    nothing = Verdict(status="none", reasons=("These are reformats.",))
    stage.put("a.seg", liver(), labels_record(verdict=nothing))
    stage.put("b.seg", liver(), labels_record())
    assert stage.run() == 0
    assert stage.report["verdict"] == "ok"
    assert "b.seg.dcm" in stage.written
    assert "a.seg.dcm" not in stage.written


def test_review_is_said_first(stage) -> None:
    stage.put("a.seg", liver(), labels_record(verdict=Verdict(status="review", reasons=("It is small.",))))
    assert stage.run() == 0
    dataset = pydicom.dcmread(stage.outputs / "a.seg.dcm")
    assert dataset.SeriesDescription.startswith("REVIEW ")
    assert stage.report["volumes"][0]["verdict"] == {"status": "review", "reasons": ["It is small."]}


@pytest.mark.parametrize("found", [True, False])
def test_nothing_found_is_a_report_alone(stage, found) -> None:
    volume = liver() if found else Volume(geometry=GRID, array=np.zeros(GRID.shape, np.uint8))
    verdict = Verdict(status="none", reasons=("This is a head.",)) if found else Verdict(status="ok")
    stage.put("a.seg", volume, labels_record(verdict=verdict))
    assert stage.run() == 0
    assert stage.written == ["report.json"]
    notes = " ".join(stage.report["volumes"][0]["notes"])
    assert ("This is a head." if found else "no voxel is labelled") in notes


def test_encoding_is_selectable(stage) -> None:
    stage.put("a.seg", liver(), labels_record())
    assert stage.run("--encoding", "labelmap") == 0
    assert pydicom.dcmread(stage.outputs / "a.seg.dcm").SegmentationType == "LABELMAP"


def test_a_repeat_makes_the_same_objects(stage) -> None:
    stage.put("a.seg", liver(), labels_record())
    stage.put("b", grey(), VolumeRecord(kind="image", modality="CT", units="HU", source=source()))
    assert stage.run() == 0
    first = {name: (stage.outputs / name).read_bytes() for name in stage.written if name.endswith(".dcm")}
    assert stage.run() == 0
    assert {name: (stage.outputs / name).read_bytes() for name in stage.written if name.endswith(".dcm")} == first


# Bad input: one clear line, and nothing half-written.


def test_an_empty_input(stage) -> None:
    assert stage.run() == 1
    assert "no volume (.mhd) in the input folder" in stage.message


@pytest.mark.parametrize("record", [None, labels_record(source=None)])
def test_one_volume_that_is_not_from_dicom_refuses_all(stage, record) -> None:
    stage.put("a.seg", liver(), labels_record())
    stage.put("recon.seg", liver(), record)
    assert stage.run() == 1
    assert stage.message.startswith("recon.seg.mhd does not come from DICOM, so a DICOM object cannot refer to it")
    assert stage.written == []


def test_a_short_volume(stage) -> None:
    path = stage.put("a.seg", liver(), labels_record())
    path.with_suffix(".raw").write_bytes(b"\0" * 100)
    assert stage.run() == 1
    assert "a.seg.raw has 100 bytes where a.seg.mhd says 2880" in stage.message
    assert stage.written == []


def test_a_failure_keeps_the_results_of_an_earlier_run(stage) -> None:
    stage.put("a.seg", liver(), labels_record())
    assert stage.run() == 0
    before = {name: (stage.outputs / name).read_bytes() for name in stage.written}
    stage.put("b.seg", liver(), None)
    assert stage.run() == 1
    assert {name: (stage.outputs / name).read_bytes() for name in stage.written} == before


def test_a_full_disk_leaves_nothing(stage) -> None:
    stage.put("a.seg", liver(), labels_record())
    full = f"import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, ({8 * 1024},) * 2)"
    start = "import runpy; runpy.run_module('clara_wf.operators.dicom_writer', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", f"{full}; {start}"],
        env=os.environ | stage.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "File too large" in stage.message
    assert list(stage.outputs.iterdir()) == []


def test_wrong_encoding_is_wrong_use(stage) -> None:
    stage.put("a.seg", liver(), labels_record())
    assert stage.run("--encoding", "fractional") == 2


def test_nothing_but_the_objects_names_the_patient(stage) -> None:
    """As a process of its own: standard error, log, lock, report and file names are searched."""
    stage.put("a.seg", liver(), labels_record())
    stage.put("b", grey(), VolumeRecord(kind="image", modality="CT", units="HU", source=source()))
    stage.put("c.seg", liver(), labels_record(source=replace(source(), study_uid="")))
    for expected in (1, 0):
        done = subprocess.run(
            [sys.executable, "-m", "clara_wf.operators.dicom_writer", "--workflow", "w"],
            env=os.environ | stage.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected, done.stderr
        told = done.stdout + done.stderr + stage.log.read_text() + stage.lock.read_text() + " ".join(stage.written)
        if expected == 0:
            told += (stage.outputs / "report.json").read_text()
        assert [marker for marker in MARKERS if marker in told] == []
        for path in stage.inputs.glob("c.seg.*"):
            path.unlink()
    assert "MARKERNAME" in str(pydicom.dcmread(stage.outputs / "a.seg.dcm").PatientName)
