"""Projections as a DICOM-CT-PD series: a file a view, as raw data of scanners are published.

Source: Chen et al., "Development and validation of an open data format for CT projection data", Med. Phys. 42 (2015),
and the DICOM-CT-PD User Manual. Its angle runs against ours, and the first row of its detector is that nearest to the
head.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Final

import numpy as np
from pydicom import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage

from clara_wf.imaging.record import SourceInstance, SourceSeries
from clara_wf.model.errors import UsageError
from clara_wf.phantom.acquisition import Acquisition
from clara_wf.phantom.dicom_series import describe_study, new_dataset, phantom_uid
from clara_wf.phantom.projector import WATER_ATTENUATION
from clara_wf.phantom.shapes import FloatArray
from clara_wf.reconstruction.geometry import Beam, DetectorShape, ScanGeometry

#: Stored values are steps of 1/4096 from -1, so that noise in air fits below nothing; the last one is 14.999.
SLOPE: Final = 2.0**-12
INTERCEPT: Final = -1.0

_DETECTOR: Final = (0x7029, "DetectorSystemArrangementModule")
_DETECTOR_DYNAMICS: Final = (0x7031, "DetectorDynamicsModule")
_SOURCE: Final = (0x7033, "SourceDynamicsModule")
_DEFINITIONS: Final = (0x7037, "ProjectionDataDefinitions")
_FLAGS: Final = (0x7039, "PreprocessingFlagsModule")
_WATER: Final = (0x7041, "WaterAttenuationModule")


def write_projection_series(
    folder: Path, acquisition: Acquisition, *, progress: Callable[[float], None] | None = None
) -> list[Path]:
    """Write a scan as `<patient id>/<study UID>/<series UID>/<SOP instance UID>.dcm` below a folder.

    A ray that no photon came through has the largest value.

    Parameters
    ----------
    folder
        Where to.
    acquisition
        A fan or cone beam.
    progress
        Told the share done after every view.

    Returns
    -------
    list of Path
        The files, in the order of the views.

    Raises
    ------
    UsageError
        The beam is parallel, which the format does not know.
    """
    template = _template(acquisition)
    home = folder / template.PatientID / template.StudyInstanceUID / template.SeriesInstanceUID
    home.mkdir(parents=True, exist_ok=True)
    files = [home / f"{_instance_uid(acquisition, view)}.dcm" for view in range(acquisition.geometry.views)]
    for done, (view, integrals) in enumerate(acquisition.line_integrals(), start=1):
        _fill(template, acquisition, view, integrals)
        dcmwrite(files[view], template, enforce_file_format=True)
        if progress is not None:
            progress(done / len(files))
    return files


def projection_series(acquisition: Acquisition) -> Iterator[Dataset]:
    """Yield the datasets of `write_projection_series`, view by view; they share nothing, so a test may change one."""
    template = _template(acquisition)
    for view, integrals in sorted(acquisition.line_integrals(), key=itemgetter(0)):
        _fill(template, acquisition, view, integrals)
        yield copy.deepcopy(template)


def projection_source(acquisition: Acquisition) -> SourceSeries:
    """Return the record of the series that `write_projection_series` makes, an instance a view."""
    template = Dataset()
    describe_study(template, acquisition.name, acquisition.seed)
    return SourceSeries(
        study_uid=template.StudyInstanceUID,
        series_uid=template.SeriesInstanceUID,
        frame_of_reference_uid=template.FrameOfReferenceUID,
        instances=tuple(
            SourceInstance(sop_class_uid=CTImageStorage, sop_instance_uid=_instance_uid(acquisition, view))
            for view in range(acquisition.geometry.views)
        ),
        dataset=template.to_json_dict(),
    )


def _instance_uid(acquisition: Acquisition, view: int) -> str:
    return phantom_uid(acquisition.name, "projection", str(view))


def _template(acquisition: Acquisition) -> Dataset:
    """Return all that the views have in common."""
    geometry = acquisition.geometry
    if geometry.beam is Beam.PARALLEL:
        raise UsageError("DICOM-CT-PD has no parallel beam", remedy="Write a stack or Data Exchange instead")
    dataset = new_dataset()
    describe_study(dataset, acquisition.name, acquisition.seed)
    dataset.SeriesDescription = f"Projections of the {acquisition.anatomy} phantom, seed {acquisition.seed}"
    dataset.SeriesNumber = 1
    dataset.DataCollectionDiameter = f"{geometry.field_of_view:.1f}"
    dataset.ExposureTime = "500"
    dataset.XRayTubeCurrent = "200"
    dataset.SpiralPitchFactor = round(geometry.pitch, 6)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = geometry.detector.rows, geometry.detector.columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope = str(INTERCEPT), str(SLOPE)
    _describe_detector(dataset, geometry)
    _describe_source(dataset, acquisition)
    return dataset


def _describe_detector(dataset: Dataset, geometry: ScanGeometry) -> None:
    detector = geometry.detector
    cylindrical = detector.shape is DetectorShape.ARC
    block = dataset.private_block(*_DETECTOR, create=True)
    block.add_new(0x02, "FL", detector.column_spacing)
    block.add_new(0x06, "FL", detector.row_spacing)
    block.add_new(0x0B, "CS", "CYLINDRICAL" if cylindrical else "FLAT")
    block.add_new(0x10, "US", detector.rows)
    block.add_new(0x11, "US", detector.columns)
    block = dataset.private_block(*_DETECTOR_DYNAMICS, create=True)
    block.add_new(0x03, "FL", geometry.source_to_isocenter)
    block.add_new(0x31, "FL", geometry.source_to_detector)
    # Elements are counted from 1, rows from the head.
    block.add_new(0x33, "FL", [detector.central_column + 1, detector.rows - detector.central_row])


def _describe_source(dataset: Dataset, acquisition: Acquisition) -> None:
    geometry = acquisition.geometry
    turn = np.median(np.abs(np.diff(geometry.angles))) if geometry.views > 1 else 2 * math.pi
    block = dataset.private_block(*_SOURCE, create=True)
    block.add_new(0x0E, "CS", _focal_spot_mode(geometry))
    block.add_new(0x13, "US", round(2 * math.pi / float(turn)))
    block.add_new(0x61, "US", 1)
    block.add_new(0x63, "US", 1)
    block.add_new(0x65, "FL", [acquisition.photons] * geometry.detector.columns)
    block = dataset.private_block(*_DEFINITIONS, create=True)
    block.add_new(0x09, "CS", "HELICAL" if geometry.is_helical else "AXIAL")
    block.add_new(0x0A, "CS", "FANBEAM")
    block = dataset.private_block(*_FLAGS, create=True)
    # Beam hardening, gain, dark field, flat field, bad pixels, scatter: there is nothing to correct. Logarithm: taken.
    for element in range(0x03, 0x09):
        block.add_new(element, "CS", "NO")
    block.add_new(0x09, "CS", "YES")
    block = dataset.private_block(*_WATER, create=True)
    block.add_new(0x01, "DS", str(WATER_ATTENUATION))


def _focal_spot_mode(geometry: ScanGeometry) -> str:
    """Return how the focal spot flies: in the plane, along the axis, both or not."""
    spot = geometry.focal_spot
    in_plane = spot is not None and bool(np.any(spot.angle))
    along = spot is not None and bool(np.any(spot.axial) or np.any(spot.radial))
    return {(False, False): "FFSNONE", (True, False): "FFSXY", (False, True): "FFSZ", (True, True): "FFSXYZ"}[
        in_plane, along
    ]


def _fill(dataset: Dataset, acquisition: Acquisition, view: int, integrals: FloatArray) -> None:
    """Make a dataset that of a view."""
    geometry = acquisition.geometry
    instance = UID(_instance_uid(acquisition, view))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = instance
    dataset.InstanceNumber = view + 1
    block = dataset.private_block(*_DETECTOR_DYNAMICS)
    block.add_new(0x01, "FL", -float(geometry.angles[view]) % (2 * math.pi))
    block.add_new(0x02, "FL", float(geometry.axial[view]))
    spot = geometry.focal_spot
    block = dataset.private_block(*_SOURCE)
    block.add_new(0x0B, "FL", 0.0 if spot is None else -float(spot.angle[view]))
    block.add_new(0x0C, "FL", 0.0 if spot is None else float(spot.axial[view]))
    block.add_new(0x0D, "FL", 0.0 if spot is None else float(spot.radial[view]))
    stored = np.clip(np.rint((integrals[::-1] - INTERCEPT) / SLOPE), 0, 65535)
    dataset.PixelData = stored.astype("<u2").tobytes()
