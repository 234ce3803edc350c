"""What a job found, gathered from its payload and shown to a person or a program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clara_wf.cli.terminal import results
from clara_wf.model.errors import VolumeError
from clara_wf.model.plan import Plan

if TYPE_CHECKING:
    from clara_wf.imaging.record import VolumeRecord

#: How a verdict is shown.
_COLORS = {"ok": "green", "review": "yellow", "none": "red"}


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A label map that a stage left."""

    volume: Path  # its header
    verdict: str  # ok, review, none
    reasons: tuple[str, ...]  # why not ok
    structures: Mapping[str, Mapping[str, Any]]  # by name: volume_ml, centroid_mm, mean_hu
    model: str = ""  # name and version


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something in the input that gave no result, and why."""

    what: str  # a series or a group of files
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that a job found."""

    labelled: tuple[Labelled, ...] = ()  # label maps of the last stage that made any
    skipped: tuple[Skipped, ...] = ()  # of the reader and the segmenter
    files: tuple[str, ...] = ()  # of the last stage's output, relative to it
    previews: tuple[Path, ...] = ()  # pictures
    comparison: Mapping[str, Any] = field(default_factory=dict)  # with the truth, where that is known

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON types."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return content


def gather(plan: Plan, comparison: Mapping[str, Any] | None = None) -> Outcome:
    """Gather what the stages of a finished job left in its payload."""
    outputs = [folder for stage in plan.stages if (folder := stage.folder("OUTPUTS")) is not None]
    labelled: tuple[Labelled, ...] = ()
    skipped: list[Skipped] = []
    previews: tuple[Path, ...] = ()
    for folder in outputs:
        labelled = tuple(_labelled(folder)) or labelled
        previews = tuple(sorted(folder.glob("*preview.png"))) or previews
        skipped += _skipped(folder)
    last = plan.output
    files = tuple(sorted(file.relative_to(last).as_posix() for file in last.rglob("*") if file.is_file()))
    return Outcome(
        labelled=labelled, skipped=tuple(skipped), files=files, previews=previews, comparison=comparison or {}
    )


def _labelled(folder: Path) -> list[Labelled]:
    from clara_wf.imaging.record import read_record

    found = []
    for header in sorted(folder.glob("*.mhd")):
        try:
            record = read_record(header)
        except VolumeError:
            continue
        if record is not None and record.kind == "labels":
            found.append(_of_record(header, record))
    return found


def _of_record(header: Path, record: VolumeRecord) -> Labelled:
    verdict = record.verdict
    return Labelled(
        volume=header,
        verdict=verdict.status if verdict else "",
        reasons=verdict.reasons if verdict else (),
        structures={name: values for name, values in record.measurements.items() if isinstance(values, Mapping)},
        model=f"{record.algorithm.model} {record.algorithm.version}" if record.algorithm else "",
    )


def show(outcome: Outcome) -> None:
    """Show an outcome to a person."""
    console = results()
    _show_structures(outcome)
    for name, values in outcome.comparison.items():
        console.print(
            f"[bold]{name}[/] against the truth: Dice {values['dice']:.4f}, volume {values['volume_ml']:.1f} ml"
            f" (truth {values['truth_ml']:.1f}), centroid {values['centroid_distance_mm']:.2f} mm away"
        )
    for skipped in outcome.skipped:
        console.print(f"not used: {skipped.what}: {skipped.reason}", style="dim", markup=False)


def _show_structures(outcome: Outcome) -> None:
    if not outcome.labelled:
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("Structure", "Volume", "Centroid (LPS mm)", "Mean", "Verdict", box=None, pad_edge=False)
    for labelled in outcome.labelled:
        color = _COLORS.get(labelled.verdict, "default")
        verdict = f"[{color}]{labelled.verdict}[/]" if labelled.verdict else "-"
        for name, values in labelled.structures.items():
            centroid = values.get("centroid_mm")
            table.add_row(
                name,
                f"{values['volume_ml']:.1f} ml" if "volume_ml" in values else "-",
                ", ".join(f"{value:.1f}" for value in centroid) if centroid else "-",
                f"{values['mean_hu']:.0f} HU" if "mean_hu" in values else "-",
                verdict,
            )
        if not labelled.structures:
            table.add_row("-", "-", "-", "-", verdict)
    console = results()
    console.print(table)
    for labelled in outcome.labelled:
        for reason in labelled.reasons:
            console.print(f"  {labelled.verdict}: {escape(reason)}")


def _skipped(folder: Path) -> list[Skipped]:
    """Say what a reader or a segmenter did not use, from the summary that it left."""
    found = []
    for name in ("series.json", "segmentation.json"):
        file = folder / name
        if file.is_file():
            found += _of_summary(json.loads(file.read_text(encoding="utf-8")))
    return found


def _of_summary(summary: Mapping[str, Any]) -> list[Skipped]:
    return [
        Skipped(what=entry["volume"], reason="; ".join(entry["reasons"]))
        for entry in summary.get("volumes", ())
        if entry.get("status") in {"refused", "failed"}
    ]
