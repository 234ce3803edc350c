"""Projections of a phantom: which scan, written how."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from clara_wf.cli.phantom_folders import folders_appearing
from clara_wf.cli.terminal import remark
from clara_wf.model.errors import UsageError

if TYPE_CHECKING:
    from clara_wf.phantom.acquisition import Acquisition
    from clara_wf.phantom.patient import Region


class Scan(StrEnum):
    """How the phantom is scanned: the names of `phantom.scans`."""

    HELICAL = "helical"
    CONE = "cone"
    FAN = "fan"
    FAN_SHORT = "fan-short"
    PARALLEL = "parallel"


class Format(StrEnum):
    """What projections are written as."""

    DICOM_CT_PD = "dicom-ct-pd"
    STACK = "stack"
    DATA_EXCHANGE = "data-exchange"


class Anatomy(StrEnum):
    """What is scanned."""

    ABDOMEN = "abdomen"
    INSERTS = "inserts"


@dataclass(frozen=True, kw_only=True)
class Projecting:
    """What was asked for."""

    scan: Scan
    form: Format
    inserts: bool  # rods in water instead of a patient
    photons: float | None  # of a ray in air; None: the usual dose
    noise: bool
    views: int | None  # in a turn, or in all; None: the scan's own number


def write_projections(folder: Path, wish: Projecting, *, clinical: bool, region: Region, seed: int) -> None:
    """Write projections to `<folder>/projections` and their truth to `<folder>/truth`.

    Raises
    ------
    UsageError
        The format cannot hold the scan.
    """
    parallel = wish.scan is Scan.PARALLEL
    if wish.form is (Format.DICOM_CT_PD if parallel else Format.DATA_EXCHANGE):
        fitting = "stack or data-exchange" if parallel else "dicom-ct-pd or stack"
        raise UsageError(f"{wish.form} holds no {wish.scan} scan", remedy=f"Take --format {fitting}")
    from clara_wf.phantom.acquisition import PHOTONS, acquisition
    from clara_wf.phantom.inserts import inserts
    from clara_wf.phantom.patient import make_anatomy
    from clara_wf.phantom.scans import SCANS

    remark("making the phantom ...")
    made = acquisition(
        inserts() if wish.inserts else make_anatomy(seed, region=region),
        SCANS[wish.scan](wish.views),
        name="inserts" if wish.inserts else region,
        photons=wish.photons or PHOTONS,
        noise=wish.noise,
        seed=seed,
    )
    with folders_appearing(folder, "projections") as (images, truth):
        _write(images, wish.form, made)
        _write_truth(truth, wish, clinical=clinical, region=region, seed=seed)
    print(f"{made.geometry.views} projections are created at: {folder / 'projections'}")
    print(f"Their truth is created at: {folder / 'truth'}")


def _write(folder: Path, form: Format, made: Acquisition) -> None:
    progress = _telling(made.geometry.views)
    if form is Format.DICOM_CT_PD:
        from clara_wf.phantom.projection_series import write_projection_series

        write_projection_series(folder, made, progress=progress)
    elif form is Format.STACK:
        from clara_wf.phantom.projection_volume import write_projection_volume

        write_projection_volume(folder, made, progress=progress)
    else:
        from clara_wf.phantom.data_exchange import write_data_exchange

        write_data_exchange(folder / "projections.h5", made, progress=progress)


def _telling(views: int) -> Callable[[float], None]:
    """Return what says each quarter that is done."""
    told = 0

    def tell(share: float) -> None:
        nonlocal told
        if int(share * 4) > told:
            told = int(share * 4)
            remark(f"projected {told * 25} % of {views} views")

    return tell


def _write_truth(folder: Path, wish: Projecting, *, clinical: bool, region: Region, seed: int) -> None:
    from clara_wf.model.files import write_atomically
    from clara_wf.phantom.inserts import inserts_truth
    from clara_wf.phantom.patient import CLINICAL, EVERYDAY, make_phantom
    from clara_wf.phantom.volume_input import write_truth

    if wish.inserts:
        write_atomically(folder / "truth.json", json.dumps(inserts_truth(), indent=2) + "\n")
    else:
        write_truth(folder, make_phantom(CLINICAL if clinical else EVERYDAY, seed=seed, region=region))
