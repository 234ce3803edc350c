"""Grey volumes as a derived series: a CT or MR image for each slice (PS3.3 A.3, A.4), in the study of the source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from clara_wf import __version__
from clara_wf.imaging.derivation import (
    MANUFACTURER,
    NOT_FOR_CLINICAL_USE,
    Origin,
    Written,
    WrittenObject,
    code_item,
    content_digest,
    decimals,
    derive_uid,
    described,
    equipment,
    implementation,
    short,
    volume_digest,
)
from clara_wf.imaging.discretion import discreet
from clara_wf.imaging.geometry import SAME_GRID_MM, VolumeGeometry
from clara_wf.imaging.record import VolumeRecord
from clara_wf.imaging.source_check import check_reference
from clara_wf.imaging.source_places import is_resampled
from clara_wf.imaging.stored_values import StoredValues
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import DicomError
from clara_wf.model.files import folder_appearing

_STORAGE = {"CT": CTImageStorage, "MR": MRImageStorage}
_SERIES_KIND = 2
_CHANGED = "a stage changed the reconstruction afterwards: its images are a series of their own, and refer to none"
#: General Series, General Equipment, General Image and contrast attributes that still hold for a derived image, beside
#: the acquisition's (`_is_acquisition`).
_CARRIED = (
    *("PerformingPhysicianName", "OperatorsName", "AnatomicRegionSequence", "PerformedProcedureStepID"),
    *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "PerformedProcedureStepDescription"),
    *("RequestAttributesSequence", "ReferencedPerformedProcedureStepSequence", "Manufacturer", "InstitutionName"),
    *("InstitutionAddress", "StationName", "InstitutionalDepartmentName", "ManufacturerModelName"),
    *("AcquisitionNumber", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "BurnedInAnnotation"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
#: Acquisition attributes that describe the source's grid, not the volume's.
_GRID = ("SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt", "ReconstructionDiameter")
#: What an image must have though a source may lack it (type 2, and type 1 with the value that claims least).
_REQUIRED = {
    "CT": {"KVP": "", "AcquisitionNumber": "", "PatientPosition": "", "Manufacturer": ""},
    "MR": {
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "",
        "RepetitionTime": "",
        "EchoTime": "",
        "EchoTrainLength": "",
        "PatientPosition": "",
        "Manufacturer": "",
    },
}


def write_derived_series(
    folder: Path, volume: Volume, record: VolumeRecord | None, *, workflow: str, name: str = "the volume"
) -> Written:
    """Write a grey volume as a series of single images, `<folder>/<Series Instance UID>/NNNN.dcm`.

    Every image is read back and compared with its slice before the series' folder appears.

    Parameters
    ----------
    folder : Path
        Where the series' folder is made; it exists.
    volume : Volume
        Grey values [slice, row, column], in the units that the record says.
    record : VolumeRecord
        Names the source series, with an image or a frame for each slice.
    workflow : str
        Name of the workflow, a part of what the UIDs are derived from.
    name : str
        What messages call the volume: its file's name.

    Raises
    ------
    VolumeError
        The volume does not come from DICOM, or holds values that are no finite numbers.
    DicomError
        The modality is neither CT nor MR, the source lacks a UID, or an image does not read back as its slice.
    OSError
        The disk is full or not writable.
    """
    with discreet():
        origin = Origin.of(record, volume, name)
        assert record is not None  # Origin.of refuses it  # noqa: S101
        values = StoredValues.of(volume, name)
        is_source = _is_source(volume, origin)
        template = _template(volume, record, origin, values, is_source=is_source)
        if not is_source:
            derivation = _derivation(values, record, workflow)
            # Of the content, too: two results in one series would be one stack of slices, with every place twice.
            digest = content_digest(volume, record, workflow, derivation)
            template.SeriesInstanceUID = origin.series_uid("image", workflow, digest)
            template.SeriesDescription = described(f"Derived by {workflow}")
            template.DerivationDescription = short(derivation, 1024)
        final = folder / str(template.SeriesInstanceUID)
        objects = []
        with folder_appearing(final) as unfinished:
            for index in range(volume.array.shape[0]):
                image = _image(template, volume, index, origin, values, is_source=is_source)
                path = unfinished / f"{index + 1:04d}.dcm"
                image.save_as(path, enforce_file_format=True)
                check_image(path, volume, index, origin, values, is_source=is_source)
                objects.append(replace(WrittenObject.of(path, image), path=final / path.name))
    changed = () if is_source or origin.source.exists else (_CHANGED,)
    return Written(objects=tuple(objects), notes=(*origin.notes, *changed, *_precision(values, record)))


def _is_source(volume: Volume, origin: Origin) -> bool:
    """Say whether the volume is the reconstruction itself, whose images have UIDs already (`SourceSeries.exists`).

    One that a stage changed afterwards is not: its images would share their UIDs with others (PS3.5 B.2).
    """
    source = origin.source
    in_place = [found.instance for found in origin.slices] == list(source.instances)
    kept = all(found.preserved is not False for found in origin.slices)
    return not source.exists and in_place and kept and source.digest in {"", volume_digest(volume)}


def _template(
    volume: Volume, record: VolumeRecord, origin: Origin, values: StoredValues, *, is_source: bool
) -> Dataset:
    """Make what all images of the series share; what names a workflow comes later."""
    modality = record.modality or str(origin.dataset.get("Modality", ""))
    if modality not in _STORAGE:
        raise DicomError(
            f"a derived series of modality {record.modality or '(none or unknown)'} cannot be written",
            remedy="Derived series are CT or MR images",
        )
    geometry = volume.geometry
    image = Dataset()
    origin.carry(image, *_CARRIED)
    for element in origin.dataset:
        if _is_acquisition(element.tag) and element.keyword not in _GRID and not element.is_empty:
            image.add(element)
    for keyword, value in _REQUIRED[modality].items():
        if keyword not in image:
            setattr(image, keyword, value)
    origin.stamp(image)
    if "BodyPartExamined" not in image and "Laterality" not in image:
        image.Laterality = ""  # type 2C: unknown, where nothing says that the body part is unpaired
    image.SOPClassUID = _STORAGE[modality]
    image.Modality = modality
    image.SeriesNumber = origin.series_number(_SERIES_KIND)
    spacing = decimals(geometry.spacing[0])[0]
    if is_source:
        # Nothing of the workflow or of this stage's version: the UIDs were made without them.
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.SeriesInstanceUID = origin.source.series_uid
        image.SeriesDescription = described(f"Reconstructed by {MANUFACTURER}")
        image.ImageComments = short(f"{MANUFACTURER}, {NOT_FOR_CLINICAL_USE}. {_kept(values, record)}", 1024)
        image.SliceThickness = spacing
        origin.carry(image, "ReconstructionDiameter", "ContributingEquipmentSequence")
    else:
        image.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if modality == "CT" else "OTHER"]
        image.ContributingEquipmentSequence = [equipment("Derived series")]
        image.SliceThickness = ""  # type 2 (PS3.3 C.7.6.2): not known of resampled slices, their distance is another
        if not is_resampled(record) and all(found.instance is not None for found in origin.slices):
            origin.carry(image, "SliceThickness")
    image.SpacingBetweenSlices = spacing
    image.Rows, image.Columns = geometry.shape[1:]
    image.ImageOrientationPatient = decimals(*geometry.axes[2], *geometry.axes[1])
    image.PixelSpacing = decimals(geometry.spacing[1], geometry.spacing[2])
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = _photometric(record, origin)
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 1 if values.dtype.kind == "i" else 0
    image.WindowCenter, image.WindowWidth = _window(values, origin)
    if modality == "CT" or not values.is_identity:
        image.RescaleIntercept, image.RescaleSlope = values.intercept, values.slope
        image.RescaleType = "HU" if record.units == "HU" else "US"
    return image


def _image(
    template: Dataset, volume: Volume, index: int, origin: Origin, values: StoredValues, *, is_source: bool
) -> pydicom.FileDataset | Dataset:
    """Make the image of a slice."""
    image = Dataset()
    image.update(template)  # `copy.copy` would share its elements, and so those of the slice before
    position = volume.geometry.index_to_world((index, 0, 0))
    normal = np.cross(volume.geometry.axes[2], volume.geometry.axes[1])
    image.SOPInstanceUID = (
        origin.source.instances[index].sop_instance_uid
        if is_source
        else derive_uid(str(template.SeriesInstanceUID), str(index))
    )
    image.InstanceNumber = index + 1
    image.ImagePositionPatient = decimals(*position)
    image.SliceLocation = decimals(float(position @ normal))[0]
    source = origin.reference(index) if origin.source.exists else None
    if source is not None:
        source.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.SourceImageForImageProcessingOperation)]
        image.SourceImageSequence = [source]
    image.PixelData = values.encode(volume.array[index]).tobytes()
    image["PixelData"].VR = "OW"
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    implementation(image.file_meta)
    return image


def check_image(
    path: Path, volume: Volume, index: int, origin: Origin, values: StoredValues, *, is_source: bool = False
) -> None:
    """Read an image back and compare it with its slice: values, corners in mm, source, patient.

    Raises
    ------
    DicomError
        They differ; the message says how.
    """
    name = f"image {index + 1} of the derived series"
    image = pydicom.dcmread(path)
    wrong = origin.mismatch(image)
    if wrong is not None:
        raise DicomError(f"{name}: {wrong} does not read back as the source has it")
    if is_source and image.SOPInstanceUID != origin.source.instances[index].sop_instance_uid:
        raise DicomError(f"{name} does not have the UID of its slice")
    if origin.source.exists:
        check_reference(image, volume.geometry, origin, index, name)
    error = _distance(image, volume.geometry, index)
    if error > SAME_GRID_MM:
        raise DicomError(f"{name} lies {error:.3f} mm from its slice")
    read = image.pixel_array * float(image.get("RescaleSlope", 1)) + float(image.get("RescaleIntercept", 0))
    difference = float(np.abs(read - volume.array[index]).max())
    if difference > values.error:
        raise DicomError(f"{name}: a value reads back {difference:g} off, more than {values.error:g}")


def _distance(image: Dataset, geometry: VolumeGeometry, index: int) -> float:
    """Return how far, in mm, a corner of an image lies from that of its slice."""
    position: NDArray[np.float64] = np.array(image.ImagePositionPatient, float)
    along_columns, along_rows = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
    row_mm, column_mm = (float(value) for value in image.PixelSpacing)
    corners = [(row, column) for row in (0, image.Rows - 1) for column in (0, image.Columns - 1)]
    found = [position + along_rows * row_mm * row + along_columns * column_mm * column for row, column in corners]
    wanted = geometry.index_to_world([(index, row, column) for row, column in corners])
    return float(np.linalg.norm(np.array(found) - wanted, axis=1).max())


def _is_acquisition(tag: int) -> bool:
    """Say whether a tag is of the Acquisition group, without what enhanced images alone have."""
    return 0x00180000 < tag < 0x00189000


def _window(values: StoredValues, origin: Origin) -> tuple[str | float, str | float]:
    """Return the source's first window, or one that spans the values."""
    try:
        center, width = (
            float(np.atleast_1d(origin.dataset[keyword].value)[0]) for keyword in ("WindowCenter", "WindowWidth")
        )
    except (KeyError, ValueError, TypeError, IndexError):
        center, width = (values.lowest + values.highest) / 2, values.highest - values.lowest
    return decimals(center)[0], decimals(max(width, 1.0))[0]


def _photometric(record: VolumeRecord, origin: Origin) -> str:
    """Return the source's Photometric Interpretation, since its window is carried and its values are kept.

    Hounsfield units are shown bright where they are high, whatever the source was.
    """
    source = str(origin.dataset.get("PhotometricInterpretation", ""))
    return "MONOCHROME1" if source == "MONOCHROME1" and record.units != "HU" else "MONOCHROME2"


def _derivation(values: StoredValues, record: VolumeRecord, workflow: str) -> str:
    steps = ", ".join(f"{step.stage} {step.version}" for step in record.provenance)
    return (
        f"{MANUFACTURER} {__version__}, workflow {workflow}; {NOT_FOR_CLINICAL_USE}. Stages: {steps or 'none'}. "
        f"{_kept(values, record)}"
    )


def _kept(values: StoredValues, record: VolumeRecord) -> str:
    return " ".join(_precision(values, record)) or "Values are kept exactly."


def _precision(values: StoredValues, record: VolumeRecord) -> tuple[str, ...]:
    if values.error == 0:
        return ()
    bound = f"{values.error:.6g} {record.units}".strip()
    return (f"Values are rounded to steps of {values.slope}: at most {bound} off.",)
