"""A volume as a CT series in DICOM: valid, deterministic, and nobody's.

Source: DICOM PS3.3, A.3 (CT Image IOD), C.7.6.2 (Image Plane), C.8.2.1 (CT Image).
"""

from __future__ import annotations

import copy
import hashlib
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import SourceInstance, SourceSeries
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import UsageError

PATIENT_ID = "CLARA-PHANTOM"
_INTERCEPT = -1024
# The namespace of all our phantoms' identifiers: any UUID will do, as long as it never changes.
_NAMESPACE = uuid.UUID("7d4f1c9a-52e6-4b0b-9d53-0c0f6f9e2a41")
_IMPLEMENTATION_UID = "2.25.298263214650318241920398817435162097214"


def phantom_uid(*words: str) -> str:
    """Return a UID under 2.25 (PS3.5, B.2) that is always the same for the same words."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(words)).int}"


def series_name(volume: Volume, seed: int) -> str:
    """Return what the identifiers of a volume's series are derived from: the seed, the grid and the voxels.

    The voxels belong to it since DICOM allows no two different images under one SOP Instance UID.
    """
    digest = hashlib.sha256(np.ascontiguousarray(volume.array, dtype="<i2").data)
    digest.update(repr((volume.geometry.affine.tolist(), volume.geometry.shape)).encode())
    return f"seed-{seed}/{digest.hexdigest()}"


def ct_series(volume: Volume, *, seed: int = 0) -> Iterator[Dataset]:
    """Yield one CT image for each slice of a volume, in the order of its slices.

    The datasets share nothing, so that a test may change one: shuffle, drop or double slices, tilt the gantry, rename.

    Parameters
    ----------
    volume
        Densities in HU from -1024 to 3071, [slice, row, column], on any right- or left-handed grid. Its geometry
        becomes Image Position and Orientation (LPS, mm).
    seed
        The phantom's, part of the identifiers and of the series' description.

    Yields
    ------
    Dataset
        CT Image Storage with file meta, explicit little-endian, 12 bits in 16 unsigned, intercept -1024.

    Raises
    ------
    UsageError
        A density does not fit 12 bits.
    """
    array = volume.array
    if array.min() < _INTERCEPT or array.max() > _INTERCEPT + 4095:
        raise UsageError(
            f"densities from {array.min()} to {array.max()} HU do not fit 12 bits", remedy="Clip them first"
        )
    name = series_name(volume, seed)
    template = _template(volume.geometry, name, seed)
    for index, pixels in enumerate(array):
        dataset = copy.deepcopy(template)
        instance = UID(phantom_uid(name, "instance", str(index)))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = instance
        dataset.InstanceNumber = index + 1
        position = volume.geometry.index_to_world((index, 0, 0))
        dataset.ImagePositionPatient = [_decimal(value) for value in position]
        dataset.SliceLocation = _decimal(float(position @ np.array(volume.geometry.axes[0])))
        dataset.PixelData = (pixels.astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
        yield dataset


def source_series(volume: Volume, *, seed: int = 0) -> SourceSeries:
    """Return the record of the series that `ct_series` makes of the same volume."""
    name = series_name(volume, seed)
    template = _template(volume.geometry, name, seed)
    return SourceSeries(
        study_uid=template.StudyInstanceUID,
        series_uid=template.SeriesInstanceUID,
        frame_of_reference_uid=template.FrameOfReferenceUID,
        instances=tuple(
            SourceInstance(
                sop_class_uid=CTImageStorage,
                sop_instance_uid=phantom_uid(name, "instance", str(index)),
                position=tuple(volume.geometry.index_to_world((index, 0, 0)).tolist()),
            )
            for index in range(volume.geometry.shape[0])
        ),
        dataset=template.to_json_dict(),
    )


def write_series(folder: Path, datasets: Iterable[Dataset]) -> list[Path]:
    """Write datasets as `<patient id>/<study UID>/<series UID>/<SOP instance UID>.dcm` below a folder.

    Only for our own phantoms: with the identifiers of a patient these would be no names for files.

    Returns
    -------
    list of Path
        The files, in the order of the datasets.
    """
    written = []
    for dataset in datasets:
        home = folder / dataset.PatientID / dataset.StudyInstanceUID / dataset.SeriesInstanceUID
        home.mkdir(parents=True, exist_ok=True)
        path = home / f"{dataset.SOPInstanceUID}.dcm"
        dcmwrite(path, dataset, enforce_file_format=True)
        written.append(path)
    return written


def write_ct_series(folder: Path, volume: Volume, *, seed: int = 0) -> list[Path]:
    """Write a volume as a CT series in the layout of `write_series`; return the files in the order of the slices."""
    return write_series(folder, ct_series(volume, seed=seed))


def _template(geometry: VolumeGeometry, name: str, seed: int) -> Dataset:
    """Return all that the images of a series have in common."""
    dataset = new_dataset()
    describe_study(dataset, name, seed)
    _describe_grid(dataset, geometry)
    return dataset


def new_dataset() -> Dataset:
    """Return an empty dataset that will be a CT image, explicit little-endian."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    dataset.file_meta.ImplementationVersionName = "CLARA_WF_PHANTOM"
    return dataset


def describe_study(dataset: Dataset, name: str, seed: int) -> None:
    """Say what nobody's study a dataset belongs to; its identifiers follow from `name`."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = CTImageStorage
    for date, time in (("StudyDate", "StudyTime"), ("SeriesDate", "SeriesTime"), ("ContentDate", "ContentTime")):
        setattr(dataset, date, "20190318")
        setattr(dataset, time, "120000")
    dataset.AccessionNumber = ""
    dataset.Modality = "CT"
    dataset.Manufacturer = "clara-wf"
    dataset.ManufacturerModelName = "procedural phantom"
    dataset.DeviceSerialNumber = "1"
    dataset.SoftwareVersions = "1"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Procedural phantom, not a patient"
    dataset.SeriesDescription = f"Phantom seed {seed}"
    dataset.PatientName = "PHANTOM^ABDOMEN"
    dataset.PatientID = PATIENT_ID
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.BodyPartExamined = "ABDOMEN"
    dataset.KVP = "120"
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = phantom_uid(name, "study")
    dataset.SeriesInstanceUID = phantom_uid(name, "series")
    dataset.FrameOfReferenceUID = phantom_uid(name, "frame of reference")
    dataset.StudyID = "1"
    dataset.SeriesNumber = 2
    dataset.AcquisitionNumber = 1
    dataset.PositionReferenceIndicator = ""


def _describe_grid(dataset: Dataset, geometry: VolumeGeometry) -> None:
    slice_mm, row_mm, column_mm = geometry.spacing
    _, down, right = geometry.axes
    dataset.SliceThickness = _decimal(slice_mm)
    dataset.SpacingBetweenSlices = _decimal(slice_mm)
    dataset.ImageOrientationPatient = [_decimal(value) for value in (*right, *down)]
    dataset.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = geometry.shape[1:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = str(_INTERCEPT)
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = "60", "400"


def _decimal(value: float) -> str:
    """Return a number as a decimal string of at most 16 characters (PS3.5, 6.2), without a negative zero."""
    return f"{round(value, 9) + 0.0:.9f}"[:16].rstrip("0").rstrip(".")
