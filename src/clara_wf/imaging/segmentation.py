"""Label volumes as DICOM segmentation objects (PS3.3 A.51), written by highdicom and read back before they count.

BINARY keeps a bit a voxel and a frame for each pair of segment and slice; viewers of any age read it. LABELMAP
(Supplement 243, 2024) keeps one frame a slice whatever the number of labels. Why frames without voxels are kept, and
how UIDs and dates come about, is in docs/decisions/0004-segmentation-objects.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from clara_wf import __version__
from clara_wf.imaging.derivation import (
    MANUFACTURER,
    NOT_FOR_CLINICAL_USE,
    Origin,
    Written,
    WrittenObject,
    content_digest,
    decimals,
    derive_uid,
    described,
    reference,
    short,
)
from clara_wf.imaging.discretion import discreet
from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import Algorithm, Code, Label, SourceInstance, VolumeRecord
from clara_wf.imaging.segmentation_check import check_segmentation
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import VolumeError
from clara_wf.model.files import replacing

Encoding = Literal["auto", "binary", "labelmap"]
#: Up to this many labels a file with a frame for each label and slice is still small.
MOST_BINARY_LABELS = 4
#: (0070,0080) is a code string of 16 characters.
_CONTENT_LABEL = "NOT_CLINICAL_USE"
_SERIES_KIND = 1
_NO_ALGORITHM = Algorithm(name="unspecified", version="unspecified", model="unspecified", sha256="")


def write_segmentation(
    path: Path,
    volume: Volume,
    record: VolumeRecord | None,
    *,
    workflow: str,
    encoding: Encoding = "auto",
    name: str = "the volume",
) -> Written:
    """Write a label volume as one DICOM segmentation object.

    The object is read back and compared with the volume before it appears at `path`.

    Parameters
    ----------
    path : Path
        The file to write; its folder exists.
    volume : Volume
        Labels [slice, row, column], integers; 0 is background.
    record : VolumeRecord
        Names the source series (an image or a frame for each slice), the labels, the algorithm and the verdict.
    workflow : str
        Name of the workflow, a part of what the UIDs are derived from.
    encoding : {"auto", "binary", "labelmap"}, default "auto"
        "auto" is BINARY up to four labels, LABELMAP beyond.
    name : str
        What messages call the volume: its file's name.

    Raises
    ------
    VolumeError
        The volume does not come from DICOM, holds no labelled voxel (see `has_labels`), or labels that the record
        does not name.
    DicomError
        The source lacks a UID, or what was written does not read back as the volume.
    OSError
        The disk is full or not writable.
    """
    with discreet():
        origin = Origin.of(record, volume, name)
        assert record is not None  # Origin.of refuses it  # noqa: S101
        labels = _checked_labels(volume, record, name)
        binary = encoding == "binary" or (encoding == "auto" and len(labels) <= MOST_BINARY_LABELS)
        dataset = _build(volume, record, origin, labels, workflow, "BINARY" if binary else "LABELMAP")
        with replacing(path) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)
            written = WrittenObject.of(temporary, dataset)
            del dataset  # its pixels; the check reads the file's
            check_segmentation(temporary, volume, record, name=path.name)
    return Written(objects=(replace(written, path=path),), notes=origin.notes)


def has_labels(volume: Volume) -> bool:
    """Say whether any voxel is labelled: a segmentation object needs at least one frame with something in it."""
    return any(plane.any() for plane in volume.array)


def _checked_labels(volume: Volume, record: VolumeRecord, name: str) -> tuple[Label, ...]:
    """Return the labels by value, or say what is wrong with them."""
    labels = tuple(sorted(record.labels, key=lambda label: label.value))
    values = [label.value for label in labels]
    if volume.array.dtype.kind not in "ui":
        raise VolumeError(f"{name}: labels of type {volume.array.dtype} are no integers")
    if len(set(values)) != len(values) or (values and not 0 < values[0] <= values[-1] < 2**16):
        raise VolumeError(f"{name}: the record's label values {values} are not distinct numbers from 1 to 65535")
    found: set[int] = set()
    for plane in volume.array:
        found.update(int(value) for value in np.unique(plane))
    unnamed = sorted(found - {0} - set(values))
    if unnamed:
        raise VolumeError(
            f"{name}: its record names no label for the value {', '.join(map(str, unnamed[:5]))}",
            remedy="Add it to the model's description, or leave it out of the volume",
        )
    if not found - {0}:
        raise VolumeError(f"{name} holds no labelled voxel, so there is nothing to make an object of")
    return labels


def _build(  # noqa: PLR0917 - private, and each is another type
    volume: Volume, record: VolumeRecord, origin: Origin, labels: tuple[Label, ...], workflow: str, kind: str
) -> Dataset:
    algorithm = record.algorithm or _NO_ALGORITHM
    series_uid = origin.series_uid("segmentation", workflow, algorithm.model, algorithm.sha256)
    digest = content_digest(volume, record, workflow, kind, highdicom.__version__)
    title = f"{workflow}: {', '.join(label.name for label in labels)}"
    review = "REVIEW " if record.verdict is not None and record.verdict.status == "review" else ""
    dataset = Segmentation(
        source_images=_stand_ins(volume.geometry),
        pixel_array=_segment_numbers(volume, labels, kind),
        segmentation_type=kind,
        segment_descriptions=[
            _describe(number, label, algorithm, origin.source.series_uid)
            for number, label in segment_numbers(labels, kind).items()
        ],
        series_instance_uid=series_uid,
        series_number=origin.series_number(_SERIES_KIND),
        sop_instance_uid=derive_uid(series_uid, kind, digest),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=short(algorithm.model),
        software_versions=__version__,
        device_serial_number="0",
        content_label=_CONTENT_LABEL,
        content_description=described(title, prefix=review),
        series_description=described(title, prefix=review),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=False,
    )
    origin.stamp(dataset)
    _refer(dataset, origin)
    dataset.ImageComments = _comment(record)
    organization = derive_uid("dimensions", dataset.SOPInstanceUID)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    return dataset


def segment_numbers(labels: tuple[Label, ...], kind: str) -> dict[int, Label]:
    """Return the labels by segment number: from 1 without gaps for BINARY, the voxels' values for LABELMAP."""
    ordered = sorted(labels, key=lambda label: label.value)
    if kind == "BINARY":
        return dict(enumerate(ordered, 1))
    return {label.value: label for label in ordered}


def _segment_numbers(volume: Volume, labels: tuple[Label, ...], kind: str) -> NDArray[Any]:
    """Give the voxels as highdicom wants them: unsigned segment numbers, the volume's own memory where possible."""
    values = {number: label.value for number, label in segment_numbers(labels, kind).items()}
    dtype = np.uint8 if max(*values, *values.values()) < 256 else np.uint16
    if all(number == value for number, value in values.items()):
        return volume.array.astype(dtype, copy=False)
    table = np.zeros(max(values.values()) + 1, dtype)
    table[list(values.values())] = list(values)
    numbers: NDArray[Any] = table[volume.array]
    return numbers


def _stand_ins(geometry: VolumeGeometry) -> list[Dataset]:
    """Stand in for the source images, which are not at hand: an image for each slice, where the slice is.

    They carry nothing of the patient, so that highdicom cannot quote it; `Origin.stamp` and `_refer` put the true
    attributes and references into the result. Enhanced sources are single images here: each frame is a slice.
    """
    stand_ins = []
    for index in range(geometry.shape[0]):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"2.25.{index + 1}"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "2.25.1", "2.25.2", "2.25.3"
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            setattr(image, keyword, "")
        image.StudyDate = image.StudyTime = None
        image.Modality = "CT"
        image.Rows, image.Columns = geometry.shape[1:]
        image.ImageOrientationPatient = decimals(*geometry.axes[2], *geometry.axes[1])
        image.ImagePositionPatient = decimals(*geometry.index_to_world((index, 0, 0)))
        image.PixelSpacing = decimals(geometry.spacing[1], geometry.spacing[2])
        # Given here, since highdicom works it out with a sign where the slices run against the normal.
        image.SliceThickness = image.SpacingBetweenSlices = decimals(geometry.spacing[0])[0]
        stand_ins.append(image)
    return stand_ins


def _describe(number: int, label: Label, algorithm: Algorithm, source_series_uid: str) -> SegmentDescription:
    identification = highdicom.AlgorithmIdentificationSequence(
        name=short(algorithm.name),
        family=codes.cid7162.ArtificialIntelligence,
        version=short(algorithm.version),
        source=MANUFACTURER,
        parameters={"model": algorithm.model, "sha256": algorithm.sha256, "engine": algorithm.engine},
    )
    return SegmentDescription(
        segment_number=number,
        segment_label=short(label.name),
        segmented_property_category=_code(label.category),
        segmented_property_type=_code(label.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=identification,
        tracking_uid=derive_uid("tracking", source_series_uid, algorithm.model, str(label.value), label.name),
        tracking_id=short(f"{algorithm.model} {label.name}"),
        display_color=CIELabColor.from_rgb(*label.color),
    )


def _code(code: Code) -> DicomCode:
    return DicomCode(code.value, code.scheme, short(code.meaning))


def _comment(record: VolumeRecord) -> str:
    verdict = record.verdict
    reasons = f" Verdict: {verdict.status}. {' '.join(verdict.reasons)}" if verdict is not None else ""
    return short(f"Made by software, {NOT_FOR_CLINICAL_USE}.{reasons}", 1024)


def _refer(dataset: Dataset, origin: Origin) -> None:
    """Replace the references to the stand-ins by those to the source images or frames."""
    instances = origin.source.instances
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        derivation = frame.DerivationImageSequence[0]
        stand_in = derivation.SourceImageSequence[0]  # one item, which the frames of all segments share
        item = origin.reference(int(stand_in.ReferencedSOPInstanceUID.rpartition(".")[2]) - 1)
        if item is None:
            frame.DerivationImageSequence = []  # type 2 (PS3.3 C.7.6.16.2.6): no image is where this frame is
            continue
        item.PurposeOfReferenceCodeSequence = stand_in.PurposeOfReferenceCodeSequence
        derivation.SourceImageSequence = [item]
    dataset.SourceImageSequence = _by_object(instances)
    series = Dataset()
    series.SeriesInstanceUID = origin.source.series_uid
    series.ReferencedInstanceSequence = _by_object(instances)
    dataset.ReferencedSeriesSequence = [series]
    # highdicom names the stand-ins' scanner, and itself last, with the time.
    highdicom_itself = dataset.ContributingEquipmentSequence[-1]
    del highdicom_itself.ContributionDateTime
    dataset.ContributingEquipmentSequence = [highdicom_itself]


def _by_object(instances: tuple[SourceInstance, ...]) -> list[Dataset]:
    """Refer to each source object once, frames of one object being many slices."""
    objects = {
        instance.sop_instance_uid: SourceInstance(
            sop_class_uid=instance.sop_class_uid, sop_instance_uid=instance.sop_instance_uid
        )
        for instance in instances
    }
    return [reference(instance) for instance in objects.values()]
