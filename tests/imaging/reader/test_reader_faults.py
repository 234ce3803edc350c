"""Whatever lies in a folder: each file is accounted for, with a reason, and nothing hangs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    KeyObjectSelectionDocumentStorage,
    MediaStorageDirectoryStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from clara_wf.model.errors import DicomError, GeometryError, InputError

PLACES = [0.0, 2.5, 5.0]


def test_an_empty_folder(folder, tmp_path):
    from clara_wf.imaging.dicom_reader import read_folder

    with pytest.raises(InputError, match=r"the input folder is empty\. Put the DICOM files"):
        read_folder(folder.path, tmp_path)
    with pytest.raises(InputError, match="missing"):
        read_folder(folder.path / "none", tmp_path)


def test_what_is_no_file_is_named_and_never_waited_for(folder, read):
    folder.add_slices(PLACES, prefix="deep/er/")
    os.mkfifo(folder.path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder.path)  # the path of a socket may have 108 characters
        server.bind("socket")
        os.chdir(here)
        (folder.path / "broken").symlink_to("nowhere")
        (folder.path / "self").symlink_to("self")
        (folder.path / "loop").symlink_to(folder.path)
        (folder.path / "null").symlink_to("/dev/null")
        (folder.path / "refused by the system").symlink_to("/proc/self/mem")
        (folder.path / "void").write_bytes(b"")
        (folder.path / "notes.txt").write_text("DICM is not here")
        (folder.path / "random").write_bytes(np.random.default_rng(1).bytes(5000))
        (folder.path / os.fsdecode(b"\xff\xfe")).write_bytes(b"x")
        result = read()
    states = result.states
    assert states.pop("pipe") == "not a file"
    assert states.pop("socket") == "not a file"
    assert states.pop("null") == "not a file"
    assert states.pop("broken") == "unreadable"
    assert states.pop("self") == "unreadable"
    assert states.pop("loop") == "duplicate"
    assert states.pop("refused by the system") == "unreadable"
    assert states.pop("void") == "empty"
    assert states.pop("notes.txt") == states.pop("random") == states.pop("\\xff\\xfe") == "not DICOM"
    assert set(states.values()) == {"read"}
    assert len(states) == 3


def test_nothing_but_other_files(folder, refuse):
    (folder.path / "a").write_text("x")
    (folder.path / "b").write_text("y")
    _, result = refuse(InputError, r"none of the 2 files in the input folder is a slice of a volume \(2 not DICOM\)")
    assert result.states == {"a": "not DICOM", "b": "not DICOM"}


def test_a_link_to_a_folder_of_files_is_followed(folder, read, tmp_path):
    folder.add_slices(PLACES, prefix="real/")
    shutil.move(folder.path / "real", tmp_path / "elsewhere")
    (folder.path / "link").symlink_to(tmp_path / "elsewhere")
    assert read().content["counts"] == {"files": 3, "read": 3}


@pytest.mark.parametrize("keep", [140, 200, 400, 500])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_file_cut_off_in_its_header(folder, read, keep, syntax):
    folder.add_slices(PLACES, prefix="good/")
    path = folder.save("cut", folder.image(SeriesInstanceUID="1.9"), syntax)
    path.write_bytes(path.read_bytes()[:keep])
    result = read()
    assert result.states["cut"] == "truncated"
    assert "header" in result.reasons["cut"] or "meta" in result.reasons["cut"]
    assert result.names == ["1.2.840.99.2.mhd"]


def test_a_slice_cut_off_in_its_pixels_refuses_its_series(folder, refuse):
    folder.add_slices(PLACES)
    path = folder.add("cut", ImagePositionPatient=[-10, 20, 7.5])
    path.write_bytes(path.read_bytes()[:-7])
    _, result = refuse(DicomError, r"1 of its 4 images cannot be used \(it has 53 of the 60 bytes of its pixels\)")
    assert result.states["cut"] == "truncated"
    assert result.content["counts"] == {"files": 4, "refused": 3, "truncated": 1}


def test_a_slice_cut_off_in_its_header_refuses_its_series(folder, refuse):
    folder.add_slices(PLACES)
    path = folder.add("cut", ImagePositionPatient=[-10, 20, 7.5])
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"\x28\x00\x10\x00")])
    path.write_bytes(path.read_bytes()[:-3])
    _, result = refuse(DicomError, r"1 of its 4 images cannot be used \(the file ends within its header\)")
    assert result.states["cut"] == "truncated"


def test_compressed_pixels_cut_off(folder, refuse):
    image = folder.image(np.arange(1024, dtype="<u2").reshape(32, 32))
    path = folder.save("cut", image)
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    image.save_as(path)
    path.write_bytes(path.read_bytes()[:-40])
    _, result = refuse(DicomError, "the file ends within its compressed pixel data")
    assert result.states["cut"] == "truncated"


def test_compressed_pixels_that_are_rubbish(folder, refuse):
    image = folder.image(np.arange(1024, dtype="<u2").reshape(32, 32))
    path = folder.save("bad", image)
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    image.save_as(path)
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\x4f\xff\x51")
    content[start : start + 60] = bytes(60)
    path.write_bytes(content)
    _, result = refuse(DicomError, "slice 1 cannot be read: its pixels cannot be decoded")
    assert result.states == {"bad": "refused"}


def test_a_bad_series_leaves_the_good_one(folder, read):
    folder.add_slices(PLACES)
    folder.add_slices([0, 2.5, 7.5, 10], prefix="bad/", SeriesInstanceUID="1.5")
    result = read()
    assert result.names == ["1.2.840.99.2.mhd"]
    assert {series["series_uid"]: series["state"] for series in result.content["series"]} == {
        "1.2.840.99.2": "read",
        "1.5": "refused",
    }
    assert result.content["counts"] == {"files": 7, "read": 3, "refused": 4}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PixelData": None}, "it describes an image but has no pixel data"),
        ({"SOPInstanceUID": None}, "SOPInstanceUID is missing or empty"),
        ({"SOPInstanceUID": ""}, "SOPInstanceUID is missing or empty"),
        ({"StudyInstanceUID": ""}, "StudyInstanceUID is missing or empty"),
        ({"SOPInstanceUID": "../../x"}, "SOPInstanceUID is no UID"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient is missing"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient is missing"),
        ({"ImagePositionPatient": [0, 0, 1e300]}, "which is in no scanner"),
        ({"ImagePositionPatient": [1, 2]}, "has 2 numbers where 3 are needed"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "are not two perpendicular unit vectors"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1.1, 0]}, "are not two perpendicular unit vectors"),
        ({"PixelSpacing": None}, "PixelSpacing is missing"),
        ({"PixelSpacing": [0, 0.5]}, "PixelSpacing is"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"BitsStored": 17}, "BitsStored 17"),
        ({"Rows": 65535}, "it has 60 of the 786420 bytes of its pixels"),
        ({"NumberOfFrames": 500}, "it has 60 of the 30000 bytes"),
        ({"NumberOfFrames": 0}, "NumberOfFrames is 0"),
        ({"Rows": 2}, "60 bytes of pixels where its header says 24"),
        ({"Rows": 0}, "0 rows"),
    ],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_image_that_cannot_be_used_refuses_its_series(folder, refuse, changes, reason, syntax):
    folder.add_slices(PLACES)
    folder.save("bad", folder.image(**({"ImagePositionPatient": [-10, 20, 7.5]} | changes)), syntax)
    _, result = refuse(DicomError, "1 of its 4 images cannot be used")
    assert reason in result.reasons["bad"]
    assert result.states["bad"] in {"refused", "truncated"}


def test_a_decimal_comma(folder, refuse):
    path = folder.add("1", PixelSpacing=[0.75, 0.5])
    content = path.read_bytes()
    assert content.count(b"0.75\\0.5") == 1
    path.write_bytes(content.replace(b"0.75\\0.5", b"0,75\\0,5"))
    _, result = refuse(DicomError, r"PixelSpacing is '0,75\\\\0,5', which are no decimal numbers")
    assert result.states == {"1": "refused"}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("vr", ["FD", "FL"])
@pytest.mark.parametrize(
    "keyword", ["Rows", "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "PixelSpacing", "PixelPaddingValue"]
)
def test_a_number_that_is_not_finite_spoils_its_series_alone(folder, read, keyword, vr, number):
    folder.add_slices(PLACES)
    image = folder.image(SeriesInstanceUID="1.5")
    if keyword in image:
        del image[keyword]
    image.add_new(keyword, vr, [0.5, number] if keyword == "PixelSpacing" else number)
    folder.save("bad", image)
    result = read()
    assert result.names == ["1.2.840.99.2.mhd"]
    assert result.states["bad"] == "refused"
    assert result.reasons["bad"] == f"{keyword} holds a number that is not finite"


def test_a_weighting_that_is_not_finite_spoils_nothing(folder, read):
    folder.add_slices(PLACES, DiffusionBValue=float("nan"))
    assert read().volume().array.shape[0] == 3


@pytest.mark.parametrize("uid", ["", None, "../../../x", "a/b", "..", "1..2", "1" * 65])
def test_a_series_uid_is_never_a_path(folder, refuse, tmp_path, uid):
    folder.add("1", SeriesInstanceUID=uid)
    _, result = refuse(InputError, "none of the 1 files .* the first: SeriesInstanceUID is")
    assert "SeriesInstanceUID is" in result.reasons["1"]
    assert result.content["series"] == []
    assert {path.name for path in tmp_path.iterdir()} == {"input", "refused"}


def test_a_patient_id_is_never_a_path(folder, read, tmp_path):
    folder.add_slices(PLACES, PatientID="../../x")
    result = read()
    assert sorted(path.name for path in result.output.iterdir()) == [
        "1.2.840.99.2.json",
        "1.2.840.99.2.mhd",
        "1.2.840.99.2.raw",
        "series.json",
    ]


def test_series_json_tells_nothing_of_the_patient(folder, read):
    folder.add_slices(PLACES, SeriesDescription="MARKERTEXT", AccessionNumber="MARKERACC")
    result = read()
    text = (result.output / "series.json").read_text()
    assert not any(word in text for word in ("MARKER", "19661224"))


@pytest.mark.parametrize(
    "changes",
    [
        {"RescaleSlope": "MARKERNAME"},
        {"ImagePositionPatient": "MARKERNAME"},
        {"PhotometricInterpretation": "MARKERNAME"},
        {"SOPClassUID": "MARKERNAME"},
        {"Modality": "MARKERNAME", "PixelData": None, "Rows": None, "BitsAllocated": None},
    ],
)
def test_a_text_where_none_belongs_is_not_repeated(folder, refuse, changes):
    for number in (1, 2):
        path = folder.add(f"{number}", **({"PatientName": "other"} | _written(changes)))
        path.write_bytes(path.read_bytes().replace(b"-77777.25 ", b"MARKERNAME"))
    _, result = refuse(InputError, "")
    assert "MARKER" not in json.dumps(result.content)


def _written(changes):
    """Write a number that pydicom lets pass, and of the length of the text that takes its place."""
    return {
        keyword: ([-77777.25] if keyword == "ImagePositionPatient" else -77777.25)
        if keyword in {"RescaleSlope", "ImagePositionPatient"}
        else value
        for keyword, value in changes.items()
    }


def test_a_modality_that_is_a_text_is_not_kept(folder, read):
    folder.add_slices(PLACES, Modality="MARKERNAME")
    result = read()
    assert result.record().modality == ""
    assert "MARKER" not in json.dumps(result.content)


def test_two_patients_of_one_id_in_a_series(folder, refuse, read):
    folder.add_slices(PLACES)
    folder.add("other", ImagePositionPatient=[-10, 20, 7.5], PatientName="MARKERNAME^Y")
    refuse(DicomError, "its images belong to 2 patients")
    (folder.path / "other").unlink()
    folder.add("other", ImagePositionPatient=[-10, 20, 7.5], PatientName="MARKERNAME^X^^")
    assert read().volume().array.shape[0] == 4


def test_a_slice_without_rescale_among_others(folder, refuse):
    folder.add_slices(PLACES)
    folder.add("other", ImagePositionPatient=[-10, 20, 7.5], RescaleIntercept=None)
    refuse(DicomError, "some of its images have a RescaleIntercept and others have none")


def test_sequences_too_deep_for_the_stack_spoil_one_file_alone(folder, read):
    folder.add_slices(PLACES)
    folder.add_slices(PLACES, prefix="b", SeriesInstanceUID="1.5")
    start = struct.pack("<HH2sHIHHI", 0x0008, 0x1032, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    for name in ("b000", "b940"):
        path = folder.path / name
        before, tag, after = path.read_bytes().partition(b"\xe0\x7f\x10\x00OW")
        # Of one, sequences end; of the other, the file does.
        path.write_bytes(before + start * 2000 + (end * 2000 if name == "b000" else b"") + tag + after)
    result = read()
    assert result.names == ["1.2.840.99.2.mhd"]
    assert result.reasons["b000"] == result.reasons["b940"] == "its sequences are nested more than 32 deep"
    assert result.states["b883"] == "refused"


def test_a_frame_of_reference_that_is_no_uid_is_none(folder, read):
    folder.add_slices(PLACES, FrameOfReferenceUID="MARKER of no use")
    result = read()
    assert result.record().source.frame_of_reference_uid == ""
    assert "no UID" in result.content["series"][0]["volumes"][0]["notes"][0]


@pytest.mark.parametrize("spacing", [[1e8, 1e8], [1e-9, 1e-9]])
def test_a_pixel_spacing_of_no_scanner(folder, refuse, spacing):
    folder.add_slices(PLACES, PixelSpacing=spacing)
    refuse(DicomError, "mm, which no scanner has")


def test_two_patients(folder, refuse):
    folder.add_slices(PLACES)
    folder.add_slices(PLACES, prefix="b", SeriesInstanceUID="1.5", PatientID="MARKER2")
    _, result = refuse(DicomError, "the input folder holds images of 2 patients. Give each patient a folder of its own")
    assert set(result.states.values()) == {"refused"}


def test_a_missing_patient_id_is_no_second_patient(folder, read):
    folder.add_slices(PLACES)
    folder.add_slices(PLACES, prefix="b", SeriesInstanceUID="1.5", PatientID="")
    assert len(read().names) == 2


def test_two_studies_in_one_series(folder, refuse):
    folder.add_slices(PLACES)
    folder.add("x", StudyInstanceUID="1.8")
    refuse(DicomError, "its images belong to 2 studies")


def test_repeated_files_count_once(folder, read):
    folder.add_slices(PLACES)
    shutil.copy(folder.path / "000", folder.path / "copy")
    image = pydicom.dcmread(folder.path / "000")
    folder.save("other encoding", image, ImplicitVRLittleEndian)
    result = read()
    assert result.volume().array.shape[0] == 3
    assert result.states["copy"] == result.states["other encoding"] == "duplicate"
    assert result.reasons["copy"] == "the same as 000"


def test_one_uid_for_different_images(folder, refuse):
    folder.add_slices(PLACES)
    folder.add("other", SOPInstanceUID="1.2.840.99.2.1")
    refuse(DicomError, "two files have the same SOPInstanceUID and differ")


def test_what_is_no_slice_is_named_and_passed_over(folder, read):
    folder.add_slices(PLACES)
    folder.add("localizer", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    folder.add("screen", SOPClassUID=SecondaryCaptureImageStorage, ImageType=["DERIVED", "SECONDARY"])
    folder.add("seg", SOPClassUID=SegmentationStorage, SeriesInstanceUID="1.5", Modality="SEG")
    folder.add("struct", SOPClassUID=RTStructureSetStorage, SeriesInstanceUID="1.6", PixelData=None, Rows=None,
               BitsAllocated=None, Modality="RTSTRUCT")  # fmt: skip
    folder.add("key", SOPClassUID=KeyObjectSelectionDocumentStorage, SeriesInstanceUID="1.7", PixelData=None,
               Rows=None, BitsAllocated=None, Modality="KO")  # fmt: skip
    rgb = np.zeros((5, 18), "u1")
    folder.add("colour", rgb, SamplesPerPixel=3, PhotometricInterpretation="RGB", Columns=6, SeriesInstanceUID="1.8")
    directory = Dataset()
    directory.SOPClassUID = MediaStorageDirectoryStorage
    directory.SOPInstanceUID = "1.2.3"
    folder.save("DICOMDIR", directory)
    result = read()
    states = result.states
    assert {name: states[name] for name in states if not name[0].isdigit()} == {
        "localizer": "localizer",
        "screen": "secondary capture",
        "seg": "not an image",
        "struct": "not an image",
        "key": "not an image",
        "colour": "refused",
        "DICOMDIR": "DICOMDIR",
    }
    assert "RGB" in result.reasons["colour"]
    assert result.volume().array.shape[0] == 3


def test_a_series_can_be_chosen(folder, read, refuse):
    folder.add_slices(PLACES)
    folder.add_slices(PLACES, prefix="b", SeriesInstanceUID="1.5")
    result = read(only_series=["1.5"])
    assert result.names == ["1.5.mhd"]
    assert result.content["counts"] == {"files": 6, "not selected": 3, "read": 3}
    refuse(InputError, "there is no series 1.6 in the input folder", only_series=["1.6"])


def test_a_failed_reading_leaves_no_volume_of_it(folder, refuse):
    folder.add_slices([0, 1, 5])
    refuse(GeometryError, "apart")


def test_files_without_a_preamble_are_dicom(folder, read):
    for number, z in enumerate(PLACES):
        path = folder.add(f"{number}", ImagePositionPatient=[0, 0, z])
        content = path.read_bytes()
        path.write_bytes(content[132:])
    assert read().volume().array.shape == (3, 5, 6)
