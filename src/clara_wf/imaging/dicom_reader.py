"""A folder of DICOM files -> volumes, and `series.json`, which says for every file and series what became of it.

Each series gives `<SeriesInstanceUID>.mhd`, `.raw` and `.json`. A series that holds several stacks (directions, times,
echoes, sizes) gives one volume each: the largest has the plain name, the others `<SeriesInstanceUID>_2`, `_3`, ...; an
underscore, since `<UID>.2` may well be another series.

A series of projections (DICOM-CT-PD) is gathered here, and left to who knows what a scan is: see `ProjectionReader`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clara_wf import __version__
from clara_wf.imaging.dicom_frame import Frame
from clara_wf.imaging.dicom_gate import Verdict, check_stack, regular_geometry
from clara_wf.imaging.dicom_inventory import Series, check_one_patient, group_series, take_inventory
from clara_wf.imaging.dicom_json import kept_attributes, plane_attributes
from clara_wf.imaging.dicom_pixels import AIR_HU, DoesNotFitError, FrameFault, Writer, integers_only, read_slices
from clara_wf.imaging.dicom_regrid import plan_regrid, regrid
from clara_wf.imaging.dicom_report import ReadReport, SeriesReport, VolumeReport, make_report, write_report
from clara_wf.imaging.dicom_stacks import Stack, split_stacks
from clara_wf.imaging.dicom_states import FileState, SeriesState
from clara_wf.imaging.metaimage import open_slices
from clara_wf.imaging.record import SourceInstance, SourceSeries, Step, VolumeRecord, write_record
from clara_wf.model.errors import ClaraError, DicomError, GeometryError, InputError

_RESAMPLE: Final = "Pass --resample to have it resampled to a regular grid"
Progress = Callable[[float, str], None]
#: Makes a stack of a series of projections, at a path whose name ends in .mhd, and is to say how many views are done;
#: raises an InputError that says why it cannot.
ProjectionReader = Callable[[Series, Path, Callable[[int], None]], VolumeReport]


def _silent(fraction: float, message: str) -> None:
    """Stand in for nobody who wants to know."""


def read_folder(
    folder: Path,
    output: Path,
    *,
    resample: bool = False,
    only_series: Collection[str] = (),
    read_projections: ProjectionReader | None = None,
    stage: str = "dicom-reader",
    progress: Progress = _silent,
) -> ReadReport:
    """Read all series below a folder into volumes.

    Parameters
    ----------
    folder : Path
        Of any depth, with any file names.
    output : Path
        An existing folder for the volumes, their records and `series.json`.
    resample : bool
        Bring slices that lie unevenly or sheared onto a regular grid (see `dicom_regrid`) instead of refusing them.
    only_series : collection of str
        SeriesInstanceUIDs; none is all.
    read_projections : callable
        Makes stacks of series of projections; without it they are passed over.
    stage : str
        Who is noted in the records' provenance.
    progress : callable
        Told the part done, from 0 to 1, and what is done now.

    Returns
    -------
    ReadReport
        What also stands in `series.json`. At least one volume was made.

    Raises
    ------
    GeometryError
        No volume was made, and slices that make no regular grid are the reason.
    InputError
        No volume was made for another reason, or there are several patients. `series.json` is written all the same.
    """
    started = time.time()
    files = take_inventory(folder)
    all_series = group_series(files)
    options = {"resample": resample, "series": sorted(only_series)}
    try:
        check_one_patient(files)
    except DicomError as fault:
        refused = tuple(
            SeriesReport(series=series, state=SeriesState.REFUSED, reason=fault.message) for series in all_series
        )
        write_report(output, make_report(files, refused), options)
        raise
    progress(0.1, f"{len(files)} files, {len(all_series)} series")
    job = _Job(output, resample, read_projections, stage=stage, started=started, progress=progress)
    chosen = [series for series in all_series if not only_series or series.uid in only_series]
    job.total = sum(series.planes for series in chosen) or 1
    outcomes = tuple(job.read_series(series) if series in chosen else _not_selected(series) for series in all_series)
    report = make_report(files, outcomes)
    write_report(output, report, options)
    if not report.volumes:
        raise _nothing_read(report, only_series, job.faults)
    return report


def _not_selected(series: Series) -> SeriesReport:
    return SeriesReport(series=series, state=SeriesState.SKIPPED, reason="it was not asked for")


def _nothing_read(report: ReadReport, only_series: Collection[str], faults: Mapping[str, ClaraError]) -> InputError:
    """Say in one line why there is no volume."""
    missing = sorted(set(only_series) - {outcome.series.uid for outcome in report.series})
    if missing:
        return InputError(
            f"there is no series {missing[0]} in the input folder", remedy="See series.json for those there"
        )
    refused = [outcome for outcome in report.series if outcome.state is SeriesState.REFUSED]
    if not refused:
        kinds = ", ".join(f"{count} {state}" for state, count in report.counts.most_common())
        broken = (FileState.REFUSED, FileState.TRUNCATED, FileState.UNREADABLE)
        first_reason = next(
            (f", the first: {reason}" for state, reason in report.files.values() if state in broken), ""
        )
        return InputError(
            f"none of the {len(report.files)} files in the input folder is a slice of a volume ({kinds}{first_reason})"
        )
    first = refused[0]
    fault = faults.get(first.series.uid)
    more = f" ({len(refused) - 1} more series are refused: see series.json)" if len(refused) > 1 else ""
    kind = GeometryError if isinstance(fault, GeometryError) else DicomError
    return kind(f"series {first.series.uid} is refused: {first.reason}{more}", remedy=fault.remedy if fault else None)


class _Job:
    """One reading of a folder: what all its series have in common."""

    def __init__(
        self,
        output: Path,
        resample: bool,
        read_projections: ProjectionReader | None,
        *,
        stage: str,
        started: float,
        progress: Progress,
    ) -> None:
        self._output = output
        self._resample = resample
        self._read_projections = read_projections
        self._stage = stage
        self._started = started
        self._progress = progress
        self._done = 0
        self.total = 1  # slices of all series
        self.faults: dict[str, ClaraError] = {}  # by series, for the last word

    def read_series(self, series: Series) -> SeriesReport:
        """Make the volumes of a series."""
        if series.projections and not series.fault:
            return self._read_scan(series)
        if not series.images and not series.fault:
            refused = [file.reason for file in series.files if file.state is FileState.REFUSED]
            state = SeriesState.REFUSED if refused else SeriesState.SKIPPED
            return SeriesReport(series=series, state=state, reason=(refused or [series.files[0].reason])[0])
        if series.fault:
            self.faults[series.uid] = DicomError(series.fault)
            return SeriesReport(series=series, state=SeriesState.REFUSED, reason=series.fault)
        stacks = split_stacks((frame for file in series.images for frame in file.frames), self._quality)
        volumes: list[VolumeReport] = []
        for number, stack in enumerate(stacks, start=1):
            name = f"{series.uid}.mhd" if number == 1 else f"{series.uid}_{number}.mhd"
            if len(stack.frames) == 1 and volumes and volumes[0].path is None:
                volumes.append(_leftover(stack, volumes[0]))
            else:
                volumes.append(self._read_stack(series, stack, self._output / name))
            self._done += len(stack.frames)
        reasons = [volume.reason for volume in volumes if volume.path is None]
        state = SeriesState.READ if not reasons else SeriesState.PARTLY_READ
        if len(reasons) == len(volumes):
            state = SeriesState.REFUSED
        return SeriesReport(series=series, state=state, reason="; ".join(reasons), volumes=tuple(volumes))

    def _read_scan(self, series: Series) -> SeriesReport:
        if self._read_projections is None:
            return SeriesReport(series=series, state=SeriesState.SKIPPED, reason="projections, no slices of a volume")
        try:
            report = self._read_projections(series, self._output / f"{series.uid}.mhd", self._report_slices)
        except InputError as fault:
            self.faults[series.uid] = fault
            report = VolumeReport(
                path=None,
                sources=frozenset(projection.path for projection in series.projections),
                orientation="projections",
                split="",
                slices=len(series.projections),
                reason=fault.message,
                broken={fault.frame.path: (fault.state, fault.message)} if isinstance(fault, FrameFault) else None,
            )
        self._done += len(series.projections)
        state = SeriesState.REFUSED if report.path is None else SeriesState.READ
        return SeriesReport(series=series, state=state, reason=report.reason, volumes=(report,))

    def _quality(self, stack: Stack) -> int:
        """Say whether a stack makes a volume: 2 as it is, 1 resampled, 0 none."""
        verdict = check_stack(stack)
        return 2 if not verdict.faults else int(self._resample and verdict.resamplable)

    def _read_stack(self, series: Series, stack: Stack, path: Path) -> VolumeReport:
        verdict = check_stack(stack)
        report = VolumeReport(
            path=None,
            sources=frozenset(frame.path for frame in stack.frames),
            orientation=stack.orientation,
            split=stack.split,
            slices=len(stack.frames),
            notes=(*verdict.notes, *_notes(series, stack)),
        )
        if len({frame.units for frame in stack.frames}) > 1:
            # RescaleType is a text of its writer's own, and is not repeated.
            fault = DicomError("its slices are in different units (RescaleType): their values cannot be compared")
            self.faults.setdefault(series.uid, fault)
            return replace(report, reason=fault.message)
        if verdict.faults and not (self._resample and verdict.resamplable):
            remedy = _RESAMPLE if verdict.resamplable else None
            self.faults.setdefault(series.uid, GeometryError("; ".join(verdict.faults), remedy=remedy))
            return replace(report, reason="; ".join(verdict.faults))
        for dtype in ("<i2", "<f4") if integers_only(stack.frames) else ("<f4",):
            try:
                return self._write(series, stack, verdict, replace(report, path=path, dtype=np.dtype(dtype).name))
            except DoesNotFitError:
                continue
            except FrameFault as fault:
                self.faults.setdefault(series.uid, fault)
                number = stack.frames.index(fault.frame) + 1
                broken = {fault.frame.path: (fault.state, fault.message)}
                return replace(report, reason=f"slice {number} cannot be read: {fault.message}", broken=broken)
        raise AssertionError("float32 takes every value")

    def _write(self, series: Series, stack: Stack, verdict: Verdict, report: VolumeReport) -> VolumeReport:
        """Write the volume that the report announces, and return the report with what was found out by that."""
        path, dtype = report.path or self._output, np.dtype(report.dtype)
        # Air has a value in HU (and in what is not said to be other units), but none in Z_EFF or mg/ml.
        air = series.images[0].modality == "CT" and stack.frames[0].units in {"HU", ""}

        def read(write: Writer) -> None:
            read_slices(stack.frames, write, dtype, pad_with_air=air, done=self._report_slices)

        if not verdict.faults:
            report = replace(report, geometry=regular_geometry(stack, verdict.spacing))
            with open_slices(path, regular_geometry(stack, verdict.spacing), dtype) as write:
                read(write)
                self._write_record(series, stack.frames, path, report)
            return report
        plan = plan_regrid(stack, verdict)
        notes = (
            *report.notes,
            *(f"resampled, since {fault}" for fault in verdict.faults),
            f"{plan.interpolated} of {plan.geometry.shape[0]} slices lie between two that were measured",
        )
        report = replace(report, geometry=plan.geometry, resampled=True, notes=notes)
        first = stack.frames[0].format
        with _scratch(self._output, (len(stack.frames), first.rows, first.columns), dtype) as source:
            read(source.__setitem__)
            with open_slices(path, plan.geometry, dtype) as write:
                regrid(source, plan, write, outside=AIR_HU if air else 0.0)
                self._write_record(series, [stack.frames[index] for index in plan.nearest], path, report)
        return report

    def _report_slices(self, count: int) -> None:
        self._progress(0.1 + 0.9 * (self._done + count) / self.total, "reading slices")

    def _write_record(self, series: Series, frames: Sequence[Frame], path: Path, report: VolumeReport) -> None:
        """Write the record; `frames` are the sources of the volume's slices."""
        image = series.images[0]
        detail: dict[str, str | float] = {
            "orientation": report.orientation,
            "image_type": "\\".join(image.image_type),
            "seconds": round(time.time() - self._started, 3),
        }
        if report.split:
            detail["split"] = report.split
        if report.resampled:
            detail["resampled"] = "yes"  # the writer then says that voxels are not where the source's pixels are
        if report.notes:
            detail["notes"] = "; ".join(report.notes)
        record = VolumeRecord(
            kind="image",
            modality=image.modality,
            units=frames[0].units,
            source=SourceSeries(
                study_uid=image.study_uid,
                series_uid=series.uid,
                frame_of_reference_uid=image.frame_of_reference_uid,
                instances=tuple(
                    SourceInstance(
                        sop_class_uid=frame.sop_class_uid,
                        sop_instance_uid=frame.sop_instance_uid,
                        frame=frame.number,
                        position=frame.position,
                    )
                    for frame in frames
                ),
                dataset=kept_attributes(frames[0].path) | plane_attributes(frames[0]),
            ),
            provenance=(
                Step(
                    stage=self._stage,
                    version=__version__,
                    started=_iso(self._started),
                    ended=_iso(time.time()),
                    detail=detail,
                ),
            ),
        )
        write_record(path, record)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _leftover(stack: Stack, refused: VolumeReport) -> VolumeReport:
    """Refuse one slice that lies otherwise than a stack that is refused: it may be the one that is missing there."""
    return VolumeReport(
        path=None,
        sources=frozenset(frame.path for frame in stack.frames),
        orientation=stack.orientation,
        split=stack.split,
        slices=1,
        reason=f"one slice alone, and the other {refused.slices} of its series are refused",
    )


def _notes(series: Series, stack: Stack) -> list[str]:
    """Say what a user should know of a series that is read nevertheless."""
    notes = []
    if "MOSAIC" in series.images[0].image_type:
        notes.append("a mosaic: its tiles are slices, but it is read as the one plane that its header describes")
    if not series.images[0].frame_of_reference_uid:
        notes.append("FrameOfReferenceUID is missing or no UID: it cannot be related to other series")
    has_slope, has_intercept = stack.frames[0].rescale
    if series.images[0].modality == "CT" and not has_intercept:
        taken = "with RescaleSlope alone" if has_slope else "as they are"
        notes.append(f"RescaleIntercept is missing: its stored values are taken {taken}")
    elif series.images[0].modality == "CT" and not has_slope:
        notes.append("RescaleSlope is missing: it is taken as 1")
    return notes


@contextlib.contextmanager
def _scratch(folder: Path, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Give an array on the disk that is gone afterwards: memory stays bounded."""
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        yield np.memmap(file, dtype=dtype, mode="r+", shape=shape)
