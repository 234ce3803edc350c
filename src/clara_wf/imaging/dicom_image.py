"""One DICOM file as what it is: an image whose frames have a place in the patient, or something else and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clara_wf.imaging.dicom_attributes import TAG
from clara_wf.imaging.dicom_header import (
    DEFLATED,
    NATIVE,
    Header,
    HeaderFault,
    check_fragments,
    parse_text,
    read_header,
)
from clara_wf.imaging.dicom_states import FileFault, FileState

#: What a UID may be (PS3.5 section 9.1). Zeros in front of a component are wrong but common, and do no harm.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_DICOMDIR: Final = "1.2.840.10008.1.3.10"
_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
#: SOP classes that carry pixels but are no image of the patient: segmentations, parametric maps, dose, presentation ...
_NOT_IMAGES: Final = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose grid",
}
#: Planes with a longer side are no CT, MR or PET slice, and a lie about the size must not reserve gigabytes.
MAX_SIDE: Final = 8192
#: Direction cosines are written with at least four decimals; further off than this they are no rotation.
_DIRECTION_TOLERANCE: Final = 1e-3
#: What may tell time points, echoes or diffusion weightings at one place apart.
TIME_KEYS: Final = (
    "TemporalPositionIdentifier",
    "TriggerTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "EchoNumbers",
    "EchoTime",
    "AcquisitionNumber",
    "AcquisitionDateTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "ContentDate",
    "ContentTime",
    "ImageType",
)
_TIME_TAGS: Final = tuple((key, TAG[key]) for key in TIME_KEYS)
_BINARY_TIMES: Final = frozenset({"DiffusionBValue", "DiffusionGradientOrientation"})

Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelFormat:
    """How a frame's pixels are written."""

    syntax: str  # Transfer Syntax UID
    rows: int
    columns: int
    bits_allocated: int  # 8, 16 or 32
    bits_stored: int  # the bits above them mean nothing
    high_bit: int  # the highest of them
    signed: bool  # two's complement

    @property
    def frame_bytes(self) -> int:
        """Size of a frame that is not compressed."""
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One plane of pixels: where it is, and how its stored values become real ones."""

    path: Path  # the file
    sop_class_uid: str
    sop_instance_uid: str
    number: int | None  # frame number from 1; None for a file of one frame
    format: PixelFormat
    offset: int | None  # bytes from the file's begin; None if pydicom has to decode the frame
    position: Vector  # LPS mm of the first pixel's centre
    row_direction: Vector  # unit vector along which the column index grows
    column_direction: Vector  # unit vector along which the row index grows
    spacing: tuple[float, float]  # mm between rows, between columns
    thickness: float | None  # SliceThickness, mm
    gap: float | None  # SpacingBetweenSlices, mm
    slope: float  # real = stored * slope + intercept
    intercept: float
    padding: tuple[int, int] | None  # stored values from, to, that are no part of the image
    times: Mapping[str, str] = field(default_factory=dict)  # values of TIME_KEYS


@dataclass(frozen=True, kw_only=True, slots=True)
class DicomFile:
    """A file, read as far as its header goes."""

    name: str  # relative to the folder that was read
    path: Path
    state: FileState  # READ as long as nothing speaks against it
    reason: str = ""  # why it is not read
    damages: bool = False  # its series lacks a slice without it
    series_uid: str = ""
    study_uid: str = ""
    sop_instance_uid: str = ""
    frame_of_reference_uid: str = ""
    patient_id: bytes = b""  # to tell patients apart; never written anywhere
    patient_name: bytes = b""  # likewise
    modality: str = ""
    image_type: tuple[str, ...] = ()
    photometric: str = ""
    units: str = ""
    frames: tuple[Frame, ...] = ()


def is_uid(text: str) -> bool:
    """Say whether a text is a UID, and so safe as a part of a file name."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_file(path: Path, name: str) -> DicomFile:
    """Read what a regular file is. What is wrong with it is said by its state, not by an exception."""
    try:
        header = read_header(path)
    except HeaderFault as fault:
        return _described(fault.part, name, fault.state, fault.message, damages=True)
    except FileFault as fault:
        return DicomFile(name=name, path=path, state=fault.state, reason=fault.message)
    except OSError as exc:
        reason = exc.strerror or "the system refuses to read it"
        return DicomFile(name=name, path=path, state=FileState.UNREADABLE, reason=reason)
    try:
        _check_kind(header)
        _check_uids(header)
        frames = _frames(header)
    except FileFault as fault:
        damages = fault.state in {FileState.REFUSED, FileState.TRUNCATED} and not isinstance(fault, _Harmless)
        return _described(header, name, fault.state, fault.message, damages=damages)
    return _described(header, name, FileState.READ, frames=frames)


class _Harmless(FileFault):
    """A refused image that was never a slice of its series' volume."""


def _described(
    header: Header,
    name: str,
    state: FileState,
    reason: str = "",
    *,
    damages: bool = False,
    frames: tuple[Frame, ...] = (),
) -> DicomFile:
    element = header.elements.get
    series, study = header.text("SeriesInstanceUID"), header.text("StudyInstanceUID")
    modality = header.text("Modality")
    units = header.text("RescaleType") or ("HU" if modality == "CT" else "")
    return DicomFile(
        name=name,
        path=header.path,
        state=state,
        reason=reason,
        damages=damages,
        series_uid=series if is_uid(series) else "",
        study_uid=study if is_uid(study) else "",
        sop_instance_uid=header.text("SOPInstanceUID"),
        frame_of_reference_uid=header.text("FrameOfReferenceUID"),
        patient_id=element(0x00100020, ("", b""))[1].strip(b" \0"),
        patient_name=element(0x00100010, ("", b""))[1].strip(b" \0"),
        modality=modality,
        image_type=tuple(header.text("ImageType").split("\\")) if "ImageType" in header else (),
        photometric=header.text("PhotometricInterpretation"),
        units="" if units == "US" else units,
        frames=frames,
    )


def _check_kind(header: Header) -> None:
    """Refuse what is no image of the patient that could be a slice."""
    sop_class = header.text("SOPClassUID")
    if sop_class == _DICOMDIR:
        raise FileFault(FileState.DICOMDIR, "a list of files, no image")
    if sop_class in _NOT_IMAGES:
        raise FileFault(FileState.NOT_IMAGE, _NOT_IMAGES[sop_class])
    if header.pixels is None:
        if "Rows" in header or "BitsAllocated" in header:
            raise FileFault(FileState.REFUSED, "it describes an image but has no pixel data")
        raise FileFault(FileState.NOT_IMAGE, f"no pixel data (modality {header.text('Modality') or 'not given'})")
    if sop_class.startswith(_SECONDARY_CAPTURE):
        raise FileFault(FileState.SECONDARY_CAPTURE, "a secondary capture (a screen-shot or the like), no slice")
    if "LOCALIZER" in header.text("ImageType").split("\\"):
        raise FileFault(FileState.LOCALIZER, "ImageType says LOCALIZER: an overview, no slice of the volume")
    colour = header.text("PhotometricInterpretation")
    if header.integer("SamplesPerPixel", 1) != 1 or not colour.startswith("MONOCHROME"):
        raise _Harmless(FileState.REFUSED, f"colour ({colour or 'no PhotometricInterpretation'}), not grey values")
    if header.pixels.tag != 0x7FE00010:
        raise FileFault(FileState.REFUSED, "its pixels are floating-point numbers, which no CT or MR image has")


def _check_uids(header: Header) -> None:
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        uid = header.text(keyword)
        if not uid:
            raise FileFault(FileState.REFUSED, f"{keyword} is missing or empty: nothing could refer to this image")
        if not is_uid(uid):
            raise FileFault(FileState.REFUSED, f"{keyword} is no UID (digits and dots, at most 64)")


def _frames(header: Header) -> tuple[Frame, ...]:
    if "ModalityLUTSequence" in header:
        raise FileFault(FileState.REFUSED, "its values go through a Modality LUT, which is not supported")
    pixel_format = read_format(header)
    count = header.integer("NumberOfFrames", 1)
    if count < 1:
        raise FileFault(FileState.REFUSED, f"NumberOfFrames is {count}")
    _check_length(header, pixel_format, count)
    check_fragments(header)
    if "PerFrameFunctionalGroupsSequence" in header:
        from clara_wf.imaging.dicom_multiframe import read_frames  # here, since it needs pydicom

        return read_frames(header, pixel_format, count)
    if count > 1:
        raise FileFault(FileState.REFUSED, f"it has {count} frames, but does not say where each of them is")
    return (_single_frame(header, pixel_format),)


def read_format(header: Header) -> PixelFormat:
    """Read how the pixels are written, and refuse what cannot be."""
    rows, columns = header.integer("Rows", 0), header.integer("Columns", 0)
    allocated = header.integer("BitsAllocated", 0)
    stored = header.integer("BitsStored", allocated)
    high = header.integer("HighBit", stored - 1)
    if not (rows > 0 and columns > 0):
        raise FileFault(FileState.REFUSED, f"an image of {rows} rows and {columns} columns")
    if allocated not in {8, 16, 32} or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise FileFault(FileState.REFUSED, f"BitsAllocated {allocated}, BitsStored {stored}, HighBit {high}")
    signed = header.integer("PixelRepresentation", 0)
    if signed not in {0, 1}:
        raise FileFault(FileState.REFUSED, f"PixelRepresentation is {signed}")
    return PixelFormat(
        syntax=header.syntax,
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=signed == 1,
    )


def _check_length(header: Header, pixel_format: PixelFormat, count: int) -> None:
    """Hold what the header says of its size against the bytes that are there."""
    pixels = header.pixels
    if pixels is not None and pixels.length is not None:
        needed = pixel_format.frame_bytes * count
        in_file = pixels.length if header.syntax == DEFLATED else header.size - pixels.offset
        if min(pixels.length, in_file) < needed:
            raise FileFault(
                FileState.TRUNCATED, f"it has {min(pixels.length, in_file)} of the {needed} bytes of its pixels"
            )
        if pixels.length >= needed + pixel_format.frame_bytes:
            raise FileFault(FileState.REFUSED, f"it has {pixels.length} bytes of pixels where its header says {needed}")
    if max(pixel_format.rows, pixel_format.columns) > MAX_SIDE:
        raise FileFault(
            FileState.REFUSED, f"{pixel_format.rows} rows and {pixel_format.columns} columns; {MAX_SIDE} is the most"
        )


def _single_frame(header: Header, pixel_format: PixelFormat) -> Frame:
    position = header.numbers("ImagePositionPatient")
    directions = header.numbers("ImageOrientationPatient")
    if not position or not directions:
        missing = "ImageOrientationPatient" if position else "ImagePositionPatient"
        raise FileFault(FileState.REFUSED, f"{missing} is missing: where it is in the patient is not known")
    row, column = check_directions(directions)
    native = header.syntax in NATIVE and header.pixels is not None and header.pixels.length is not None
    slope = header.number("RescaleSlope")
    return Frame(
        path=header.path,
        sop_class_uid=header.text("SOPClassUID"),
        sop_instance_uid=header.text("SOPInstanceUID"),
        number=None,
        format=pixel_format,
        offset=header.pixels.offset if native and header.pixels is not None else None,
        position=check_position(position),
        row_direction=row,
        column_direction=column,
        spacing=check_spacing(header.numbers("PixelSpacing")),
        thickness=header.number("SliceThickness"),
        gap=header.number("SpacingBetweenSlices"),
        slope=check_slope(1.0 if slope is None else slope),
        intercept=header.number("RescaleIntercept") or 0.0,
        padding=read_padding(header, pixel_format),
        times=_times(header),
    )


def _times(header: Header) -> dict[str, str]:
    element = header.elements.get
    times = {key: parse_text(found[1]) for key, tag in _TIME_TAGS if (found := element(tag)) is not None}
    for key in _BINARY_TIMES & times.keys():
        times[key] = " ".join(map(repr, header.numbers(key)))
    return times


def check_position(numbers: tuple[float, ...]) -> Vector:
    """Return ImagePositionPatient, or refuse it."""
    if len(numbers) != 3:
        raise FileFault(FileState.REFUSED, f"ImagePositionPatient has {len(numbers)} numbers where 3 are needed")
    return (numbers[0], numbers[1], numbers[2])


def check_directions(numbers: tuple[float, ...]) -> tuple[Vector, Vector]:
    """Return both vectors of ImageOrientationPatient as exact perpendicular unit vectors, or refuse them."""
    if len(numbers) != 6:
        raise FileFault(FileState.REFUSED, f"ImageOrientationPatient has {len(numbers)} numbers where 6 are needed")
    row, column = numbers[:3], numbers[3:]
    dot = sum(a * b for a, b in zip(row, column, strict=True))
    row_length = sum(a * a for a in row) ** 0.5
    column_length = sum(a * a for a in column) ** 0.5
    if max(abs(row_length - 1), abs(column_length - 1), abs(dot)) > _DIRECTION_TOLERANCE:
        raise FileFault(
            FileState.REFUSED, f"ImageOrientationPatient {list(numbers)} are not two perpendicular unit vectors"
        )
    row = tuple(a / row_length for a in row)
    dot /= row_length
    column = tuple(b - dot * a for a, b in zip(row, column, strict=True))
    column_length = sum(a * a for a in column) ** 0.5
    return (row[0], row[1], row[2]), (
        column[0] / column_length,
        column[1] / column_length,
        column[2] / column_length,
    )


def check_spacing(numbers: tuple[float, ...]) -> tuple[float, float]:
    """Return PixelSpacing (mm between rows, between columns), or refuse it."""
    if not numbers:
        raise FileFault(FileState.REFUSED, "PixelSpacing is missing: its size in the patient is not known")
    if len(numbers) != 2 or min(numbers) <= 0:
        raise FileFault(FileState.REFUSED, f"PixelSpacing is {list(numbers)} where two positive numbers are needed")
    return (numbers[0], numbers[1])


def check_slope(slope: float) -> float:
    """Return RescaleSlope, or refuse it."""
    if slope == 0:
        raise FileFault(FileState.REFUSED, "RescaleSlope is 0: its values mean nothing")
    return slope


def read_padding(header: Header, pixel_format: PixelFormat) -> tuple[int, int] | None:
    """Return the range of stored values that are no part of the image, ends included."""
    bounds = [
        int(value)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        for value in header.numbers(keyword)[:1]
    ]
    if not bounds:
        return None
    # The elements are read as unsigned whatever their VR; the pixels say what they are.
    bits = pixel_format.bits_allocated
    wrapped = [bound - (1 << bits) if pixel_format.signed and bound >= 1 << (bits - 1) else bound for bound in bounds]
    return min(wrapped), max(wrapped)
