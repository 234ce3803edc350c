from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import UsageError
from clara_wf.phantom.dicom_series import ct_series, source_series, write_ct_series, write_series
from clara_wf.phantom.patient import MARKERS, Phantom, make_phantom

from .beads import bead_centres
from .conftest import GRIDS


@pytest.fixture(scope="module")
def series(everyday: Phantom, tmp_path_factory) -> list[Path]:
    return write_ct_series(tmp_path_factory.mktemp("series"), everyday.image)


def small_image(value: int = 0) -> Volume:
    geometry = VolumeGeometry(shape=(3, 4, 5), spacing=(2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
    return Volume(geometry=geometry, array=np.full(geometry.shape, value, dtype=np.int16))


def read_with_simpleitk(files: list[Path]) -> Volume:
    image = SimpleITK.ReadImage([str(path) for path in files])
    matrix = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix[:, ::-1], image.GetOrigin()
    array = SimpleITK.GetArrayFromImage(image)
    return Volume(geometry=VolumeGeometry.from_affine(affine, array.shape), array=array)


def test_simpleitk_reads_the_same_grid_and_densities(series, everyday):
    read = read_with_simpleitk(series)
    assert read.geometry.is_close(everyday.image.geometry)
    assert np.array_equal(read.array, everyday.image.array)


def test_another_reader_finds_the_beads_of_an_oblique_series_at_their_millimetres(tmp_path):
    image = make_phantom(GRIDS["oblique"]).image
    files = write_ct_series(tmp_path, image)
    read = read_with_simpleitk(files)
    assert read.geometry.is_close(image.geometry)
    found = bead_centres(read)
    for marker in MARKERS:
        assert np.linalg.norm(found - marker.centre, axis=1).min() < 1.3, marker.name


def test_slices_to_the_feet_have_descending_positions(tmp_path):
    geometry = GRIDS["feet first"].cropped((0, 0, 0), (4, 128, 150))
    image = make_phantom(geometry).image
    heights = [float(dataset.ImagePositionPatient[2]) for dataset in ct_series(image)]
    assert heights == pytest.approx([161, 158, 155, 152])


def test_the_layout_is_patient_study_series_instance(series, everyday):
    first = pydicom.dcmread(series[0])
    assert len(series) == everyday.image.geometry.shape[0] == len(set(series))
    assert series[0].parts[-4:] == (
        "CLARA-PHANTOM",
        first.StudyInstanceUID,
        first.SeriesInstanceUID,
        f"{first.SOPInstanceUID}.dcm",
    )
    assert str(first.PatientName) == "PHANTOM^ABDOMEN"
    assert first.PatientBirthDate == ""


DCIODVFY = shutil.which("dciodvfy") or ""


@pytest.mark.skipif(not DCIODVFY, reason="dciodvfy (Debian package dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(series):
    for path in (series[0], series[-1]):
        outcome = subprocess.run([DCIODVFY, str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in outcome.stderr
        assert "CTImage" in outcome.stderr


def test_identifiers_follow_the_image(everyday):
    first = list(ct_series(small_image(7), seed=1))
    again = list(ct_series(small_image(7), seed=1))
    other = list(ct_series(small_image(8), seed=1))
    assert [d.SOPInstanceUID for d in first] == [d.SOPInstanceUID for d in again]
    assert len({d.SOPInstanceUID for d in first + other}) == 6
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({d[keyword].value for d in first}) == 1
        assert first[0][keyword].value != other[0][keyword].value
        assert len(first[0][keyword].value) <= 64
        assert first[0][keyword].value.startswith("2.25.")


def test_datasets_share_nothing():
    first, second, _ = ct_series(small_image())
    first.ImageOrientationPatient[0] = 0.5
    first.PatientName = "Changed"
    assert second.ImageOrientationPatient[0] == 1
    assert second.PatientName == "PHANTOM^ABDOMEN"


def test_a_changed_series_is_written_as_it_was_changed(tmp_path):
    kept = [dataset for index, dataset in enumerate(ct_series(small_image())) if index != 1]
    files = write_series(tmp_path, reversed(kept))
    assert [pydicom.dcmread(path).InstanceNumber for path in files] == [3, 1]


@pytest.mark.parametrize("value", [-1025, 3072])
def test_densities_beyond_twelve_bits_are_refused(value):
    with pytest.raises(UsageError, match="12 bits"):
        next(ct_series(small_image(value)))


def test_the_record_of_the_source_names_the_series_that_is_written(series, everyday):
    source = source_series(everyday.image)
    datasets = [pydicom.dcmread(path, stop_before_pixels=True) for path in series]
    assert [i.sop_instance_uid for i in source.instances] == [d.SOPInstanceUID for d in datasets]
    assert {i.sop_class_uid for i in source.instances} == {datasets[0].SOPClassUID}
    assert source.series_uid == datasets[0].SeriesInstanceUID
    assert source.study_uid == datasets[0].StudyInstanceUID
    assert source.frame_of_reference_uid == datasets[0].FrameOfReferenceUID
    described = pydicom.Dataset.from_json(dict(source.dataset))
    assert described.PatientID == "CLARA-PHANTOM"
    assert "SOPInstanceUID" not in described
    assert "ImagePositionPatient" not in described
    assert "PixelData" not in described
    for element in described:
        assert element == datasets[0][element.tag]
