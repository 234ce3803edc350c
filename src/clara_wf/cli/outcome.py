"""What a job found, gathered from its payload and shown to a person or a program."""

from __future__ import annotations

import contextlib
import json
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clara_wf.cli.terminal import results
from clara_wf.model.errors import VolumeError
from clara_wf.model.plan import Plan

if TYPE_CHECKING:
    from clara_wf.imaging.record import VolumeRecord

#: What the reader and a segmenter write of their input.
SUMMARIES = ("series.json", "segmentation.json")
_COLUMNS = ("Structure", "Volume", "Centroid (LPS mm)", "Mean", "Verdict")
#: Characters of a volume's name in a table.
_NAME_LENGTH = 12
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

    @property
    def name(self) -> str:
        """The name of the volume that was labelled: of a DICOM series, its UID."""
        return self.volume.name.removesuffix(".mhd").removesuffix(".seg")


@dataclass(frozen=True, kw_only=True)
class Read:
    """A volume that the reader or a reconstruction made."""

    name: str  # its header's name
    shape: tuple[int, ...]  # slices, rows, columns
    spacing_mm: tuple[float, ...]  # likewise; none of projections
    orientation: str  # axial, coronal, sagittal, oblique; projections, whose shape is views, rows, columns
    method: str = ""  # how it was reconstructed


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something in the input that gave no result, and why."""

    what: str  # a series or a group of files
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that a job found."""

    labelled: tuple[Labelled, ...] = ()  # label maps of the last stage that made any
    volumes: tuple[Read, ...] = ()  # of the reader and of reconstructions
    skipped: tuple[Skipped, ...] = ()  # of the reader and the segmenter
    files: tuple[str, ...] = ()  # of the last stage's output, relative to it
    previews: tuple[Path, ...] = ()  # pictures
    comparison: Mapping[str, Any] = field(default_factory=dict)  # with the truth, where that is known

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON types. Files are named without their folder, which may be gone by then."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self), default=lambda path: path.name))
        return content


def gather(plan: Plan) -> Outcome:
    """Gather what the stages of a finished job left in its payload."""
    labelled: tuple[Labelled, ...] = ()
    read: list[Read] = []
    skipped: list[Skipped] = []
    previews: tuple[Path, ...] = ()
    for stage in plan.stages:
        folder = stage.folder("OUTPUTS")
        if folder is None:
            continue
        labelled = tuple(_labelled(folder)) or labelled
        previews = tuple(sorted(folder.glob("*preview.png"))) or previews
        # A stage of somebody else's may leave files of these names, and mean something else by them.
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            of_stage = _of_reader(_read_summary(folder / SUMMARIES[0]))
            read += of_stage[0]
            skipped += of_stage[1]
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            skipped += _of_segmenter(_read_summary(folder / SUMMARIES[1]))
        read += _reconstructed(folder, known={volume.name for volume in read})
    last = plan.output
    return Outcome(
        labelled=labelled,
        volumes=tuple(read),
        skipped=tuple(skipped),
        files=tuple(sorted(file.relative_to(last).as_posix() for file in last.rglob("*") if file.is_file())),
        previews=previews,
    )


def _records(folder: Path) -> Iterator[tuple[Path, VolumeRecord]]:
    """Yield the header and the record of each volume of a folder; a broken record is none."""
    from clara_wf.imaging.record import read_record

    for header in sorted(folder.glob("*.mhd")):
        if not _is_plain(header):
            continue
        with contextlib.suppress(VolumeError):
            record = read_record(header)
            if record is not None:
                yield header, record


def _labelled(folder: Path) -> list[Labelled]:
    return [_of_record(header, record) for header, record in _records(folder) if record.kind == "labels"]


def _reconstructed(folder: Path, *, known: set[str]) -> list[Read]:
    """Return the volumes of a folder that were reconstructed; a stage behind may hand one on."""
    from clara_wf.imaging.metaimage import read_volume

    found = []
    for header, record in _records(folder):
        methods = [step.detail["method"] for step in record.provenance if "method" in step.detail]
        if record.kind == "image" and methods and header.name not in known:
            try:
                grid = read_volume(header).geometry
            except VolumeError:
                continue
            found.append(
                Read(
                    name=header.name,
                    shape=grid.shape,
                    spacing_mm=grid.spacing,
                    orientation="axial",
                    method=str(methods[-1]),
                )
            )
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
    # A series in which there was nothing to find is no result beside one in which there was.
    found = [labelled for labelled in outcome.labelled if labelled.verdict != "none"] or outcome.labelled
    if found:
        _show_structures(found)
    elif outcome.volumes:
        _show_volumes(outcome)
    for name, values in outcome.comparison.items():
        console.print(
            f"[bold]{name}[/] against the truth: Dice {values['dice']:.4f}, volume {values['volume_ml']:.1f} ml"
            f" (truth {values['truth_ml']:.1f}), centroid {values['centroid_distance_mm']:.2f} mm away"
        )
    nothing = [
        Skipped(what=f"volume {labelled.name}", reason="; ".join(labelled.reasons))
        for labelled in outcome.labelled
        if labelled not in found
    ]
    for skipped in (*outcome.skipped, *nothing):
        console.print(f"not used: {skipped.what}: {skipped.reason}", style="dim", markup=False)


def _show_structures(maps: Sequence[Labelled]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = results()
    several = len(maps) > 1
    table = Table(box=None, pad_edge=False)
    for title in ("Of", *_COLUMNS) if several else _COLUMNS:
        table.add_column(title)
    for labelled in maps:
        # Once for the label map: it is no verdict on a structure that is not there.
        verdict = f"[{_COLORS.get(labelled.verdict, 'default')}]{labelled.verdict}[/]" if labelled.verdict else "-"
        for name, values in labelled.structures.items() or [("-", {})]:
            table.add_row(*([_short(labelled.name)] if several else []), name, *_figures(values), verdict)
            verdict = ""
    console.print(table)
    for labelled in maps:
        where = f"{_short(labelled.name)}: " if several else ""
        for reason in labelled.reasons:
            console.print(f"  {where}{labelled.verdict}: {escape(reason)}")


def _figures(values: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return volume, centroid and mean as they are shown."""
    centroid = values.get("centroid_mm")
    if centroid is None:
        return ("none found" if values else "-"), "-", "-"
    return (
        f"{values['volume_ml']:.1f} ml",
        ", ".join(f"{value:.1f}" for value in centroid),
        f"{values['mean_hu']:.0f} HU" if "mean_hu" in values else "-",
    )


def _short(name: str) -> str:
    """Shorten a series' UID to its end, which tells it from others."""
    return name if len(name) <= _NAME_LENGTH else f"...{name[-_NAME_LENGTH:]}"


def _show_volumes(outcome: Outcome) -> None:
    from rich.table import Table

    table = Table("Volume", "Slices x rows x columns", "Spacing (mm)", "Orientation", box=None, pad_edge=False)
    for volume in outcome.volumes:
        shape = " x ".join(map(str, volume.shape))
        spacing = " x ".join(f"{step:.2f}" for step in volume.spacing_mm) or "-"
        table.add_row(volume.name, shape, spacing, volume.orientation)
    results().print(table)
    for volume in outcome.volumes:
        if volume.method:
            results().print(f"  {volume.name}: {volume.method}", markup=False)


def _read_summary(file: Path) -> Mapping[str, Any]:
    """Read what a stage said of its input; nothing if it said nothing."""
    if not _is_plain(file):
        return {}
    content: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _is_plain(path: Path) -> bool:
    """Whether there is a file. A stage may leave a pipe, for which a reader would wait, or a link to who knows what."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _of_reader(summary: Mapping[str, Any]) -> tuple[list[Read], list[Skipped]]:
    """Read `series.json` of the reader."""
    read, skipped = [], []
    for series in summary.get("series", ()):
        # A series that gave no volume at all has one reason; one that gave some has a reason for each of the others.
        if series["reason"] and not any(volume["name"] for volume in series["volumes"]):
            skipped.append(Skipped(what=f"series {series['series_uid']}", reason=series["reason"]))
            continue
        for volume in series["volumes"]:
            if volume["name"]:
                read.append(
                    Read(
                        name=volume["name"],
                        shape=tuple(map(int, volume["shape"])),
                        spacing_mm=tuple(map(float, volume.get("spacing_mm", ()))),
                        orientation=volume["orientation"],
                    )
                )
            else:
                what = f"{volume['slices']} {volume['orientation']} slices of series {series['series_uid']}"
                skipped.append(Skipped(what=what, reason=volume["reason"]))
    outside = Counter((file["state"], file["reason"]) for file in summary.get("files", ()) if not file["series_uid"])
    skipped += [Skipped(what=f"{count} files", reason=reason or state) for (state, reason), count in outside.items()]
    return read, skipped


def _of_segmenter(summary: Mapping[str, Any]) -> list[Skipped]:
    """Read `segmentation.json` of a segmenting stage."""
    return [
        Skipped(what=f"volume {entry['volume']}", reason="; ".join(entry["reasons"]))
        for entry in summary.get("volumes", ())
        if entry["status"] in {"refused", "failed"}
    ]
