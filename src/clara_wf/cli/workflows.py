"""The workflows of the chart: list them, and show what one of them does."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from clara_wf.chart.catalog import Stage, read_catalog
from clara_wf.chart.render import plan_job
from clara_wf.chart.request import JobRequest
from clara_wf.cli.complete import workflow_names
from clara_wf.cli.terminal import Json, print_json, results
from clara_wf.cli.workspace import places
from clara_wf.model.plan import Plan, StagePlan

#: Where the programs of the built-in stages lie.
_OPERATORS = "clara_wf.operators."

WorkflowArgument = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="Name, alias or UUID.", autocompletion=workflow_names)
]


def workflows(*, as_json: Json = False) -> None:
    """List the workflows."""
    catalog = read_catalog(places().workspace.chart)
    if as_json:
        print_json([asdict(workflow) for workflow in catalog.workflows])
        return
    from rich.table import Table

    table = Table("Workflow", box=None, pad_edge=False)
    table.add_column("UUID", no_wrap=True)
    table.add_column("Stages", overflow="fold")
    lacking = {stage.name for stage in catalog.stages if _lacks_code(stage)}
    for workflow in catalog.workflows:
        names = f"{workflow.name} ({', '.join(workflow.aliases)})" if workflow.aliases else workflow.name
        stages = [f"[yellow]{name}*[/]" if name in lacking else name for name in workflow.stages]
        table.add_row(names, workflow.id, " -> ".join(stages))
    results().print(table)
    if lacking:
        results().print(f"* not in this version: {', '.join(sorted(lacking))}")


def _lacks_code(stage: Stage) -> bool:
    """Whether a stage of ours is in the chart, but its program is not in this version."""
    module = stage.command[-1] if stage.command else ""
    return module.startswith(_OPERATORS) and importlib.util.find_spec(module) is None


def show(workflow: WorkflowArgument, *, as_json: Json = False) -> None:
    """Show what a workflow does: its plan, as Helm renders it."""
    where = places()
    request = JobRequest(
        workflow=workflow,
        job_id=str(uuid.UUID(int=0)),
        job_name="show",
        payloads=where.payloads,
        models=where.models,
    )
    plan = plan_job(where.workspace.chart, request)
    if as_json:
        print_json(_json(asdict(plan)))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("Stage", "Reads", "Writes", "Waits for", "Runs", "Limits"):
        table.add_column(title, overflow="fold")
    for stage in plan.stages:
        table.add_row(
            stage.name,
            _below(plan, stage.folder("INPUTS")),
            _below(plan, stage.folder("OUTPUTS")),
            stage.variable("WAITNAME") or "-",
            " ".join([*stage.command, *stage.args]) or stage.image,
            ", ".join(_limits(stage)) or "-",
        )
    console = results()
    console.print(f"{plan.workflow}  {plan.workflow_id}\n")
    console.print(table)


def _below(plan: Plan, folder: Path | None) -> str:
    if folder is None:
        return "-"
    return str(folder.relative_to(plan.payload)) if folder.is_relative_to(plan.payload) else str(folder)


def _limits(stage: StagePlan) -> Iterator[str]:
    if stage.resources.cpu is not None:
        yield f"{stage.resources.cpu:g} CPU"
    if stage.resources.memory is not None:
        yield f"{stage.resources.memory / 2**30:.1f} GiB"
    if stage.timeout is not None:
        yield f"{stage.timeout:g} s"


def _json(content: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Turn a plan's paths and mappings into JSON types."""
    if isinstance(content, dict):
        return {key: _json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_json(value) for value in content]
    return str(content) if isinstance(content, Path) else content
