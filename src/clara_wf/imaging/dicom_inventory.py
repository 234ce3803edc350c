"""What is in a folder: every file with its state, and the series that the images make."""

from __future__ import annotations

import dataclasses
import filecmp
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from clara_wf.imaging.dicom_frame import Frame
from clara_wf.imaging.dicom_image import DicomFile, read_file
from clara_wf.imaging.dicom_pixels import stored_values
from clara_wf.imaging.dicom_projection import Projection
from clara_wf.imaging.dicom_states import FileFault, FileState
from clara_wf.imaging.folder import find_files
from clara_wf.model.errors import DicomError, InputError

#: Files that a volume or a stack of projections can be made of.
_USED: Final = frozenset({FileState.READ, FileState.PROJECTION})
#: States of files that nothing is known of but their name: any of them may have been a slice.
_UNKNOWN: Final = frozenset({FileState.EMPTY, FileState.UNREADABLE, FileState.NOT_DICOM})


@dataclass(frozen=True, kw_only=True)
class Series:
    """The files of one SeriesInstanceUID."""

    uid: str
    files: tuple[DicomFile, ...]  # all of them, the skipped and the broken as well
    fault: str = ""  # why no volume can be made of it; empty if one may

    @property
    def images(self) -> tuple[DicomFile, ...]:
        """The files whose frames may be slices of a volume."""
        return tuple(file for file in self.files if file.state is FileState.READ)

    @property
    def planes(self) -> int:
        """The number of planes to be read: frames and projections."""
        return sum(len(file.frames) for file in self.images) + len(self.projections)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The views of a scan that stand in the files, by their number."""
        found = (file.projection for file in self.files if file.state is FileState.PROJECTION)
        return tuple(sorted(filter(None, found), key=lambda projection: projection.instance_number))


def take_inventory(folder: Path) -> list[DicomFile]:
    """Read the headers of all files below a folder.

    Raises
    ------
    InputError
        The folder is missing or empty.
    """
    if not folder.is_dir():
        raise InputError("the input folder is missing, or is no folder")
    files = []
    for found in find_files(folder):
        if found.state is None:
            files.append(read_file(found.path, found.name))
        else:
            files.append(DicomFile(name=found.name, path=found.path, state=found.state, reason=found.reason))
    if not files:
        raise InputError("the input folder is empty", remedy="Put the DICOM files of a study there")
    return files


def check_one_patient(files: Iterable[DicomFile]) -> None:
    """Refuse a folder with several patients: it is not clear whose the result would be.

    Patients are told apart by PatientID, and by PatientName where no file has an id. A missing id beside present ones
    is no second patient, nor is a name written differently.

    Raises
    ------
    DicomError
        There are several; who they are is not said.
    """
    known = list(files)
    ids = {file.patient_id for file in known if file.patient_id}
    names = {file.patient_name for file in known if file.patient_name}
    several = len(ids) if ids else len(names)
    if several > 1:
        raise DicomError(
            f"the input folder holds images of {several} patients", remedy="Give each patient a folder of its own"
        )


def group_series(files: Iterable[DicomFile]) -> list[Series]:
    """Gather files by SeriesInstanceUID, count repeated files once, and find what speaks against a series."""
    by_uid: dict[str, list[DicomFile]] = {}
    known = list(files)
    for file in known:
        if file.series_uid:
            by_uid.setdefault(file.series_uid, []).append(file)
    lost = _lost_slices(known)
    return [_judged(uid, by_uid[uid], lost.get(uid, [])) for uid in sorted(by_uid)]


def _lost_slices(files: Sequence[DicomFile]) -> dict[str, list[DicomFile]]:
    """Find the series, by uid, that may lack a slice because of files that are damaged before their SeriesInstanceUID.

    These are the series with images in such a file's folder; where it has none, those that are spread over several
    folders beside it. Where the file still tells its Modality (0008,0060), it is that of the series.
    """
    series: dict[str, set[tuple[str, str]]] = {}  # uid and modality, by folder
    kinds: dict[str, set[str]] = {}  # of the images' names, by folder
    for file in files:
        if file.series_uid and (file.state in _USED or file.damages):
            folder, _, name = file.name.rpartition("/")
            series.setdefault(folder, set()).add((file.series_uid, file.modality))
            kinds.setdefault(folder, set()).add(_name_kind(name))
    lost: dict[str, list[DicomFile]] = {}
    for file in files:
        if file.series_uid or not (file.damages or file.state in _UNKNOWN):
            continue
        folder, _, name = file.name.rpartition("/")  # of a folder that cannot be read, the name is empty
        near, enough = ([folder], 1) if folder in series else (_beside(folder, series), 2)
        if not _may_be_slice(file, name, {kind for place in near for kind in kinds[place]}):
            continue
        for (uid, modality), count in Counter(one for place in near for one in series[place]).items():
            if count >= enough and file.modality in {"", modality}:
                lost.setdefault(uid, []).append(file)
    return lost


def _beside(folder: str, others: Iterable[str]) -> list[str]:
    """Return those of the other folders that are in the same folder as this one."""
    above = folder.rpartition("/")[0]
    return [other for other in others if folder and other and other.rpartition("/")[0] == above]


def _may_be_slice(file: DicomFile, name: str, kinds: Collection[str]) -> bool:
    """Say whether a file is, or may have been, an image like those whose kinds of names are given.

    A file that begins as DICOM does is one, whatever its name. Of an empty or unreadable one there is the name alone.
    What holds something else is taken for a foreign file, unless its suffix says that it should be DICOM.
    """
    if file.damages:
        return name.upper() != "DICOMDIR"
    if not name:
        return True
    if name.startswith(".") or name.upper() == "DICOMDIR":  # .DS_Store, ._IM0001.dcm: not of a scanner
        return False
    kind = _name_kind(name)
    return kind in kinds and (file.state is not FileState.NOT_DICOM or kind.startswith("."))


def _name_kind(name: str) -> str:
    """Return what the names of one source have in common: the suffix; without one, whether they have digits.

    So an empty README or DONE is not like IM0001, nor like a UID; digits after the last dot are no suffix.
    """
    stem, _, suffix = name.rpartition(".")
    letters = "".join(letter for letter in suffix.lower() if not letter.isdigit())
    if stem and letters:
        return f".{letters}"
    return "digits" if any(map(str.isdigit, name)) else "letters"


def _judged(uid: str, files: Sequence[DicomFile], lost: Sequence[DicomFile]) -> Series:
    kept, fault = _without_duplicates(files)
    images = [file for file in kept if file.state in _USED]
    of = "projections" if any(file.state is FileState.PROJECTION for file in kept) else "images"
    damaged = [file for file in kept if file.damages]
    if damaged:
        fault = f"{len(damaged)} of its {len(images) + len(damaged)} {of} cannot be used ({_reasons(damaged)})"
    elif lost:
        one = len(lost) == 1
        fault = (
            f"{len(lost)} {'file' if one else 'files'} beside its {of} cannot be used, and may be "
            f"{'one' if one else 'some'} of them ({_reasons(lost)})"
        )
    for what, values in (
        ("patients", {file.patient_id for file in images}),
        # Within one series a scanner writes a name in one way; anonymised patients may share an id.
        ("patients", {file.patient_name.rstrip(b"^ ") for file in images}),
        ("studies", {file.study_uid for file in images}),
        ("frames of reference", {file.frame_of_reference_uid for file in images}),
        ("modalities", {file.modality for file in images}),
        ("kinds, images and projections", {file.state for file in images}),
    ):
        if len(values) > 1:
            fault = f"its {of} belong to {len(values)} {what}"
            break
    rescales = {frame.rescale for file in images for frame in file.frames}
    for keyword, given in zip(("RescaleSlope", "RescaleIntercept"), zip(*rescales, strict=True), strict=False):
        if len(set(given)) > 1:
            fault = f"some of its {of} have a {keyword} and others have none: their values cannot be compared"
    return Series(uid=uid, files=tuple(kept), fault=fault)


def _reasons(files: Sequence[DicomFile]) -> str:
    kinds = Counter(file.reason for file in files)
    return "; ".join(f"{count}x {reason}" if count > 1 else reason for reason, count in kinds.most_common(3))


def _without_duplicates(files: Sequence[DicomFile]) -> tuple[list[DicomFile], str]:
    """Count an instance once that stands in several files; instances that differ are a fault."""
    first: dict[str, DicomFile] = {}
    kept: list[DicomFile] = []
    fault = ""
    for file in files:
        uid = file.sop_instance_uid
        if file.state not in _USED or uid not in first:
            if file.state in _USED:
                first[uid] = file
            kept.append(file)
        elif _same(first[uid], file):
            kept.append(dataclasses.replace(file, state=FileState.DUPLICATE, reason=f"the same as {first[uid].name}"))
        else:
            fault = "two files have the same SOPInstanceUID and differ"
            kept.append(
                dataclasses.replace(file, reason=f"the SOPInstanceUID of {first[uid].name}, but not its content")
            )
    return kept, fault


def _same(one: DicomFile, other: DicomFile) -> bool:
    """Say whether two files hold the same image, be it in another encoding."""
    try:
        if filecmp.cmp(one.path, other.path, shallow=False):
            return True
        return len(one.frames) == len(other.frames) > 0 and all(map(_same_frame, one.frames, other.frames))
    except (FileFault, OSError):
        return False


def _same_frame(one: Frame, other: Frame) -> bool:
    def facts(frame: Frame) -> tuple[object, ...]:
        return (
            frame.position,
            frame.row_direction,
            frame.column_direction,
            frame.spacing,
            frame.slope,
            frame.intercept,
            frame.units,
        )

    return facts(one) == facts(other) and bool(np.array_equal(stored_values(one), stored_values(other)))
