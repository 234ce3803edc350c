"""Making and removing stages of a chart: `cs` and `ds`."""

from __future__ import annotations

import os
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
#: Of such names, those that YAML takes for a number or a date: 12, 1e3, 0x10, 2026-11-26.
_NUMBER = re.compile(r"[0-9][-0-9]*|[0-9]+e-?[0-9]+|0[box][0-9a-f]+")
_IMAGE = re.compile(r"(?P<repository>[\w.-]+(:\d+)?(/[\w.-]+)*(@sha256)?):(?P<tag>[\w.-]+)")
_TEMPLATES = Path("charts/clara-workflow/templates/stages")
_VALUES = Path("charts/clara-workflow/values.yaml")
#: What YAML 1.1, which Helm reads, takes for a boolean or for nothing: no key of a mapping can be called so.
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_TAKEN = {
    "template": "The chart keeps its own templates there.",
    # The stage after it would start before it has worked.
    "input": "Its lock would be input.lock, which says that the payload is complete.",
    "stage-in": "So the container is called that fetches a payload from a bucket.",
    "stage-out": "So the container is called that brings a payload to a bucket.",
} | dict.fromkeys(_YAML_WORDS, "YAML takes it for a truth value or for nothing.")
_LAST_KEY = "`stages:` must be the last key of the file, and each block must lie between its own marks."


@dataclass(frozen=True, kw_only=True)
class StageEdit:
    """What became of a stage's files."""

    name: str  # the stage
    templates: Path  # its folder of templates, absolute
    values: Path  # values.yaml, absolute
    code: Path | None = None  # its folder below images/, absolute; None without code
    shared: Path | None = None  # where its folder of templates led to, if that was a link that was removed


def create_stage(workspace: Workspace, name: str, *, image: str | None = None, code: bool = False) -> StageEdit:
    """Make a stage: templates, a block in `values.yaml` and, if asked for, runnable code.

    Parameters
    ----------
    workspace : Workspace
        Where.
    name : str
        A DNS label of at most 63 characters that YAML takes for a text.
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
            changes[target] = _read(source).replace(PLACEHOLDER, name)
        if len(changes) == 1:
            raise ChartError(f"{workspace.root / _TEMPLATES / 'template'} has no templates to copy")
        if code:
            changes |= {Path("images") / name / file: text for file, text in code_files(name).items()}
        change(workspace.root, changes)
    return _edit(workspace, name)


def delete_stage(workspace: Workspace, name: str) -> StageEdit:
    """Remove a stage's templates and its block in `values.yaml`; code below `images/` is a person's work and stays.

    Where the folder of templates, or anything in it, is a link, the link alone goes: others may share what it leads to.

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
        files = [folder] if folder.is_symlink() else sorted(folder.rglob("*"))
        changes |= {file.relative_to(workspace.root): None for file in files if file.is_symlink() or file.is_file()}
        result = _edit(workspace, name)
        change(workspace.root, changes)
    return result


def _edit(workspace: Workspace, name: str) -> StageEdit:
    templates = workspace.root / _TEMPLATES / name
    code = workspace.images / name
    return StageEdit(
        name=name,
        templates=templates,
        values=workspace.root / _VALUES,
        code=code if code.is_dir() else None,
        shared=Path(os.path.realpath(templates)) if templates.is_symlink() else None,
    )


def _check_name(name: str) -> None:
    if not _LABEL.fullmatch(name) or len(name) > 63:
        raise UsageError(
            f"'{name}' cannot name a stage",
            remedy="A name has at most 63 lower-case letters, digits and inner dashes.",
        )
    if _NUMBER.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot name a stage", remedy="YAML takes it for a number: let it have more letters."
        )
    if name in _TAKEN:
        raise UsageError(f"'{name}' cannot name a stage", remedy=_TAKEN[name])


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
        if os.path.lexists(folder):  # a link that leads nowhere too
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
    block = _read(template).replace("\r\n", "\n").replace(PLACEHOLDER, name)
    old = _read(workspace.root / _VALUES)
    for key, value in settings.items():
        block, count = re.subn(rf"^(\s+{key}:).*$", rf"\1 {value}", block, count=1, flags=re.MULTILINE)
        if not count:
            raise ChartError(f"{template}: has no line '{key}:'")
    # The file's own line ends: most of its lines have them.
    end = "\r\n" if old.count("\r\n") * 2 > old.count("\n") else "\n"
    new = old + ("" if old.endswith("\n") else end) + (block.rstrip("\n") + "\n").replace("\n", end)
    _check_only_stage_differs(workspace, old, new, name)
    return new


def _without_block(workspace: Workspace, name: str) -> str:
    """Return `values.yaml` without the stage's block."""
    file = workspace.root / _VALUES
    old = _read(file)
    marked = re.compile(
        rf"^[ \t]*##BEGIN_{re.escape(name)}##[ \t]*\r?\n.*?^[ \t]*##END_{re.escape(name)}##[ \t]*(\r?\n|\Z)",
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


def _read(file: Path) -> str:
    """Read a file of the chart with its line ends as they are."""
    try:
        return file.read_bytes().decode()
    except OSError as exc:
        raise ChartError(f"{file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        line = exc.object[: exc.start].count(b"\n") + 1
        raise ChartError(f"{file}:{line}: is no UTF-8 text", remedy="Save the file as UTF-8.") from exc


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
