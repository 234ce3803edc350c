"""Projections in DICOM-CT-PD, written by pydicom: the readers have no part in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

STUDY, SERIES, FRAME = "1.2.840.99.1", "1.2.840.99.7", "1.2.840.99.3"
ROWS, COLUMNS = 4, 6
#: VR and tag of the private attributes.
PRIVATE = {
    "DetectorElementTransverseSpacing": (0x70291002, "FL"),
    "DetectorElementAxialSpacing": (0x70291006, "FL"),
    "DetectorShape": (0x7029100B, "CS"),
    "NumberofDetectorRows": (0x70291010, "US"),
    "NumberofDetectorColumns": (0x70291011, "US"),
    "DetectorFocalCenterAngularPosition": (0x70311001, "FL"),
    "DetectorFocalCenterAxialPosition": (0x70311002, "FL"),
    "DetectorFocalCenterRadialDistance": (0x70311003, "FL"),
    "ConstantRadialDistance": (0x70311031, "FL"),
    "DetectorCentralElement": (0x70311033, "FL"),
    "SourceAngularPositionShift": (0x7033100B, "FL"),
    "SourceAxialPositionShift": (0x7033100C, "FL"),
    "SourceRadialDistanceShift": (0x7033100D, "FL"),
    "FlyingFocalSpotMode": (0x7033100E, "CS"),
    "SpectrumIndex": (0x70331063, "US"),
    "TypeofProjectionData": (0x70371009, "CS"),
    "TypeofProjectionGeometry": (0x7037100A, "CS"),
    "LogFlag": (0x70391009, "CS"),
    "WaterAttenuationCoefficient": (0x70411001, "DS"),
}
_PACKED = {"FL": "<f4", "US": "<u2"}


def _bytes(vr: str, value: Any) -> bytes:
    raw = np.array(value, _PACKED[vr]).tobytes() if vr in _PACKED else str(value).encode()
    return raw + b" " * (len(raw) % 2)


class Scan:
    """A folder that a test fills with projections of a helical scan."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def pixels(view: int) -> np.ndarray:
        """Stored values [detector row, detector column], of the manual's order."""
        return np.random.default_rng(view).integers(0, 4096, (ROWS, COLUMNS), dtype="<u2")

    @staticmethod
    def numbers(view: int) -> dict[str, Any]:
        return {
            "DetectorElementTransverseSpacing": 1.25,
            "DetectorElementAxialSpacing": 1.5,
            "DetectorShape": "CYLINDRICAL",
            "NumberofDetectorRows": ROWS,
            "NumberofDetectorColumns": COLUMNS,
            "DetectorFocalCenterAngularPosition": np.pi - 0.05 + 0.1 * view - (2 * np.pi if view else 0),
            "DetectorFocalCenterAxialPosition": -20 + 0.75 * view,
            "DetectorFocalCenterRadialDistance": 595.0,
            "ConstantRadialDistance": 1085.5,
            "DetectorCentralElement": [3.25, 2.5],
            "SourceAngularPositionShift": 0.0,
            "SourceAxialPositionShift": 0.0,
            "SourceRadialDistanceShift": 0.0,
            "FlyingFocalSpotMode": "FFSNONE",
            "SpectrumIndex": 1,
            "TypeofProjectionData": "HELICAL",
            "TypeofProjectionGeometry": "FANBEAM",
            "LogFlag": "YES",
            "WaterAttenuationCoefficient": "0.0192",
        }

    def add(
        self,
        view: int,
        *,
        transposed: bool = True,
        implicit: bool = False,
        unknown: bool = False,
        standard: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        """Write a projection; None takes an attribute away."""
        pixels = self.pixels(view)
        pixels = np.ascontiguousarray(pixels.T) if transposed else pixels
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"{SERIES}.{view + 1}"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = STUDY, SERIES, FRAME
        image.PatientName, image.PatientID, image.PatientBirthDate = "MARKERNAME^X", "MARKERID", "19661224"
        image.Modality, image.ImageType, image.Manufacturer = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "SIEMENS"
        image.InstanceNumber, image.PatientPosition = view + 1, "FFS"
        image.Rows, image.Columns = pixels.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.RescaleSlope, image.RescaleIntercept = "0.001", "-0.05"
        image.PixelData = pixels.tobytes()
        image["PixelData"].VR = "OW"
        for group in {tag >> 16 for tag, _ in PRIVATE.values()}:
            image.add_new((group, 0x10), "LO", "MAYO")
        for keyword, value in (self.numbers(view) | changes).items():
            if value is not None:
                tag, vr = PRIVATE[keyword]
                image.add_new(tag, *(("UN", _bytes(vr, value)) if unknown else (vr, value)))
        for keyword, value in (standard or {}).items():
            if value is None:
                delattr(image, keyword)
            else:
                setattr(image, keyword, value)
        image.preamble = b"\0" * 128
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        path = self.path / f"{(view * 7919) % 997:03d}-{view}"
        pydicom.dcmwrite(path, image, little_endian=True, implicit_vr=implicit, enforce_file_format=False)
        return path

    def fill(self, views: int = 5, **changes: Any) -> Scan:
        for view in range(views):
            self.add(view, **changes)
        return self
