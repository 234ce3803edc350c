"""Whatever projections lie in a folder or a file: stacks, Data Exchange, DICOM-CT-PD."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from clara_wf.model.errors import GeometryError, InputError
from clara_wf.reconstruction.data_exchange import SUFFIXES, open_data_exchange
from clara_wf.reconstruction.dicom_ct_pd import open_ct_pd
from clara_wf.reconstruction.geometry import Beam
from clara_wf.reconstruction.projections import Projections
from clara_wf.reconstruction.rotation_centre import check_centre
from clara_wf.reconstruction.rtk_geometry import open_rtk_stack
from clara_wf.reconstruction.stack import SUFFIX, ProjectionStack, open_stack

_LOOKED_FOR: Final = (
    f"<name>.mhd with <name>{SUFFIX}, geometry.json, <name>.xml or geometry.xml beside it, {', '.join(SUFFIXES)} files"
    " (Data Exchange), and DICOM-CT-PD files"
)


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """What a user says of projections, beside or in place of what the data say."""

    centre: float | None = None  # column of the axis of rotation, in a parallel beam; None: as the data say, or found
    pixel_mm: float | None = None  # size of a pixel of Data Exchange
    reweight: bool = False  # take a scan although projections are missing


def open_inputs(path: Path, options: InputOptions) -> list[Projections]:
    """Open all projections of a folder, or of a file.

    Parameters
    ----------
    path : Path
        A folder, the header of a stack, or a Data Exchange file.
    options : InputOptions
        What the user says of them.

    Returns
    -------
    list of Projections
        At least one; nothing of the rays is read so far.

    Raises
    ------
    InputError
        There are none, or some are broken.
    """
    found: list[Projections]
    if path.is_dir():
        found = [*_stacks(path, options.centre), *_data_exchange(path, options)]
        if not found and any(path.iterdir()):
            found = [*open_ct_pd(path, reweight=options.reweight)]
            if found and options.centre is not None:
                raise _no_axis(found[0].name)
    elif path.suffix.lower() in SUFFIXES and path.is_file():
        found = [open_data_exchange(path, pixel_mm=options.pixel_mm, centre=options.centre)]
    elif path.suffix == ".mhd" and path.is_file():
        found = [stack for stack in (_stack(path, options.centre),) if stack is not None]
    else:
        found = []
    if not found:
        raise InputError("there are no projections in the input", remedy=f"Looked for: {_LOOKED_FOR}")
    return found


def _stacks(folder: Path, centre: float | None) -> Iterator[ProjectionStack]:
    images = sorted(folder.glob("*.mhd"))
    shared = [name for name in ("geometry.json", "geometry.xml") if (folder / name).is_file()]
    alone = [path for path in images if not _own_geometry(path)]
    if shared and len(alone) > 1:
        raise InputError(
            f"{shared[0]} stands beside {len(alone)} stacks, {alone[0].name} and others",
            remedy="Name the geometry file after its stack",
        )
    yield from (stack for path in images if (stack := _stack(path, centre)) is not None)


def _own_geometry(path: Path) -> Path | None:
    """Return the geometry file that is named after a stack."""
    return next((file for suffix in (SUFFIX, ".xml") if (file := path.with_suffix(suffix)).is_file()), None)


def _stack(path: Path, centre: float | None) -> ProjectionStack | None:
    """Open a stack; None if no geometry file lies beside the image: it is something else."""
    shared = (path.with_name(name) for name in ("geometry.json", "geometry.xml"))
    geometry = _own_geometry(path) or next((file for file in shared if file.is_file()), None)
    if geometry is None:
        return None
    stack = open_rtk_stack(path, geometry) if geometry.suffix == ".xml" else open_stack(path, geometry)
    return _centred(stack, centre)


def _data_exchange(folder: Path, options: InputOptions) -> Iterator[Projections]:
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()):
        yield open_data_exchange(path, pixel_mm=options.pixel_mm, centre=options.centre)


def _centred(stack: ProjectionStack, centre: float | None) -> ProjectionStack:
    """Let the rotation centre that the user states count."""
    if centre is None:
        return stack
    geometry = stack.geometry
    if geometry.beam is not Beam.PARALLEL:
        raise _no_axis(stack.name)
    check_centre(centre, geometry.detector.columns)
    return replace(stack, geometry=replace(geometry, detector=replace(geometry.detector, central_column=centre)))


def _no_axis(name: str) -> GeometryError:
    return GeometryError(f"{name} is no parallel beam, whose rotation centre could be given by --centre")
