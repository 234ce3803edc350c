"""Real images through reader and writer: headers as scanners write them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from clara_wf.imaging.discretion import discreet
from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.metaimage import read_volume, write_volume
from clara_wf.imaging.record import Algorithm, Code, Label, VolumeRecord, read_record, write_record
from clara_wf.imaging.volume import Volume
from clara_wf.operators import dicom_reader, dicom_writer
from clara_wf.stage import run

TINY = "seg-tiny"


def stage(module, folder: Path, inputs: str, outputs: str) -> None:
    contract = {
        "STAGENAME": module.__name__.rpartition(".")[2],
        "JOBID": "00000000-0000-0000-0000-000000000000",
        "APPDIR": str(folder),
        "INPUTS": inputs,
        "OUTPUTS": outputs,
        "LOCKDIR": "locks",
        "LOCKNAME": f"{outputs}.lock",
        "RUNSIMPLE": "TRUE",
    }
    (folder / "locks").mkdir(exist_ok=True)
    environment = {f"NVIDIA_CLARA_{name}": value for name, value in contract.items()}
    functions = {
        name: getattr(module, name) for name in ("execute", "prepare", "cleanup", "arguments") if hasattr(module, name)
    }
    assert run([], environment, **functions) == 0


def errors(path: Path) -> list[str]:
    program = shutil.which("dciodvfy")
    if program is None:
        return []  # test_segmentation and test_derived_series say so by skipping
    done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, check=False)
    return re.findall(r"^Error.*", done.stdout + done.stderr, re.MULTILINE)


@pytest.fixture
def volumes(request, shared_data, tmp_path) -> Path:
    """A folder of volumes, read from a folder of real images."""
    shutil.copytree(shared_data / request.param, tmp_path / "in")
    stage(dicom_reader, tmp_path, "in", "volumes")
    return tmp_path / "volumes"


@pytest.mark.parametrize("volumes", ["ct-abdomen-siemens", TINY], indirect=True)
def test_grey_values_come_back_where_they_were(volumes, tmp_path) -> None:
    stage(dicom_writer, tmp_path, "volumes", "out")
    expected = {}
    for path in volumes.glob("*.mhd"):
        volume = read_volume(path)
        for index in range(volume.array.shape[0]):
            place = tuple(np.round(volume.geometry.index_to_world((index, 0, 0)), 3) + 0.0)
            expected[read_record(path).source.series_uid, index] = (place, volume.array[index])
    found = sorted((tmp_path / "out").glob("*/*.dcm"))
    assert len(found) == len(expected)
    places = {place for place, _ in expected.values()}
    for path in found:
        image = pydicom.dcmread(path)
        place = tuple(np.round([float(value) for value in image.ImagePositionPatient], 3) + 0.0)
        assert place in places
        values = image.pixel_array * float(image.get("RescaleSlope", 1)) + float(image.get("RescaleIntercept", 0))
        assert any(where == place and np.array_equal(values, plane) for where, plane in expected.values())
    for folder in (tmp_path / "out").glob("*/"):
        assert errors(folder / "0001.dcm") == []


@pytest.mark.parametrize("volumes", ["ct-abdomen-siemens", TINY], indirect=True)
def test_a_segmentation_lies_on_its_source(volumes, tmp_path) -> None:
    """A threshold is segmented; another reader finds it on the images and frames that it was made from."""
    (tmp_path / "labels").mkdir()
    tissue = Code(value="85756007", scheme="SCT", meaning="Tissue")
    labels = (Label(value=1, name="bright", category=tissue, type=tissue),)
    algorithm = Algorithm(name="threshold", version="1", model="threshold", sha256="00" * 32)
    made: dict[str, tuple[Volume, VolumeRecord]] = {}
    for path in volumes.glob("*.mhd"):
        grey, record = read_volume(path), read_record(path)
        array = (grey.array > np.percentile(grey.array, 70)).astype(np.uint8)
        made[path.stem] = Volume(geometry=grey.geometry, array=array), record
        target = tmp_path / "labels" / f"{path.stem}.seg.mhd"
        write_record(target, replace(record, kind="labels", labels=labels, algorithm=algorithm))
        write_volume(target, made[path.stem][0])
    stage(dicom_writer, tmp_path, "labels", "out")
    for name, (volume, record) in made.items():
        path = tmp_path / "out" / f"{name}.seg.dcm"
        assert errors(path) == []
        with discreet():
            seg = highdicom.seg.segread(path)
            instances = record.source.instances
            if instances[0].frame is None:
                found = seg.get_pixels_by_source_instance(
                    [one.sop_instance_uid for one in instances], combine_segments=True
                )
            else:
                frames = [one.frame for one in instances]
                found = seg.get_pixels_by_source_frame(instances[0].sop_instance_uid, frames, combine_segments=True)
            grid = seg.get_volume_geometry()
        np.testing.assert_array_equal(found, volume.array)
        ours = VolumeGeometry.from_affine(grid.affine, grid.spatial_shape)
        apart = np.linalg.norm(ours.corners[:, None] - volume.geometry.corners, axis=2)
        assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 0.01
