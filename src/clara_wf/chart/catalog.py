"""What a chart offers: its workflows and stages, as `values.yaml` lists them.

This is for lists, look-ups and suggestions. What a workflow does is read from the rendered Job alone (`plan`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara_wf.chart.strict_yaml import YamlFault, documents
from clara_wf.model.errors import ChartError, UsageError


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A workflow of the chart."""

    name: str  # liver-seg
    id: str  # UUID, lower case
    aliases: tuple[str, ...]  # further names
    stages: tuple[str, ...]  # in the order of the chain
    args: tuple[tuple[str, ...], ...]  # one tuple a stage
    folders: tuple[str, ...]  # of the payload, one more than there are stages

    def answers_to(self, text: str) -> bool:
        """Whether `text` is its name, an alias or its UUID; case does not matter."""
        return text.lower() in {self.name.lower(), self.id, *(alias.lower() for alias in self.aliases)}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of the chart."""

    name: str  # ai-vnet
    image: str  # repository:tag
    command: tuple[str, ...]  # empty: the image's own entry point
    workflows: tuple[str, ...]  # names of those that use it


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The workflows and stages of one chart, in the order of `values.yaml`."""

    workflows: tuple[Workflow, ...]
    stages: tuple[Stage, ...]

    def workflow(self, text: str) -> Workflow:
        """Find a workflow by name, alias or UUID.

        Raises
        ------
        UsageError
            There is none; the message suggests the nearest.
        """
        for workflow in self.workflows:
            if workflow.answers_to(text):
                return workflow
        names = [name for workflow in self.workflows for name in (workflow.name, *workflow.aliases, workflow.id)]
        raise UsageError(f"there is no workflow '{text}'", remedy=_suggestion(text, names, "clara-wf workflows"))

    def stage(self, name: str) -> Stage:
        """Find a stage by name.

        Raises
        ------
        UsageError
            There is none; the message suggests the nearest.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = [stage.name for stage in self.stages]
        raise UsageError(f"there is no stage '{name}'", remedy=_suggestion(name, names, "clara-wf ls"))


def _suggestion(text: str, names: list[str], command: str) -> str:
    near = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.5)
    meant = f"Did you mean '{near[0]}'? " if near else ""
    return f"{meant}`{command}` lists all."


def read_catalog(chart: Path) -> Catalog:
    """Read the catalog of a chart.

    Raises
    ------
    ChartError
        `values.yaml` is missing, no YAML, or its workflows and stages are not as the schema wants them.
    """
    file = chart / "values.yaml"
    values = read_values(chart)
    try:
        workflows = tuple(_workflow(name, entry) for name, entry in (values.get("workflows") or {}).items())
        stages = tuple(_stage(name, entry, workflows) for name, entry in (values.get("stages") or {}).items())
    except (KeyError, TypeError, AttributeError) as exc:
        raise ChartError(
            f"{file}: workflows or stages are not as values.schema.json wants them: {type(exc).__name__} {exc}",
            remedy="The schema beside it says what each needs.",
        ) from exc
    return Catalog(workflows=workflows, stages=stages)


def read_values(chart: Path) -> dict[str, Any]:
    """Read `values.yaml` as it stands, unmerged and unchecked.

    Raises
    ------
    ChartError
        The file is missing or no YAML mapping.
    """
    file = chart / "values.yaml"
    try:
        found = documents(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ChartError(f"{file} cannot be read: {exc}") from exc
    except YamlFault as exc:
        raise ChartError(f"{file}:{exc.line}: {exc.cause}") from exc
    if len(found) != 1 or not isinstance(found[0], dict):
        raise ChartError(f"{file}: is no YAML mapping")
    return found[0]


def _workflow(name: str, entry: Mapping[str, Any]) -> Workflow:
    return Workflow(
        name=str(name),
        id=str(entry["id"]).lower(),
        aliases=tuple(str(alias) for alias in entry["aliases"]),
        stages=tuple(str(stage) for stage in entry["stages"]),
        args=tuple(tuple(str(arg) for arg in args) for args in entry["args"]),
        folders=tuple(str(folder) for folder in entry["ioFolders"]),
    )


def _stage(name: str, entry: Mapping[str, Any], workflows: tuple[Workflow, ...]) -> Stage:
    return Stage(
        name=str(name),
        image=f"{entry['image']['repository']}:{entry['image']['tag']}",
        command=tuple(str(part) for part in entry["command"]),
        workflows=tuple(workflow.name for workflow in workflows if name in workflow.stages),
    )
