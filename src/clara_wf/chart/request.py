"""What a job asks of the chart: the values that differ from job to job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """One job, as the chart's values."""

    workflow: str  # name, alias or UUID
    job_id: str  # UUID
    job_name: str  # for people; no patient data
    payloads: Path  # folder that holds one folder a job
    models: Path  # model repository
    trtis_uri: str = ""  # host:port; empty: the embedded engine
    run_simple: bool = True  # stages do not wait for the payload's lock
    dicom_input: str = ""  # folder that the DICOM Adapter fills; empty: the workflow's own
    dicom_output: str = ""  # folder that the DICOM Adapter empties; empty: the workflow's own
    deadline: float | None = None  # seconds that the whole job may take
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)  # further arguments, by stage
    extra: Mapping[str, Any] = field(default_factory=dict)  # further values, nested; they win

    @property
    def release(self) -> str:
        """The name of the Helm release; with a UUID it leaves room for the Job's name within 63 characters."""
        return f"clara-{self.job_id}"

    def values(self) -> dict[str, Any]:
        """Return the nested values, without `options`, which need the workflow (see `render.plan_job`)."""
        values: dict[str, Any] = {
            "workflow": {"id": self.workflow, "payloads": {"hostPath": str(self.payloads.absolute())}},
            "job": {"id": self.job_id, "name": self.job_name},
            "dicomAdapter": {"input": self.dicom_input, "output": self.dicom_output},
            "runSimple": "TRUE" if self.run_simple else "FALSE",
            "trtisUri": self.trtis_uri,
            "models": {"hostPath": str(self.models.absolute())},
        }
        if self.deadline is not None:
            # Kubernetes counts whole seconds: never less than was asked for.
            values["activeDeadlineSeconds"] = max(1, -int(-self.deadline // 1))
        return merge(values, self.extra)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested values over others, as Helm does: mappings are merged, all else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def nested(dotted: Mapping[str, str]) -> dict[str, Any]:
    """Turn ``{"job.id": "123"}`` into ``{"job": {"id": "123"}}``; every value stays the string that it is."""
    values: dict[str, Any] = {}
    for path, value in dotted.items():
        tree: dict[str, Any] = {path.rsplit(".", 1)[-1]: value}
        for key in reversed(path.split(".")[:-1]):
            tree = {key: tree}
        values = merge(values, tree)
    return values
