"""Making and removing stages of a chart: `cs` and `ds`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clara_wf.chart.catalog import read_catalog
from clara_wf.chart.journal import change, exclusive
from clara_wf.chart.scaffold import code_files, module_name
from clara_wf.chart.strict_yaml import YamlFault, documents
from clara_wf.chart.workspace import Workspace
from clara_wf.model.errors import ChartError, UsageError

#: What the templates of a stage hold in place of its name.
PLACEHOLDER = "__stage__"

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_IMAGE = re.compile(r"(?P<repository>[\w.-]+(:\d+)?(/[\w.-]+)*(@sha256)?):(?P<tag>[\w.-]+)")
_TEMPLATES = Path("charts/clara-workflow/templates/stages")
_VALUES = Path("charts/clara-workflow/values.yaml")
_LAST_KEY = "`stages:` must be the last key of the file, and each block must lie between its own marks."


@dataclass(frozen=True, kw_only=True)
class StageEdit:
    """What became of a stage's files."""

    name: str  # the stage
    templates: Path  # its folder of templates, absolute
    values: Path  # values.yaml, absolute
    code: Path | None = None  # its folder below images/, absolute; None without code


def create_stage(workspace: Workspace, name: str, *, image: str | None = None, code: bool = False) -> StageEdit:
    """Make a stage: templates, a block in `values.yaml` and, if asked for, runnable code.

    Parameters
    ----------
    workspace : Workspace
        Where.
    name : str
        A DNS label of at most 63 characters.
    image : str, optional
        ``repository:tag``; None is ``clara-wf/<name>:0.1.0``.
    code : bool
        Also make ``images/<name>/`` with a module, a Dockerfile and a test, and have the stage run the module.

    Raises
    ------
    UsageError
        The name or the image is wrong, or the stage is there already.
    ChartError
        The chart's own templates are broken, or the files cannot be written. Nothing was changed.
    """
    _check_name(name)
    _check_editable(workspace)
    with exclusive(workspace.root):
        _check_free(workspace, name, code=code)
        changes: dict[Path, str | None] = {_VALUES: _with_block(workspace, name, image, code=code)}
        for source in sorted((workspace.root / _TEMPLATES / "template").glob("_*.yaml")):
            target = _TEMPLATES / name / source.name.removeprefix("_")
            changes[target] = source.read_text(encoding="utf-8").replace(PLACEHOLDER, name)
        if len(changes) == 1:
            raise ChartError(f"{workspace.root / _TEMPLATES / 'template'} has no templates to copy")
        if code:
            changes |= {Path("images") / name / file: text for file, text in code_files(name).items()}
        change(workspace.root, changes)
    return _edit(workspace, name)


def delete_stage(workspace: Workspace, name: str) -> StageEdit:
    """Remove a stage's templates and its block in `values.yaml`; code below `images/` is a person's work and stays.

    Raises
    ------
    UsageError
        There is no such stage, or a workflow uses it.
    ChartError
        The block's marks are gone, or the files cannot be written. Nothing was changed.
    """
    _check_editable(workspace)
    with exclusive(workspace.root):
        stage = read_catalog(workspace.chart).stage(name)
        if stage.workflows:
            raise UsageError(
                f"stage '{name}' is used by {', '.join(stage.workflows)}",
                remedy=f"Take it out of {'that workflow' if len(stage.workflows) == 1 else 'those workflows'} first.",
            )
        changes: dict[Path, str | None] = {_VALUES: _without_block(workspace, name)}
        folder = workspace.root / _TEMPLATES / name
        changes |= {file.relative_to(workspace.root): None for file in sorted(folder.rglob("*")) if file.is_file()}
        result = _edit(workspace, name)
        change(workspace.root, changes)
    return result


def _edit(workspace: Workspace, name: str) -> StageEdit:
    code = workspace.images / name
    return StageEdit(
        name=name,
        templates=workspace.root / _TEMPLATES / name,
        values=workspace.root / _VALUES,
        code=code if code.is_dir() else None,
    )


def _check_name(name: str) -> None:
    if not _LABEL.fullmatch(name) or len(name) > 63:
        raise UsageError(
            f"'{name}' cannot name a stage",
            remedy="A name has at most 63 lower-case letters, digits and inner dashes.",
        )
    if name == "template":
        raise UsageError("'template' cannot name a stage", remedy="The chart keeps its own templates there.")


def _check_editable(workspace: Workspace) -> None:
    if not workspace.editable:
        raise UsageError(
            f"{workspace.root} is the installed package, which is not for editing",
            remedy="Make a workspace by `clara-wf init DIR` and work there.",
        )


def _check_free(workspace: Workspace, name: str, *, code: bool) -> None:
    if name in {stage.name for stage in read_catalog(workspace.chart).stages}:
        raise UsageError(f"stage '{name}' is there already", remedy=f"Remove it by `clara-wf ds {name}`.")
    for folder in [workspace.root / _TEMPLATES / name, *([workspace.images / name] if code else [])]:
        if folder.exists():
            raise UsageError(f"{folder} is there already", remedy="Move it away, or take another name.")


def _with_block(workspace: Workspace, name: str, image: str | None, *, code: bool) -> str:
    """Return `values.yaml` with the stage's block at its end; every other byte stays."""
    template = workspace.chart / "_stage_values.yaml"
    settings: dict[str, str] = {}
    if image is not None:
        parts = _IMAGE.fullmatch(image)
        if parts is None:
            raise UsageError(f"'{image}' is no image", remedy="Give it as repository:tag.")
        settings |= {"repository": f'"{parts["repository"]}"', "tag": f'"{parts["tag"]}"'}
    if code:
        settings["command"] = f'["python", "-m", "{module_name(name)}"]'
    try:
        block = template.read_text(encoding="utf-8").replace(PLACEHOLDER, name)
        old = (workspace.root / _VALUES).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ChartError(f"{template} or values.yaml cannot be read: {exc}") from exc
    for key, value in settings.items():
        block, count = re.subn(rf"^(\s+{key}:).*$", rf"\1 {value}", block, count=1, flags=re.MULTILINE)
        if not count:
            raise ChartError(f"{template}: has no line '{key}:'")
    new = old + ("" if old.endswith("\n") else "\n") + block.rstrip("\n") + "\n"
    _check_only_stage_differs(workspace, old, new, name)
    return new


def _without_block(workspace: Workspace, name: str) -> str:
    """Return `values.yaml` without the stage's block."""
    file = workspace.root / _VALUES
    old = file.read_text(encoding="utf-8")
    marked = re.compile(
        rf"^[ \t]*##BEGIN_{re.escape(name)}##[ \t]*\n.*?^[ \t]*##END_{re.escape(name)}##[ \t]*(\n|\Z)",
        re.MULTILINE | re.DOTALL,
    )
    new, count = marked.subn("", old)
    if count != 1:
        raise ChartError(
            f"{file}: has {count} blocks from ##BEGIN_{name}## to ##END_{name}##, not one",
            remedy="Restore the marks around the stage's values.",
        )
    _check_only_stage_differs(workspace, new, old, name)
    return new


def _check_only_stage_differs(workspace: Workspace, without: str, with_stage: str, name: str) -> None:
    """Make sure that the one text says what the other says, and the stage besides."""
    file = workspace.root / _VALUES
    try:
        less, more = documents(without), documents(with_stage)
    except YamlFault as exc:
        raise ChartError(f"{file}:{exc.line}: {exc.cause}", remedy=_LAST_KEY) from exc
    stages = dict(_stages(more))
    removed = stages.pop(name, None)
    same = {**_top(less), "stages": dict(_stages(less))} == {**_top(more), "stages": stages}
    if removed is None or not same:
        raise ChartError(
            f"{file}: the block of stage '{name}' would not hold just this stage",
            remedy=_LAST_KEY,
        )


def _top(parsed: list[object]) -> Mapping[str, object]:
    return parsed[0] if len(parsed) == 1 and isinstance(parsed[0], dict) else {}


def _stages(parsed: list[object]) -> Mapping[str, object]:
    stages = _top(parsed).get("stages")
    return stages if isinstance(stages, dict) else {}
