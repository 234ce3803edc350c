"""The model repository: install, list, show."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clara_wf.cli.complete import installed_models
from clara_wf.cli.names import Commands
from clara_wf.cli.terminal import Json, print_json, remark, results
from clara_wf.cli.workspace import places
from clara_wf.model.errors import ClaraError

if TYPE_CHECKING:  # networks and their libraries are loaded by the commands that need them
    from clara_wf.inference.repository import InstalledModel

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Install and look at neural networks.")


def _installable(incomplete: str) -> list[str]:
    from clara_wf.inference.install import KNOWN

    return [name for name in KNOWN if name.startswith(incomplete)]


@app.command("install")
def install(
    name: Annotated[
        str, typer.Argument(metavar="liver|liver-lesion|NAME", help="Which model.", autocompletion=_installable)
    ],
    *,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="A wheel fetched by hand, or your own ONNX with its model.yaml."),
    ] = None,
) -> None:
    """Install a network and those that it needs. Doing it again changes nothing."""
    from clara_wf.inference.install import install as install_model

    for model in install_model(name, places().models, source=source, progress=remark):
        print(f"Model '{model.name}' is installed at: {model.folder}")


@app.command("list | ls")
def list_(*, as_json: Json = False) -> None:
    """List the installed networks."""
    from clara_wf.inference.repository import find_model, list_models, verify

    root = places().models
    found: dict[str, InstalledModel | ClaraError] = {}
    for name in list_models(root):
        try:
            model = found[name] = find_model(root, name)
            verify(model)
        except ClaraError as fault:
            found[name] = fault
    if as_json:
        print_json([_as_json(name, model) for name, model in found.items()])
        return
    if not found:
        remark("No model is installed. Get the liver network by: clara-wf model install liver")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("Model", "Version", "Finds", "Licence", box=None, pad_edge=False)
    for name, entry in found.items():
        if isinstance(entry, ClaraError):
            table.add_row(name, "damaged", Text(str(entry)), "")
            continue
        description = entry.description
        labels = ", ".join(label.name for label in description.labels)
        table.add_row(name, Text(description.version), Text(labels), Text(description.licence))
    results().print(table)


def _as_json(name: str, entry: InstalledModel | ClaraError) -> dict[str, str]:
    if isinstance(entry, ClaraError):
        return {"name": name, "damaged": str(entry)}
    return {"name": name, "version": entry.description.version, "sha256": entry.sha256}


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An installed model.", autocompletion=installed_models)],
    *,
    as_json: Json = False,
) -> None:
    """Show how a network is used, where it comes from, and its limits."""
    from clara_wf.inference.repository import find_model

    model = find_model(places().models, name)
    if as_json:
        print_json({"name": model.name, "file": str(model.file), "sha256": model.sha256, **asdict(model.description)})
        return
    results().print((model.folder / "model.yaml").read_text(encoding="utf-8").rstrip(), markup=False)
    print(f"\nfile:   {model.file}\nsha256: {model.sha256}")
