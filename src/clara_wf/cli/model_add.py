"""`model add`: a network that a user brings becomes an installed model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_wf.cli.terminal import Json, print_json, remark, remarks, results
from clara_wf.cli.workspace import places

if TYPE_CHECKING:  # networks and their libraries are loaded by the commands that need them
    from rich.console import Console

    from clara_wf.importers.adding import Candidate
    from clara_wf.inference.repository import InstalledModel


def add(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A folder, a zip, or an ONNX file beside its model.yaml.")
    ],
    *,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What to call the model; otherwise what it calls itself."),
    ] = None,
    orientation: Annotated[
        str | None,
        typer.Option("--orientation", metavar="XYZ", help="Where its axes grow to, if it does not say so: RAS."),
    ] = None,
    configuration: Annotated[
        str | None,
        typer.Option("--configuration", metavar="NAME", help="Of an nnU-Net: 3d_fullres or 3d_lowres."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another model of that name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the model.yaml, and install nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Install a network of your own: a MONAI bundle, an nnU-Net export, or an ONNX file with a model.yaml.

    What it asks for is translated into a description. Nothing of it is run or unpickled, except TorchScript, which
    PyTorch converts if it is there. What cannot be translated is named, and then nothing is installed.
    """
    from clara_wf.importers.adding import candidate
    from clara_wf.inference.install import install_described

    with candidate(path, name=name, orientation=orientation, configuration=configuration) as found:
        installed = None
        if not dry_run:
            installed = install_described(
                found.name,
                places().models,
                onnx_file=found.onnx,
                description_text=found.text,
                force=force,
                progress=remark,
            )
    if as_json:
        print_json(_as_json(found, installed))
        return
    # A description that is printed goes to a file: what is said about it stands beside.
    console = remarks() if installed is None else results()
    _tell(found, console)
    for text in found.remarks:
        remark(f"{text}.")
    if installed is None:
        results().print(found.text.rstrip(), markup=False, soft_wrap=True)
        return
    print(f"Model '{installed.name}' is installed at: {installed.folder}")
    print(f"Try it:  clara-wf model test {installed.name}")


def _tell(found: Candidate, console: Console) -> None:
    """Say what was recognised, and what each of its parts became."""
    from rich.table import Table
    from rich.text import Text

    console.print(f"This is: {found.kind}", markup=False)
    if found.became:
        table = Table("There", "Here", box=None, pad_edge=False)
        for theirs, ours in found.became:
            table.add_row(Text(theirs), Text(ours))
        console.print(table)
    if found.ignored:
        console.print(f"Left out, since it changes no voxel: {', '.join(found.ignored)}", markup=False)


def _as_json(found: Candidate, installed: InstalledModel | None) -> dict[str, Any]:
    import yaml

    return {
        "name": found.name,
        "kind": found.kind,
        "became": [{"there": theirs, "here": ours} for theirs, ours in found.became],
        "ignored": list(found.ignored),
        "remarks": list(found.remarks),
        "folder": None if installed is None else str(installed.folder),
        "sha256": None if installed is None else installed.sha256,
        "description": yaml.safe_load(found.text),
    }
