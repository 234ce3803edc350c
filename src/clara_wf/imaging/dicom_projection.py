"""A projection in DICOM-CT-PD: one view of a scan in one file, as its private attributes tell it.

Source: Chen et al., "Development and validation of an open data format for CT projection data", Med Phys 42 (2015);
Moen et al., "Low-dose CT image and projection dataset", Med Phys 48 (2021), Table IV.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from clara_wf.imaging.dicom_attributes import TAG
from clara_wf.imaging.dicom_frame import PixelFormat, Pixels, check_slope, native_offset
from clara_wf.imaging.dicom_header import Header
from clara_wf.imaging.dicom_states import FileFault, FileState

#: These make a file a projection. One may be missing, of a broken one; another vendor's private attributes may have the
#: tag of one or two.
_MARKS: Final = (
    "NumberofDetectorRows",
    "NumberofDetectorColumns",
    "DetectorFocalCenterAngularPosition",
    "DetectorFocalCenterRadialDistance",
)
_ENOUGH_MARKS: Final = 3
#: What a projection is of no use without.
_NEEDED: Final = (
    "InstanceNumber",
    "DetectorElementTransverseSpacing",
    "DetectorElementAxialSpacing",
    "DetectorShape",
    "NumberofDetectorRows",
    "NumberofDetectorColumns",
    "DetectorFocalCenterAngularPosition",
    "DetectorFocalCenterAxialPosition",
    "DetectorFocalCenterRadialDistance",
    "ConstantRadialDistance",
    "DetectorCentralElement",
    "LogFlag",
    "RescaleSlope",
    "RescaleIntercept",
)
_SHIFTS: Final = ("SourceAngularPositionShift", "SourceAxialPositionShift", "SourceRadialDistanceShift")
#: Any other value may be anything, a name as well, and is not repeated.
_CODE: Final = re.compile(r"[A-Z_ ]{1,16}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection(Pixels):
    """A view of a scan. Angles are in radians, lengths in mm, in the frame of the format's manual."""

    instance_number: int  # the order of views
    rows: int  # of the detector
    columns: int
    transposed: bool  # the rows of its matrix are the columns of the detector
    curved: bool  # about the focal centre
    row_spacing: float
    column_spacing: float
    central_row: float  # counted from 1
    central_column: float
    source_radius: float  # of the focal centre about the axis of rotation
    source_to_detector: float
    angle: float  # of the focal centre
    axial: float
    spot: tuple[float, float, float]  # how far the focal spot is from the focal centre: angle, axial, radial
    spectrum: int
    helical: bool  # False: the table stands still
    patient_position: str  # empty: not said
    by_ge: bool  # by a scanner of GE
    water_attenuation: float | None  # 1/mm
    photons: float | None  # of a ray in air: the mean of the columns

    @property
    def detector(self) -> tuple[object, ...]:
        """What has to be the same in all views of a scan."""
        return self.rows, self.columns, self.transposed, self.curved, self.format

    @property
    def distances(self) -> dict[str, float]:
        """What has to be the same in all views of a scan but for rounding."""
        return {
            "DetectorElementAxialSpacing": self.row_spacing,
            "DetectorElementTransverseSpacing": self.column_spacing,
            "DetectorCentralElement X": self.central_column,
            "DetectorCentralElement Y": self.central_row,
            "DetectorFocalCenterRadialDistance": self.source_radius,
            "ConstantRadialDistance": self.source_to_detector,
        }


def is_projection(header: Header) -> bool:
    """Say whether a file is a projection, be it a broken one."""
    return sum(keyword in header for keyword in _MARKS) >= _ENOUGH_MARKS


def read_projection(header: Header, pixel_format: PixelFormat) -> Projection:
    """Read a projection, and refuse what is missing or cannot be used.

    Raises
    ------
    FileFault
        The reason, with the attribute's name and tag.
    """
    missing = [keyword for keyword in _NEEDED if not _is_given(header, keyword)]
    if _code(header, "FlyingFocalSpotMode") not in {"", "FFSNONE"}:
        missing += [keyword for keyword in _SHIFTS if not _is_given(header, keyword)]
    if missing:
        raise _refused(f"{', '.join(map(_named, missing))} {'is' if len(missing) == 1 else 'are'} missing")
    _check_kind(header)
    rows, columns = header.integer("NumberofDetectorRows", 0), header.integer("NumberofDetectorColumns", 0)
    slope, water = header.number("RescaleSlope"), header.number("WaterAttenuationCoefficient")
    column, row = _numbers(header, "DetectorCentralElement", 2)
    (angle,) = _numbers(header, "DetectorFocalCenterAngularPosition", 1)
    (axial,) = _numbers(header, "DetectorFocalCenterAxialPosition", 1)
    turn, along, away = (_numbers(header, name, 1)[0] if _is_given(header, name) else 0.0 for name in _SHIFTS)
    return Projection(
        path=header.path,
        sop_class_uid=header.text("SOPClassUID"),
        sop_instance_uid=header.text("SOPInstanceUID"),
        number=None,
        format=pixel_format,
        offset=native_offset(header),
        slope=check_slope(1.0 if slope is None else slope),
        intercept=header.number("RescaleIntercept") or 0.0,
        instance_number=header.integer("InstanceNumber", 0),
        rows=rows,
        columns=columns,
        transposed=_is_transposed(pixel_format, rows, columns),
        curved=header.text("DetectorShape") == "CYLINDRICAL",
        row_spacing=_length(header, "DetectorElementAxialSpacing"),
        column_spacing=_length(header, "DetectorElementTransverseSpacing"),
        central_row=row,
        central_column=column,
        source_radius=_length(header, "DetectorFocalCenterRadialDistance"),
        source_to_detector=_length(header, "ConstantRadialDistance"),
        angle=angle,
        axial=axial,
        spot=(turn, along, away),
        spectrum=header.integer("SpectrumIndex", 1),
        helical=header.text("TypeofProjectionData") != "AXIAL",
        patient_position=_code(header, "PatientPosition"),
        by_ge=header.text("Manufacturer").upper().startswith("GE"),
        water_attenuation=water if water is not None and water > 0 else None,
        photons=_photons(header),
    )


def _check_kind(header: Header) -> None:
    """Refuse what is no set of rays that we know."""
    if header.text("LogFlag") != "YES":
        raise _refused(
            f"{_named('LogFlag')} is {_code(header, 'LogFlag') or 'no code'}: its values are no line integrals"
        )
    if header.text("DetectorShape") not in {"CYLINDRICAL", "FLAT"}:
        shape = _code(header, "DetectorShape") or "no code"
        raise _refused(f"{_named('DetectorShape')} is {shape}: only CYLINDRICAL and FLAT detectors are supported")
    if "PARALLEL" in (geometry := _code(header, "TypeofProjectionGeometry")):
        raise _refused(f"{_named('TypeofProjectionGeometry')} is {geometry}: rebinned rays are not supported")


def _is_transposed(pixel_format: PixelFormat, rows: int, columns: int) -> bool:
    """Say whether the matrix has the detector's columns as its rows; where both fit, it has not."""
    matrix = (pixel_format.rows, pixel_format.columns)
    if matrix not in {(rows, columns), (columns, rows)}:
        raise _refused(
            f"its matrix is {matrix[0]} x {matrix[1]}, and its detector has {rows} rows and {columns} columns"
        )
    return matrix != (rows, columns)


def _is_given(header: Header, keyword: str) -> bool:
    return bool(header.elements.get(TAG[keyword], ("", b""))[1].strip(b" "))


def _numbers(header: Header, keyword: str, count: int) -> tuple[float, ...]:
    numbers = header.numbers(keyword, finite=False)
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        wanted = "a finite number" if count == 1 else f"{count} finite numbers"
        raise _refused(f"{_named(keyword)} is not {wanted}")
    return numbers


def _photons(header: Header) -> float | None:
    """Return the mean of PhotonStatistics, which has one value or one for each column; None if it says nothing."""
    given = header.numbers("PhotonStatistics", finite=False)
    numbers = [number for number in given if math.isfinite(number) and number > 0]
    return sum(numbers) / len(numbers) if numbers else None


def _length(header: Header, keyword: str) -> float:
    (number,) = _numbers(header, keyword, 1)
    if not number > 0:
        raise _refused(f"{_named(keyword)} is {number:g} mm")
    return number


def _code(header: Header, keyword: str) -> str:
    """Return a text that messages may repeat; nothing if it is no code."""
    text = header.text(keyword)
    return text if _CODE.fullmatch(text) else ""


def _refused(reason: str) -> FileFault:
    return FileFault(FileState.REFUSED, reason)


def _named(keyword: str) -> str:
    return f"{keyword} ({TAG[keyword] >> 16:04X},{TAG[keyword] & 0xFFFF:04X})"
