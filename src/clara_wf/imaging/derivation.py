"""What every DICOM object that we derive has in common: whose it is, its UIDs, its dates, its equipment.

The patient's and the study's attributes are taken over from the source as they are, since an archive files by them. The
rest is a pure function of the source and the content: the same result made twice is the same object, byte for byte, and
two objects that differ never share a UID (PS3.5 B.2, PS3.3 C.12.1.1.1).
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds

from clara_wf import __version__
from clara_wf.imaging.record import SourceInstance, SourceSeries, VolumeRecord
from clara_wf.imaging.source_attributes import UTF8, comparable, declared_character_set, encodable, parse_model
from clara_wf.imaging.source_places import SliceSource, find_sources, is_resampled, tell_sources
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import DicomError, VolumeError
from clara_wf.model.files import sha256_of

MANUFACTURER = "clara-wf"
NOT_FOR_CLINICAL_USE = "not for clinical use"
#: The namespace of our UIDs; PS3.5 B.2 puts UUIDs under 2.25.
_NAMESPACE = uuid.UUID("5a0bb0c5-4a2f-5c63-9f0c-7d1b4c1f2e57")
#: Where a source says when it was made, best first.
_MOMENTS = (
    ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)
#: Content Date may not be empty; this one is nobody's.
_NO_MOMENT = ("19000101", "000000")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
#: The series number of a derived series is the source's times this, plus a number for its kind.
_SERIES_NUMBER_STEP = 100

#: Patient, General Study and Patient Study modules (PS3.3 C.7.1, C.7.2): taken over.
IDENTITY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("PatientBirthDate", "PatientBirthTime", "PatientSex", "OtherPatientIDsSequence", "OtherPatientIDs"),
    *("OtherPatientNames", "EthnicGroup", "PatientComments", "QualityControlSubject", "PatientSpeciesDescription"),
    *("PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence"),
    *("BreedRegistrationSequence", "ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    *("IssuerOfAccessionNumberSequence", "StudyDescription", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy"),
    *("ProcedureCodeSequence", "AdmittingDiagnosesDescription", "PatientAge", "PatientSize", "PatientWeight"),
    *("Occupation", "AdditionalPatientHistory", "AdmissionID", "IssuerOfAdmissionIDSequence"),
    *("PatientSexNeutered", "ServiceEpisodeID", "ServiceEpisodeDescription", "TimezoneOffsetFromUTC"),
    *("AdmittingDiagnosesCodeSequence", "ConsultingPhysicianName", "RequestingService", "ReasonForVisit"),
    *("PatientBodyMassIndex", "MedicalAlerts", "Allergies", "SmokingStatus", "PregnancyStatus"),
    *("LastMenstrualDate", "PatientState"),
)
#: Clinical Trial Subject and Study modules (C.7.1.3, C.7.2.3): taken over as a whole if they say the trial and the
#: subject; de-identified data often come with empty ones, which are invalid.
_TRIAL = (
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
    *("ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription"),
)
#: Of the patient's and the study's, what an object must have, if empty (type 2).
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
)


@dataclass(frozen=True, kw_only=True)
class WrittenObject:
    """A DICOM object that was written and read back."""

    path: Path  # where it lies
    sop_class_uid: str  # (0008,0016)
    sop_instance_uid: str  # (0008,0018)
    series_uid: str  # (0020,000E)
    size: int  # bytes
    sha256: str  # of the file

    @staticmethod
    def of(path: Path, dataset: Dataset) -> WrittenObject:
        """Describe a file from its dataset and its bytes."""
        return WrittenObject(
            path=path,
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            series_uid=str(dataset.SeriesInstanceUID),
            size=path.stat().st_size,
            sha256=sha256_of(path),
        )


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of a volume."""

    objects: tuple[WrittenObject, ...]  # in the order of the slices, where there are many
    notes: tuple[str, ...] = ()  # what a reader of the objects should know; no patient data


def derive_uid(*parts: str) -> str:
    """Make the UID that belongs to these parts: the same parts give the same UID, anywhere."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(parts)).int}"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The source of a volume, ready to derive objects from it. Make it within `discreet`."""

    source: SourceSeries  # as the record says
    slices: tuple[SliceSource, ...]  # for each slice of the volume, the source image that it lies on
    places: tuple[str, ...]  # what is to be said of that
    dataset: Dataset  # its attributes that can be written in `character_set`; not the study's UID
    character_set: tuple[str, ...]  # Specific Character Set of derived objects
    dropped: tuple[str, ...]  # keywords or tags of attributes that cannot be written
    frame_of_reference_uid: str  # the source's, or one made from its series
    has_frame_of_reference: bool  # whether it is the source's
    recoded: bool  # whether that is UTF-8, and the source declares another

    @staticmethod
    def of(record: VolumeRecord | None, volume: Volume, name: str) -> Origin:
        """Read the source from a record.

        Parameters
        ----------
        record : VolumeRecord or None
            What lies beside the volume.
        volume : Volume
            The volume, [slice, row, column].
        name : str
            File name of the volume, for messages.

        Raises
        ------
        VolumeError
            There is no record, it names no source, or its source has another number of slices.
        DicomError
            The source lacks a UID that nothing can stand for.
        """
        if record is None or record.source is None:
            raise VolumeError(
                f"{name} does not come from DICOM, so a DICOM object cannot refer to it",
                remedy="Start from a DICOM series with a workflow that begins with dicom-reader",
            )
        source = record.source
        if len(source.instances) != volume.array.shape[0]:
            raise VolumeError(
                f"{name} has {volume.array.shape[0]} slices but its record names {len(source.instances)} source images"
            )
        _check_uids(source, name)
        parsed, dropped = parse_model(source.dataset)
        declared = declared_character_set(parsed)
        own_texts = str((record.labels, record.algorithm, record.verdict))
        # Names that a model gives are written beside the source's: UTF-8 holds both.
        dataset, character_set, lost = encodable(parsed, declared if own_texts.isascii() else UTF8)
        slices = find_sources(record, volume)
        return Origin(
            source=source,
            slices=slices,
            places=tell_sources(record, slices),
            dataset=dataset,
            character_set=character_set,
            dropped=(*dropped, *lost),
            frame_of_reference_uid=source.frame_of_reference_uid or derive_uid("frame of reference", source.series_uid),
            has_frame_of_reference=bool(source.frame_of_reference_uid),
            recoded=character_set == UTF8 != declared,
        )

    @cached_property
    def moment(self) -> tuple[str, str]:
        """Date (DA) and time (TM) of derived objects: the source's, so that a repeat makes the same bytes.

        The moment of computing is in the report.
        """
        stamp = str(self.dataset.get("AcquisitionDateTime", ""))
        if _is_date(stamp[:8]) and _TIME.fullmatch(stamp[8:14]):
            return stamp[:8], stamp[8:14]
        for date_keyword, time_keyword in _MOMENTS:
            date = str(self.dataset.get(date_keyword, "")).strip()
            time = str(self.dataset.get(time_keyword, "")).strip()
            if _is_date(date):
                return date, time if _TIME.fullmatch(time) else "000000"
        return _NO_MOMENT

    def series_uid(self, kind: str, *parts: str) -> str:
        """Return the UID of a derived series: a function of its kind, the source's images and what made it.

        It is that of the slices of this volume, not of all of the series': a reader may make two volumes of one series,
        and each object is the first of its own.
        """
        slices = (f"{one.sop_instance_uid} {one.frame}" for one in self.source.instances)
        return derive_uid(kind, self.source.series_uid, *parts, *slices)

    def reference(self, index: int) -> Dataset | None:
        """Refer to the source image that a slice lies on; None if it lies on none.

        Spatial Locations Preserved (PS3.3 table 10-3) is left out where nothing is known, which makes no claim.
        """
        found = self.slices[index]
        if found.instance is None:
            return None
        item = reference(found.instance)
        if found.preserved is not None:
            item.SpatialLocationsPreserved = "YES" if found.preserved else "NO"
        return item

    def series_number(self, kind: int) -> int:
        """Return a series number that sorts a derived series behind its source; IS holds 31 bits."""
        number = _integer(self.dataset.get("SeriesNumber"))
        if not 0 < number < 2**31 // _SERIES_NUMBER_STEP - 1:
            number = _SERIES_NUMBER_STEP - 1
        return number * _SERIES_NUMBER_STEP + kind

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what could not be taken over as it is: names of attributes, no values."""
        notes = [*self.places]
        if not self.has_frame_of_reference:
            notes.append("the source has no Frame of Reference UID; one was made from its Series Instance UID")
        if self.dropped:
            notes.append(f"source attributes that cannot be written were left out: {', '.join(self.dropped)}")
        if self.recoded:
            notes.append("texts are written as UTF-8, since the source's character set does not hold all of them")
        return tuple(notes)

    def stamp(self, target: Dataset) -> None:
        """Write patient, study, dates and character set into a derived object."""
        _remove(target, *IDENTITY, "InstanceCreationDate", "InstanceCreationTime", "SpecificCharacterSet")
        for keyword in _MAY_BE_EMPTY:
            setattr(target, keyword, "")
        self.carry(target, *IDENTITY, "BodyPartExamined", "Laterality")
        if self._names_trial:
            for keyword in _TRIAL:
                if keyword in self.dataset:
                    target.add(self.dataset[keyword])
        target.StudyInstanceUID = self.source.study_uid
        target.FrameOfReferenceUID = self.frame_of_reference_uid
        target.PositionReferenceIndicator = str(self.dataset.get("PositionReferenceIndicator", ""))
        target.SeriesDate, target.SeriesTime = self.moment
        target.ContentDate, target.ContentTime = self.moment
        if self.character_set:
            target.SpecificCharacterSet = list(self.character_set)

    def carry(self, target: Dataset, *keywords: str) -> None:
        """Take attributes over from the source, those that it has and that are not empty."""
        for keyword in keywords:
            if keyword in self.dataset and not self.dataset[keyword].is_empty:
                target.add(self.dataset[keyword])

    @property
    def _names_trial(self) -> bool:
        """Say whether the attributes of a clinical trial are complete (type 1 and 1C)."""
        sponsor, protocol, *subject = (
            bool(self.dataset.get(keyword))
            for keyword in (
                *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID"),
                *("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
            )
        )
        return sponsor and protocol and any(subject)

    def mismatch(self, target: Dataset) -> str | None:
        """Name an attribute of patient or study that an object read back does not have as the source has it."""
        for keyword in IDENTITY:
            wanted = self.dataset.get(keyword)
            if wanted is not None and comparable(target.get(keyword)) != comparable(wanted):
                return keyword
        if target.get("StudyInstanceUID") != self.source.study_uid:
            return "StudyInstanceUID"
        if target.get("FrameOfReferenceUID") != self.frame_of_reference_uid:
            return "FrameOfReferenceUID"
        return None


def reference(instance: SourceInstance) -> Dataset:
    """Make the reference to a source image, or to a frame of it (PS3.3 table 10-3)."""
    item = Dataset()
    item.ReferencedSOPClassUID = instance.sop_class_uid
    item.ReferencedSOPInstanceUID = instance.sop_instance_uid
    if instance.frame is not None:
        item.ReferencedFrameNumber = instance.frame
    return item


def content_digest(volume: Volume, record: VolumeRecord, *options: str) -> str:
    """Digest all that a derived object is made of: voxels, geometry, source, labels, verdict, options, our version.

    What differs from run to run (times, measured seconds) is no part of it, nor of the object.
    """
    digest = hashlib.sha256()
    content: dict[str, Any] = {
        **{key: value for key, value in asdict(record).items() if key not in {"provenance", "measurements"}},
        "geometry": asdict(volume.geometry),
        "options": options,
        "resampled": is_resampled(record),
        "type": volume.array.dtype.str,
        "versions": (__version__, pydicom.__version__),
    }
    digest.update(json.dumps(content, sort_keys=True, default=float).encode())
    for plane in volume.array:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def volume_digest(volume: Volume) -> str:
    """Digest a volume alone, voxels and geometry, as the stage recon does slice by slice (`SourceSeries.digest`)."""
    digest = hashlib.sha256(repr(volume.geometry).encode())
    for plane in volume.array:
        digest.update(hashlib.sha256(np.ascontiguousarray(plane).data).digest())
    return digest.hexdigest()


def decimals(*values: float) -> list[str]:
    """Write numbers as decimal strings: as exact as 16 characters allow, about 1e-11 mm for a position."""
    return [format_number_as_ds(float(value)) for value in values]


def equipment(what: str) -> Dataset:
    """Make the item that says what we contributed (Contributing Equipment Sequence, PS3.3 C.12.1)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.ProcessingEquipment)]
    item.Manufacturer = item.ManufacturerModelName = MANUFACTURER
    item.SoftwareVersions = __version__
    item.ContributionDescription = f"{what}, {NOT_FOR_CLINICAL_USE}"
    return item


def code_item(code: Code) -> Dataset:
    """Make the item of a coded concept (PS3.3 table 8.8-1)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def implementation(file_meta: FileMetaDataset) -> None:
    """Name us as the writer of a file (PS3.10 7.1)."""
    file_meta.ImplementationClassUID = UID(derive_uid("implementation"))
    file_meta.ImplementationVersionName = f"CLARA_WF_{__version__}"[:16]


def short(text: str, limit: int = 64) -> str:
    """Cut a text to the length that its type allows (LO: 64), without characters that mean something in DICOM."""
    text = " ".join(text.replace("\\", "/").split())
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."


def described(title: str, *, prefix: str = "") -> str:
    """Make a description of 64 characters: what matters most stands first and last, the middle is cut."""
    end = f" ({NOT_FOR_CLINICAL_USE})"
    return prefix + short(title, 64 - len(prefix) - len(end)) + end


def _check_uids(source: SourceSeries, name: str) -> None:
    for text, what in ((source.study_uid, "Study Instance UID"), (source.series_uid, "Series Instance UID")):
        if not text:
            raise DicomError(
                f"the source of {name} has no {what}, so no object can be filed beside it",
                remedy="Send the study through an archive that assigns it",
            )
    if any(not instance.sop_instance_uid or not instance.sop_class_uid for instance in source.instances):
        raise DicomError(f"a source image of {name} has no SOP Instance UID or no SOP Class UID: it cannot be named")


def _remove(target: Dataset, *keywords: str) -> None:
    for keyword in keywords:
        if keyword in target:
            del target[keyword]


def _is_date(text: str) -> bool:
    try:
        return re.fullmatch(r"\d{8}", text) is not None and bool(datetime.strptime(text, "%Y%m%d"))  # noqa: DTZ007
    except ValueError:
        return False


def _integer(value: object) -> int:
    try:
        return int(str(value))
    except (TypeError, ValueError):
        return 0
