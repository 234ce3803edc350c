"""DICOM-CT-PD, one file a view, as the geometry of a scan.

The format's manual has a left-handed frame: seen from the foot of the table the angle phi is 0 at twelve o'clock and
grows counter-clockwise, the source is at (-rho sin phi, rho cos phi) with y up, and z runs from the table's foot into
the bore. So our angle is -phi, and our z theirs. Columns turn a ray counter-clockwise, which is the direction of ours;
rows run against z, and are reversed here.

Files of GE were found to have their axial positions reversed against the manual (PyTomography, on TCIA's case C145);
theirs are reversed here, and their rows then run along z.

Source: see `clara_wf.imaging.dicom_projection`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.dicom_inventory import Series, check_one_patient, group_series, take_inventory
from clara_wf.imaging.dicom_json import kept_attributes
from clara_wf.imaging.dicom_pixels import stored_values
from clara_wf.imaging.dicom_projection import Projection
from clara_wf.imaging.record import SourceInstance, SourceSeries, VolumeRecord
from clara_wf.model.errors import DicomError
from clara_wf.reconstruction.geometry import (
    CIRCULAR_MM,
    PATIENT_POSITIONS,
    Beam,
    Detector,
    DetectorShape,
    FocalSpot,
    ScanGeometry,
)
from clara_wf.reconstruction.projections import rescaled

#: Lengths that differ by less within a series are the same: single precision holds seven digits.
_SAME_MM: Final = 1e-3
#: So many gaps are named in words; the rest are counted.
_NAMED_GAPS: Final = 3
REWEIGHT: Final = "Go on without them by --arg STAGE=--missing-projections=reweight, for dicom-reader and for recon"


@dataclass(frozen=True, kw_only=True, eq=False)
class CtPdSeries:
    """A series of projections, whose files are read on demand."""

    name: str  # SeriesInstanceUID
    geometry: ScanGeometry
    patient_position: str | None
    water_attenuation: float | None
    incident_photons: float | None
    record: VolumeRecord | None
    notes: tuple[str, ...]  # what a user should know, a sentence each
    views: tuple[Projection, ...]  # in the order of acquisition

    @property
    def rescale(self) -> tuple[float, float] | None:
        """Slope and intercept, if they are the same in all views."""
        found = {(view.slope, view.intercept) for view in self.views}
        return found.pop() if len(found) == 1 else None

    def stored(self, index: int) -> NDArray[Any]:
        """Return the stored values of a view, [row, column] of our detector.

        Raises
        ------
        FrameFault
            The file is cut off or cannot be decoded.
        """
        view = self.views[index]
        values = stored_values(view)
        plane = values.T if view.transposed else values
        return plane if view.by_ge else plane[::-1]

    def line_integrals(self, index: int) -> NDArray[np.float32]:
        """Return the line integrals of a view; raises as `stored`."""
        view = self.views[index]
        return rescaled(self.stored(index), view.slope, view.intercept)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the line integrals of a range of views, [view, row, column]; raises as `stored`."""
        return np.stack([self.line_integrals(index) for index in range(start, min(stop, len(self.views)))])


def open_ct_pd(folder: Path, *, reweight: bool = False) -> list[CtPdSeries]:
    """Open all series of projections below a folder; none if there are none.

    Parameters
    ----------
    folder : Path
        Of any depth, with any file names.
    reweight : bool
        Take a series although projections are missing.

    Raises
    ------
    InputError
        The folder is missing or empty, holds several patients, or a series cannot be used.
    """
    files = take_inventory(folder)
    check_one_patient(files)
    opened = []
    all_series = group_series(files)
    for series in all_series:
        if series.fault and any(file.projection for file in series.files):
            raise DicomError(f"series {series.uid} is refused: {series.fault}")
        if series.images and not any(other.projections for other in all_series):
            raise DicomError(
                f"series {series.uid} holds images, which are reconstructed already",
                remedy="Use a workflow without recon, such as organ-seg",
            )
        if series.projections:
            try:
                opened.append(open_series(series, reweight=reweight))
            except DicomError as fault:
                raise DicomError(f"series {series.uid} is refused: {fault.message}", remedy=fault.remedy) from fault
    return opened


def open_series(series: Series, *, reweight: bool = False) -> CtPdSeries:
    """Open a series of projections.

    Raises
    ------
    DicomError
        Projections are missing (unless `reweight`) or double, or do not belong to one scan.
    GeometryError
        Their numbers make no geometry.
    """
    views = series.projections
    _check_one_scan(views)
    gaps = _gaps(views)
    if gaps and not reweight:
        raise DicomError(gaps, remedy=REWEIGHT)
    first = views[0]
    position = first.patient_position if first.patient_position in PATIENT_POSITIONS else None
    notes = [gaps] if gaps else []
    if position is None:
        notes.append("PatientPosition is missing or no known one: how the patient lay is not said")
    if first.by_ge:
        notes.append("axial positions are reversed, as files of GE have them against the format's manual")
    return CtPdSeries(
        name=series.uid,
        geometry=geometry_of(views),
        patient_position=position,
        water_attenuation=first.water_attenuation,
        incident_photons=first.photons,
        record=_record(series, views),
        notes=tuple(notes),
        views=views,
    )


def geometry_of(views: Sequence[Projection]) -> ScanGeometry:
    """Turn what the files of a scan say into our frame."""
    first = views[0]
    along = -1.0 if first.by_ge else 1.0
    central_row = first.central_row - 1
    turn, axial, away = np.array([view.spot for view in views], dtype=np.float64).T
    flies = turn.any() or axial.any() or away.any()
    return ScanGeometry(
        beam=Beam.FAN if first.rows == 1 else Beam.CONE,
        detector=Detector(
            rows=first.rows,
            columns=first.columns,
            row_spacing=first.row_spacing,
            column_spacing=first.column_spacing,
            central_row=central_row if first.by_ge else first.rows - 1 - central_row,
            central_column=first.central_column - 1,
            shape=DetectorShape.ARC if first.curved else DetectorShape.FLAT,
        ),
        angles=-np.unwrap(np.array([view.angle for view in views], dtype=np.float64)),
        axial=along * np.array([view.axial for view in views], dtype=np.float64),
        source_to_isocenter=first.source_radius,
        source_to_detector=first.source_to_detector,
        focal_spot=FocalSpot(angle=-turn, axial=along * axial, radial=away) if flies else None,
    )


def _check_one_scan(views: Sequence[Projection]) -> None:
    """Refuse views that do not belong together."""
    doubles = [
        view.instance_number
        for view, after in itertools.pairwise(views)
        if view.instance_number == after.instance_number
    ]
    if doubles:
        more = f" and {len(doubles) - 1} more are" if len(doubles) > 1 else " is"
        raise DicomError(f"InstanceNumber {doubles[0]}{more} given to several projections that differ")
    if len({view.detector for view in views}) > 1:
        raise DicomError("its projections have different matrices or detectors")
    for name in views[0].distances:
        found = [view.distances[name] for view in views]
        if max(found) - min(found) > _SAME_MM:
            raise DicomError(f"{name} varies among its projections, between {min(found):g} and {max(found):g} mm")
    spectra = sorted({view.spectrum for view in views})
    if len(spectra) > 1:
        raise DicomError(f"it has projections of {len(spectra)} spectra (SpectrumIndex {', '.join(map(str, spectra))})")
    for what, values in (
        ("positions of the patient", {view.patient_position for view in views}),
        ("values of WaterAttenuationCoefficient", {view.water_attenuation for view in views}),
        ("kinds of scan, HELICAL and AXIAL", {view.helical for view in views}),
        ("manufacturers", {view.by_ge for view in views}),
    ):
        if len(values) > 1:
            raise DicomError(f"its projections have {len(values)} {what}")
    places = [view.axial for view in views]
    if not views[0].helical and max(places) - min(places) > CIRCULAR_MM:
        raise DicomError(
            f"an AXIAL scan whose table moves by {max(places) - min(places):g} mm, step and shoot, is not supported"
        )


def _gaps(views: Sequence[Projection]) -> str:
    """Say which projections are missing between the first and the last; empty if none are."""
    numbers = [view.instance_number for view in views]
    count = numbers[-1] - numbers[0] + 1
    gaps = [(before + 1, after - 1) for before, after in itertools.pairwise(numbers) if after > before + 1]
    if not gaps:
        return ""
    named = [f"{low} to {high}" if high > low else str(low) for low, high in gaps[:_NAMED_GAPS]]
    more = f" and {len(gaps) - _NAMED_GAPS} more stretches" if len(gaps) > _NAMED_GAPS else ""
    single = len(gaps) == 1 and gaps[0][0] == gaps[0][1]
    return f"projection{'' if single else 's'} {', '.join(named)}{more} of {count} {'is' if single else 'are'} missing"


def _record(series: Series, views: Sequence[Projection]) -> VolumeRecord:
    file = next(file for file in series.files if file.projection is views[0])
    return VolumeRecord(
        kind="projections",
        modality=file.modality,
        source=SourceSeries(
            study_uid=file.study_uid,
            series_uid=series.uid,
            frame_of_reference_uid=file.frame_of_reference_uid,
            instances=tuple(
                SourceInstance(sop_class_uid=view.sop_class_uid, sop_instance_uid=view.sop_instance_uid)
                for view in views
            ),
            dataset=kept_attributes(views[0].path),
        ),
    )
