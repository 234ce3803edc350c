"""The record beside a volume: `<name>.json` carries what MetaImage cannot.

It says where the voxels come from (so that a writer can refer to the source's slices without having the files), what
the labels mean, and what was done by whom.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from clara_wf.model.errors import VolumeError
from clara_wf.model.files import write_atomically

SCHEMA = "clara-wf/volume/1"


@dataclass(frozen=True, kw_only=True)
class SourceInstance:
    """The DICOM image that a slice of the volume was read from."""

    sop_class_uid: str  # (0008,0016)
    sop_instance_uid: str  # (0008,0018)
    frame: int | None = None  # frame number from 1; None for a single-frame image


@dataclass(frozen=True, kw_only=True)
class SourceSeries:
    """The DICOM series that a volume was read from."""

    study_uid: str  # (0020,000D)
    series_uid: str  # (0020,000E)
    frame_of_reference_uid: str  # (0020,0052)
    instances: tuple[SourceInstance, ...]  # one for each slice of the volume, in the order of its slices
    dataset: Mapping[str, Any] = field(default_factory=dict)  # patient to equipment attributes, DICOM JSON model


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded concept, as DICOM writes them."""

    value: str  # 10200004
    scheme: str  # SCT
    meaning: str  # Liver


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a value of a label map means."""

    value: int  # the voxel's value, from 1
    name: str  # liver
    category: Code  # Segmented Property Category
    type: Code  # Segmented Property Type
    color: tuple[int, int, int] = (255, 0, 0)  # recommended display colour, sRGB 0-255


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a result may be believed. `review` and `none` say why."""

    status: Literal["ok", "review", "none"]  # none: there was nothing to find
    reasons: tuple[str, ...] = ()  # a sentence each


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """What made the labels."""

    name: str  # for people: Liver (KU Leuven, pyliverlesionseg)
    version: str  # of the model
    model: str  # name in the model repository
    sha256: str  # of the model's file
    engine: str = ""  # OpenVINO 2026.4.1, f32


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stage's entry in the provenance of a volume."""

    stage: str  # ai-vnet
    version: str  # of clara-wf
    started: str  # ISO 8601
    ended: str  # ISO 8601
    detail: Mapping[str, str | float] = field(default_factory=dict)  # seconds of each part, options


@dataclass(frozen=True, kw_only=True)
class VolumeRecord:
    """All that is known of a volume beside its voxels."""

    kind: Literal["image", "labels"]  # grey values or labels
    modality: str = ""  # of the source: CT
    units: str = ""  # of the voxels: HU
    source: SourceSeries | None = None  # None: it does not come from DICOM
    labels: tuple[Label, ...] = ()  # of a label map
    verdict: Verdict | None = None  # of a label map
    algorithm: Algorithm | None = None  # of a label map
    measurements: Mapping[str, Any] = field(default_factory=dict)  # by label name: volume_ml, centroid_mm, mean_hu
    provenance: tuple[Step, ...] = ()  # oldest first

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {"schema": SCHEMA, **asdict(self)}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> VolumeRecord:
        """Read the record from JSON types.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is no such record.
        """
        if content.get("schema") != SCHEMA:
            raise ValueError(f"schema {content.get('schema')!r} is not {SCHEMA}")
        source = content.get("source")
        verdict = content.get("verdict")
        algorithm = content.get("algorithm")
        return VolumeRecord(
            kind=content["kind"],
            modality=content.get("modality", ""),
            units=content.get("units", ""),
            source=_source(source) if source else None,
            labels=tuple(_label(label) for label in content.get("labels", ())),
            verdict=Verdict(status=verdict["status"], reasons=tuple(verdict["reasons"])) if verdict else None,
            algorithm=Algorithm(**algorithm) if algorithm else None,
            measurements=content.get("measurements", {}),
            provenance=tuple(Step(**step) for step in content.get("provenance", ())),
        )


def _source(content: Mapping[str, Any]) -> SourceSeries:
    instances = tuple(SourceInstance(**instance) for instance in content["instances"])
    return SourceSeries(**{**content, "instances": instances})


def _label(content: Mapping[str, Any]) -> Label:
    return Label(
        value=int(content["value"]),
        name=content["name"],
        category=Code(**content["category"]),
        type=Code(**content["type"]),
        color=tuple(content["color"]),
    )


def record_path(volume_path: Path) -> Path:
    """Return where the record of `<name>.mhd` lies: `<name>.json`."""
    return volume_path.with_suffix(".json")


def read_record(volume_path: Path) -> VolumeRecord | None:
    """Read the record beside a volume; None if there is none.

    Raises
    ------
    VolumeError
        It is no record of ours, or broken.
    """
    path = record_path(volume_path)
    try:
        return VolumeRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise VolumeError(f"{path.name} is no record of a volume: {type(exc).__name__} {exc}") from exc


def write_record(volume_path: Path, record: VolumeRecord) -> None:
    """Write the record beside a volume. Write it before the volume: who sees the header then finds the record."""
    write_atomically(record_path(volume_path), json.dumps(record.to_json(), ensure_ascii=False) + "\n")
