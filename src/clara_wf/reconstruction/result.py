"""The record of a reconstruction: what was done, and the DICOM series that it is going to be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pydicom

import clara_wf
from clara_wf.imaging.derivation import derive_uid, equipment
from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import SourceInstance, SourceSeries, Step, VolumeRecord
from clara_wf.model.locks import now
from clara_wf.reconstruction.geometry import Beam
from clara_wf.reconstruction.projections import Projections
from clara_wf.reconstruction.reconstruct import Planned

_CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"


def reconstruction_record(
    scan: Projections,
    planned: Planned,
    *,
    digest: str,
    patient_position: str,
    water_attenuation: float,
    stage: str,
    started: str,
    notes: Sequence[str],
) -> VolumeRecord:
    """Describe a reconstruction.

    Where the projections come from DICOM, the volume is a new series of their study, under UIDs that follow from all
    that its images are made of: voxels, places, attributes, our version. What refers to its slices can be written
    before they are, by whatever workflow.

    Parameters
    ----------
    scan, planned
        What was reconstructed, and how.
    digest : str
        Of the voxels and where they are, as `derivation.volume_digest` makes it.
    patient_position : str
        How the patient lay.
    water_attenuation : float
        1/mm.
    stage, started
        Who did it, and since when (ISO 8601).
    notes
        What a user should know, a sentence each.
    """
    geometry = planned.geometry
    detail: dict[str, str | float] = {
        "method": planned.method,
        "views": geometry.views,
        "water_attenuation_per_mm": water_attenuation,
        "patient_position": patient_position,
    }
    if geometry.is_helical:
        detail |= {"feed_per_rotation_mm": geometry.feed_per_rotation, "pitch": geometry.pitch}
    if notes:
        detail["notes"] = "; ".join(notes)
    step = Step(stage=stage, version=clara_wf.__version__, started=started, ended=now(), detail=detail)
    before = scan.record.provenance if scan.record is not None else ()
    source = None
    if scan.record is not None and scan.record.source is not None:
        source = _series(scan.record.source, planned, digest, patient_position)
    return VolumeRecord(kind="image", modality="CT", units="HU", source=source, provenance=(*before, step))


def _series(projections: SourceSeries, planned: Planned, digest: str, patient_position: str) -> SourceSeries:
    # Without one, the projections' series stands for it: all reconstructions of a scan share the patient's frame.
    frame = projections.frame_of_reference_uid or derive_uid("frame of reference", projections.series_uid)
    geometry = planned.grid.patient_geometry(patient_position)
    dataset = {
        **projections.dataset,
        **_acquisition(planned, patient_position),
        **_plane(geometry),
        "0018A001": {"vr": "SQ", "Value": [equipment("Reconstructed series").to_json_dict()]},  # with our version
    }
    # The attributes too: an archive may have mended a name since, and two objects that differ never share a UID.
    parts = json.dumps([projections.study_uid, frame, dataset, pydicom.__version__], sort_keys=True)
    series = derive_uid("reconstruction", projections.series_uid, digest, parts)
    places = geometry.index_to_world([(index, 0, 0) for index in range(planned.grid.slices)])
    return SourceSeries(
        study_uid=projections.study_uid,
        series_uid=series,
        frame_of_reference_uid=frame,
        instances=tuple(
            SourceInstance(
                sop_class_uid=_CT_IMAGE_STORAGE,
                sop_instance_uid=derive_uid(series, str(index)),
                position=(float(place[0]), float(place[1]), float(place[2])),
            )
            for index, place in enumerate(places)
        ),
        dataset=dataset,
        exists=False,
        digest=digest,
    )


def _plane(geometry: VolumeGeometry) -> Mapping[str, Any]:
    """Return how the slices' pixels lie, and not the projections' (PS3.3, C.7.6.2 and C.7.6.3), as DICOM JSON."""
    return {
        "00200037": {"vr": "DS", "Value": [*geometry.axes[2], *geometry.axes[1]]},  # Image Orientation (Patient)
        "00280030": {"vr": "DS", "Value": list(geometry.spacing[1:])},  # Pixel Spacing
        "00280010": {"vr": "US", "Value": [geometry.shape[1]]},  # Rows
        "00280011": {"vr": "US", "Value": [geometry.shape[2]]},  # Columns
    }


def _acquisition(planned: Planned, patient_position: str) -> Mapping[str, Any]:
    """Return what the scan and its reconstruction add to the attributes (PS3.3, C.8.2.1), as DICOM JSON."""
    geometry, grid = planned.geometry, planned.grid
    found: dict[str, tuple[str, str | float]] = {
        "00180090": ("DS", round(geometry.field_of_view, 3)),  # Data Collection Diameter
        "00181100": ("DS", round(grid.matrix * grid.pixel, 3)),  # Reconstruction Diameter
        "00181210": ("SH", planned.kernel.upper()),  # Convolution Kernel
        "00185100": ("CS", patient_position),
    }
    if geometry.beam is not Beam.PARALLEL:
        found["00181110"] = ("DS", round(geometry.source_to_detector, 4))  # Distance Source to Detector
        found["00181111"] = ("DS", round(geometry.source_to_isocenter, 4))  # Distance Source to Patient
    return {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in found.items()}
