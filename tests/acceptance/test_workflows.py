"""Whole workflows on the phantom, as a person starts them, judged against its truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from program import Program
from scipy.ndimage import binary_erosion

from clara_wf.imaging.metaimage import read_volume
from clara_wf.imaging.volume import Volume

JOB = "00000000-0000-0000-0000-000000000000"
SERIES_JOB = "11111111-1111-1111-1111-111111111111"
PROJECTIONS_JOB = "22222222-2222-2222-2222-222222222222"
USES_PROJECTIONS = pytest.mark.usefixtures("with_projections")


@pytest.mark.slow
@pytest.mark.xdist_group("network")
def test_ai_only_finds_the_phantom_s_liver(clara_with_models: Program) -> None:
    ended = clara_with_models("test", "--json")
    assert ended.code == 0, ended.err
    liver = ended.events[-1]["result"]["comparison"]["liver"]
    assert liver["dice"] >= 0.94
    assert abs(liver["volume_ml"] / liver["truth_ml"] - 1) < 0.08
    assert liver["centroid_distance_mm"] < 5
    # The liver is on the patient's right: negative x in LPS.
    assert liver["centroid_mm"][0] < -40
    output = clara_with_models.workspace / "test-data" / JOB / "ai-vnet/output"
    assert {file.name for file in output.iterdir()} >= {
        "recon.seg.mhd",
        "recon.seg.raw",
        "recon.seg.json",
        "recon.seg.preview.png",
    }
    labels = read_volume(output / "recon.seg.mhd")
    source = read_volume(clara_with_models.workspace / "test-data" / JOB / "ai-vnet/input/recon.mhd")
    assert labels.array.dtype == np.uint8
    assert labels.geometry.is_close(source.geometry, tolerance_mm=1e-6)


@pytest.mark.slow
@pytest.mark.xdist_group("network")
def test_liver_seg_by_its_uuid_goes_from_dicom_to_dicom(clara_with_models: Program) -> None:
    ended = clara_with_models("test", "fd3ee8bf-b9f3-4808-bd60-243f870ff9bd", "--json")
    assert ended.code == 0, ended.err
    comparison = ended.events[-1]["result"]["comparison"]
    assert comparison["liver"]["dice"] >= 0.94
    assert comparison["liver tumour"]["dice"] >= 0.7
    payload = clara_with_models.workspace / "test-data" / SERIES_JOB
    (segmentation,) = (payload / "dicom-writer/output").glob("*.dcm")
    _check_segmentation(segmentation, payload)
    report = json.loads((payload / "dicom-writer/output/report.json").read_text())
    assert "not for clinical use" in report["notice"].lower()


def _check_segmentation(file: Path, payload: Path) -> None:
    """Read the object with pydicom alone: patient, references and the liver's place in millimetres."""
    sources = {
        dataset.SOPInstanceUID: dataset
        for dataset in (pydicom.dcmread(path) for path in (payload / "dicom-reader/input").rglob("*.dcm"))
    }
    any_source = next(iter(sources.values()))
    segmentation = pydicom.dcmread(file)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert segmentation[keyword].value == any_source[keyword].value
    truth = json.loads((payload / "truth/truth.json").read_text())["labels"]["liver"]["centroid_mm"]
    # Whatever is in any segment is liver or in it: the union's centroid is the liver's.
    frames = segmentation.pixel_array
    frames = frames[None] if frames.ndim == 2 else frames
    spacing = [float(step) for step in any_source.PixelSpacing]
    total, weighted, seen = 0, np.zeros(3), set()
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        count = int((frame > 0).sum())
        if not count:
            continue
        place = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        reference = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        seen.add(reference)
        assert np.allclose(place, np.array(sources[reference].ImagePositionPatient, float), atol=1e-3)
        rows, columns = np.nonzero(frame)
        # Axial: columns grow to the left (x), rows to the back (y).
        centre = place + np.array([columns.mean() * spacing[1], rows.mean() * spacing[0], 0])
        total += count
        weighted += count * centre
    assert len(seen) > 20
    assert np.linalg.norm(weighted / total - truth) < 5


def test_dicom_reader_only_keeps_every_bead_in_its_place(clara: Program) -> None:
    ended = clara("test", "dicom-reader-only", "--json")
    assert ended.code == 0, ended.err
    payload = clara.workspace / "test-data" / SERIES_JOB
    (header,) = (payload / "dicom-reader/output").glob("*.mhd")
    _check_beads(read_volume(header), payload)


def _check_beads(volume: Volume, payload: Path) -> None:
    """Hold the beads on the phantom's skin against where they are, to half a voxel along each axis, in patient mm."""
    markers = json.loads((payload / "truth/truth.json").read_text())["markers"]
    assert len(markers) == 3
    for marker in markers:
        index = np.rint(volume.geometry.world_to_index(marker["centre"])).astype(int)
        reach = [int(np.ceil(8 / step)) for step in volume.geometry.spacing]
        start = [max(0, int(i) - r) for i, r in zip(index, reach, strict=True)]
        box = volume.array[tuple(slice(s, int(i) + r + 1) for s, i, r in zip(start, index, reach, strict=True))]
        bright = np.argwhere(box > 700) + start
        weights = np.array([volume.array[tuple(place)] for place in bright], float)
        off = np.average(bright, axis=0, weights=weights) - volume.geometry.world_to_index(marker["centre"])
        assert np.abs(off).max() < 0.5, marker["name"]


def test_dicom_reader_writer_keeps_every_hounsfield_unit(clara: Program) -> None:
    ended = clara("test", "8371285c-8ea8-41cd-958e-44e5664c6ec3")
    assert ended.code == 0, ended.err
    payload = clara.workspace / "test-data" / SERIES_JOB
    written = _by_position(payload / "dicom-writer/output")
    read = _by_position(payload / "dicom-reader/input")
    assert written.keys() == read.keys()
    assert len(written) > 50
    for place, dataset in written.items():
        assert dataset.SeriesInstanceUID != read[place].SeriesInstanceUID
        assert dataset.StudyInstanceUID == read[place].StudyInstanceUID
        assert np.array_equal(_hu(dataset), _hu(read[place]))


def _by_position(folder: Path) -> dict[tuple[float, ...], pydicom.Dataset]:
    datasets = [pydicom.dcmread(path) for path in folder.rglob("*.dcm")]
    return {tuple(round(float(x), 3) for x in dataset.ImagePositionPatient): dataset for dataset in datasets}


def _hu(dataset: pydicom.Dataset) -> np.ndarray:
    return dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def test_dicom_writer_only_writes_the_true_labels(clara: Program) -> None:
    ended = clara("test", "dicom-writer-only", "--json")
    assert ended.code == 0, ended.err
    payload = clara.workspace / "test-data" / JOB
    (segmentation,) = (payload / "dicom-writer/output").glob("*.dcm")
    labels = read_volume(payload / "truth/liver.mhd").array
    # A frame for each segment and slice: every voxel of the truth is in one of them.
    assert int(pydicom.dcmread(segmentation).pixel_array.sum()) == int(np.count_nonzero(labels))


@USES_PROJECTIONS
@pytest.mark.slow
@pytest.mark.xdist_group("network")
def test_ct_ai_goes_from_projections_to_a_segmentation(clara_with_models: Program) -> None:
    ended = clara_with_models("test", "ct-ai", "--json")
    assert ended.code == 0, ended.err
    liver = ended.events[-1]["result"]["comparison"]["liver"]
    assert liver["dice"] >= 0.90
    assert liver["centroid_distance_mm"] < 5
    payload = clara_with_models.workspace / "test-data" / PROJECTIONS_JOB
    output = payload / "dicom-writer/output"
    (segmentation,) = output.glob("*.dcm")
    images = [pydicom.dcmread(path, stop_before_pixels=True) for path in output.glob("*/*.dcm")]
    projection = pydicom.dcmread(next((payload / "dicom-reader/input").rglob("*.dcm")), stop_before_pixels=True)
    # The segmentation lies on the reconstructed images, which are of the projections' study.
    referred = {
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for group in pydicom.dcmread(segmentation).PerFrameFunctionalGroupsSequence
    }
    assert referred == {image.SOPInstanceUID for image in images}
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "KVP"):
        assert {image[keyword].value for image in images} == {projection[keyword].value}
    _check_beads(read_volume(payload / "recon/output/recon.mhd"), payload)
    _check_tissues(read_volume(payload / "recon/output/recon.mhd"), payload)


def _check_tissues(volume: Volume, payload: Path) -> None:
    """Hold the liver's parenchyma and the lesions against the densities that the phantom was painted with."""
    truth = read_volume(payload / "truth/liver.mhd")
    for value, low, high in ((1, 100, 120), (2, 45, 75)):
        inside = np.argwhere(binary_erosion(truth.array == value, iterations=3))
        place = np.rint(volume.geometry.world_to_index(truth.geometry.index_to_world(inside))).astype(int)
        assert low < np.median(volume.array[tuple(place.T)]) < high


@USES_PROJECTIONS
@pytest.mark.slow
@pytest.mark.xdist_group("rtk")
def test_ct_partial_by_its_uuid_writes_ct_images(clara: Program) -> None:
    ended = clara("test", "a78b1e7a-0325-4d42-b90f-207eb576b14f", "--json")
    assert ended.code == 0, ended.err
    payload = clara.workspace / "test-data" / PROJECTIONS_JOB
    volume = read_volume(payload / "recon/output/recon.mhd")
    images = _by_position(payload / "dicom-writer/output")
    assert len(images) == volume.geometry.shape[0]
    for index, plane in enumerate(volume.array):
        place = tuple(round(float(x), 3) for x in volume.geometry.index_to_world((index, 0, 0)))
        assert np.array_equal(_hu(images[place]), plane)
    summary = json.loads((payload / "dicom-reader/output/series.json").read_text())
    files = len(list((payload / "dicom-reader/input").rglob("*.dcm")))
    assert summary["counts"] == {"files": files, "projection": files}


@USES_PROJECTIONS
@pytest.mark.slow
@pytest.mark.xdist_group("network")
def test_recon_ai_finds_the_liver_in_projections(clara_with_models: Program) -> None:
    ended = clara_with_models("test", "recon-ai", "--json")
    assert ended.code == 0, ended.err
    assert ended.events[-1]["result"]["comparison"]["liver"]["dice"] >= 0.90


@USES_PROJECTIONS
@pytest.mark.slow
@pytest.mark.xdist_group("rtk")
def test_recon_only_by_its_uuid_shows_what_it_made(clara: Program) -> None:
    ended = clara("test", "613e3fce-0d96-495a-a760-f43e68deefd8")
    assert ended.code == 0, ended.err
    assert "recon.mhd" in ended.out
    assert "single-slice rebinning" in ended.out
    payload = clara.workspace / "test-data" / JOB
    _check_beads(read_volume(payload / "recon/output/recon.mhd"), payload)
    assert (payload / "recon/output/recon.preview.png").is_file()


@pytest.mark.slow
@pytest.mark.xdist_group("rtk")
def test_inserts_have_their_hounsfield_units_after_a_helical_scan(clara: Program, tmp_path: Path) -> None:
    made = clara("phantom", tmp_path / "scan", "--projections", "helical", "--anatomy", "inserts")
    assert made.code == 0, made.err
    ended = clara(
        *("run", "recon-only", "-i", tmp_path / "scan/projections", "-o", tmp_path / "out"),
        *("--arg", "recon=--fov=400", "--arg", "recon=--matrix=256", "--arg", "recon=--slice-thickness=3"),
    )
    assert ended.code == 0, ended.err
    volume = read_volume(tmp_path / "out/recon.mhd")
    truth = json.loads((tmp_path / "scan/truth/truth.json").read_text())
    assert {insert["name"] for insert in truth["inserts"]} == {"air", "fat", "water", "liver", "bone"}
    middle = volume.geometry.shape[0] // 2
    grid = np.indices(volume.geometry.shape[1:]).reshape(2, -1).T
    points = volume.geometry.index_to_world(np.column_stack([np.full(len(grid), middle), grid]))
    for insert in truth["inserts"]:
        near = np.hypot(*(points[:, :2] - insert["centre_mm"]).T) < 0.7 * insert["radius_mm"]
        mean = volume.array[middle - 4 : middle + 5].reshape(9, -1)[:, near].mean()
        # Ten units, and five in a hundred of bone.
        assert mean == pytest.approx(insert["hu"], abs=45 if insert["name"] == "bone" else 10), insert["name"]


@pytest.mark.slow
@pytest.mark.xdist_group("network")
def test_a_pelvis_gets_no_liver(clara_with_models: Program, tmp_path: Path) -> None:
    assert clara_with_models("phantom", tmp_path / "made", "--region", "pelvis").code == 0
    ended = clara_with_models("run", "organ-seg", "-i", tmp_path / "made/dicom", "-o", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    (labelled,) = ended.events[-1]["result"]["labelled"]
    assert labelled["verdict"] == "none"
    assert labelled["reasons"]
    assert not list((tmp_path / "out").glob("*.dcm"))
    assert (tmp_path / "out/report.json").is_file()
