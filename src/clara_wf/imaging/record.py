"""The record beside a volume: `<name>.json` carries what MetaImage cannot.

It says where the voxels come from (so that a writer can refer to the source's slices without having the files), what
the labels mean, and what was done by whom.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from clara_wf.model.errors import VolumeError
from clara_wf.model.files import write_atomically

T = TypeVar("T")

SCHEMA = "clara-wf/volume/1"
#: What a volume holds: grey values, labels, or a scanner's projections, [view, row, column].
Kind = Literal["image", "labels", "projections"]
#: Whether a result may be believed; none: there was nothing to find.
Status = Literal["ok", "review", "none"]


@dataclass(frozen=True, kw_only=True)
class SourceInstance:
    """The DICOM image that a slice of the volume was read from."""

    sop_class_uid: str  # (0008,0016)
    sop_instance_uid: str  # (0008,0018)
    frame: int | None = None  # frame number from 1; None for a single-frame image
    #: (0020,0032), of the frame if it is one: LPS mm of the centre of its first pixel, as a volume's origin. None in
    #: records of old, and of projections.
    position: tuple[float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class SourceSeries:
    """The DICOM series that a volume was read from."""

    study_uid: str  # (0020,000D)
    series_uid: str  # (0020,000E)
    frame_of_reference_uid: str  # (0020,0052)
    instances: tuple[SourceInstance, ...]  # one for each slice of the volume, in the order of its slices
    #: Patient to equipment attributes, DICOM JSON model. Its Image Orientation (Patient), Pixel Spacing, Rows and
    #: Columns are those of all instances, also where these are frames.
    dataset: Mapping[str, Any] = field(default_factory=dict)
    exists: bool = True  # False: a reconstruction, whose images under these UIDs the writer makes of this volume
    digest: str = ""  # of that volume: what a later stage changed are other images. Empty: not known


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

    status: Status  # none: there was nothing to find
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

    kind: Kind  # grey values, labels or projections
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
        ValueError
            It is no such record. The message names the field at fault and quotes nothing: a record holds a patient's
            data.
        """
        if content.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        if content.get("kind") is None:
            raise ValueError("its field kind is missing")
        fields: dict[str, Any] = {}
        for name, parse in _FIELDS.items():
            if content.get(name) is not None:
                try:
                    fields[name] = parse(content[name])
                except (KeyError, TypeError, ValueError, AttributeError) as exc:
                    # Without the cause: its text may quote what it could not read.
                    raise ValueError(f"its field {name} cannot be read ({type(exc).__name__})") from None
        return VolumeRecord(**fields)


def _one_of(allowed: tuple[str, ...], value: object) -> str:
    if value not in allowed:
        raise ValueError(f"not one of {', '.join(allowed)}")
    return str(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no string")
    return value


def _verdict(content: Mapping[str, Any]) -> Verdict:
    status = cast("Status", _one_of(get_args(Status), content["status"]))
    return Verdict(status=status, reasons=_each(_text, content["reasons"]))


def _each(parse: Callable[[Any], T], entries: object) -> tuple[T, ...]:
    if not isinstance(entries, list):
        raise TypeError("no list")
    return tuple(parse(entry) for entry in entries)


def _instance(content: Mapping[str, Any]) -> SourceInstance:
    position = content.get("position")
    if position is not None:
        x, y, z = (float(value) for value in position)
        if not all(map(math.isfinite, (x, y, z))):
            raise ValueError("no position")
        position = (x, y, z)
    return SourceInstance(**{**content, "position": position})


def _source(content: Mapping[str, Any]) -> SourceSeries:
    instances = _each(_instance, content["instances"])
    return SourceSeries(**{**content, "instances": instances})


def _label(content: Mapping[str, Any]) -> Label:
    return Label(
        value=int(content["value"]),
        name=content["name"],
        category=Code(**content["category"]),
        type=Code(**content["type"]),
        color=tuple(content["color"]),
    )


#: How each field is read; one that is null or missing has its default.
_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "kind": lambda value: _one_of(get_args(Kind), value),
    "modality": _text,
    "units": _text,
    "source": _source,
    "labels": lambda value: _each(_label, value),
    "verdict": _verdict,
    "algorithm": lambda value: Algorithm(**value),
    "measurements": dict,
    "provenance": lambda value: _each(lambda step: Step(**step), value),
}


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
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise VolumeError(f"{path.name} is no record of a volume: it is no JSON ({type(exc).__name__})") from None
    if not isinstance(content, dict):
        raise VolumeError(f"{path.name} is no record of a volume: it is no JSON object")
    try:
        return VolumeRecord.from_json(content)
    except ValueError as exc:
        raise VolumeError(f"{path.name} is no record of a volume: {exc}") from exc


def write_record(volume_path: Path, record: VolumeRecord) -> None:
    """Write the record beside a volume. Write it before the volume: who sees the header then finds the record."""
    write_atomically(record_path(volume_path), json.dumps(record.to_json(), ensure_ascii=False) + "\n")
