"""The frames of an enhanced multi-frame image: each with its own place and scale.

What is the same for all frames stands once, in the shared functional groups; what differs stands with each frame.

Source: DICOM PS3.3 section C.7.6.16 (Multi-frame Functional Groups).
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Iterable, Sequence
from typing import Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from clara_wf.imaging.dicom_frame import (
    Frame,
    PixelFormat,
    check_directions,
    check_position,
    check_slope,
    check_spacing,
    read_padding,
    read_units,
)
from clara_wf.imaging.dicom_header import NATIVE, Header
from clara_wf.imaging.dicom_states import FileFault, FileState

#: What pydicom raises on values that are not what their VR says.
_BROKEN: Final = (
    *(AttributeError, LookupError, TypeError, ValueError, EOFError),
    *(NotImplementedError, OverflowError, RecursionError),
    *(struct.error, BytesLengthException, InvalidDicomError),
)
#: The macro that says how stored values become real ones.
_RESCALE: Final = "PixelValueTransformationSequence"
#: Attributes that may tell frames at one place apart: macro and attribute.
_TIMES: Final = (
    ("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", "TriggerTime"),
    ("MRDiffusionSequence", "DiffusionBValue", "DiffusionBValue"),
    ("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    ("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
    ("FrameContentSequence", "FrameAcquisitionDateTime", "AcquisitionDateTime"),
)


def read_frames(header: Header, pixel_format: PixelFormat, count: int) -> tuple[Frame, ...]:
    """Read where each frame is and how its values are scaled.

    Raises
    ------
    FileFault
        The functional groups do not say so for each of the `count` frames.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values, which may be a patient's
        try:
            # A file without preamble got here by its contents, so no mark is asked for.
            dataset = pydicom.dcmread(header.path, defer_size=65536, force=True)
            shared = _first(dataset, "SharedFunctionalGroupsSequence")
            groups = list(dataset.PerFrameFunctionalGroupsSequence)
            if len(groups) != count:
                raise FileFault(
                    FileState.REFUSED, f"NumberOfFrames is {count}, but it tells of the places of {len(groups)} frames"
                )
            # Converters leave the rescale where a single-frame image has it. It counts where the macro is nowhere.
            fallback = Dataset() if any(place.get(_RESCALE) for place in (*groups, shared)) else _rescale_item(dataset)
            return tuple(
                _frame(header, pixel_format, index, (group, shared, fallback)) for index, group in enumerate(groups)
            )
        except _BROKEN as exc:
            raise FileFault(FileState.REFUSED, "its functional groups cannot be read") from exc


def _first(dataset: Dataset, keyword: str) -> Dataset:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else Dataset()


def _rescale_item(dataset: Dataset) -> Dataset:
    """Return the macro that the data set's own rescale attributes would make."""
    item, place = Dataset(), Dataset()
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if keyword in dataset:
            item[keyword] = dataset[keyword]
    place.add_new(_RESCALE, "SQ", [item])
    return place


def _numbers(places: Iterable[Dataset], sequence: str, keyword: str) -> tuple[float, ...]:
    """Return an attribute's numbers from the first place that has it."""
    for place in places:
        value = _first(place, sequence).get(keyword)
        if value is not None and value != "":
            numbers = tuple(map(float, value)) if hasattr(value, "__iter__") else (float(value),)
            if not all(map(math.isfinite, numbers)):
                raise FileFault(FileState.REFUSED, f"{keyword} of a frame holds a number that is not finite")
            return numbers
    return ()


def _frame(header: Header, pixel_format: PixelFormat, index: int, groups: Sequence[Dataset]) -> Frame:
    position = _numbers(groups, "PlanePositionSequence", "ImagePositionPatient")
    if not position:
        raise FileFault(FileState.REFUSED, f"where frame {index + 1} is in the patient is not known")
    row, column = check_directions(_numbers(groups, "PlaneOrientationSequence", "ImageOrientationPatient"))
    thickness = _numbers(groups, "PixelMeasuresSequence", "SliceThickness")
    gap = _numbers(groups, "PixelMeasuresSequence", "SpacingBetweenSlices")
    slope = _numbers(groups, _RESCALE, "RescaleSlope")
    intercept = _numbers(groups, _RESCALE, "RescaleIntercept")
    native = header.syntax in NATIVE and header.pixels is not None and header.pixels.length is not None
    times = {name: _text(groups, sequence, keyword) for sequence, keyword, name in _TIMES}
    frame_type = _text(groups, "MRImageFrameTypeSequence", "FrameType")
    if frame_type:
        times["ImageType"] = frame_type
    return Frame(
        path=header.path,
        sop_class_uid=header.text("SOPClassUID"),
        sop_instance_uid=header.text("SOPInstanceUID"),
        number=index + 1,
        format=pixel_format,
        offset=header.pixels.offset + index * pixel_format.frame_bytes if native and header.pixels else None,
        position=check_position(position),
        row_direction=row,
        column_direction=column,
        spacing=check_spacing(_numbers(groups, "PixelMeasuresSequence", "PixelSpacing")),
        thickness=thickness[0] if thickness else None,
        gap=gap[0] if gap else None,
        slope=check_slope(slope[0] if slope else 1.0),
        intercept=intercept[0] if intercept else 0.0,
        padding=read_padding(header, pixel_format),
        rescale=(bool(slope), bool(intercept)),
        units=read_units(_text(groups, _RESCALE, "RescaleType"), header.text("Modality")),
        times={name: value for name, value in times.items() if value},
    )


def _text(places: Iterable[Dataset], sequence: str, keyword: str) -> str:
    for place in places:
        value = _first(place, sequence).get(keyword)
        if value is not None:
            return str(value)
    return ""
