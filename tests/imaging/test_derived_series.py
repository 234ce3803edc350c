"""Grey volumes as a derived series."""

from __future__ import annotations

from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest

from clara_wf.imaging.derivation import Origin, equipment, volume_digest
from clara_wf.imaging.derived_series import check_image, write_derived_series
from clara_wf.imaging.discretion import discreet
from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import Step
from clara_wf.imaging.stored_values import StoredValues
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import DicomError, VolumeError


@pytest.fixture
def grey(geometry):
    def make(orientation: str = "axial", dtype: str = "<i2", low: float = -1024, high: float = 3071) -> Volume:
        grid = geometry(orientation)
        random = np.random.default_rng(5)
        values = random.uniform(low, high, grid.shape)
        values.flat[:2] = low, high
        return Volume(geometry=grid, array=values.astype(dtype))

    return make


def read(written) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(item.path) for item in written.objects]


def values(image: pydicom.Dataset) -> np.ndarray:
    return image.pixel_array * float(image.get("RescaleSlope", 1)) + float(image.get("RescaleIntercept", 0))


@pytest.mark.parametrize("orientation", ["axial", "reversed", "coronal", "oblique"])
def test_values_and_places_come_back(tmp_path, grey, record, orientation) -> None:
    volume = grey(orientation)
    images = read(write_derived_series(tmp_path, volume, record(labels=0), workflow="w"))
    np.testing.assert_array_equal(np.stack([values(image) for image in images]), volume.array)
    with discreet():
        found = highdicom.get_volume_from_series(images)
    ours = VolumeGeometry.from_affine(found.affine, found.array.shape)
    marker = np.unravel_index(volume.array.argmax(), volume.array.shape)
    again = np.unravel_index(found.array.argmax(), found.array.shape)
    np.testing.assert_allclose(ours.index_to_world(again), volume.geometry.index_to_world(marker), atol=1e-3)
    apart = np.linalg.norm(ours.corners[:, None] - volume.geometry.corners, axis=2)
    assert apart.min(axis=0).max() < 1e-3
    assert apart.min(axis=1).max() < 1e-3


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("<i2", -32768, 32767),
        ("<u2", 0, 65535),
        ("u1", 0, 255),
        ("i1", -128, 127),
        ("<i4", 100_000, 160_000),
        ("<i4", -1024, 3071),
        ("<f8", -5, -5),
    ],
)
def test_whole_numbers_are_exact(tmp_path, grey, record, dtype, low, high) -> None:
    volume = grey(dtype=dtype, low=low, high=high)
    written = write_derived_series(tmp_path, volume, record(labels=0), workflow="w")
    np.testing.assert_array_equal(np.stack([values(image) for image in read(written)]), volume.array)
    assert written.notes == ()


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1024, 3071), (0, 1), (-1e-7, 1e-7), (1e6, 1e6 + 0.5), (-3e30, 1e30), (0.25, 0.25), (-70000, 70000)],
)
def test_fractions_are_off_by_no_more_than_what_is_said(tmp_path, grey, record, low, high) -> None:
    volume = grey(dtype="<f4", low=low, high=high)
    written = write_derived_series(tmp_path, volume, record(labels=0), workflow="w")
    images = read(written)
    stored = StoredValues.of(volume, "a.mhd")
    error = np.abs(np.stack([values(image) for image in images]) - volume.array).max()
    assert error <= stored.error
    # A step finer than twice what 16 bits can do at best.
    assert stored.error <= (high - low) / 65533 * 1.01 + 2e-9 * max(abs(low), abs(high))
    assert all(len(image[keyword].value.original_string) <= 16 for image in images[:1] for keyword in ("RescaleSlope",))
    assert "not for clinical use" in images[0].DerivationDescription
    if stored.error > 0:
        assert written.notes[0] in images[0].DerivationDescription


def test_what_is_no_grey_value_is_refused(tmp_path, grey, record) -> None:
    broken = grey(dtype="<f4")
    broken.array[3, 1, 1] = np.nan
    with pytest.raises(VolumeError, match=r"a\.mhd: slice 3 holds values that are infinite or not a number"):
        write_derived_series(tmp_path, broken, record(labels=0), workflow="w", name="a.mhd")
    assert list(tmp_path.iterdir()) == []


def test_the_series_stands_beside_its_source(tmp_path, grey, record) -> None:
    made = record(labels=0, enhanced=True)
    images = read(write_derived_series(tmp_path, grey(), made, workflow="w"))
    first = images[0]
    assert (first.StudyInstanceUID, first.FrameOfReferenceUID) == ("1.2.3", "1.2.9")
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert first.SeriesInstanceUID != made.source.series_uid
    assert len({image.SOPInstanceUID for image in images}) == len(images)
    assert first.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"  # single images, of an enhanced source as well
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert (str(first.PatientName), first.KVP, first.Manufacturer) == ("MARKERNAME^M\u00e4rker", 120, "Scanner Works")
    assert first.RescaleType == "HU"
    assert first.SeriesDescription.endswith("(not for clinical use)")
    for image, instance in zip(images, made.source.instances, strict=True):
        (source,) = image.SourceImageSequence
        assert (source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber) == ("1.2.3.4.500", instance.frame)
    assert [image.InstanceNumber for image in images] == list(range(1, 8))


def test_a_repeat_makes_the_same_bytes_and_replaces_the_first(tmp_path, grey, record) -> None:
    first = write_derived_series(tmp_path, grey(), record(labels=0), workflow="w")
    again = write_derived_series(tmp_path, grey(), record(labels=0), workflow="w")
    assert first == again
    assert len(list(tmp_path.iterdir())) == 1


def test_two_results_are_two_series(tmp_path, grey, record, monkeypatch) -> None:
    """In one series, an archive would show them as one stack, with slices of both in turn."""
    volume, made = grey(high=3000), record(labels=0)
    stages = [replace(made.provenance[0], version=version) for version in ("0", "0.1")]
    results = [
        write_derived_series(tmp_path, volume, made, workflow="w"),
        write_derived_series(tmp_path, Volume(geometry=volume.geometry, array=volume.array + 1), made, workflow="w"),
        write_derived_series(tmp_path, volume, made, workflow="v"),
        write_derived_series(tmp_path, volume, replace(made, provenance=tuple(stages)), workflow="w"),
    ]
    monkeypatch.setattr("clara_wf.imaging.derivation.__version__", "99")
    results.append(write_derived_series(tmp_path, volume, made, workflow="w"))
    assert len({item.series_uid for written in results for item in written.objects}) == len(results)
    assert len({item.sop_instance_uid for written in results for item in written.objects}) == 7 * len(results)
    assert all(len({item.series_uid for item in written.objects}) == 1 for written in results)


@pytest.mark.parametrize(
    ("source", "units", "written"),
    [
        ("MONOCHROME1", "", "MONOCHROME1"),
        ("MONOCHROME2", "", "MONOCHROME2"),
        ("", "", "MONOCHROME2"),
        ("PALETTE COLOR", "", "MONOCHROME2"),
        ("MONOCHROME1", "HU", "MONOCHROME2"),  # bright is dense
    ],
)
def test_the_window_is_of_the_sources_contrast(
    tmp_path, grey, record, attributes, faults, source, units, written
) -> None:
    modality = "CT" if units else "MR"
    attributes |= {
        "00080060": {"vr": "CS", "Value": [modality]},
        "00280004": {"vr": "CS", "Value": [source] if source else []},
        "00281050": {"vr": "DS", "Value": [40]},
        "00281051": {"vr": "DS", "Value": [80]},
    }
    made = record(labels=0, modality=modality, units=units)
    objects = write_derived_series(tmp_path, grey(), made, workflow="w").objects
    image = pydicom.dcmread(objects[0].path)
    assert (image.PhotometricInterpretation, image.WindowCenter, image.WindowWidth) == (written, 40, 80)
    assert faults(objects[0].path) == []


@pytest.mark.parametrize("thickness", [5, None])
@pytest.mark.parametrize("detail", [{}, {"resampled": "yes"}])
def test_slices_are_as_thick_as_they_were_scanned(
    tmp_path, grey, record, attributes, faults, thickness, detail
) -> None:
    """Slices of 5 mm every 2.5 mm overlap: their distance is no thickness."""
    attributes["00180050"] = {"vr": "DS", "Value": [thickness] if thickness else []}
    step = Step(stage="dicom-reader", version="0", started="", ended="", detail=detail)
    written = write_derived_series(tmp_path, grey(), record(labels=0, provenance=(step,)), workflow="w")
    image = pydicom.dcmread(written.objects[0].path)
    assert (image.SliceThickness, image.SpacingBetweenSlices) == (None if detail else thickness, 2.5)
    assert faults(written.objects[0].path) == []


def test_two_volumes_of_one_series_are_two_series(tmp_path, grey, record) -> None:
    """A reader makes two volumes of a series that holds two time points."""
    made = record(slices=14, labels=0)
    halves = [
        replace(made, source=replace(made.source, instances=made.source.instances[half]))
        for half in (slice(7), slice(7, 14))
    ]
    series = {write_derived_series(tmp_path, grey(), half, workflow="w").objects[0].series_uid for half in halves}
    assert len(series) == 2


@pytest.mark.parametrize(("modality", "dtype"), [("CT", "<i2"), ("CT", "<f4"), ("MR", "<u2"), ("MR", "<f4")])
def test_dciodvfy_finds_no_error(tmp_path, grey, record, attributes, faults, modality, dtype) -> None:
    attributes["00080060"] = {"vr": "CS", "Value": [modality]}
    low = 0 if dtype == "<u2" else -1024
    for orientation in ("axial", "oblique"):
        for source in (attributes, {}):
            made = record(labels=0, modality=modality, units="HU" if modality == "CT" else "")
            made = replace(made, source=replace(made.source, dataset=source))
            written = write_derived_series(tmp_path, grey(orientation, dtype, low), made, workflow="w")
            assert faults(written.objects[0].path) == []


def test_another_modality_is_refused(tmp_path, grey, record) -> None:
    with pytest.raises(DicomError, match="modality PT cannot be written"):
        write_derived_series(tmp_path, grey(), record(labels=0, modality="PT"), workflow="w")


def _spoil_pixels(image) -> None:
    pixels = bytearray(image.PixelData)
    pixels[10] ^= 1
    image.PixelData = bytes(pixels)


def _spoil_place(image) -> None:
    image.ImagePositionPatient[1] += 0.02


def _spoil_source(image) -> None:
    image.SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.3.4.99"


def _spoil_patient(image) -> None:
    image.PatientName = "MARKERNAME^Another"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_spoil_pixels, "a value reads back 1 off"),
        (_spoil_place, r"lies 0\.020 mm from its slice"),
        (_spoil_source, "does not refer to the source image"),
        (_spoil_patient, "PatientName does not read back"),
    ],
)
def test_a_difference_is_found(tmp_path, grey, record, spoil, message) -> None:
    volume, made = grey(), record(labels=0)
    path = write_derived_series(tmp_path, volume, made, workflow="w").objects[2].path
    origin, stored = Origin.of(made, volume, "a.mhd"), StoredValues.of(volume, "a.mhd")
    check_image(path, volume, 2, origin, stored)
    image = pydicom.dcmread(path)
    spoil(image)
    image.save_as(path)
    with pytest.raises(DicomError, match=message) as caught:
        check_image(path, volume, 2, origin, stored)
    assert "MARKER" not in str(caught.value)


def test_a_failure_leaves_nothing(tmp_path, grey, record) -> None:
    class Flickering(np.ndarray):
        """Values that are not the same when they are read again."""

        reads = 0

        def __getitem__(self, key):
            Flickering.reads += 1
            return np.asarray(super().__getitem__(key)) + Flickering.reads % 2

    volume = grey(high=3000)
    flickering = Volume(geometry=volume.geometry, array=volume.array.view(Flickering))
    with pytest.raises(DicomError, match="reads back"):
        write_derived_series(tmp_path, flickering, record(labels=0), workflow="w")
    assert list(tmp_path.iterdir()) == []


def test_stages_are_named_in_the_derivation(tmp_path, grey, record) -> None:
    step = Step(stage="recon", version="7.1", started="", ended="")
    images = read(write_derived_series(tmp_path, grey(), record(labels=0, provenance=(step,)), workflow="ct-partial"))
    assert "recon 7.1" in images[0].DerivationDescription
    assert "ct-partial" in images[0].SeriesDescription


def test_dciodvfy_finds_no_error_in_a_reconstruction(tmp_path, grey, record, attributes, faults) -> None:
    attributes["0018A001"] = {"vr": "SQ", "Value": [equipment("Reconstructed series").to_json_dict()]}
    made = record(labels=0)
    made = replace(made, source=replace(made.source, exists=False, digest=volume_digest(grey())))
    written = write_derived_series(tmp_path, grey(), made, workflow="w")
    assert [item.sop_instance_uid for item in written.objects] == [
        instance.sop_instance_uid for instance in made.source.instances
    ]
    assert written.notes == ()
    assert faults(written.objects[0].path) == []
