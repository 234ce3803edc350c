"""The geometry file of the Reconstruction Toolkit (RTK) beside a stack of line integrals.

RTK's fixed frame x, y, z is our scanner frame x, z, -y, and its gantry angle our angle. On its detector a point is told
by u and v in mm, which count from the header of the projections (u = origin + index * spacing); with the projection's
offset added they are distances from where the line through the isocentre, that the source without its offset lies on,
meets the detector. A source that is beside that line is what we call a focal spot that has flown there.

Source: RTK's documentation, "3D circular projection geometry"; a test holds this reading against RTK itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import numpy as np

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.metaimage import read_volume
from clara_wf.imaging.record import read_record
from clara_wf.model.errors import GeometryError
from clara_wf.reconstruction.geometry import Array, Beam, Detector, DetectorShape, FocalSpot, ScanGeometry
from clara_wf.reconstruction.stack import Calibration, ProjectionStack

_ROOT: Final = "RTKThreeDCircularGeometry"
#: What RTK itself writes on top; any other document type may declare entities.
_DOCTYPE: Final = re.compile(r"<!DOCTYPE\s+RTKGEOMETRY\s*>")
_NUMBERS: Final = (
    "SourceToIsocenterDistance",
    "SourceToDetectorDistance",
    "GantryAngle",
    "ProjectionOffsetX",
    "ProjectionOffsetY",
    "SourceOffsetX",
    "SourceOffsetY",
    "InPlaneAngle",
    "OutOfPlaneAngle",
    "RadiusCylindricalDetector",
)
#: Matrix is the product of the others.
_KNOWN: Final = frozenset({*_NUMBERS, "Projection", "Matrix"})
#: Distances that differ by less over a scan are the same.
_SAME_MM: Final = 1e-3
_SAME_DEGREES: Final = 1e-3


def open_rtk_stack(path: Path, geometry_file: Path) -> ProjectionStack:
    """Open a stack of line integrals `<name>.mhd` whose geometry is RTK's.

    Raises
    ------
    VolumeError
        The image is broken.
    GeometryError
        The geometry file is broken, is of another number of views, or says what cannot be represented; or the image
        holds whole numbers, which RTK takes as counts of a detector.
    """
    volume = read_volume(path)
    if volume.array.dtype.kind != "f":
        raise GeometryError(
            f"{path.name} holds values of type {volume.array.dtype}, and {geometry_file.name} does not say how they"
            " become line integrals",
            remedy="Write line integrals as MET_FLOAT, or a geometry file of ours with rescale or incident_counts",
        )
    return ProjectionStack(
        name=path.name,
        geometry=rtk_geometry(geometry_file, volume.geometry),
        patient_position=None,
        calibration=Calibration(),
        record=read_record(path),
        stored=volume.array,
    )


def rtk_geometry(path: Path, grid: VolumeGeometry) -> ScanGeometry:
    """Read RTK's geometry of projections whose header says `grid`.

    Raises
    ------
    GeometryError
        As `open_rtk_stack`.
    """
    values = _read(path, grid.shape[0])
    faults = list(_faults(values, grid))
    if faults:
        raise GeometryError(f"{path.name} cannot be used: " + "; ".join(faults))
    sid, sdd = (float(values[f"SourceTo{name}Distance"][0]) for name in ("Isocenter", "Detector"))
    parallel = sdd == 0
    _, rows, columns = grid.shape
    # Along the axis the frame of a view moves with its source; RTK's own stands still.
    axial = values["SourceOffsetY"]
    first_column = grid.origin[0] + float(values["ProjectionOffsetX"][0])
    first_row = grid.origin[1] + float(values["ProjectionOffsetY"][0] - axial[0])
    aside = values["SourceOffsetX"]
    detector = Detector(
        rows=rows,
        columns=columns,
        row_spacing=grid.spacing[1],
        column_spacing=grid.spacing[2],
        central_row=-first_row / grid.spacing[1],
        central_column=-first_column / grid.spacing[2],
        shape=DetectorShape.ARC if values["RadiusCylindricalDetector"][0] else DetectorShape.FLAT,
    )
    return ScanGeometry(
        beam=Beam.PARALLEL if parallel else Beam.FAN if rows == 1 else Beam.CONE,
        detector=detector,
        angles=np.unwrap(np.deg2rad(values["GantryAngle"])),
        axial=axial,
        source_to_isocenter=0.0 if parallel else sid,
        source_to_detector=sdd,
        focal_spot=_flown(aside, sid) if aside.any() else None,
    )


def _flown(aside: Array, source_to_isocenter: float) -> FocalSpot:
    """Return the focal spot of sources that are mm beside their place, along the columns."""
    return FocalSpot(
        angle=np.arctan2(aside, source_to_isocenter),
        axial=np.zeros_like(aside),
        radial=np.hypot(aside, source_to_isocenter) - source_to_isocenter,
    )


def _faults(values: Mapping[str, Array], grid: VolumeGeometry) -> list[str]:
    """Say what of a geometry cannot be represented."""
    faults = [
        f"{name} is {found[np.abs(found).argmax()]:g} degrees: a detector that is tilted or turned is not supported"
        for name in ("InPlaneAngle", "OutOfPlaneAngle")
        if np.abs(found := values[name]).max() > _SAME_DEGREES
    ]
    constant = {name: values[name] for name in _NUMBERS if name.startswith(("SourceTo", "Radius"))}
    constant |= {
        "ProjectionOffsetX": values["ProjectionOffsetX"],
        "ProjectionOffsetY without SourceOffsetY": values["ProjectionOffsetY"] - values["SourceOffsetY"],
    }
    faults += [
        f"{name} varies from view to view, between {found.min():g} and {found.max():g} mm"
        for name, found in constant.items()
        if np.ptp(found) > _SAME_MM
    ]
    radius, sdd = values["RadiusCylindricalDetector"][0], values["SourceToDetectorDistance"][0]
    offsets = [name for name in ("ProjectionOffsetX", "SourceOffsetX") if np.abs(values[name]).max() > _SAME_MM]
    if radius and abs(radius - sdd) > _SAME_MM:
        faults.append(f"RadiusCylindricalDetector is {radius:g} mm, and not SourceToDetectorDistance, {sdd:g} mm")
    elif radius and offsets:
        faults.append(f"a curved detector has {' and '.join(offsets)}, so it is not curved about the source")
    moved = [name for name in ("SourceOffsetX", "SourceOffsetY") if np.abs(values[name]).max() > _SAME_MM]
    if not sdd and moved:
        faults.append(f"a parallel beam has {' and '.join(moved)}")
    if np.abs(np.array(grid.axes) - np.eye(3)[::-1]).max() > _SAME_DEGREES:
        faults.append("the header of the projections has a TransformMatrix that turns them")
    return faults


def _read(path: Path, views: int) -> dict[str, Array]:
    """Return each number of the file for each view."""
    root = _parse(path)
    common = _numbers(path, root)
    per_view = [_numbers(path, element) for element in root if element.tag == "Projection"]
    if len(per_view) != views:
        raise GeometryError(f"{path.name} has {len(per_view)} projections for {views} views")
    # RTK leaves out what is 0 in all projections, such as the distance to the detector of a parallel beam.
    if views > 1 and not any("GantryAngle" in one for one in per_view):
        raise GeometryError(f"{path.name}: GantryAngle is missing")
    return {
        name: np.array([one.get(name, common.get(name, 0.0)) for one in per_view], dtype=np.float64)
        for name in _NUMBERS
    }


def _parse(path: Path) -> ET.Element:
    try:
        text = _DOCTYPE.sub("", path.read_text(encoding="utf-8"), count=1)
    except (OSError, UnicodeDecodeError) as exc:
        raise GeometryError(f"{path.name} cannot be read as text ({type(exc).__name__})") from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise GeometryError(f"{path.name} declares a document type that is not RTK's, and is not read")
    try:
        root = ET.fromstring(text)  # noqa: S314 - nothing declares an entity
    except ET.ParseError as exc:
        raise GeometryError(f"{path.name} is no XML (line {exc.position[0]})") from None
    if root.tag != _ROOT:
        raise GeometryError(f"{path.name} is no geometry of RTK: it does not begin with {_ROOT}")
    unknown = sorted({element.tag for element in root.iter() if element is not root} - _KNOWN)
    if unknown:
        raise GeometryError(f"{path.name} has {', '.join(unknown)}, which is not supported")
    return root


def _numbers(path: Path, element: ET.Element) -> dict[str, float]:
    found = {}
    for child in element:
        if child.tag in _NUMBERS:
            try:
                number = float(child.text or "")
            except ValueError:
                number = math.nan
            if not math.isfinite(number):
                raise GeometryError(f"{path.name}: {child.tag} is no number")
            found[child.tag] = number
    return found
