"""A damaged file that no longer names its series: no volume is silently short for it, and no foreign file counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from clara_wf.model.errors import DicomError, InputError

PLACES = [0.0, 2.5, 5.0, 7.5]
BESIDE = "1 file beside its images cannot be used, and may be one of them"


def cut(folder, keep: int, name: str = "5", syntax: str = ExplicitVRLittleEndian, **changes) -> Path:
    """Write the end slice of the series, and of it so many bytes alone."""
    path = folder.save(name, folder.image(ImagePositionPatient=[-10, 20, 10], **changes), syntax)
    path.write_bytes(path.read_bytes()[:keep])
    return path


@pytest.mark.parametrize("keep", [0, 1, 100, 131, 132, 140, 200, 310, 400])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_an_end_slice_that_is_cut_off(folder, refuse, keep, syntax):
    folder.add_slices(PLACES)
    cut(folder, keep, syntax=syntax)
    _, result = refuse(DicomError, f"series 1.2.840.99.2 is refused: {BESIDE}")
    assert result.states["5"] == ("empty" if keep < 132 else "truncated")
    assert result.content["series"][0]["state"] == "refused"
    assert list(result.states.values()).count("refused") == 4


def test_an_end_slice_of_zeros(folder, refuse):
    """What a crash leaves of a file that was not yet written to the disk."""
    folder.add_slices(PLACES)
    (folder.path / "5").write_bytes(bytes(100_000))
    refuse(DicomError, f"{BESIDE} .the file begins with zeros and nothing else")


def test_an_end_slice_that_is_a_link_to_nowhere(folder, refuse):
    folder.add_slices(PLACES)
    (folder.path / "5").symlink_to("gone")
    refuse(DicomError, f"{BESIDE} .a link that leads nowhere")


@pytest.mark.parametrize("tag", [b"\x20\x00\x0d\x00", b"\x20\x00\x0e\x00", b"\x28\x00\x02\x00"])
def test_an_end_slice_that_is_cut_off_between_two_elements(folder, refuse, tag):
    folder.add_slices(PLACES)
    path = folder.add("5", ImagePositionPatient=[-10, 20, 10])
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(tag)])
    _, result = refuse(DicomError, "cannot be used")
    assert result.reasons["5"] == "it describes an image but has no pixel data"


@pytest.mark.parametrize("uid", [None, "", "1..2"])
def test_an_end_slice_without_a_series(folder, refuse, uid):
    folder.add_slices(PLACES)
    folder.add("5", ImagePositionPatient=[-10, 20, 10], SeriesInstanceUID=uid)
    refuse(DicomError, f"{BESIDE} .SeriesInstanceUID is")


def test_several_lost_slices_are_counted(folder, refuse):
    folder.add_slices(PLACES)
    for name in ("5", "6"):
        cut(folder, 0, name)
    cut(folder, 200, "7")
    refuse(DicomError, r"3 files beside its images .* some of them \(2x the file is empty; the file ends within")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README", b""),
        ("DONE", b""),
        (".DS_Store", b""),
        ("._000", b"\0\5\x16\7\0\2\0\0Mac OS X"),
        ("DICOMDIR", b""),
        ("DICOMDIR", b"\0" * 128 + b"DICM\2\0\0\0UL\4\0"),
        ("notes.txt", b""),
        ("Thumbs.db", b""),
        ("notes2", b"some text"),
    ],
)
def test_a_foreign_file_refuses_nothing(folder, read, name, content):
    folder.add_slices(PLACES)
    (folder.path / name).write_bytes(content)
    assert read().volume().array.shape[0] == 4


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [
        ("e.dcm", b"", True),
        ("e.DCM", b"<html>404 Not Found</html>", True),
        ("._a.dcm", b"\0\5\x16\7\0\2\0\0Mac OS X", False),
        ("e.txt", b"", False),
        ("e5", b"", False),
    ],
)
def test_a_suffix_says_what_a_file_should_be(folder, read, refuse, name, content, refused):
    for letter, z in zip("abcd", PLACES, strict=True):
        folder.add(f"{letter}.dcm", ImagePositionPatient=[-10, 20, z])
    (folder.path / name).write_bytes(content)
    if refused:
        refuse(DicomError, BESIDE)
    else:
        assert read().volume().array.shape[0] == 4


def test_numbers_at_the_end_are_no_suffix(folder, refuse):
    for number, z in enumerate(PLACES):
        folder.add(f"1.2.840.99.{number}", ImagePositionPatient=[-10, 20, z])
    (folder.path / "1.2.840.99.7").write_bytes(b"")
    refuse(DicomError, BESIDE)


def test_every_series_of_the_folder_may_lack_the_slice(folder, read):
    folder.add_slices(PLACES)
    folder.add_slices(PLACES, prefix="b", SeriesInstanceUID="1.5")
    folder.add_slices(PLACES, prefix="elsewhere/", SeriesInstanceUID="1.6")
    cut(folder, 0)
    result = read()
    assert result.names == ["1.6.mhd"]
    assert result.content["counts"] == {"files": 13, "empty": 1, "read": 4, "refused": 8}


def test_a_modality_that_is_still_told_narrows_it_down(folder, read):
    folder.add_slices(PLACES)
    folder.add_slices(PLACES, prefix="b", SeriesInstanceUID="1.5", Modality="MR")
    path = cut(folder, 10_000, Modality="MR")
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"\x20\x00\x0d\x00")])
    assert read().names == ["1.2.840.99.2.mhd"]


def test_a_series_that_is_spread_over_folders(folder, read, refuse):
    """Some archives put few files, or one alone, in a folder."""
    for number, z in enumerate(PLACES):
        folder.add(f"study/{number}/1", ImagePositionPatient=[-10, 20, z])
    folder.add_slices(PLACES, prefix="study/other/", SeriesInstanceUID="1.5")
    (folder.path / "README2").write_bytes(b"")
    assert read().names == ["1.2.840.99.2.mhd", "1.5.mhd"]
    cut(folder, 0, name="study/4/1")
    assert read().names == ["1.5.mhd"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_read_beside_those_of_a_series(folder, refuse):
    for number, z in enumerate(PLACES):
        folder.add(f"study/{number}/1", ImagePositionPatient=[-10, 20, z])
    (folder.path / "study/4").mkdir(mode=0)
    refuse(DicomError, f"{BESIDE} .Permission denied")


def test_a_damaged_file_alone_is_of_no_series(folder, refuse):
    cut(folder, 200)
    refuse(InputError, r"none of the 1 files .*\(1 truncated")
