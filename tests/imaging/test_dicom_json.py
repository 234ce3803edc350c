"""The attributes that a record keeps, where a file does not say what its texts are encoded in."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from clara_wf.imaging.dicom_json import _by_pydicom, kept_attributes
from clara_wf.imaging.segmentation import write_segmentation

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def _write(path, name: bytes, syntax: str, *, declared: str | None = None) -> None:
    """Write a file whose texts are these bytes, whatever it says of them."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = syntax
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    if declared is not None:
        image.SpecificCharacterSet = declared
    code = Dataset()
    code.add_new("CodeMeaning", "LO", name)
    image.ProcedureCodeSequence = [code]
    for keyword in ("PatientName", "PatientComments", "StudyDescription"):
        image.add_new(keyword, pydicom.datadict.dictionary_VR(keyword), name)
    image.Rows = 0xC3A4  # UTF-8, if it were a text
    image.PixelData = b"\0\0"
    image["PixelData"].VR = "OW"
    image.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("declared", "name", "text"),
    [
        (None, b"MARKER\xc3\xbc^ONE", "MARKER\u00fc^ONE"),  # UTF-8 that nobody declared
        ("", b"MARKER\xc3\xbc^ONE", "MARKER\u00fc^ONE"),
        ("ISO_IR 6", b"MARKER\xc3\xbc^ONE", "MARKER\u00fc^ONE"),
        (None, b"MARKER\xe8\xa9\xa6^ONE", "MARKER\u8a66^ONE"),
        (None, b"MARKER\xfc^ONE", "MARKER\u00fc^ONE"),  # Latin-1 that nobody declared, no UTF-8
        (None, b"MARKER\xc3\xbc\xfc^ONE", "MARKER\u00c3\u00bc\u00fc^ONE"),
        (None, b"MARKER^ONE", "MARKER^ONE"),
        ("ISO_IR 100", b"MARKER\xc3\xbc^ONE", "MARKER\u00c3\u00bc^ONE"),  # what is declared counts
        ("ISO_IR 192", b"MARKER\xc3\xbc^ONE", "MARKER\u00fc^ONE"),
    ],
)
def test_a_text_of_no_declared_character_set(tmp_path, syntax, declared, name, text) -> None:
    path = tmp_path / "a.dcm"
    _write(path, name, syntax, declared=declared)
    for kept in (kept_attributes(path), _by_pydicom(path)):
        assert kept["00100010"]["Value"] == [{"Alphabetic": text}]
        assert kept["00104000"]["Value"] == kept["00081030"]["Value"] == [text]
        assert kept["00081032"]["Value"][0]["00080104"]["Value"] == [text]
        assert kept["00280010"]["Value"] == [0xC3A4]


def test_a_name_in_utf8_that_nobody_declared_is_written_as_it_is(tmp_path, label_volume, record, attributes) -> None:
    source = tmp_path / "source.dcm"
    _write(source, b"MARKER\xc3\xbc^ONE", ExplicitVRLittleEndian)
    attributes.pop("00080005")
    attributes |= kept_attributes(source)
    write_segmentation(tmp_path / "a.dcm", label_volume(), record(), workflow="w")
    written = pydicom.dcmread(tmp_path / "a.dcm")
    assert written.SpecificCharacterSet == "ISO_IR 192"
    assert str(written.PatientName) == "MARKER\u00fc^ONE"
