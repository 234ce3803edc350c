"""A frame: one plane of pixels, where it is in the patient, and how its values are written."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clara_wf.imaging.dicom_header import NATIVE, Header
from clara_wf.imaging.dicom_states import FileFault, FileState

#: Planes with a longer side are no CT, MR or PET slice, and a lie about the size must not reserve gigabytes.
MAX_SIDE: Final = 8192
#: Direction cosines are written with at least four decimals; further off than this they are no rotation.
_DIRECTION_TOLERANCE: Final = 1e-3
#: A hundred metres from the frame of reference's origin is a broken number.
_FARTHEST_MM: Final = 1e5
#: Micro-CT has pixels of a micrometre, the coarsest nuclear images of a few centimetres.
_SMALLEST_PIXEL_MM: Final = 1e-4
_LARGEST_PIXEL_MM: Final = 1e3
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
class Pixels:
    """One plane of pixels: where it lies in its file, and how its stored values become real ones."""

    path: Path  # the file
    sop_class_uid: str
    sop_instance_uid: str
    number: int | None  # frame number from 1; None for a file of one frame
    format: PixelFormat
    offset: int | None  # bytes from the file's begin; None if pydicom has to decode the frame
    slope: float  # real = stored * slope + intercept
    intercept: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame(Pixels):
    """A plane of pixels with a place in the patient."""

    position: Vector  # LPS mm of the first pixel's centre
    row_direction: Vector  # unit vector along which the column index grows
    column_direction: Vector  # unit vector along which the row index grows
    spacing: tuple[float, float]  # mm between rows, between columns
    thickness: float | None  # SliceThickness, mm
    gap: float | None  # SpacingBetweenSlices, mm
    padding: tuple[int, int] | None  # stored values from, to, that are no part of the image
    rescale: tuple[bool, bool]  # whether RescaleSlope, RescaleIntercept are given; else they are taken as 1 and 0
    units: str  # of the real values, from RescaleType: HU, Z_EFF; empty if they are not said
    times: Mapping[str, str] = field(default_factory=dict)  # values of TIME_KEYS


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


def native_offset(header: Header) -> int | None:
    """Return where the pixels of a file of one frame begin; None if pydicom has to decode them."""
    if header.pixels is None or header.pixels.length is None or header.syntax not in NATIVE:
        return None
    return header.pixels.offset


def check_position(numbers: tuple[float, ...]) -> Vector:
    """Return ImagePositionPatient, or refuse it."""
    if len(numbers) != 3:
        raise FileFault(FileState.REFUSED, f"ImagePositionPatient has {len(numbers)} numbers where 3 are needed")
    if max(map(abs, numbers)) > _FARTHEST_MM:
        raise FileFault(FileState.REFUSED, f"ImagePositionPatient is {list(numbers)} mm, which is in no scanner")
    return (numbers[0], numbers[1], numbers[2])


@functools.lru_cache(maxsize=256)  # slices of a series have them in common
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
    if min(numbers) < _SMALLEST_PIXEL_MM or max(numbers) > _LARGEST_PIXEL_MM:
        raise FileFault(FileState.REFUSED, f"PixelSpacing is {list(numbers)} mm, which no scanner has")
    return (numbers[0], numbers[1])


def check_slope(slope: float) -> float:
    """Return RescaleSlope, or refuse it."""
    if slope == 0:
        raise FileFault(FileState.REFUSED, "RescaleSlope is 0: its values mean nothing")
    return slope


def read_units(rescale_type: str, modality: str) -> str:
    """Return the units of real values; empty if RescaleType says "US", unspecified (PS3.3 C.11.1.1.2).

    CT images without RescaleType are in HU (PS3.3 C.8.2.1).
    """
    units = rescale_type.strip() or ("HU" if modality == "CT" else "")
    return "" if units == "US" else units


def read_padding(header: Header, pixel_format: PixelFormat) -> tuple[int, int] | None:
    """Return the range of stored values that are no part of the image, ends included."""
    bounds = [
        int(value)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        for value in header.numbers(keyword)[:1]
    ]
    if not bounds:
        return None
    # Their VR is US or SS and need not fit PixelRepresentation: the bits are meant, as the pixels have them.
    bits = pixel_format.bits_allocated
    words = [bound % (1 << bits) for bound in bounds]
    if pixel_format.signed:
        words = [word - (1 << bits) if word >= 1 << (bits - 1) else word for word in words]
    elif len({bound < 0 for bound in bounds}) > 1:
        # As unsigned words, the range would begin at the high end and go on at 0.
        raise FileFault(FileState.REFUSED, "PixelPaddingValue or PixelPaddingRangeLimit is negative, the other is not")
    return min(words), max(words)
