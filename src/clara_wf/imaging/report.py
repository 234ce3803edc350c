"""What a job found, for people and programs: `report.json`. It names series and objects by UID, and nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from clara_wf.imaging.derivation import NOT_FOR_CLINICAL_USE, WrittenObject
from clara_wf.imaging.measure import Measurer
from clara_wf.imaging.record import Step, VolumeRecord
from clara_wf.imaging.volume import Volume

SCHEMA = "clara-wf/report/1"
#: The verdict of a report is the first of these that any volume has: nothing to find in one hides no other.
_VERDICTS = ("review", "ok", "none")
#: Measurements that need the image, which a writer does not have.
_OF_IMAGE = ("mean", "sd", "mean_hu", "sd_hu")


@dataclass(frozen=True, kw_only=True)
class VolumeReport:
    """What is told of one volume."""

    name: str  # of the volume's file, without its suffix
    record: VolumeRecord  # what came with it
    labels: Mapping[str, Mapping[str, Any]]  # by label name: see `measure_labels`; empty for grey values
    objects: tuple[WrittenObject, ...]  # what was written of it
    notes: tuple[str, ...] = ()  # why there is no object, and what a reader of the objects should know
    preview: str | None = None  # file name


def measure_labels(volume: Volume, record: VolumeRecord) -> dict[str, dict[str, Any]]:
    """Measure every label of a label volume.

    Parameters
    ----------
    volume : Volume
        Labels [slice, row, column].
    record : VolumeRecord
        Names the labels.

    Returns
    -------
    dict
        By label name: its `value`, its code as `type`, `voxels`, `volume_ml`, and `centroid_mm` in LPS (None where the
        label is absent). What needs the image (`mean_hu`, `sd_hu`) is taken over from the record, if it has them.
    """
    measurer = Measurer(volume.geometry, record.labels)
    for index, plane in enumerate(volume.array):
        measurer.add(index, plane)
    measured = measurer.result()
    return {
        label.name: {
            "value": label.value,
            "type": asdict(label.type),
            "centroid_mm": None,
            **_of_image(record.measurements.get(label.name)),
            **measured[label.name],
        }
        for label in record.labels
    }


def _of_image(measured: object) -> dict[str, Any]:
    """Return, of a label's measurements in a record, what labels alone cannot tell."""
    return {key: value for key, value in measured.items() if key in _OF_IMAGE} if isinstance(measured, Mapping) else {}


def make_report(
    volumes: Sequence[VolumeReport], *, workflow: str, job_id: str, step: Step, withheld_warnings: Mapping[str, int]
) -> dict[str, Any]:
    """Put together what `report.json` says.

    Parameters
    ----------
    volumes : sequence of VolumeReport
        All that came in.
    workflow : str
        Name of the workflow.
    job_id : str
        UUID of the job.
    step : Step
        The writer's own step.
    withheld_warnings : mapping of str to int
        Warnings of the DICOM libraries, counted and not quoted (see `discretion`).

    Returns
    -------
    dict
        JSON types.
    """
    verdicts = {volume.record.verdict.status for volume in volumes if volume.record.verdict is not None}
    return {
        "schema": SCHEMA,
        "notice": NOT_FOR_CLINICAL_USE,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "workflow": workflow,
        "job_id": job_id,
        "verdict": next((verdict for verdict in _VERDICTS if verdict in verdicts), None),
        "volumes": [_describe(volume, step) for volume in volumes],
        "withheld_warnings": dict(withheld_warnings),
    }


def _describe(volume: VolumeReport, step: Step) -> dict[str, Any]:
    record = volume.record
    source = record.source
    steps = (*record.provenance, step)
    return {
        "name": volume.name,
        "kind": record.kind,
        "modality": record.modality,
        "units": record.units,
        "source_series_uid": source.series_uid if source is not None else None,
        "source_images": len(source.instances) if source is not None else 0,
        "verdict": asdict(record.verdict) if record.verdict is not None else None,
        "labels": dict(volume.labels),
        "algorithm": asdict(record.algorithm) if record.algorithm is not None else None,
        "objects": [
            {
                "file": "/".join(item.path.parts[-2:] if record.kind == "image" else item.path.parts[-1:]),
                "sop_class_uid": item.sop_class_uid,
                "sop_instance_uid": item.sop_instance_uid,
                "series_uid": item.series_uid,
                "bytes": item.size,
                "sha256": item.sha256,
            }
            for item in volume.objects
        ],
        "notes": list(volume.notes),
        "preview": volume.preview,
        "timings_s": {item.stage: _seconds(item) for item in steps},
        "provenance": [asdict(item) for item in steps],
    }


def _seconds(step: Step) -> float | None:
    """Return how long a step took; None if its times are no times."""
    try:
        span = datetime.fromisoformat(step.ended) - datetime.fromisoformat(step.started)
    except (ValueError, TypeError):
        return None
    return round(span.total_seconds(), 3)
