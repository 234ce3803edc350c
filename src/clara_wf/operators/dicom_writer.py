"""The stage `dicom-writer`: volumes in, DICOM objects out, with a report and a preview.

A label volume becomes `<name>.dcm`, a segmentation object; a grey volume becomes a folder `<Series Instance UID>` with
an image for each slice. All of them appear together, after each was read back and compared with its volume;
`report.json` appears last.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from clara_wf import __version__
from clara_wf.imaging.derivation import Written
from clara_wf.imaging.derived_series import write_derived_series
from clara_wf.imaging.discretion import describe, discreet
from clara_wf.imaging.metaimage import read_volume
from clara_wf.imaging.preview import draw_volume
from clara_wf.imaging.record import Step, VolumeRecord, read_record
from clara_wf.imaging.report import VolumeReport, make_report, measure_labels
from clara_wf.imaging.segmentation import has_labels, write_segmentation
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import InputError, VolumeError
from clara_wf.model.files import UNFINISHED, fsync, write_atomically
from clara_wf.model.locks import now
from clara_wf.stage import StageContext, main

REPORT = "report.json"
PREVIEW = "preview.png"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the stage's options."""
    parser.add_argument("--workflow", default="clara-wf", help="name of the workflow; the objects' UIDs depend on it")
    parser.add_argument(
        "--encoding",
        choices=("auto", "binary", "labelmap"),
        default="auto",
        help="of segmentation objects: auto is binary up to four labels, labelmap beyond",
    )


def execute(context: StageContext, prepared: None) -> None:  # noqa: ARG001
    """Write the volumes of the input folder as DICOM objects."""
    started = now()
    volumes = _find_volumes(context.inputs)
    with discreet() as withheld, _workshop(context.output_folder) as workshop:
        reports = []
        for number, path in enumerate(volumes):
            context.progress(number / len(volumes), f"writing volume {number + 1} of {len(volumes)}")
            reports.append(_write(path, workshop, context.options, alone=len(volumes) == 1))
        _publish(reports, workshop, context, started, withheld)
    if withheld:
        context.log.warning("%s were withheld, since they may quote a patient's data", describe(withheld))
    for report in reports:
        verdict = report.record.verdict
        context.log.info(
            "volume of %s: %s%s",
            "labels" if report.record.kind == "labels" else "grey values",
            "1 object" if len(report.objects) == 1 else f"{len(report.objects)} objects",
            f", verdict {verdict.status}" if verdict is not None else "",
        )
    context.progress(1.0, "written")


def _find_volumes(inputs: Path) -> list[Path]:
    """Return the volumes of a folder, or the one that is named."""
    if inputs.is_file():
        return [inputs]
    found = sorted(path for path in inputs.glob("*.mhd") if not path.name.startswith(UNFINISHED))
    if not found:
        raise InputError(
            "there is no volume (.mhd) in the input folder, so there is nothing to write",
            remedy="See the log of the stage before this one",
        )
    return found


@contextlib.contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Give a folder in which everything is made, beside where it will appear; it is removed in the end."""
    workshop = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _write(path: Path, workshop: Path, options: argparse.Namespace, *, alone: bool) -> VolumeReport:
    """Write the objects and the preview of one volume into the workshop."""
    volume, record = read_volume(path), read_record(path)
    if record is None or record.source is None:
        raise VolumeError(
            f"{path.name} does not come from DICOM, so a DICOM object cannot refer to it",
            remedy="Start from a DICOM series, with a workflow that begins with dicom-reader",
        )
    if record.kind == "projections":
        raise VolumeError(
            f"{path.name} holds projections, which are no images", remedy="Put the stage recon before dicom-writer"
        )
    if record.kind == "image":
        written = write_derived_series(workshop, volume, record, workflow=options.workflow, name=path.name)
    else:
        written = _write_labels(path, volume, record, workshop, options)
    preview = workshop / (PREVIEW if alone else f"{path.stem}.{PREVIEW}")
    return VolumeReport(
        name=path.stem,
        record=record,
        labels=measure_labels(volume, record) if record.kind == "labels" else {},
        objects=written.objects,
        notes=written.notes,
        preview=preview.name if _make_preview(path, volume, record, preview) else None,
    )


def _write_labels(
    path: Path, volume: Volume, record: VolumeRecord, workshop: Path, options: argparse.Namespace
) -> Written:
    """Write a segmentation object, unless there is nothing to put into it."""
    if record.verdict is not None and record.verdict.status == "none":
        return Written(objects=(), notes=("no segmentation object: the verdict is none", *record.verdict.reasons))
    if not has_labels(volume):
        return Written(objects=(), notes=("no segmentation object: no voxel is labelled",))
    return write_segmentation(
        workshop / f"{path.stem}.dcm",
        volume,
        record,
        workflow=options.workflow,
        encoding=options.encoding,
        name=path.name,
    )


def _make_preview(path: Path, volume: Volume, record: VolumeRecord, preview: Path) -> bool:
    """Take over the segmenter's preview, or draw a grey volume's; return whether there is one."""
    drawn = path.with_name(f"{path.stem}.preview.png")
    if drawn.is_file():
        write_atomically(preview, drawn.read_bytes())
        return True
    if record.kind != "image":
        return False  # labels alone, from a segmenter that leaves no picture, have no image to be drawn on
    write_atomically(preview, draw_volume(volume, record))
    return True


def _not_segmented(inputs: Path) -> list[dict[str, Any]]:
    """Return what the segmenter before this stage says of volumes that it left out."""
    try:
        summary = json.loads((inputs / "segmentation.json").read_text(encoding="utf-8"))
        return [entry for entry in summary["volumes"] if not entry["labels"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # another stage, which leaves no such list


def _publish(
    reports: list[VolumeReport], workshop: Path, context: StageContext, started: str, withheld: Counter[str]
) -> None:
    """Let everything appear: objects, previews, the report last."""
    output = context.output_folder
    # A report of an earlier run must not stand beside this one's objects.
    (output / REPORT).unlink(missing_ok=True)
    for entry in sorted(workshop.iterdir()):
        final = output / entry.name
        if final.is_dir():
            shutil.rmtree(final)
        entry.rename(final)
    fsync(output)
    step = Step(
        stage=context.stage,
        version=__version__,
        started=started,
        ended=now(),
        detail={"peak_memory_mib": round(_peak_memory() / 2**20, 1), "encoding": context.options.encoding},
    )
    reports = [
        replace(
            report,
            objects=tuple(replace(item, path=output / item.path.relative_to(workshop)) for item in report.objects),
        )
        for report in reports
    ]
    report = make_report(
        reports, workflow=context.options.workflow, job_id=context.job_id, step=step, withheld_warnings=withheld
    )
    report["not_segmented"] = _not_segmented(context.input_folder)
    write_atomically(output / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _peak_memory() -> int:
    """Return the most memory that this process held, in bytes; the system counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(execute=execute, arguments=arguments)
