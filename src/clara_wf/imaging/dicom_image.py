"""One DICOM file as what it is: an image whose frames have a place in the patient, or something else and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clara_wf.imaging.dicom_attributes import FILE, TAG
from clara_wf.imaging.dicom_frame import (
    MAX_SIDE,
    TIME_KEYS,
    Frame,
    PixelFormat,
    check_directions,
    check_position,
    check_slope,
    check_spacing,
    native_offset,
    read_format,
    read_padding,
    read_units,
)
from clara_wf.imaging.dicom_header import (
    DEFLATED,
    Header,
    HeaderFault,
    check_fragments,
    parse_text,
    read_header,
)
from clara_wf.imaging.dicom_projection import Projection, is_projection, read_projection
from clara_wf.imaging.dicom_states import FileFault, FileState

#: What a UID may be (PS3.5 section 9.1). Zeros in front of a component are wrong but common, and do no harm.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
#: Defined terms of Modality (PS3.3 C.7.3.1.1.1) have two to eight capitals; those of images have two or three.
_MODALITY: Final = re.compile(r"[A-Z]{2,3}|RTIMAGE|RTDOSE|RTSTRUCT|RTPLAN|RTRECORD|FIDUCIAL|CTPROTOCOL")
_PHOTOMETRIC: Final = frozenset(
    {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "HSV", "ARGB", "CMYK", "XYB"}
    | {"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}
)
_DICOMDIR: Final = "1.2.840.10008.1.3.10"
_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
#: SOP classes that carry pixels but are no image of the patient: segmentations, parametric maps, dose, presentation ...
_NOT_IMAGES: Final = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose grid",
}
#: SOP classes of images of the patient that are nothing without pixels: CT, MR and PET, single- and multi-frame.
_IMAGES: Final = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{last}" for last in ("2", "2.1", "2.2", "4", "4.1", "4.4", "128", "128.1", "130")
)
_TIME_TAGS: Final = tuple((key, TAG[key]) for key in TIME_KEYS)
_BINARY_TIMES: Final = frozenset({"DiffusionBValue", "DiffusionGradientOrientation"})


@dataclass(frozen=True, kw_only=True, slots=True)
class DicomFile:
    """A file, read as far as its header goes."""

    name: str  # relative to the folder that was read
    path: Path
    state: FileState  # READ or PROJECTION as long as nothing speaks against it
    reason: str = ""  # why it is not read
    damages: bool = False  # its series, which may not be known, lacks a slice without it
    series_uid: str = ""
    study_uid: str = ""
    sop_instance_uid: str = ""
    frame_of_reference_uid: str = ""
    patient_id: bytes = b""  # to tell patients apart; never written anywhere
    patient_name: bytes = b""  # likewise
    modality: str = ""
    image_type: tuple[str, ...] = ()
    photometric: str = ""
    frames: tuple[Frame, ...] = ()
    projection: Projection | None = None


def is_uid(text: str) -> bool:
    """Say whether a text is a UID, and so safe as a part of a file name."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_file(path: Path, name: str) -> DicomFile:
    """Read what a regular file is. What is wrong with it is said by its state, not by an exception."""
    try:
        header = read_header(path, FILE)
    except HeaderFault as fault:
        return _described(fault.part, name, fault.state, fault.message, damages=True)
    except FileFault as fault:
        damages = fault.state in {FileState.REFUSED, FileState.TRUNCATED}  # it begins as DICOM does
        return DicomFile(name=name, path=path, state=fault.state, reason=fault.message, damages=damages)
    except OSError as exc:
        reason = exc.strerror or "the system refuses to read it"
        return DicomFile(name=name, path=path, state=FileState.UNREADABLE, reason=reason)
    try:
        if is_projection(header):
            return _described(header, name, FileState.PROJECTION, projection=_projection(header))
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
    projection: Projection | None = None,
) -> DicomFile:
    element = header.elements.get
    series, study = header.text("SeriesInstanceUID"), header.text("StudyInstanceUID")
    frame_of_reference = header.text("FrameOfReferenceUID")
    return DicomFile(
        name=name,
        path=header.path,
        state=state,
        reason=reason,
        damages=damages,
        series_uid=series if is_uid(series) else "",
        study_uid=study if is_uid(study) else "",
        sop_instance_uid=header.text("SOPInstanceUID"),
        frame_of_reference_uid=frame_of_reference if is_uid(frame_of_reference) else "",
        patient_id=element(0x00100020, ("", b""))[1].strip(b" \0"),
        patient_name=element(0x00100010, ("", b""))[1].strip(b" \0"),
        modality=_modality(header),
        image_type=tuple(header.text("ImageType").split("\\")) if "ImageType" in header else (),
        photometric=_photometric(header),
        frames=frames,
        projection=projection,
    )


def _modality(header: Header) -> str:
    """Return the modality; nothing where it is no code, but a text: it is repeated in messages."""
    text = header.text("Modality")
    return text if _MODALITY.fullmatch(text) else ""


def _photometric(header: Header) -> str:
    """Return the photometric interpretation if it is one (PS3.3 C.7.6.3.1.2): it is repeated in messages."""
    text = header.text("PhotometricInterpretation")
    return text if text in _PHOTOMETRIC else ""


def _check_kind(header: Header) -> None:
    """Refuse what is no image of the patient that could be a slice."""
    sop_class = header.text("SOPClassUID")
    if sop_class == _DICOMDIR:
        raise FileFault(FileState.DICOMDIR, "a list of files, no image")
    if sop_class in _NOT_IMAGES:
        raise FileFault(FileState.NOT_IMAGE, _NOT_IMAGES[sop_class])
    if header.pixels is None:
        # A file may be cut off between two elements, before the first that describes its pixels.
        if "Rows" in header or "BitsAllocated" in header or sop_class in _IMAGES:
            raise FileFault(FileState.REFUSED, "it describes an image but has no pixel data")
        raise FileFault(FileState.NOT_IMAGE, f"no pixel data (modality {_modality(header) or 'not given'})")
    if sop_class.startswith(_SECONDARY_CAPTURE):
        raise FileFault(FileState.SECONDARY_CAPTURE, "a secondary capture (a screen-shot or the like), no slice")
    if "LOCALIZER" in header.text("ImageType").split("\\"):
        raise FileFault(FileState.LOCALIZER, "ImageType says LOCALIZER: an overview, no slice of the volume")
    colour = _photometric(header)
    if header.integer("SamplesPerPixel", 1) != 1 or not colour.startswith("MONOCHROME"):
        told = colour or "no known PhotometricInterpretation"
        raise _Harmless(FileState.REFUSED, f"colour ({told}), not grey values")
    if header.pixels.tag != 0x7FE00010:
        raise FileFault(FileState.REFUSED, "its pixels are floating-point numbers, which no CT or MR image has")


def _check_uids(header: Header) -> None:
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        uid = header.text(keyword)
        if not uid:
            raise FileFault(FileState.REFUSED, f"{keyword} is missing or empty: nothing could refer to this image")
        if not is_uid(uid):
            raise FileFault(FileState.REFUSED, f"{keyword} is no UID (digits and dots, at most 64)")


def _projection(header: Header) -> Projection:
    if header.pixels is None or header.pixels.tag != 0x7FE00010:
        raise FileFault(FileState.REFUSED, "it describes a projection but has no pixel data of whole numbers")
    _check_uids(header)
    if header.integer("NumberOfFrames", 1) != 1:
        raise FileFault(FileState.REFUSED, "a projection of several frames is not supported")
    pixel_format = read_format(header)
    _check_length(header, pixel_format, 1)
    check_fragments(header)
    return read_projection(header, pixel_format)


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
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    return Frame(
        path=header.path,
        sop_class_uid=header.text("SOPClassUID"),
        sop_instance_uid=header.text("SOPInstanceUID"),
        number=None,
        format=pixel_format,
        offset=native_offset(header),
        position=check_position(position),
        row_direction=row,
        column_direction=column,
        spacing=check_spacing(header.numbers("PixelSpacing")),
        thickness=header.number("SliceThickness"),
        gap=header.number("SpacingBetweenSlices"),
        slope=check_slope(1.0 if slope is None else slope),
        intercept=0.0 if intercept is None else intercept,
        padding=read_padding(header, pixel_format),
        rescale=(slope is not None, intercept is not None),
        units=read_units(header.text("RescaleType"), header.text("Modality")),
        times=_times(header),
    )


def _times(header: Header) -> dict[str, str]:
    element = header.elements.get
    times = {key: parse_text(found[1]) for key, tag in _TIME_TAGS if (found := element(tag)) is not None}
    for key in _BINARY_TIMES & times.keys():
        # They only tell frames apart, so one that is not finite spoils nothing.
        times[key] = " ".join(map(repr, header.numbers(key, finite=False)))
    return times
