"""`series.json`: what became of every file and series that a reader found, and why.

::

    {"schema": "clara-wf/series/1", "version": "...", "options": {"resample": false, "series": []},
     "counts": {"files": 61, "read": 49, ...},                   # by state; they add up to files
     "series": [{"series_uid", "study_uid", "modality", "image_type": [...], "photometric", "state", "reason",
                 "files": {"read": 49},                          # by state
                 "volumes": [{"name": "<uid>.mhd" or null, "reason", "orientation", "split", "slices",
                              "shape": [slices, rows, columns], "spacing_mm": [slice, row, column],
                              "extent_mm": [likewise], "origin_mm": [x, y, z], "dtype", "resampled", "notes": [...]}]}],
                                                                # of projections: "orientation": "projections",
                                                                # "slices": views, "shape": [views, rows, columns]
     "files": [{"path", "state", "reason", "series_uid"}]}      # path: relative to the folder that was read

It is a file of the payload, not a log. Even so, free text of the files (descriptions, names, ids) is not repeated.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clara_wf import __version__
from clara_wf.imaging.dicom_image import DicomFile
from clara_wf.imaging.dicom_inventory import Series
from clara_wf.imaging.dicom_states import FileState, SeriesState
from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.model.files import write_atomically

NAME: Final = "series.json"
SCHEMA: Final = "clara-wf/series/1"


@dataclass(frozen=True, kw_only=True)
class VolumeReport:
    """What became of one stack of a series."""

    path: Path | None  # the header; None if it was refused
    sources: frozenset[Path]  # the files that its slices stand in
    orientation: str  # axial, coronal, sagittal or oblique
    split: str  # what tells it from other stacks at the same places
    slices: int  # that the series has for it
    reason: str = ""  # why it was refused
    geometry: VolumeGeometry | None = None  # None if it was refused, or is a stack of projections
    projections: tuple[int, int, int] | None = None  # views, rows and columns of such a stack
    dtype: str = ""  # int16 or float32; uint16 of projections
    resampled: bool = False
    notes: tuple[str, ...] = ()  # a sentence each
    broken: Mapping[Path, tuple[FileState, str]] | None = None  # files whose pixels cannot be read, and why


@dataclass(frozen=True, kw_only=True)
class SeriesReport:
    """What became of a series."""

    series: Series
    state: SeriesState
    reason: str
    volumes: tuple[VolumeReport, ...] = ()

    def file_states(self) -> dict[str, tuple[FileState, str]]:
        """Say what became of each file: what it is itself, or else what became of the volumes that it is for."""
        states = {}
        for file in self.series.files:
            state, reason = file.state, file.reason
            if state in {FileState.READ, FileState.PROJECTION}:
                state, reason = self._image_state(file)
            states[file.name] = (state, reason)
        return states

    def _image_state(self, file: DicomFile) -> tuple[FileState, str]:
        if self.state is SeriesState.SKIPPED:
            return FileState.NOT_SELECTED, self.reason
        reasons = []
        for volume in self.volumes:
            if volume.broken and file.path in volume.broken:
                return volume.broken[file.path]
            if file.path in volume.sources:
                if volume.path is not None:
                    return file.state, ""
                reasons.append(volume.reason)
        return FileState.REFUSED, file.reason or f"its series is refused: {(reasons or [self.reason])[0]}"


@dataclass(frozen=True, kw_only=True)
class ReadReport:
    """What became of a folder."""

    series: tuple[SeriesReport, ...]
    files: Mapping[str, tuple[FileState, str]]  # state and reason by name: every file that was found
    series_of: Mapping[str, str]  # SeriesInstanceUID by name, where it is known

    @property
    def volumes(self) -> tuple[Path, ...]:
        """The headers of the volumes made."""
        return tuple(volume.path for series in self.series for volume in series.volumes if volume.path)

    @property
    def counts(self) -> Counter[str]:
        """The number of files in each state."""
        return Counter(str(state) for state, _ in self.files.values())


def make_report(files: Sequence[DicomFile], outcomes: Sequence[SeriesReport]) -> ReadReport:
    """Bring together what became of every file."""
    states = {file.name: (file.state, file.reason) for file in files}
    for outcome in outcomes:
        states |= outcome.file_states()
    if len(states) != len(files):
        raise AssertionError(f"{len(files)} files were found and {len(states)} are accounted for")
    return ReadReport(
        series=tuple(outcomes),
        files=states,
        series_of={file.name: file.series_uid for file in files if file.series_uid},
    )


def write_report(folder: Path, report: ReadReport, options: Mapping[str, Any]) -> None:
    """Write `series.json`."""
    content = {
        "schema": SCHEMA,
        "version": __version__,
        "options": dict(options),
        "counts": {"files": len(report.files), **dict(sorted(report.counts.items()))},
        "series": [_series_json(outcome) for outcome in report.series],
        "files": [
            {"path": name, "state": state, "reason": reason, "series_uid": report.series_of.get(name, "")}
            for name, (state, reason) in sorted(report.files.items())
        ],
    }
    write_atomically(folder / NAME, json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")


def _series_json(outcome: SeriesReport) -> dict[str, Any]:
    facts = (outcome.series.images or outcome.series.files)[0]
    return {
        "series_uid": outcome.series.uid,
        "study_uid": facts.study_uid,
        "modality": facts.modality,
        "image_type": list(facts.image_type),
        "photometric": facts.photometric,
        "state": outcome.state,
        "reason": outcome.reason,
        "files": dict(Counter(str(state) for state, _ in outcome.file_states().values())),
        "volumes": [_volume_json(volume) for volume in outcome.volumes],
    }


def _volume_json(volume: VolumeReport) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": volume.path.name if volume.path else None,
        "reason": volume.reason,
        "orientation": volume.orientation,
        "split": volume.split,
        "slices": volume.slices,
        "dtype": volume.dtype,
        "resampled": volume.resampled,
        "notes": list(volume.notes),
    }
    if volume.projections is not None:
        content["shape"] = list(volume.projections)
    grid = volume.geometry
    if grid is not None:
        content |= {
            "shape": list(grid.shape),
            "spacing_mm": list(grid.spacing),
            "extent_mm": [round(n * mm, 6) for n, mm in zip(grid.shape, grid.spacing, strict=True)],
            "origin_mm": list(grid.origin),
        }
    return content
