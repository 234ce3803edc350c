"""The lean header scanner and pydicom give the same values; the tables are the standard's."""

from __future__ import annotations

import warnings

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from clara_wf.imaging.dicom_attributes import KEPT, READ
from clara_wf.imaging.dicom_header import _read_by_pydicom, read_header
from clara_wf.imaging.dicom_json import _by_pydicom, kept_attributes


@pytest.mark.parametrize("table", [KEPT, READ])
def test_tables_are_the_standards(table):
    for tag, (vr, keyword) in table.items():
        assert (dictionary_VR(tag), keyword_for_tag(tag)) == (vr, keyword)


LATIN = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\\\x7f=^"), max_size=30)
NAMES = st.builds("^".join, st.lists(LATIN, min_size=1, max_size=5))
DECIMALS = st.floats(-1e6, 1e6).map(lambda x: f"{x:.8g}")


def sequence(draw_item: Dataset, undefined: bool) -> Sequence:
    items = Sequence([draw_item, Dataset()])
    items.is_undefined_length = undefined
    draw_item.is_undefined_length_sequence_item = undefined
    return items


@st.composite
def datasets(draw) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = "1.2.3"
    if draw(st.booleans()):
        dataset.SpecificCharacterSet = draw(st.sampled_from(["ISO_IR 100", "ISO_IR 192", ["", "ISO 2022 IR 87"]]))
    else:
        dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = draw(NAMES)
    dataset.PatientComments = draw(LATIN)
    dataset.StudyDescription = draw(LATIN)
    dataset.SoftwareVersions = draw(st.lists(LATIN.filter(str.strip), min_size=1, max_size=3))
    dataset.PixelSpacing = [draw(DECIMALS), draw(DECIMALS)]
    dataset.ImagePositionPatient = [draw(DECIMALS), draw(DECIMALS), draw(DECIMALS)]
    dataset.EchoNumbers = draw(st.integers(-5, 99))
    dataset.KVP = draw(st.sampled_from(["", "120", "80.5"]))
    dataset.Rows, dataset.CTDIvol = draw(st.integers(0, 65535)), draw(st.floats(-9, 9))
    dataset.DiffusionGradientOrientation = draw(st.lists(st.floats(-1, 1), min_size=3, max_size=3))
    code = Dataset()
    code.CodeValue, code.CodeMeaning = draw(LATIN.map(lambda text: text[:16])), draw(LATIN)
    dataset.ProcedureCodeSequence = sequence(code, draw(st.booleans()))
    private = Dataset()
    private.add_new(0x00091001, "UN", b"private")
    dataset.add_new(0x00290010, "LO", "SOMEBODY")
    dataset.add_new(0x00291020, "SQ", sequence(private, draw(st.booleans())))
    dataset.add_new(0x00291021, "OB", b"x" * draw(st.sampled_from([0, 100, 40000, 70000])))
    dataset.PixelData = b"\0\1" * 10
    dataset["PixelData"].VR = "OW"
    return dataset


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dataset=datasets())
def test_scanner_and_pydicom_agree(folder, syntax, dataset):
    (folder.path / "x").unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random text is too long for its VR here and there
        path = folder.save("x", dataset, syntax)
        peer = pydicom.dcmread(path)
        header = read_header(path)
        lean, slow = header.elements, _read_by_pydicom(path, header.size, READ, bare=False).elements
        assert {tag: value for tag, value in lean.items() if value[0] != "SQ"} == {
            tag: value for tag, value in slow.items() if value[0] != "SQ"
        }
        assert header.numbers("PixelSpacing") == tuple(map(float, peer.PixelSpacing))
        assert header.numbers("Rows") == (peer.Rows,)
        assert header.text("SOPInstanceUID") == peer.SOPInstanceUID
        assert header.pixels is not None
        assert header.pixels.length == 20
        if syntax != DeflatedExplicitVRLittleEndian:
            assert path.read_bytes()[header.pixels.offset :][:20] == peer.PixelData
        assert kept_attributes(path) == _by_pydicom(path)


def test_a_plain_header_needs_no_pydicom(folder):
    """What makes the reader fast: a usual file, sequences without length among its elements, is not for pydicom."""
    import subprocess
    import sys

    image = folder.image()
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "1", "x"
    image.ProcedureCodeSequence = sequence(item, undefined=True)
    path = folder.save("x", image)
    program = (
        "import sys; from pathlib import Path; from clara_wf.imaging.dicom_reader import read_folder;"
        "read_folder(Path(sys.argv[1]), Path(sys.argv[2])); sys.exit('pydicom' in sys.modules)"
    )
    output = folder.path.parent / "output"
    output.mkdir()
    subprocess.run([sys.executable, "-c", program, str(path.parent), str(output)], check=True)


@pytest.mark.parametrize("name", ["ct-abdomen-siemens/1-001.dcm", "ct-head-small/CTHead1.dcm"])
def test_real_headers_agree(shared_data, name):
    path = shared_data / name
    slow = _read_by_pydicom(path, path.stat().st_size, READ, bare=False)
    assert dict(read_header(path).elements) == dict(slow.elements)
    assert kept_attributes(path) == _by_pydicom(path)
