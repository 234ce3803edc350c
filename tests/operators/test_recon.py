"""The stage recon: projections in, a volume in Hounsfield units out, or one clear line."""

from __future__ import annotations

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from analytic import WATER, Ellipsoid, project
from numpy.typing import NDArray

import clara_wf
from clara_wf.imaging.metaimage import read_volume, write_volume
from clara_wf.imaging.record import SourceInstance, SourceSeries, Step, VolumeRecord, read_record, write_record
from clara_wf.imaging.volume import Volume
from clara_wf.model.locks import Lock
from clara_wf.operators import dicom_writer, recon
from clara_wf.reconstruction.geometry import Beam, Detector, ScanGeometry
from clara_wf.reconstruction.stack import Calibration, open_stack_writer
from clara_wf.stage import run

pytestmark = pytest.mark.xdist_group("rtk")

#: A cylinder with a rod on the patient's left and one at the back, who lies head first, supine.
BODY = (
    Ellipsoid(centre=(0, 0, 0), radii=(60, 60, 1e6), density=1.0),
    Ellipsoid(centre=(35, 0, 0), radii=(10, 10, 1e6), density=0.5),
    Ellipsoid(centre=(0, 35, 0), radii=(10, 10, 1e6), density=-0.5),
)
GEOMETRY = ScanGeometry(
    beam=Beam.PARALLEL,
    detector=Detector(rows=3, columns=80, row_spacing=2.0, column_spacing=2.0, central_row=1.0, central_column=39.5),
    angles=np.arange(90) * math.pi / 90,
    axial=np.full(90, 40.0),
)
SOURCE = SourceSeries(
    study_uid="1.2.840.99",
    series_uid="1.2.840.99.1",
    frame_of_reference_uid="1.2.840.99.3",
    instances=tuple(
        SourceInstance(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid=f"1.2.840.99.7.{i}")
        for i in range(90)
    ),
    dataset={
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "MARKERNAME"}]},
        "00100020": {"vr": "LO", "Value": ["MARKERID"]},
        "00180060": {"vr": "DS", "Value": [120]},
        "00181152": {"vr": "IS", "Value": [210]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
    },
)


def folders(app: Path) -> Path:
    for name in ("input", "output", "locks", "logs"):
        (app / name).mkdir(parents=True, exist_ok=True)
    return app


def stage(
    module: Any, app: Path, *argv: str, name: str = "recon", inputs: str = "input", outputs: str = "output"
) -> int:
    environment = {
        "STAGENAME": name,
        "JOBID": "00000000-0000-0000-0000-000000000000",
        "JOBNAME": "test",
        "APPDIR": str(app),
        "INPUTS": inputs,
        "OUTPUTS": outputs,
        "LOCKDIR": str(app / "locks"),
        "LOCKNAME": f"{name}.lock",
        "WAITNAME": "",
        "INPUTLOCK": str(app / "locks/input.lock"),
        "TIMEOUT": "300",
        "LOGNAME": str(app / f"logs/{name}.log"),
        "RUNSIMPLE": "TRUE",
        "TRTISURI": "",
        "IMAGE": "test",
    }
    functions = {key: getattr(module, key) for key in ("prepare", "execute", "arguments") if hasattr(module, key)}
    return run(list(argv), {f"NVIDIA_CLARA_{key}": value for key, value in environment.items()}, **functions)


def put(
    app: Path,
    views: NDArray[np.float32] | None = None,
    *,
    geometry: ScanGeometry = GEOMETRY,
    position: str | None = "HFS",
    water: float | None = WATER,
    source: SourceSeries | None = SOURCE,
    name: str = "scan",
) -> None:
    views = project(BODY, geometry) if views is None else views
    with open_stack_writer(
        folders(app) / f"input/{name}.mhd",
        geometry,
        patient_position=position,
        calibration=Calibration(water_attenuation=water),
        record=VolumeRecord(
            kind="projections",
            modality="CT",
            source=source,
            provenance=(Step(stage="dicom-reader", version="0", started="", ended=""),),
        ),
    ) as write:
        for index, view in enumerate(views):
            write(index, view)


def message(app: Path, name: str = "recon") -> str:
    lock = Lock.read(app / f"locks/{name}.lock")
    assert lock is not None
    return lock.message


def test_a_volume_a_record_and_a_picture_come_out(tmp_path: Path) -> None:
    put(tmp_path)
    assert stage(recon, tmp_path, "--matrix", "64", "--fov", "150") == 0
    assert {path.name for path in (tmp_path / "output").iterdir()} == {
        "recon.mhd",
        "recon.raw",
        "recon.json",
        "recon.preview.png",
    }
    volume, record = read_volume(tmp_path / "output/recon.mhd"), read_record(tmp_path / "output/recon.mhd")
    assert record is not None
    assert (record.kind, record.modality, record.units) == ("image", "CT", "HU")
    assert volume.array.dtype == np.int16
    assert volume.geometry.shape == (3, 64, 64)
    for point, wanted in (((35, 0, 40), 500), ((0, 35, 40), -500), ((-35, 0, 40), 0), ((0, -35, 40), 0)):
        index = tuple(np.rint(volume.geometry.world_to_index(point)).astype(int))
        near = volume.array[index[0], index[1] - 1 : index[1] + 2, index[2] - 1 : index[2] + 2]
        assert near.mean() == pytest.approx(wanted, abs=25)
    # Beyond what the scan sees is nothing.
    assert volume.array[0, 0, 0] == -1024
    step = record.provenance[-1]
    assert step.stage == "recon"
    assert step.detail["method"] == "FBP, parallel beam, ramp filter"
    assert step.detail["views"] == 90
    assert [one.stage for one in record.provenance] == ["dicom-reader", "recon"]


@pytest.mark.parametrize(
    ("position", "left", "back"),
    [("HFS", (35, 0), (0, 35)), ("FFS", (-35, 0), (0, 35)), ("HFP", (-35, 0), (0, -35)), ("HFDR", (0, 35), (-35, 0))],
)
def test_the_patient_s_sides_follow_from_how_they_lay(
    tmp_path: Path, position: str, left: tuple[int, int], back: tuple[int, int]
) -> None:
    """The rod at the scanner's right and that below are where the patient then has them: (x, y) in LPS mm."""
    put(tmp_path, position=position)
    assert stage(recon, tmp_path, "--matrix", "64", "--fov", "150") == 0
    volume = read_volume(tmp_path / "output/recon.mhd")
    middle = volume.geometry.origin[2] + volume.geometry.spacing[0]
    assert abs(middle) == pytest.approx(40)
    assert (middle > 0) == position.startswith("HF")
    for place, sign in ((left, 1), (back, -1)):
        index = tuple(np.rint(volume.geometry.world_to_index((*place, middle))).astype(int))
        assert volume.array[index] * sign > 300


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position": None}, ["does not say how the patient lay", "--arg recon=--patient-position=HFS"]),
        ({"position": "SITTING"}, ["patient_position is not one of HFS"]),
        ({"water": 0.192}, ["water attenuate 0.192 in each mm", "is it 1/cm?"]),
        ({"water": None}, ["does not say the attenuation of water", "--arg recon=--water-mu=0.0192"]),
    ],
)
def test_what_is_missing_is_named_and_never_guessed(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    put(tmp_path, **changes)
    assert stage(recon, tmp_path) == 1
    for word in words:
        assert word in message(tmp_path)
    assert not list((tmp_path / "output").glob("recon*"))


def test_what_is_missing_may_be_stated(tmp_path: Path) -> None:
    put(tmp_path, position=None, water=None, source=None)
    assert stage(recon, tmp_path, "--patient-position", "HFS", "--water-mu", str(WATER), "--matrix", "32") == 0
    record = read_record(tmp_path / "output/recon.mhd")
    assert record is not None
    assert record.source is None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda views: views.__setitem__((7, 1, 30), np.nan), "1 rays of view 8 are no numbers"),
        (lambda views: views.__setitem__((slice(3, 9),), np.inf), "of the rays measured nothing"),
        (lambda views: views.__setitem__((slice(3, 9),), -3.0), "saturated"),
    ],
    ids=["not a number", "no photon", "saturated"],
)
def test_broken_rays_end_with_one_line_and_nothing_half_written(tmp_path: Path, spoil: Any, words: str) -> None:
    views = project(BODY, GEOMETRY)
    spoil(views)
    put(tmp_path, views)
    assert stage(recon, tmp_path, "--matrix", "32") == 1
    assert words in message(tmp_path)
    assert not list((tmp_path / "output").iterdir())


def test_a_few_rays_without_a_photon_are_mended_and_told(tmp_path: Path) -> None:
    views = project(BODY, GEOMETRY)
    views[11, 1, 40] = views[60, 2, 12] = np.inf
    put(tmp_path, views)
    assert stage(recon, tmp_path, "--matrix", "32") == 0
    record = read_record(tmp_path / "output/recon.mhd")
    assert record is not None
    assert "2 rays measured nothing" in str(record.provenance[-1].detail["notes"])


def test_missing_views_are_refused_or_weighed(tmp_path: Path) -> None:
    kept = np.r_[0:40, 44:90]
    geometry = replace(GEOMETRY, angles=GEOMETRY.angles[kept], axial=GEOMETRY.axial[kept])
    put(tmp_path, geometry=geometry, source=None)
    assert stage(recon, tmp_path, "--matrix", "32") == 1
    assert "4 views are missing between view 40 at 78 degrees and view 41 at 88 degrees" in message(tmp_path)
    (tmp_path / "locks/recon.lock").unlink()
    assert stage(recon, tmp_path, "--matrix", "32", "--missing-projections", "reweight") == 0


def test_a_cut_off_object_is_told(tmp_path: Path) -> None:
    narrow = replace(GEOMETRY, detector=replace(GEOMETRY.detector, columns=50, central_column=24.5))
    put(tmp_path, geometry=narrow)
    assert stage(recon, tmp_path, "--matrix", "32") == 0
    assert "cut off" in (tmp_path / "logs/recon.log").read_text()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--fov", "900"], "a field of view of 900 mm: the scan sees"),
        (["--matrix", "0"], "--matrix"),
        (["--filter", "gauss"], "--filter"),
        (["--cutoff", "1.5"], "--cutoff"),
        (["--centre", "500"], "500"),
    ],
)
def test_wrong_options_end_with_code_2_or_a_clear_line(tmp_path: Path, argv: list[str], words: str) -> None:
    put(tmp_path)
    assert stage(recon, tmp_path, *argv) in {1, 2}
    assert words in message(tmp_path)


def test_two_scans_are_two_volumes(tmp_path: Path) -> None:
    put(tmp_path, name="first")
    put(tmp_path, name="second")
    assert stage(recon, tmp_path, "--matrix", "32") == 0
    assert {path.name for path in (tmp_path / "output").glob("*.mhd")} == {"recon.mhd", "recon_2.mhd"}


def test_the_reconstruction_is_a_new_ct_series_of_the_study(tmp_path: Path) -> None:
    put(tmp_path)
    assert stage(recon, tmp_path, "--matrix", "64", "--fov", "150", "--filter", "hann") == 0
    record = read_record(tmp_path / "output/recon.mhd")
    assert record is not None
    assert record.source is not None
    assert not record.source.exists
    (tmp_path / "dicom").mkdir()
    assert stage(dicom_writer, tmp_path, name="dicom-writer", inputs="output", outputs="dicom") == 0
    images = sorted(
        (pydicom.dcmread(path) for path in (tmp_path / "dicom").rglob("*.dcm")), key=lambda one: one.InstanceNumber
    )
    assert [image.SOPInstanceUID for image in images] == [one.sop_instance_uid for one in record.source.instances]
    image = images[1]
    assert (image.StudyInstanceUID, image.FrameOfReferenceUID) == ("1.2.840.99", "1.2.840.99.3")
    assert image.SeriesInstanceUID == record.source.series_uid != "1.2.840.99.1"
    assert list(image.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert image.PatientID == "MARKERID"
    assert (image.KVP, image.Exposure) == (120, 210)
    assert image.ConvolutionKernel == "HANN"
    assert image.ReconstructionDiameter == 150
    assert image.PatientPosition == "HFS"
    assert [float(x) for x in image.ImagePositionPatient] == pytest.approx([-73.828125, -73.828125, 40.0])
    assert "not for clinical use" in image.SeriesDescription.lower()
    assert image.SliceThickness == image.SpacingBetweenSlices
    assert image.ContributingEquipmentSequence[0].SoftwareVersions == clara_wf.__version__
    volume = read_volume(tmp_path / "output/recon.mhd").array
    assert np.array_equal(image.pixel_array * image.RescaleSlope + image.RescaleIntercept, volume[1])


def test_the_same_projections_give_the_same_uids_and_others_others(tmp_path: Path) -> None:
    uids = []
    for name, kind in (("one", "ramp"), ("two", "ramp"), ("three", "hann")):
        put(tmp_path / name)
        assert stage(recon, tmp_path / name, "--matrix", "32", "--filter", kind) == 0
        record = read_record(tmp_path / name / "output/recon.mhd")
        assert record is not None
        assert record.source is not None
        uids.append(record.source.series_uid)
    assert uids[0] == uids[1] != uids[2]


def images(app: Path, *argv: str) -> dict[str, bytes]:
    """The DICOM images of what lies in the output of recon, by SOP Instance UID."""
    (app / "dicom").mkdir(exist_ok=True)
    assert stage(dicom_writer, app, *argv, name="dicom-writer", inputs="output", outputs="dicom") == 0
    found = {pydicom.dcmread(path).SOPInstanceUID: path.read_bytes() for path in (app / "dicom").rglob("*.dcm")}
    shutil.rmtree(app / "dicom")
    return found


def test_a_reconstruction_is_the_same_images_in_every_workflow(tmp_path: Path) -> None:
    put(tmp_path)
    assert stage(recon, tmp_path, "--matrix", "32") == 0
    path = tmp_path / "output/recon.mhd"
    first = images(tmp_path, "--workflow", "ct-partial")
    record = read_record(path)
    assert record is not None
    write_record(path, replace(record, provenance=(*record.provenance, *record.provenance)))
    assert images(tmp_path, "--workflow", "recon-only") == first


@pytest.mark.parametrize("change", ["voxels", "places", "order"])
def test_a_reconstruction_that_a_stage_changed_is_other_images(tmp_path: Path, change: str) -> None:
    put(tmp_path)
    assert stage(recon, tmp_path, "--matrix", "32") == 0
    first = images(tmp_path)
    path = tmp_path / "output/recon.mhd"
    volume = read_volume(path)
    grid, array = volume.geometry, np.array(volume.array)
    if change == "voxels":
        array += 1
    elif change == "places":
        grid = replace(grid, origin=(grid.origin[0] + 50, *grid.origin[1:]))
    else:
        x, y, z = (float(value) for value in grid.index_to_world((len(array) - 1, 0, 0)))
        grid, array = replace(grid, origin=(x, y, z), axes=((0.0, 0.0, -1.0), *grid.axes[1:])), array[::-1]
    write_volume(path, Volume(geometry=grid, array=array))
    other = images(tmp_path)
    assert len(other) == len(first) == 3
    assert not first.keys() & other.keys()
    for content in other.values():
        image = pydicom.dcmread(io.BytesIO(content))
        assert list(image.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        assert "SourceImageSequence" not in image  # the images of the reconstruction itself are nowhere


def test_a_name_that_was_mended_makes_other_images(tmp_path: Path) -> None:
    """Two objects that differ never share a UID, if what differs is the patient's name alone."""
    mended = {**SOURCE.dataset, "00100010": {"vr": "PN", "Value": [{"Alphabetic": "MARKERNAME^ONE"}]}}
    found: set[str] = set()
    for name, source in (("one", SOURCE), ("two", replace(SOURCE, dataset=mended))):
        put(tmp_path / name, source=source)
        assert stage(recon, tmp_path / name, "--matrix", "32") == 0
        found |= images(tmp_path / name).keys()
    assert len(found) == 6


def test_projections_are_no_images_for_the_writer(tmp_path: Path) -> None:
    put(tmp_path)
    assert stage(dicom_writer, tmp_path, name="dicom-writer") == 1
    assert "holds projections, which are no images" in message(tmp_path, "dicom-writer")


def test_a_file_named_after_somebody_is_not_named(tmp_path: Path) -> None:
    put(tmp_path, name="MARKERNAME", position=None)
    (tmp_path / "input/MARKERNAME.geometry.json").write_text("{}")
    assert stage(recon, tmp_path) == 1
    assert "MARKER" not in message(tmp_path) + (tmp_path / "logs/recon.log").read_text()
    assert ".geometry.json" in message(tmp_path)


def test_a_matrix_beyond_the_memory_is_refused_before_the_disk_is_filled(tmp_path: Path) -> None:
    put(tmp_path)
    assert stage(recon, tmp_path, "--matrix", "100000") == 1
    assert "GiB" in message(tmp_path)
    assert not list((tmp_path / "output").iterdir())


def test_slices_finer_than_anything_are_refused(tmp_path: Path) -> None:
    put(tmp_path)
    assert stage(recon, tmp_path, "--slice-thickness", "0.01") in {1, 2}
    assert "finer than anything" in message(tmp_path)


def test_no_projections_at_all_says_what_was_looked_for(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / "input/readme.txt").write_text("nothing")
    assert stage(recon, tmp_path) == 1
    assert "Data Exchange" in message(tmp_path)


def test_the_log_and_the_record_name_no_patient(tmp_path: Path) -> None:
    put(tmp_path)
    assert stage(recon, tmp_path, "--matrix", "32") == 0
    told = (tmp_path / "logs/recon.log").read_text() + json.dumps(
        json.loads((tmp_path / "output/recon.json").read_text())["provenance"]
    )
    assert "MARKER" not in told
