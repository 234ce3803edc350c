"""The header of a DICOM file: the few elements that are asked for, as bytes, and where the pixels lie.

A series has hundreds of files and a header hundreds of elements, so the usual kind (explicit or implicit VR,
little-endian) is scanned here without making an object of each element. Everything unusual is left to pydicom, which
then is asked for the same bytes; so both ways give the same values, and a test holds one against the other.

Source: DICOM PS3.5 section 7 (data set structure), PS3.10 section 7 (file format).
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from clara_wf.imaging.dicom_attributes import FILE, READ, TAG
from clara_wf.imaging.dicom_states import FileFault, FileState

if TYPE_CHECKING:
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
#: Pixel data that lie in the file as they are.
NATIVE: Final = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE})

_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SHORT_VRS: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
_BINARY: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "US or SS": "H"}
_PIXEL_DATA: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_ITEM, _ITEM_END, _SEQUENCE_END, _UNDEFINED = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF
#: Groups with an odd number are private; a program that does not know them rewrites their elements as UN.
_PRIVATE: Final = 0x10000
#: A window onto the file: most headers fit, and reading it costs microseconds.
_WINDOW = 32768
#: pydicom leaves longer values in the file until they are asked for.
_DEFER_BYTES = 65536
#: Deeper, nobody nests; each level costs some of the interpreter's stack, here and in pydicom.
_DEEPEST = 32
_TOO_DEEP = f"its sequences are nested more than {_DEEPEST} deep"
_LIKE_NUMBERS: Final = re.compile(r"(?:[-+0-9.,:;eE_\\\s]|nan|inf(?:inity)?)*", re.IGNORECASE)
_ENDS_IN_HEADER = "the file ends within its header"
_NO_MARK = "the mark DICM of a DICOM file is missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelData:
    """Where the pixels lie in the file."""

    tag: int  # (7FE0,0010), or of float pixels (7FE0,0008) and (7FE0,0009)
    offset: int  # bytes from the file's begin; of no use where the data set is deflated
    length: int | None  # bytes; None where they are encapsulated


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The elements asked for, not decoded."""

    path: Path  # the file
    size: int  # of the file, bytes
    syntax: str  # Transfer Syntax UID; empty if the file does not say
    little: bool  # byte order of binary values
    elements: Mapping[int, tuple[str, bytes]]  # VR and value by tag; the value of a sequence may be left out
    pixels: PixelData | None  # None: there are none
    by_pydicom: bool = False  # read by pydicom; sequences are left out

    def __contains__(self, keyword: str) -> bool:
        return TAG[keyword] in self.elements

    def text(self, keyword: str) -> str:
        """Return a value of ASCII text (UI, CS, DA, TM, ...) without padding; empty if it is missing."""
        element = self.elements.get(TAG[keyword])
        return parse_text(element[1]) if element else ""

    def numbers(self, keyword: str, *, finite: bool = True) -> tuple[float, ...]:
        """Return a value's numbers; none if it is missing or empty.

        Parameters
        ----------
        keyword : str
            The attribute.
        finite : bool
            Refuse a binary number (FL, FD) that is infinite or none; False leaves that to the caller.

        Raises
        ------
        FileFault
            The value holds something else than finite numbers: a decimal comma, for instance.
        """
        element = self.elements.get(TAG[keyword])
        if element is None:
            return ()
        try:
            numbers = _parse_numbers(*element, self.little)
        except (ValueError, struct.error) as exc:
            text = parse_text(element[1])
            # What is not even like a number may be anything, a name as well, and is not repeated.
            told = repr(text[:60]) if _LIKE_NUMBERS.fullmatch(text) else "a text"
            raise FileFault(FileState.REFUSED, f"{keyword} is {told}, which are no decimal numbers") from exc
        if finite and not all(map(math.isfinite, numbers)):
            raise FileFault(FileState.REFUSED, f"{keyword} holds a number that is not finite")
        return numbers

    def number(self, keyword: str) -> float | None:
        """Return the only or first number of a value; None if it is missing or empty."""
        numbers = self.numbers(keyword)
        return numbers[0] if numbers else None

    def integer(self, keyword: str, default: int) -> int:
        """Return the only number of a value as an integer; `default` if it is missing or empty."""
        number = self.number(keyword)
        if number is None:
            return default
        if number != int(number):
            raise FileFault(FileState.REFUSED, f"{keyword} is {number}, which is no whole number")
        return int(number)


@functools.lru_cache(maxsize=4096)
def parse_text(value: bytes) -> str:
    """Return a value of ASCII text without padding. Slices of a series have most values in common: hence the cache."""
    return value.decode("latin-1").strip(" \0")


@functools.lru_cache(maxsize=4096)
def _parse_numbers(vr: str, value: bytes, little: bool) -> tuple[float, ...]:
    if vr in _BINARY:
        code = _BINARY[vr]
        return struct.unpack(f"{'<' if little else '>'}{len(value) // struct.calcsize(code)}{code}", value)
    text = value.decode("latin-1").strip(" \0")
    numbers = tuple(map(float, text.split("\\"))) if text else ()
    if not all(map(math.isfinite, numbers)) or "_" in text:
        raise ValueError
    return numbers


class HeaderFault(FileFault):
    """The header is broken; what could be read of it may say whose slice is missing now."""

    def __init__(self, fault: FileFault, part: Header) -> None:
        super().__init__(fault.state, fault.message)
        self.part = part


class _Unusual(Exception):
    """The file is for pydicom."""


def read_header(path: Path, wanted: Mapping[int, tuple[str, str]] = READ) -> Header:
    """Read the elements asked for.

    Parameters
    ----------
    path : Path
        A regular file.
    wanted : mapping
        VR and keyword by tag.

    Raises
    ------
    FileFault
        It is no DICOM file, or it ends within its header.
    OSError
        It cannot be opened or read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(handle).st_size
        start = os.pread(handle, _WINDOW, 0)
        bare = start[128:132] != b"DICM"
        if not start:
            raise FileFault(FileState.EMPTY, "the file is empty")
        if not start.strip(b"\0DIC"):  # what a crash leaves of a file whose room was reserved, or a cut preamble
            raise FileFault(FileState.EMPTY, "the file begins with zeros and nothing else")
        if bare and not _looks_bare(start):
            raise FileFault(FileState.NOT_DICOM, _NO_MARK)
        if not bare:
            with contextlib.suppress(_Unusual):
                return _scan(path, handle, size, start, wanted)
        return _read_by_pydicom(path, size, wanted, bare=bare)
    finally:
        os.close(handle)


def _looks_bare(start: bytes) -> bool:
    """Say whether a file without preamble begins as a data set does: with a short element of group 2 or 8."""
    if len(start) < 8 or start[0] not in {2, 8} or start[1] or start[3]:
        return False
    return start[4:6] in _SHORT_VRS | _LONG_VRS or int.from_bytes(start[4:8], "little") <= 64


def _scan(path: Path, handle: int, size: int, start: bytes, wanted: Mapping[int, tuple[str, str]]) -> Header:
    meta, body = _file_meta(start)
    syntax = meta.get(0x00020010, b"").decode("latin-1").strip(" \0")
    if syntax in {"", DEFLATED, EXPLICIT_BIG}:
        raise _Unusual
    found: dict[int, tuple[str, bytes]] = {}
    try:
        pixels = _elements(handle, size, start, body, wanted, found=found, explicit=syntax != IMPLICIT_LITTLE)
    except FileFault as fault:
        part = Header(path=path, size=size, syntax=syntax, little=True, elements=found, pixels=None)
        raise HeaderFault(fault, part) from fault
    return Header(path=path, size=size, syntax=syntax, little=True, elements=found, pixels=pixels)


def _file_meta(data: bytes) -> tuple[dict[int, bytes], int]:
    """Read group 2, which is always explicit little-endian; return it and where the data set begins."""
    found: dict[int, bytes] = {}
    at = 132
    while True:
        if at + 12 > len(data):
            raise FileFault(FileState.TRUNCATED, "the file ends within its file meta information")
        if data[at : at + 2] != b"\x02\x00":
            return found, at
        element = int.from_bytes(data[at + 2 : at + 4], "little")
        vr = data[at + 4 : at + 6]
        if vr in _SHORT_VRS:
            length, head = int.from_bytes(data[at + 6 : at + 8], "little"), 8
        elif vr in _LONG_VRS:
            length, head = int.from_bytes(data[at + 8 : at + 12], "little"), 12
        else:
            raise _Unusual
        found[0x00020000 | element] = data[at + head : at + head + length]
        at += head + length


def _elements(  # noqa: C901, PLR0912 - one loop over bytes, which is what makes it fast
    handle: int,
    size: int,
    data: bytes,
    at: int,
    wanted: Mapping[int, tuple[str, str]],
    *,
    found: dict[int, tuple[str, bytes]],
    explicit: bool,
) -> PixelData | None:
    """Walk over the data set's first level into `found`; `data` is a window onto the file that begins at `base`."""
    words = _FILE_WORDS if wanted is FILE else _words(wanted)
    base = 0
    short = struct.Struct("<I2sH").unpack_from
    long = struct.Struct("<I").unpack_from
    while True:
        if at + 12 > len(data):
            if base + len(data) < size:
                base, at, data = base + at, 0, os.pread(handle, _WINDOW, base + at)
            if at + 8 > len(data):
                if base + at < size:
                    raise FileFault(FileState.TRUNCATED, _ENDS_IN_HEADER)
                return None
        word, vr, length = short(data, at)
        if explicit and vr in _SHORT_VRS:
            at += 8
        elif explicit and vr in _LONG_VRS and at + 12 <= len(data):
            (length,) = long(data, at + 8)
            at += 12
        elif explicit:
            raise _Unusual
        else:
            (length,) = long(data, at + 4)
            at += 8
        if word in words or length == _UNDEFINED:
            tag = (word & 0xFFFF) << 16 | word >> 16
            if tag in _PIXEL_DATA:
                return PixelData(tag=tag, offset=base + at, length=None if length == _UNDEFINED else length)
            unknown = vr == b"UN"
            if unknown and tag in wanted and not tag & _PRIVATE:
                raise _Unusual
            if length == _UNDEFINED:
                # Items in UN are always implicit (PS3.5 section 6.2.2, note 1).
                length = _end_of_sequence(handle, base + at, explicit=explicit and not unknown) - base - at
            if tag in wanted and base + at + length <= size:
                inside = at + length <= len(data)
                value = data[at : at + length] if inside else os.pread(handle, length, base + at)
                found[tag] = (vr.decode() if explicit and not unknown else wanted[tag][0], value)
        at += length
        if at > len(data):
            if base + at > size:
                raise FileFault(FileState.TRUNCATED, _ENDS_IN_HEADER)
            base, at, data = base + at, 0, os.pread(handle, _WINDOW, base + at)


def _words(wanted: Iterable[int]) -> frozenset[int]:
    """Return tags as they look when their four bytes are read as one little-endian number."""
    return frozenset((tag & 0xFFFF) << 16 | tag >> 16 for tag in (*wanted, *_PIXEL_DATA))


_FILE_WORDS: Final = _words(FILE)


def _end_of_sequence(handle: int, at: int, *, explicit: bool, depth: int = 1) -> int:
    """Return where a sequence without length, whose first item begins at `at`, has ended."""
    if depth > _DEEPEST:
        raise FileFault(FileState.REFUSED, _TOO_DEEP)
    while True:
        tag, length = _item_head(handle, at)
        at += 8
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise _Unusual
        at = _end_of_item(handle, at, explicit=explicit, depth=depth) if length == _UNDEFINED else at + length


def _end_of_item(handle: int, at: int, *, explicit: bool, depth: int) -> int:
    """Return where an item without length, whose first element begins at `at`, has ended."""
    while True:
        tag, length = _item_head(handle, at)
        if tag == _ITEM_END:
            return at + 8
        implicit_inside = not explicit
        head = 8
        if explicit:
            start = os.pread(handle, 12, at)
            vr = start[4:6]
            if vr in _LONG_VRS:
                head, length = 12, int.from_bytes(start[8:12], "little")
            elif vr in _SHORT_VRS:
                length = int.from_bytes(start[6:8], "little")
            else:
                raise _Unusual
            implicit_inside = vr == b"UN"
        at += head
        if length == _UNDEFINED:
            at = _end_of_sequence(handle, at, explicit=not implicit_inside, depth=depth + 1)
        else:
            at += length


def _item_head(handle: int, at: int) -> tuple[int, int]:
    head = os.pread(handle, 8, at)
    if len(head) < 8:
        raise FileFault(FileState.TRUNCATED, "the file ends within a sequence of its header")
    group, element, length = struct.unpack("<HHI", head)
    return group << 16 | element, length


def check_fragments(header: Header) -> None:
    """Follow the fragments of encapsulated pixels to their end: some decoders take a cut one without a word.

    Raises
    ------
    FileFault
        The file ends within them.
    """
    if header.pixels is None or header.pixels.length is not None:
        return
    handle = os.open(header.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _follow_fragments(handle, header.pixels.offset, header.size)
    finally:
        os.close(handle)


def _follow_fragments(handle: int, at: int, size: int) -> None:
    while True:
        head = os.pread(handle, 8, at)
        tag = int.from_bytes(head[0:2], "little") << 16 | int.from_bytes(head[2:4], "little")
        length = int.from_bytes(head[4:8], "little")
        if len(head) == 8 and tag == _SEQUENCE_END:
            return
        if len(head) < 8 or (tag == _ITEM and at + 8 + length > size):
            raise FileFault(FileState.TRUNCATED, "the file ends within its compressed pixel data")
        if tag != _ITEM:
            raise FileFault(FileState.REFUSED, "its compressed pixel data are not made of items")
        at += 8 + length


def _read_by_pydicom(path: Path, size: int, wanted: Mapping[int, tuple[str, str]], *, bare: bool) -> Header:
    """Ask pydicom, which knows deflated and big-endian data sets, unknown VRs, and old habits."""
    import pydicom  # here, since most files do not need it and it takes a quarter of a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values, which may be a patient's
        try:
            dataset = pydicom.dcmread(path, defer_size=_DEFER_BYTES, force=bare)
            elements = {tag: _raw(dataset, tag, vr) for tag, (vr, _) in wanted.items() if tag in dataset}
            pixels = next((_pixel_data(dataset, tag) for tag in _PIXEL_DATA if tag in dataset), None)
        except (EOFError, struct.error, zlib.error) as exc:
            raise FileFault(FileState.TRUNCATED, _ENDS_IN_HEADER) from exc
        except RecursionError as exc:
            raise FileFault(FileState.REFUSED, _TOO_DEEP) from exc
        except (
            pydicom.errors.InvalidDicomError,
            pydicom.errors.BytesLengthException,
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
            NotImplementedError,
        ) as exc:
            raise FileFault(FileState.NOT_DICOM if bare else FileState.REFUSED, "its header cannot be read") from exc
    if bare and TAG["SOPClassUID"] not in elements:
        raise FileFault(FileState.NOT_DICOM, _NO_MARK)
    implicit, little = dataset.original_encoding
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    if not syntax:
        syntax = EXPLICIT_BIG if not little else IMPLICIT_LITTLE if implicit else EXPLICIT_LITTLE
    return Header(
        path=path,
        size=size,
        syntax=syntax,
        little=little is not False,
        elements=elements,
        pixels=pixels,
        by_pydicom=True,
    )


def _raw(dataset: Dataset, tag: int, vr: str) -> tuple[str, bytes]:
    """Return an element's VR and bytes, as they stand in the file."""
    raw = cast("RawDataElement", dataset.get_item(tag, keep_deferred=True))
    if not hasattr(raw, "length"):  # pydicom has read it already: a sequence without length, or the character set
        done = dataset[tag]
        values = done.value if done.VM > 1 else [done.value]
        return done.VR, b"" if done.VR == "SQ" else "\\".join(map(str, values)).encode("latin-1")
    if raw.value is not None and raw.length != len(raw.value):
        raise FileFault(FileState.TRUNCATED, _ENDS_IN_HEADER)
    return (vr if raw.VR is None or raw.VR == "UN" else raw.VR), raw.value or b""


def _pixel_data(dataset: Dataset, tag: int) -> PixelData:
    raw = cast("RawDataElement", dataset.get_item(tag, keep_deferred=True))
    return PixelData(tag=tag, offset=raw.value_tell, length=None if raw.length == _UNDEFINED else raw.length)
