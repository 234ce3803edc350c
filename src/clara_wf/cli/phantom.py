"""Making a phantom: data of nobody, with known truth."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clara_wf.cli.phantom_folders import check_new, folders_appearing
from clara_wf.cli.phantom_projections import Anatomy, Format, Projecting, Scan, write_projections
from clara_wf.cli.terminal import remark
from clara_wf.model.errors import UsageError


class Grid(StrEnum):
    """How finely the phantom is sampled."""

    EVERYDAY = "everyday"
    CLINICAL = "clinical"


class Region(StrEnum):
    """Which part of the body."""

    ABDOMEN = "abdomen"
    PELVIS = "pelvis"


def phantom(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    *,
    grid: Annotated[
        Grid, typer.Option(help="everyday: 256 x 256 x 104, clinical: 512 x 512 x 120 voxels.")
    ] = Grid.EVERYDAY,
    region: Annotated[Region, typer.Option(help="A pelvis has no liver.")] = Region.ABDOMEN,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another patient.")] = 0,
    projections: Annotated[
        Scan | None, typer.Option(help="Projections of this scan, in OUT/projections, in place of a CT.")
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Of projections.", show_default="dicom-ct-pd; stack if parallel"),
    ] = None,
    anatomy: Annotated[
        Anatomy | None, typer.Option(help="Of projections. inserts: rods in water.", show_default="the region's")
    ] = None,
    photons: Annotated[
        float | None, typer.Option(min=1, help="Of projections: of a ray in air.", show_default="1000000")
    ] = None,
    noise: Annotated[bool, typer.Option(help="Of projections: of photons that are counted.")] = True,
    views: Annotated[
        int | None, typer.Option(min=2, help="Of projections: in a turn, or in all.", show_default="the scan's")
    ] = None,
) -> None:
    """Make a CT of a procedural patient: DICOM in OUT/dicom, the truth in OUT/truth."""
    if projections is None and (form or anatomy or photons or views or not noise):
        raise UsageError(
            "--format, --anatomy, --photons, --no-noise and --views are of projections",
            remedy="Say which, by --projections helical for example",
        )
    check_new(folder)
    if projections is not None:
        write_projections(
            folder,
            Projecting(
                scan=projections,
                form=form or (Format.STACK if projections is Scan.PARALLEL else Format.DICOM_CT_PD),
                inserts=anatomy is Anatomy.INSERTS,
                photons=photons,
                noise=noise,
                views=views,
            ),
            clinical=grid is Grid.CLINICAL,
            region=region.value,
            seed=seed,
        )
        return
    from clara_wf.phantom.dicom_series import write_ct_series
    from clara_wf.phantom.patient import CLINICAL, EVERYDAY, make_phantom
    from clara_wf.phantom.volume_input import write_truth

    remark("making the phantom ...")
    made = make_phantom(CLINICAL if grid is Grid.CLINICAL else EVERYDAY, seed=seed, region=region.value)
    with folders_appearing(folder, "dicom") as (images, truth):
        files = write_ct_series(images, made.image, seed=seed)
        write_truth(truth, made)
    print(f"CT series of {len(files)} images is created at: {folder / 'dicom'}")
    print(f"Its truth is created at: {folder / 'truth'}")
