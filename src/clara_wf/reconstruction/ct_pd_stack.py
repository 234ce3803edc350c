"""A series in DICOM-CT-PD -> a stack: what the stage `dicom-reader` makes of projections."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from clara_wf import __version__
from clara_wf.imaging.dicom_inventory import Series
from clara_wf.imaging.dicom_report import VolumeReport
from clara_wf.imaging.record import Step, write_record
from clara_wf.model.locks import now
from clara_wf.reconstruction.dicom_ct_pd import CtPdSeries, open_series
from clara_wf.reconstruction.stack import Calibration, open_stack_writer

#: Views that are read between two words on how far it is.
_CHUNK = 64


def write_ct_pd(
    series: Series,
    path: Path,
    done: Callable[[int], None],
    *,
    reweight: bool = False,
    stage: str = "dicom-reader",
) -> VolumeReport:
    """Write a series of projections as a stack with its geometry and its record.

    The stored values are kept where one slope and intercept hold for all; else line integrals are written as float32.

    Parameters
    ----------
    series : Series
        Of projections.
    path : Path
        `<name>.mhd`.
    done : callable
        Told how many views are written.
    reweight : bool
        Take it although projections are missing.
    stage : str
        Who is noted in the record's provenance.

    Raises
    ------
    InputError
        They make no scan, or a file cannot be read.
    """
    started = now()
    scan = open_series(series, reweight=reweight)
    first, rescale = scan.views[0].format, scan.rescale
    keep = rescale is not None and not first.signed and first.bits_allocated <= 16
    dtype = np.dtype(np.uint16 if keep else np.float32)
    slope, intercept = rescale if keep and rescale is not None else (1.0, 0.0)
    detail: dict[str, str | float] = {"views": len(scan.views)}
    if scan.notes:
        detail["notes"] = "; ".join(scan.notes)
    with open_stack_writer(
        path,
        scan.geometry,
        patient_position=scan.patient_position,
        dtype=dtype,
        calibration=Calibration(
            slope=slope,
            intercept=intercept,
            water_attenuation=scan.water_attenuation,
            incident_photons=scan.incident_photons,
        ),
    ) as write:
        plane = scan.stored if keep else scan.line_integrals
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(scan.views), _CHUNK):
                indices = range(start, min(start + _CHUNK, len(scan.views)))
                list(pool.map(lambda index: write(index, plane(index)), indices))
                done(indices.stop)
        if scan.record is not None:
            step = Step(stage=stage, version=__version__, started=started, ended=now(), detail=detail)
            write_record(path, replace(scan.record, provenance=(step,)))
    return _report(scan, path, dtype.name)


def _report(scan: CtPdSeries, path: Path, dtype: str) -> VolumeReport:
    detector = scan.geometry.detector
    return VolumeReport(
        path=path,
        sources=frozenset(view.path for view in scan.views),
        orientation="projections",
        split="",
        slices=len(scan.views),
        projections=(len(scan.views), detector.rows, detector.columns),
        dtype=dtype,
        notes=scan.notes,
    )
