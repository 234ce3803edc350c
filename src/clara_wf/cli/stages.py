"""The stages of the chart: list, create, delete."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from clara_wf.chart.catalog import read_catalog
from clara_wf.chart.edit import create_stage as create
from clara_wf.chart.edit import delete_stage as delete
from clara_wf.cli.complete import stage_names
from clara_wf.cli.terminal import Json, print_json, results
from clara_wf.cli.workspace import places


def list_stages(*, as_json: Json = False) -> None:
    """List the stages, their images, and the workflows that use them."""
    stages = read_catalog(places().workspace.chart).stages
    if as_json:
        print_json([asdict(stage) for stage in stages])
        return
    from rich.table import Table

    table = Table("Stage", "Image", "Used by", box=None, pad_edge=False)
    for stage in stages:
        table.add_row(stage.name, stage.image, ", ".join(stage.workflows) or "-")
    results().print(table)


def create_stage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and dashes.")],
    *,
    image: Annotated[
        str | None, typer.Option(metavar="REPOSITORY:TAG", help="The stage's image (default: clara-wf/NAME:0.1.0).")
    ] = None,
    code: Annotated[
        bool, typer.Option("--code", help="Also make a runnable Python module, its Dockerfile and its test.")
    ] = False,
) -> None:
    """Create a stage: its templates and its block in values.yaml."""
    edit = create(places().workspace, name, image=image, code=code)
    print(f"Stage '{edit.name}' is created at: {edit.templates}")
    print(f"Default values for Stage '{edit.name}' are added to: {edit.values}")
    if edit.code is not None:
        print(f"Code of Stage '{edit.name}' is created at: {edit.code}")
        python, folder = os.path.relpath(sys.executable), os.path.relpath(edit.code)
        print(f"Test it by: {python} -m unittest discover {folder}")


def delete_stage(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=stage_names)],
) -> None:
    """Delete a stage, unless a workflow uses it. Its code stays."""
    edit = delete(places().workspace, name)
    print(f"Stage '{edit.name}' is deleted from: {edit.templates}")
    print(f"Default values for Stage '{edit.name}' are removed from: {edit.values}")
    if edit.shared is not None:
        print(f"Its templates were a link; what they are stays at: {edit.shared}")
    if edit.code is not None:
        print(f"Its code stays at: {edit.code}")
