"""The attributes of a source that a writer needs, in the DICOM JSON model (PS3.18 annex F).

The usual file is read without pydicom, whose import takes longer than reading a whole series; sequences of implicit VR
and rare character sets are left to it. Both ways give the same JSON.
"""

from __future__ import annotations

import base64
import contextlib
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clara_wf.imaging.dicom_attributes import KEPT
from clara_wf.imaging.dicom_frame import Frame
from clara_wf.imaging.dicom_header import IMPLICIT_LITTLE, Header, read_header

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

_LATIN: Final = {"AE", "AS", "CS", "DA", "DT", "TM", "UI"}
_TEXT: Final = {"LO", "PN", "SH", "UC"}
_WHOLE_TEXT: Final = {"LT", "ST", "UT", "UR"}
_NUMBERS: Final = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "UL": "I", "US": "H", "SV": "q", "UV": "Q"}
_BYTES: Final = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
#: Of texts that may be ASCII alone, as no character set is declared (PS3.5 6.1.2.1): those that are not are UTF-8 if
#: they can be, which others hardly ever are by chance, and else Latin-1, which holds any bytes.
_UNDECLARED: Final = ""
#: The character sets without escape sequences that Python knows by one name.
_ENCODINGS: Final = {
    "": _UNDECLARED,
    "ISO_IR 6": _UNDECLARED,
    "ISO_IR 100": "latin-1",
    "ISO_IR 101": "iso8859_2",
    "ISO_IR 144": "iso8859_5",
    "ISO_IR 192": "utf-8",
}
_LONG_VRS: Final = _BYTES | {"SQ", "SV", "UC", "UR", "UT", "UV"}
_ITEM, _ITEM_END, _SEQUENCE_END, _UNDEFINED = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF


class _Unusual(Exception):
    """The value is for pydicom."""


def kept_attributes(path: Path) -> dict[str, Any]:
    """Read the attributes of `dicom_attributes.KEPT` from a file.

    Returns
    -------
    dict
        ``{"00100010": {"vr": "PN", "Value": [...]}, ...}``, as `pydicom.Dataset.to_json_dict` gives them.

    Raises
    ------
    FileFault
        It is no DICOM file.
    OSError
        It cannot be read.
    """
    header = read_header(path, KEPT)
    try:
        return _from_header(header)
    except (_Unusual, UnicodeDecodeError, ValueError, struct.error, IndexError, RecursionError):
        return _by_pydicom(path)


def _from_header(header: Header) -> dict[str, Any]:
    if header.by_pydicom:
        raise _Unusual
    charset = header.text("SpecificCharacterSet")
    if charset not in _ENCODINGS:
        raise _Unusual
    encoding = _ENCODINGS[charset]
    explicit = header.syntax != IMPLICIT_LITTLE
    found = {}
    for tag, (vr, value) in sorted(header.elements.items()):
        if vr == "SQ" and not explicit:
            raise _Unusual
        found[f"{tag:08X}"] = _element(vr, value, encoding)
    return found


def _element(vr: str, value: bytes, encoding: str) -> dict[str, Any]:
    element: dict[str, Any] = {"vr": vr}
    values = _values(vr, value, encoding)
    if vr in _BYTES:
        if value:
            element["InlineBinary"] = base64.b64encode(value).decode()
    elif values or vr == "SQ":
        element["Value"] = values
    return element


def _values(vr: str, value: bytes, encoding: str) -> list[Any]:  # noqa: PLR0911 - a kind of value each
    if vr == "SQ":
        return _items(value, encoding)
    if vr in _NUMBERS:
        return list(struct.unpack(f"<{len(value) // struct.calcsize(_NUMBERS[vr])}{_NUMBERS[vr]}", value))
    if vr in _BYTES:
        return []
    text = _decode(value, encoding) if vr in _TEXT | _WHOLE_TEXT else value.decode("latin-1")
    if vr in _WHOLE_TEXT:
        text = text.rstrip(" \0")
        return [text] if text else []
    parts = [part.strip(" ") if vr == "AE" else part.rstrip(" ") for part in text.rstrip(" \0").split("\\")]
    if parts == [""]:
        return []
    if vr in {"DS", "IS"}:
        number = float if vr == "DS" else int
        return [number(part) if part.strip() else None for part in parts]
    if vr == "PN":
        return [_name(part) for part in parts]
    if vr not in _LATIN | _TEXT or "\0" in text.rstrip("\0") or "" in parts:
        raise _Unusual
    return list(parts)


def _decode(value: bytes, encoding: str) -> str:
    if encoding != _UNDECLARED:
        return value.decode(encoding)
    return value.decode("utf-8" if _is_utf8(value) else "latin-1")


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _name(text: str) -> dict[str, str]:
    # As pydicom does: nothing is stripped inside, and the three groups stand only as far as they are there.
    return dict(zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False))


def _items(data: bytes, encoding: str) -> list[dict[str, Any]]:
    """Read the items of a sequence in explicit VR little-endian."""
    items = []
    at = 0
    while at + 8 <= len(data):
        tag, length = _head(data, at)
        at += 8
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM:
            raise _Unusual
        if length == _UNDEFINED:
            item, at = _data_set(data, at, len(data), encoding)
        else:
            item, at = _data_set(data, at, at + length, encoding)
        items.append(item)
    return items


def _head(data: bytes, at: int) -> tuple[int, int]:
    group, element, length = struct.unpack_from("<HHI", data, at)
    return group << 16 | element, length


def _data_set(data: bytes, at: int, end: int, encoding: str) -> tuple[dict[str, Any], int]:
    """Read an item's elements; return them and where the next item begins."""
    found: dict[str, Any] = {}
    while at + 8 <= end:
        tag, length = _head(data, at)
        if tag == _ITEM_END:
            return found, at + 8
        vr = data[at + 4 : at + 6].decode("ascii")
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", data, at + 8)
            at += 12
        elif vr in _LATIN | _TEXT | _WHOLE_TEXT | _NUMBERS.keys() | {"DS", "IS"}:
            (length,) = struct.unpack_from("<H", data, at + 6)
            at += 8
        else:
            raise _Unusual
        if length == _UNDEFINED or tag == 0x00080005:
            raise _Unusual
        found[f"{tag:08X}"] = _element(vr, data[at : at + length], encoding)
        at += length
    return found, at


def _by_pydicom(path: Path) -> dict[str, Any]:
    import pydicom  # here, since most files do not need it and it takes a quarter of a second

    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values, which may be a patient's
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(KEPT), force=True)
        undeclared = _ENCODINGS.get(str(dataset.get("SpecificCharacterSet") or "")) == _UNDECLARED
        for tag in dataset.keys() & KEPT.keys():
            # One by one: what cannot be read costs no other, and a name too long for its type is a name all the same
            # (pydicom's own way of passing over broken elements leaves it out).
            with contextlib.suppress(
                ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError
            ):
                if undeclared:
                    _read_as_utf8(dataset, tag)
                found[f"{tag:08X}"] = dataset[tag].to_json_dict(None, 0)
    return found


def _read_as_utf8(dataset: Dataset, tag: BaseTag) -> None:
    """Have pydicom take an element, or those of its items, for UTF-8 where it is; by itself it takes Latin-1."""
    from pydicom.dataelem import RawDataElement, convert_raw_data_element

    raw: object = dataset.get_item(tag)
    if dataset[tag].VR == "SQ":
        for item in dataset[tag].value:
            for inner in list(item.keys()):
                _read_as_utf8(item, inner)
    elif isinstance(raw, RawDataElement) and raw.value and not raw.value.isascii() and _is_utf8(raw.value):
        dataset[tag] = convert_raw_data_element(raw, encoding=["utf8"], ds=dataset)


def plane_attributes(frame: Frame) -> dict[str, Any]:
    """Return how a frame's pixels lie, as attributes of a single image have it (PS3.3 C.7.6.2), in the JSON model.

    An enhanced image has them in its functional groups, from where `kept_attributes` does not take them.
    """
    found: dict[int, tuple[float, ...]] = {
        0x00200037: (*frame.row_direction, *frame.column_direction),  # Image Orientation (Patient)
        0x00280030: frame.spacing,  # Pixel Spacing
    }
    if frame.thickness is not None:
        found[0x00180050] = (frame.thickness,)  # Slice Thickness
    return {f"{tag:08X}": {"vr": "DS", "Value": list(values)} for tag, values in found.items()}


def text_of(dataset: Mapping[str, Any], tag: int) -> str:
    """Return the first value of an attribute in the DICOM JSON model as text; empty if there is none."""
    values = dataset.get(f"{tag:08X}", {}).get("Value") or [""]
    return str(values[0])
