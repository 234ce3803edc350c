"""Stage `dicom-reader`: DICOM files -> a volume, or a stack of projections, a series, and `series.json`.

Reads the folder INPUTS, of any depth and with any file names; writes `<SeriesInstanceUID>.mhd`, `.raw` and `.json` for
each series, and `series.json`, to the folder OUTPUTS. A series that makes no regular volume is refused; if no series
makes one, the stage fails and says why. Beside a stack of projections lies `<SeriesInstanceUID>.geometry.json`.
"""

from __future__ import annotations

import argparse
import functools
import os

# NumPy starts a thread for each core for linear algebra, which this stage does not do: a tenth of its time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from clara_wf.imaging.dicom_reader import read_folder
from clara_wf.imaging.dicom_report import SeriesReport
from clara_wf.imaging.dicom_states import SeriesState
from clara_wf.reconstruction.ct_pd_stack import write_ct_pd
from clara_wf.stage import StageContext, main


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument(
        "--resample",
        action="store_true",
        help="bring slices that lie unevenly or sheared (missing slices, gantry tilt) onto a regular grid by linear "
        "interpolation, instead of refusing the series",
    )
    parser.add_argument(
        "--series",
        action="append",
        default=[],
        metavar="UID",
        help="read this SeriesInstanceUID only; may be given several times",
    )
    parser.add_argument(
        "--missing-projections",
        choices=("refuse", "reweight"),
        default="refuse",
        help="what to do with a scan whose projections have gaps: refuse it, or go on with those that are there",
    )


def execute(context: StageContext, prepared: object) -> None:  # noqa: ARG001 - there is nothing to prepare
    """Read the input folder into volumes."""
    report = read_folder(
        context.input_folder,
        context.output_folder,
        resample=context.options.resample,
        only_series=context.options.series,
        read_projections=functools.partial(
            write_ct_pd, reweight=context.options.missing_projections == "reweight", stage=context.stage
        ),
        stage=context.stage,
        progress=context.progress,
    )
    for outcome in report.series:
        _log(context, outcome)
    lost = {state: count for state, count in sorted(report.counts.items()) if state not in {"read", "projection"}}
    if lost:
        context.log.warning(
            "of %d files %d are in a volume; %s: series.json says why",
            len(report.files),
            report.counts["read"] + report.counts["projection"],
            ", ".join(f"{count} {state}" for state, count in lost.items()),
        )
    context.progress(1.0, f"{len(report.volumes)} volumes")


def _log(context: StageContext, outcome: SeriesReport) -> None:
    """Say what became of a series; its UID is all that names it."""
    for volume in outcome.volumes:
        if volume.projections is not None:
            views, rows, columns = volume.projections
            context.log.info("series %s: %d projections of %dx%d", outcome.series.uid, views, columns, rows)
        if volume.path is not None and volume.geometry is not None:
            slices, rows, columns = volume.geometry.shape
            context.log.info(
                "series %s: %s, %d slices of %dx%d, %.4g mm apart%s",
                outcome.series.uid,
                volume.orientation,
                slices,
                columns,
                rows,
                volume.geometry.spacing[0],
                ", resampled" if volume.resampled else "",
            )
    if outcome.state in {SeriesState.REFUSED, SeriesState.PARTLY_READ}:
        context.log.warning("series %s: %s: %s", outcome.series.uid, outcome.state, outcome.reason)


if __name__ == "__main__":
    main(execute=execute, arguments=arguments)
