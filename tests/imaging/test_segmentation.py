"""Label volumes as DICOM segmentation objects."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from clara_wf.imaging.discretion import discreet
from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import Step, Verdict
from clara_wf.imaging.segmentation import has_labels, write_segmentation
from clara_wf.imaging.segmentation_check import check_segmentation
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import DicomError, VolumeError

MARKERS = ("MARKERNAME", "MARKERID", "19661224", "MARKERACC")
FORGIVEN_FOR_LABELMAP = ("Information Object Not found", "SegmentNumber not monotonically increasing")


def read(path) -> highdicom.seg.Segmentation:
    with discreet():
        return highdicom.seg.segread(path)


def in_mm(array, geometry: VolumeGeometry, value: int = 1) -> np.ndarray:
    return np.array(sorted(np.round(geometry.index_to_world(np.argwhere(array == value)), 3).tolist()))


@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
@pytest.mark.parametrize("orientation", ["axial", "reversed", "coronal", "oblique"])
def test_voxels_are_where_they_were(tmp_path, label_volume, record, orientation, encoding) -> None:
    volume = label_volume(orientation, labels=2)
    path = tmp_path / "a.dcm"
    write_segmentation(path, volume, record(labels=2), workflow="w", encoding=encoding)
    # highdicom is the other reader: its affine takes (slice, row, column) to LPS mm, as ours does.
    found = read(path).get_volume(combine_segments=True)
    ours = VolumeGeometry.from_affine(found.affine, found.array.shape)
    np.testing.assert_allclose(in_mm(found.array, ours), in_mm(volume.array, volume.geometry), atol=2e-3)
    np.testing.assert_allclose(in_mm(found.array, ours, 2), in_mm(volume.array, volume.geometry, 2), atol=2e-3)
    # Slices may come in the other order; the grid is the same.
    apart = np.linalg.norm(ours.corners[:, None] - volume.geometry.corners, axis=2)
    assert apart.min(axis=0).max() < 1e-3
    assert apart.min(axis=1).max() < 1e-3


def test_spacing_between_slices_is_positive_whichever_way_they_run(tmp_path, label_volume, record) -> None:
    for orientation in ("axial", "reversed", "coronal"):
        write_segmentation(tmp_path / "a.dcm", label_volume(orientation), record(), workflow="w")
        measures = pydicom.dcmread(tmp_path / "a.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert (measures.SpacingBetweenSlices, list(measures.PixelSpacing)) == (2.5, [0.7, 0.9])


def test_auto_is_binary_up_to_four_labels(tmp_path, label_volume, record) -> None:
    kinds = []
    for labels in (1, 4, 5):
        write_segmentation(tmp_path / "a.dcm", label_volume(labels=labels), record(labels=labels), workflow="w")
        kinds.append(pydicom.dcmread(tmp_path / "a.dcm").SegmentationType)
    assert kinds == ["BINARY", "BINARY", "LABELMAP"]


def test_104_labels(tmp_path, label_volume, record, faults) -> None:
    volume = label_volume(labels=104, shape=(20, 33, 37))
    path = tmp_path / "a.dcm"
    write_segmentation(path, volume, record(slices=20, labels=104), workflow="w")
    seg = read(path)
    assert len(seg.SegmentSequence) == 104 + 1  # and the background, which a label map describes too
    np.testing.assert_array_equal(np.unique(seg.pixel_array), np.unique(volume.array))
    # The Debian dciodvfy of 2022 does not know the object of 2024, nor that its background is segment 0.
    assert [line for line in faults(path) if not any(text in line for text in FORGIVEN_FOR_LABELMAP)] == []


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
def test_every_frame_refers_to_the_image_of_its_slice(tmp_path, label_volume, record, encoding, enhanced) -> None:
    made = record(labels=2, enhanced=enhanced, placed="reversed")
    volume = label_volume("reversed", labels=2)
    write_segmentation(tmp_path / "a.dcm", volume, made, workflow="w", encoding=encoding)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        index = round(float(volume.geometry.world_to_index(position)[0]))
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        instance = made.source.instances[index]
        assert source.ReferencedSOPInstanceUID == instance.sop_instance_uid
        assert source.ReferencedSOPClassUID == instance.sop_class_uid
        assert source.get("ReferencedFrameNumber") == instance.frame
        assert source.SpatialLocationsPreserved == "YES"
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == made.source.series_uid
    named = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
    assert sorted(named) == sorted({instance.sop_instance_uid for instance in made.source.instances})
    assert not any(uid.startswith("2.25.") and len(uid) < 10 for uid in named)  # no stand-in is left


def test_a_resampled_volume_does_not_claim_the_places_of_its_source(tmp_path, label_volume, record) -> None:
    step = Step(stage="dicom-reader", version="0", started="", ended="", detail={"resampled": "tilt"})
    write_segmentation(tmp_path / "a.dcm", label_volume(), record(provenance=(step,)), workflow="w")
    frame = pydicom.dcmread(tmp_path / "a.dcm").PerFrameFunctionalGroupsSequence[0]
    assert frame.DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved == "NO"


def test_who_what_and_for_what(tmp_path, label_volume, record) -> None:
    made = record(labels=2, verdict=Verdict(status="review", reasons=("It is small.",)))
    write_segmentation(tmp_path / "a.dcm", label_volume(labels=2), made, workflow="organ-seg")
    seg = read(tmp_path / "a.dcm")
    first = seg.get_segment_description(1)
    assert (first.segment_label, first.segmented_property_type.value) == ("organ 1", "10200004")
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Organs of nobody", "1.2")
    assert "sha256=" + "ab" * 32 in algorithm.AlgorithmParameters
    lightness, a, b = first.RecommendedDisplayCIELabValue  # PS3.3 C.10.7.1.1
    color = highdicom.color.CIELabColor(lightness / 65535 * 100, a / 65535 * 255 - 128, b / 65535 * 255 - 128)
    red, green, blue = color.to_rgb()
    assert max(abs(red - 200), abs(green - 2), abs(blue - 10)) <= 3
    for text in (seg.SeriesDescription, seg.ContentDescription):
        assert text.startswith("REVIEW ")
        assert text.endswith("(not for clinical use)")
        assert len(text) <= 64
    assert seg.ContentLabel == "NOT_CLINICAL_USE"
    assert "It is small." in seg.ImageComments
    assert seg.get_segment_description(1).TrackingUID != seg.get_segment_description(2).TrackingUID
    assert (seg.FrameOfReferenceUID, seg.StudyInstanceUID, seg.SeriesNumber) == ("1.2.9", "1.2.3", 401)


def test_frames_without_voxels_are_kept(tmp_path, label_volume, record) -> None:
    """Viewers place frames by counting them: overlays shift where empty ones are left out."""
    write_segmentation(tmp_path / "a.dcm", label_volume(labels=2), record(labels=2), workflow="w")
    assert pydicom.dcmread(tmp_path / "a.dcm").NumberOfFrames == 2 * 7


def test_a_label_that_is_absent_keeps_its_segment(tmp_path, label_volume, record, faults) -> None:
    path = tmp_path / "a.dcm"
    write_segmentation(path, label_volume(labels=1), record(labels=3), workflow="w")
    assert read(path).number_of_segments == 3
    assert not faults(path)


def test_values_with_gaps(tmp_path, label_volume, record) -> None:
    volume = label_volume(labels=3)
    array = np.where(volume.array == 3, 200, volume.array).astype(np.uint8)
    array[array == 2] = 0
    made = record(labels=3)
    gapped = replace(made, labels=(made.labels[0], replace(made.labels[2], value=200)))
    for encoding, numbers in (("binary", [1, 2]), ("labelmap", [1, 200])):
        path = tmp_path / "a.dcm"
        write_segmentation(path, Volume(geometry=volume.geometry, array=array), gapped, workflow="w", encoding=encoding)
        seg = read(path)
        assert list(seg.segment_numbers) == numbers
        found = seg.get_volume(combine_segments=True).array
        assert np.count_nonzero(found == numbers[1]) == np.count_nonzero(array == 200)


@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
def test_a_single_slice(tmp_path, label_volume, record, encoding, faults) -> None:
    whole = label_volume(shape=(4, 11, 13))
    volume = Volume(geometry=whole.geometry.cropped((1, 0, 0), (2, 11, 13)), array=whole.array[1:2])
    path = tmp_path / "a.dcm"
    write_segmentation(path, volume, record(slices=1), workflow="w", encoding=encoding)
    np.testing.assert_array_equal(read(path).pixel_array.reshape(1, 11, 13), volume.array)
    assert [line for line in faults(path) if not any(text in line for text in FORGIVEN_FOR_LABELMAP)] == []


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_labels_beyond_a_byte(tmp_path, label_volume, record, dtype) -> None:
    small = label_volume(labels=2)
    array = small.array.astype(dtype)
    array[array == 2] = 300
    volume = Volume(geometry=small.geometry, array=array)
    made = record(labels=2)
    made = replace(made, labels=(made.labels[0], replace(made.labels[1], value=300)))
    for encoding in ("binary", "labelmap"):
        write_segmentation(tmp_path / "a.dcm", volume, made, workflow="w", encoding=encoding)
    negative = Volume(geometry=small.geometry, array=-small.array.astype(np.int16))
    with pytest.raises(VolumeError, match="names no label for the value -2, -1"):
        write_segmentation(tmp_path / "a.dcm", negative, made, workflow="w")


@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
def test_a_repeat_makes_the_same_bytes(tmp_path, label_volume, record, encoding) -> None:
    written = [
        write_segmentation(tmp_path / name, label_volume(), record(), workflow="w", encoding=encoding).objects[0]
        for name in ("a.dcm", "b.dcm")
    ]
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    assert written[0].sha256 == written[1].sha256


def test_objects_that_differ_never_share_a_uid(tmp_path, label_volume, record) -> None:
    other_labels = label_volume()
    other_labels.array[3, 5, 5] ^= 1
    cases = [
        (label_volume(), record(), "w", "binary"),
        (other_labels, record(), "w", "binary"),
        (label_volume("oblique"), record(), "w", "binary"),
        (label_volume(), record(verdict=Verdict(status="review", reasons=("Why.",))), "w", "binary"),
        (label_volume(), record(), "w", "labelmap"),
        (label_volume(), record(), "v", "binary"),
    ]
    seen = {}
    for volume, made, workflow, encoding in cases:
        written = write_segmentation(tmp_path / "a.dcm", volume, made, workflow=workflow, encoding=encoding)
        seen[written.objects[0].sop_instance_uid] = written.objects[0]
    assert len(seen) == len(cases)
    # The series is that of the source's images, the workflow and the model.
    series = [item.series_uid for item in seen.values()]
    assert len(set(series[:5])) == 1
    assert series[5] != series[0]


def test_two_volumes_of_one_series_are_two_series(tmp_path, label_volume, record) -> None:
    """A reader makes two volumes of a series that holds two time points; each object is number 1 of its series."""
    made = record(slices=14)
    written = []
    for half in (slice(7), slice(7, 14)):
        part = replace(made, source=replace(made.source, instances=made.source.instances[half]))
        written += write_segmentation(tmp_path / "a.dcm", label_volume(), part, workflow="w").objects
        assert pydicom.dcmread(tmp_path / "a.dcm").InstanceNumber == 1
    assert len({item.series_uid for item in written}) == 2
    assert len({item.sop_instance_uid for item in written}) == 2


def test_times_of_computing_are_no_part_of_the_object(tmp_path, label_volume, record) -> None:
    later = Step(stage="ai-vnet", version="0", started="2027-01-01T00:00:00Z", ended="2027-01-01T00:00:09Z")
    write_segmentation(tmp_path / "a.dcm", label_volume(), record(), workflow="w")
    write_segmentation(tmp_path / "b.dcm", label_volume(), record(provenance=(later,)), workflow="w")
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert (dataset.ContentDate, dataset.ContentTime) == ("20230406", "111213.5")


@pytest.mark.parametrize(("orientation", "labels"), list(itertools.product(["axial", "reversed", "oblique"], [1, 2])))
def test_dciodvfy_finds_no_error(tmp_path, label_volume, record, faults, orientation, labels) -> None:
    path = tmp_path / "a.dcm"
    for enhanced in (False, True):
        write_segmentation(
            path, label_volume(orientation, labels), record(labels=labels, enhanced=enhanced), workflow="w"
        )
        assert faults(path) == []


def test_no_patient_in_warnings_or_logs(tmp_path, label_volume, record, attributes, capfd, caplog) -> None:
    attributes["00100010"] = {"vr": "PN", "Value": [{"Alphabetic": "MARKERNAME" * 9 + "^^^^^^^"}]}
    attributes["00100020"] = {"vr": "LO", "Value": ["MARKERID" * 12]}
    attributes["00100040"] = {"vr": "CS", "Value": ["MARKERID?"]}
    attributes["00101010"] = {"vr": "AS", "Value": ["MARKERID"]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        written = write_segmentation(tmp_path / "a.dcm", label_volume(), record(), workflow="w")
    told = [str(item.message) for item in caught] + [*capfd.readouterr(), caplog.text, repr(written)]
    assert not any(marker in text for marker in MARKERS for text in told)
    assert pydicom.dcmread(tmp_path / "a.dcm").PatientID == "MARKERID" * 12


# What is read back is compared, and a difference leaves no file.


def _flip_a_bit(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[len(pixels) // 2] ^= 8
    dataset.PixelData = bytes(pixels)


def _shift(dataset: Dataset) -> None:
    position = dataset.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    position.ImagePositionPatient = [position.ImagePositionPatient[0] + 0.1, *position.ImagePositionPatient[1:]]


def _stretch(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.7, 0.91]


def _negate(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = -2.5


def _swap_references(dataset: Dataset) -> None:
    frames = dataset.PerFrameFunctionalGroupsSequence
    first, second = (frames[index].DerivationImageSequence for index in (0, 1))
    frames[0].DerivationImageSequence, frames[1].DerivationImageSequence = second, first


def _swap_patients(dataset: Dataset) -> None:
    dataset.PatientID = "ANOTHER"


def _drop_a_frame(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[-1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_flip_a_bit, "slice 3 does not read back"),
        (_shift, "lies 0.100 mm from its slice"),
        (_stretch, "mm from its slice"),
        (_negate, "Spacing Between Slices is not positive"),
        (_swap_references, "does not refer to the source image"),
        (_swap_patients, "PatientID does not read back"),
        (_drop_a_frame, "1 of 7 frames are missing"),
    ],
)
def test_a_difference_is_found(tmp_path, label_volume, record, spoil, message) -> None:
    path = tmp_path / "a.dcm"
    write_segmentation(path, label_volume(), record(), workflow="w")
    check_segmentation(path, label_volume(), record())
    dataset = pydicom.dcmread(path)
    spoil(dataset)
    dataset.save_as(path)
    with pytest.raises(DicomError, match=message) as caught:
        check_segmentation(path, label_volume(), record())
    assert not any(marker in str(caught.value) for marker in (*MARKERS, "ANOTHER"))


class _Flickering(np.ndarray):
    """Labels that are not the same when they are read again, as in a file that another process writes to."""

    reads = 0

    def __getitem__(self, key):
        found = np.asarray(super().__getitem__(key))
        if isinstance(key, int | np.integer):
            found = found.copy()
            found[0, 0] = _Flickering.reads % 2
            _Flickering.reads += 1
        return found


def test_a_difference_leaves_no_file(tmp_path, label_volume, record) -> None:
    volume = label_volume()
    flickering = Volume(geometry=volume.geometry, array=volume.array.view(_Flickering))
    with pytest.raises(DicomError, match="does not read back"):
        write_segmentation(tmp_path / "a.dcm", flickering, record(), workflow="w")
    assert list(tmp_path.iterdir()) == []


# Sources as hospitals have them.


def test_what_does_not_come_from_dicom_is_refused(tmp_path, label_volume, record) -> None:
    for made in (None, record(source=None)):
        with pytest.raises(VolumeError, match=r"recon\.seg\.mhd does not come from DICOM"):
            write_segmentation(tmp_path / "a.dcm", label_volume(), made, workflow="w", name="recon.seg.mhd")
    assert list(tmp_path.iterdir()) == []


def test_wrong_labels_are_refused(tmp_path, label_volume, record) -> None:
    empty = Volume(geometry=label_volume().geometry, array=np.zeros((7, 11, 13), np.uint8))
    assert not has_labels(empty)
    with pytest.raises(VolumeError, match="no labelled voxel"):
        write_segmentation(tmp_path / "a.dcm", empty, record(), workflow="w")
    with pytest.raises(VolumeError, match="names no label for the value 2, 3"):
        write_segmentation(tmp_path / "a.dcm", label_volume(labels=3), record(labels=1), workflow="w")
    with pytest.raises(VolumeError, match="7 slices but its record names 6"):
        write_segmentation(tmp_path / "a.dcm", label_volume(), record(slices=6), workflow="w")
    floats = Volume(geometry=empty.geometry, array=np.ones((7, 11, 13), np.float32))
    with pytest.raises(VolumeError, match="no integers"):
        write_segmentation(tmp_path / "a.dcm", floats, record(), workflow="w")


def test_a_source_without_a_study_is_refused(tmp_path, label_volume, record) -> None:
    made = record()
    source = replace(made.source, study_uid="")
    with pytest.raises(DicomError, match="no Study Instance UID"):
        write_segmentation(tmp_path / "a.dcm", label_volume(), record(source=source), workflow="w")


def test_a_source_without_frame_of_reference_gets_one(tmp_path, label_volume, record, faults) -> None:
    path = tmp_path / "a.dcm"
    written = write_segmentation(path, label_volume(), record(frame_of_reference=""), workflow="w")
    assert pydicom.dcmread(path).FrameOfReferenceUID.startswith("2.25.")
    assert any("Frame of Reference" in note for note in written.notes)
    assert faults(path) == []


def test_an_empty_header_is_enough(tmp_path, label_volume, record, attributes, faults) -> None:
    attributes.clear()
    path = tmp_path / "a.dcm"
    write_segmentation(path, label_volume(), record(placed=None), workflow="w")
    dataset = pydicom.dcmread(path)
    assert (dataset.PatientName, dataset.PatientID, dataset.StudyDate) == ("", "", "")
    assert dataset.ContentDate == "19000101"  # type 1: a date that is nobody's
    assert faults(path) == []


@pytest.mark.parametrize("subject", ["", "S-17"])
def test_a_trial_is_carried_if_it_is_complete(tmp_path, label_volume, record, attributes, faults, subject) -> None:
    """De-identified data come with a trial whose subject is empty, which is invalid."""
    attributes |= {
        "00120010": {"vr": "LO", "Value": ["Sponsor"]},
        "00120020": {"vr": "LO", "Value": ["6688"]},
        "00120021": {"vr": "LO", "Value": ["Trial"]},
        "00120030": {"vr": "LO"},
        "00120031": {"vr": "LO"},
        "00120040": {"vr": "LO", "Value": [subject] if subject else []},
    }
    path = tmp_path / "a.dcm"
    write_segmentation(path, label_volume(), record(), workflow="w")
    assert faults(path) == []
    assert pydicom.dcmread(path).get("ClinicalTrialSubjectID", "") == subject


@pytest.mark.parametrize(
    ("character_set", "name", "kept"),
    [
        (["ISO_IR 192"], {"Alphabetic": "MARKERNAME^ONE", "Ideographic": "\u8a66\u6599^\u6a21\u578b"}, True),
        (["", "ISO 2022 IR 87"], {"Alphabetic": "MARKERNAME^ONE", "Ideographic": "\u8a66\u6599^\u6a21\u578b"}, True),
        (["GB18030"], {"Alphabetic": "MARKERNAME^ONE", "Ideographic": "\u8bd5\u6599^\u6a21\u578b"}, True),
        (["ISO_IR 144"], {"Alphabetic": "\u041b\u044e\u043ace\u043c\u0431yp\u0433"}, True),
        (["ISO_IR 100"], {"Alphabetic": "\u738b^Not Latin"}, False),  # the header lies: nothing may be lost
        ([], {"Alphabetic": "M\u00e4rker"}, False),
        (["NO_SUCH SET"], {"Alphabetic": "M\u00e4rker"}, False),
    ],
)
def test_names_in_any_script(tmp_path, label_volume, record, attributes, character_set, name, kept) -> None:
    attributes["00080005"] = {"vr": "CS", "Value": character_set}
    attributes["00100010"] = {"vr": "PN", "Value": [name]}
    written = write_segmentation(tmp_path / "a.dcm", label_volume(), record(), workflow="w")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert str(dataset.PatientName.alphabetic) == name["Alphabetic"]
    assert str(dataset.PatientName.ideographic) == name.get("Ideographic", "")
    declared = np.atleast_1d(dataset.SpecificCharacterSet).tolist()
    assert declared == (character_set if kept else ["ISO_IR 192"])
    assert kept != any("UTF-8" in note for note in written.notes)


def test_labels_in_any_script(tmp_path, label_volume, record, attributes) -> None:
    attributes["00080005"] = {"vr": "CS", "Value": ["ISO_IR 100"]}
    made = record()
    made = replace(made, labels=(replace(made.labels[0], name="\u809d\u81d3"),))
    write_segmentation(tmp_path / "a.dcm", label_volume(), made, workflow="w")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert dataset.SegmentSequence[0].SegmentLabel == "\u809d\u81d3"
    assert str(dataset.PatientName) == "MARKERNAME^M\u00e4rker"


def test_broken_values_are_carried_or_left_out_but_never_fatal(tmp_path, label_volume, record, attributes) -> None:
    attributes |= {
        "00080020": {"vr": "DA", "Value": ["2023.04.05"]},  # of an old scanner: carried
        "00080022": {"vr": "DA", "Value": ["99999999"]},
        "00080032": {"vr": "TM", "Value": ["25:61"]},
        "00081030": {"vr": "LO", "Value": ["long " * 40]},
        "00101010": {"vr": "AS", "Value": ["forty"]},
        "00101030": {"vr": "DS", "Value": ["heavy"]},  # no number: left out
        "00200011": {"vr": "IS", "Value": [2147483647]},
        "0010": "no element",
        "00091001": {"vr": "UN", "InlineBinary": "not base64!"},
    }
    written = write_segmentation(tmp_path / "a.dcm", label_volume(), record(), workflow="w")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert dataset.StudyDate == "2023.04.05"
    assert dataset.ContentDate == "19000101"
    assert dataset.StudyDescription == ("long " * 40).rstrip()
    assert "PatientWeight" not in dataset
    assert 0 < dataset.SeriesNumber < 2**31
    assert any("left out" in note for note in written.notes)
    assert not any("heavy" in note for note in written.notes)
