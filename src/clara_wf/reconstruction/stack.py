"""Projections as a MetaImage stack `<name>.mhd`, with `<name>.geometry.json` (or `geometry.json`) beside it.

The image is [view, row, column]: its third dimension in the header is the view. Its spacing and origin mean nothing;
where source and detector are stands in the geometry file, which is documented in ``docs/reconstruction.md``.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.metaimage import open_slices, read_volume
from clara_wf.imaging.record import VolumeRecord, read_record, write_record
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import GeometryError
from clara_wf.model.files import write_atomically
from clara_wf.reconstruction.fields import Fields
from clara_wf.reconstruction.geometry import (
    PATIENT_POSITIONS,
    Beam,
    Detector,
    DetectorShape,
    FocalSpot,
    ScanGeometry,
)
from clara_wf.reconstruction.projections import rescaled

SCHEMA: Final = "clara-wf/geometry/1"
SUFFIX: Final = ".geometry.json"
#: Fewer degrees than a full turn has radians, over many views: whoever wrote them meant radians.
_RADIANS_SPAN: Final = 2 * math.pi + 0.1
_MANY_VIEWS: Final = 30
#: What a parallel beam may say, and has no use for.
_OF_DIVERGENT: Final = ("source_to_isocenter_mm", "source_to_detector_mm")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How stored values become line integrals, and these Hounsfield units."""

    slope: float = 1.0  # line integral = stored * slope + intercept, where there are no incident counts
    intercept: float = 0.0
    incident_counts: float | None = None  # stored values are photon counts n: line integral = -ln(n / incident_counts)
    water_attenuation: float | None = None  # 1/mm
    incident_photons: float | None = None  # of a ray in air, to tell where there are too few


@dataclass(frozen=True, kw_only=True, eq=False)
class ProjectionStack:
    """A stack on the disk. It is mapped: `read` is what loads it."""

    name: str
    geometry: ScanGeometry
    patient_position: str | None
    calibration: Calibration
    record: VolumeRecord | None
    stored: NDArray[Any]  # [view, row, column]

    @property
    def water_attenuation(self) -> float | None:
        """Attenuation of water in 1/mm, if the geometry file says it."""
        return self.calibration.water_attenuation

    @property
    def incident_photons(self) -> float | None:
        """Photons of a ray in air, if the geometry file says it, or what its counts are counted against."""
        return self.calibration.incident_photons or self.calibration.incident_counts

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the line integrals of a range of views, [view, row, column]."""
        stored, incident = self.stored[start:stop], self.calibration.incident_counts
        if incident is None:
            return rescaled(stored, self.calibration.slope, self.calibration.intercept)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(-np.log(np.asarray(stored, dtype=np.float32) / np.float32(incident)), dtype=np.float32)


def open_stack(path: Path, geometry_file: Path) -> ProjectionStack:
    """Open a stack `<name>.mhd` with its geometry file.

    Raises
    ------
    VolumeError
        The image is broken.
    GeometryError
        The geometry file is broken, lacks a parameter, or is of another number of views.
    """
    volume = read_volume(path)
    content = _read_json(geometry_file)
    return stack_of(path, volume, content, geometry_file.name)


def stack_of(path: Path, volume: Volume, content: Mapping[str, Any], where: str) -> ProjectionStack:
    """Make a stack of an image and the content of a geometry file, which messages call `where`.

    Raises
    ------
    GeometryError
        The content lacks a parameter, or is of another number of views.
    """
    views, rows, columns = volume.array.shape
    read = Fields(content, where)
    detector, rescale, spot = read.part("detector"), read.part("rescale"), read.part("focal_spot")
    beam = read.choice("beam", Beam)
    divergent = beam is not Beam.PARALLEL
    angles = read.numbers("angles_deg", views)
    fields: dict[str, Any] = {
        "beam": beam,
        "angles": np.deg2rad(angles),
        "axial": read.numbers("axial_mm", views, 0.0),
        "source_to_isocenter": read.number("source_to_isocenter_mm", positive=True) if divergent else 0.0,
        "source_to_detector": read.number("source_to_detector_mm", positive=True) if divergent else 0.0,
    }
    elements: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "row_spacing": detector.number("row_spacing_mm", positive=True),
        "column_spacing": detector.number("column_spacing_mm", positive=True),
        "central_row": detector.number("central_row"),
        "central_column": detector.number("central_column"),
        "shape": detector.choice("shape", DetectorShape, DetectorShape.FLAT),
    }
    if "focal_spot" in read:
        fields["focal_spot"] = FocalSpot(
            angle=np.deg2rad(spot.numbers("angle_deg", views)),
            axial=spot.numbers("axial_mm", views),
            radial=spot.numbers("radial_mm", views),
        )
    calibration = Calibration(
        slope=rescale.number("slope", 1.0),
        intercept=rescale.number("intercept", 0.0),
        incident_counts=read.optional_number("incident_counts"),
        water_attenuation=read.optional_number("water_attenuation_per_mm"),
        incident_photons=read.optional_number("incident_photons"),
    )
    position = read.text("patient_position", PATIENT_POSITIONS)
    read.finish("schema", *_OF_DIVERGENT)
    if volume.array.dtype.kind in "ui" and "rescale" not in read and "incident_counts" not in read:
        raise GeometryError(
            f"{where}: the stack holds whole numbers, and nothing says how they become line integrals",
            remedy="Give rescale (slope, intercept), or incident_counts if they are photon counts",
        )
    if views >= _MANY_VIEWS and float(np.ptp(angles)) <= _RADIANS_SPAN:
        raise GeometryError(
            f"{where}: {views} angles_deg span only {np.ptp(angles):.4g} degrees: they look like radians",
            remedy="Write degrees",
        )
    return ProjectionStack(
        name=path.name,
        geometry=ScanGeometry(detector=Detector(**elements), **fields),
        patient_position=position,
        calibration=calibration,
        record=read_record(path),
        stored=volume.array,
    )


@contextlib.contextmanager
def open_stack_writer(
    path: Path,
    geometry: ScanGeometry,
    *,
    patient_position: str | None,
    dtype: DTypeLike = np.float32,
    calibration: Calibration | None = None,
    record: VolumeRecord | None = None,
) -> Iterator[Callable[[int, NDArray[Any]], None]]:
    """Give a function that writes a view of what becomes the stack `<name>.mhd` when the block ends well.

    Yields
    ------
    callable
        Takes a view's index and its stored values [row, column], of the given type.
    """
    detector = geometry.detector
    grid = VolumeGeometry(
        shape=(geometry.views, detector.rows, detector.columns),
        spacing=(1.0, detector.row_spacing, detector.column_spacing),
        origin=(0.0, 0.0, 0.0),
    )
    content = geometry_json(geometry, patient_position=patient_position, calibration=calibration or Calibration())
    with open_slices(path, grid, dtype) as write:
        yield write
        # Before the header, which appears last.
        write_atomically(path.with_suffix(SUFFIX), json.dumps(content) + "\n")
        if record is not None:
            write_record(path, record)


def geometry_json(geometry: ScanGeometry, *, patient_position: str | None, calibration: Calibration) -> dict[str, Any]:
    """Return the content of a geometry file."""
    detector = geometry.detector
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "beam": geometry.beam.value,
        "patient_position": patient_position,
        "detector": {
            "shape": detector.shape.value,
            "row_spacing_mm": detector.row_spacing,
            "column_spacing_mm": detector.column_spacing,
            "central_row": detector.central_row,
            "central_column": detector.central_column,
        },
        "rescale": {"slope": calibration.slope, "intercept": calibration.intercept},
        "incident_counts": calibration.incident_counts,
        "water_attenuation_per_mm": calibration.water_attenuation,
        "incident_photons": calibration.incident_photons,
        "angles_deg": np.rad2deg(geometry.angles).tolist(),
        "axial_mm": geometry.axial.tolist() if geometry.is_helical else float(geometry.axial[0]),
    }
    if geometry.beam is not Beam.PARALLEL:
        content["source_to_isocenter_mm"] = geometry.source_to_isocenter
        content["source_to_detector_mm"] = geometry.source_to_detector
    if geometry.focal_spot is not None:
        content["focal_spot"] = {
            "angle_deg": np.rad2deg(geometry.focal_spot.angle).tolist(),
            "axial_mm": geometry.focal_spot.axial.tolist(),
            "radial_mm": geometry.focal_spot.radial.tolist(),
        }
    return content


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise GeometryError(f"{path.name} cannot be read as JSON ({type(exc).__name__})") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise GeometryError(f"{path.name} is no geometry of a scan: its schema is not {SCHEMA}")
    return content
