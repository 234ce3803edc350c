"""Projections as the stack that stages hand on: MetaImage with its geometry and a record beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clara_wf.imaging.record import VolumeRecord
from clara_wf.phantom.acquisition import PATIENT_POSITION, Acquisition
from clara_wf.phantom.projection_series import projection_source
from clara_wf.phantom.projector import WATER_ATTENUATION
from clara_wf.reconstruction.stack import Calibration, open_stack_writer


def write_projection_volume(
    folder: Path,
    acquisition: Acquisition,
    *,
    name: str = "projections",
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Write line integrals as a reader of raw data would: `<name>.mhd`, `.raw`, `.json`, `.geometry.json`.

    The record refers to the series that `write_projection_series` makes of the same scan. A ray that no photon came
    through is infinite.

    Parameters
    ----------
    folder
        Where to.
    acquisition
        Any beam.
    name
        Of the files.
    progress
        Told the share done after every view.

    Returns
    -------
    Path
        The header.
    """
    header = folder / f"{name}.mhd"
    views = acquisition.geometry.views
    with open_stack_writer(
        header,
        acquisition.geometry,
        patient_position=PATIENT_POSITION,
        calibration=Calibration(water_attenuation=WATER_ATTENUATION),
        record=VolumeRecord(kind="projections", modality="CT", source=projection_source(acquisition)),
    ) as write:
        for done, (view, integrals) in enumerate(acquisition.line_integrals(), start=1):
            write(view, integrals)
            if progress is not None:
                progress(done / views)
    return header
