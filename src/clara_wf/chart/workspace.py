"""Where the charts lie: a workspace that a person edits, or the copy inside the installed package."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import clara_wf
from clara_wf.chart.journal import recover
from clara_wf.model.errors import ChartError, UsageError
from clara_wf.model.files import UNFINISHED, fsync

#: Names the workspace, in place of looking upwards from the working folder.
VARIABLE = "CLARA_WF_WORKSPACE"

_CHART = Path("charts/clara-workflow")
_MARK = _CHART / "Chart.yaml"


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A folder with `charts/`, and `images/` for stages of its own."""

    root: Path  # absolute
    editable: bool = True  # False: the copy inside the installed package

    @property
    def chart(self) -> Path:
        """The chart of the workflows."""
        return self.root / _CHART

    @property
    def trtis(self) -> Path:
        """The chart of the inference server."""
        return self.root / "charts/trtis"

    @property
    def images(self) -> Path:
        """Code and recipes of the stages that were made here."""
        return self.root / "images"

    @property
    def code_folders(self) -> dict[str, Path]:
        """By stage, where its module lies: what a stage that runs as a process needs on its PYTHONPATH."""
        return {file.parent.name: file.parent for file in sorted(self.images.glob("*/stage_*.py"))}


def find_workspace(
    start: Path | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> Workspace:
    """Find the workspace to work in.

    The variable CLARA_WF_WORKSPACE goes first, then the nearest folder from `start` upwards that holds
    `charts/clara-workflow/Chart.yaml`, then the read-only copy inside the package.

    Parameters
    ----------
    start : Path, optional
        Where to look from; None is the working folder.
    environment : mapping, optional
        None is the process's own.
    say : callable, optional
        Takes one line if an edit of the charts that was cut off had to be undone first.

    Raises
    ------
    UsageError
        CLARA_WF_WORKSPACE names a folder that is no workspace, or the nearest one upwards is a stranger's.
    ChartError
        There is none, and the package has lost its charts; or an edit that was cut off cannot be undone.
    """
    named = (os.environ if environment is None else environment).get(VARIABLE)
    if named:
        root = Path(named).absolute()
        if not (root / _MARK).is_file():
            raise UsageError(
                f"{VARIABLE}={named} has no {_MARK}", remedy="Make a workspace there by `clara-wf init DIR`."
            )
        return _recovered(Workspace(root=root), say)
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / _MARK).is_file():
            _check_owner(Workspace(root=folder))
            return _recovered(Workspace(root=folder), say)
    charts = shipped_charts()
    return Workspace(root=charts.parent, editable=os.access(charts, os.W_OK) and charts.parent.name != "_share")


def _check_owner(workspace: Workspace) -> None:
    """Check that a workspace that was come upon is the user's or the system's.

    A chart and the code of stages are commands that `run` executes: a stranger may lay them into /tmp or /scratch,
    above where others work (compare Git's CVE-2022-24765).

    Raises
    ------
    UsageError
        It is a stranger's.
    """
    trusted = {os.getuid(), 0, Path(clara_wf.__file__).stat().st_uid}
    invoker = os.environ.get("SUDO_UID", "")
    if os.getuid() == 0 and invoker.isdecimal():
        trusted.add(int(invoker))
    parts = (workspace.chart.parent, workspace.chart, workspace.root / _MARK, workspace.trtis, workspace.images)
    # Of a link too who has laid it: it may lead to a file of the system.
    owners = {part.stat(follow_symlinks=follow).st_uid for part in parts if part.exists() for follow in (True, False)}
    if not owners <= trusted:
        raise UsageError(
            f"the workspace {workspace.root} belongs to another user",
            remedy=f"If you mean it, say so by --workspace or {VARIABLE}",
        )


def _recovered(workspace: Workspace, say: Callable[[str], None] | None) -> Workspace:
    """Undo an edit of the charts that was cut off, before anybody reads them."""
    recover(workspace.root, say)
    return workspace


def shipped_charts() -> Path:
    """Return the charts that came with the package: its own copy, or the checkout's.

    Raises
    ------
    ChartError
        Neither is there.
    """
    package = Path(clara_wf.__file__).parent
    for charts in (package / "_share/charts", package.parent.parent / "charts"):
        if (charts.parent / _MARK).is_file():
            return charts
    raise ChartError(f"{package} has lost its charts", remedy="Install clara-wf again.")


def init_workspace(folder: Path) -> Workspace:
    """Make an editable workspace: a copy of the charts that came with the package.

    The charts appear by one rename, so that an interrupted copy leaves no half workspace.

    Raises
    ------
    UsageError
        The folder is a file, is not empty, or cannot be written.
    """
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        left_over = [entry for entry in folder.iterdir() if not entry.name.startswith(UNFINISHED)]
        if left_over:
            raise UsageError(f"{folder} is not empty", remedy="Give the name of a new folder.")
        unfinished = folder / f"{UNFINISHED}charts"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        shutil.copytree(shipped_charts(), unfinished)
        for file in unfinished.rglob("*"):
            # What was installed read-only must be editable here.
            file.chmod(0o755 if file.is_dir() else 0o644)
            if file.is_file():
                fsync(file)
        unfinished.rename(folder / "charts")
        fsync(folder)
    except OSError as exc:
        raise UsageError(f"{folder} cannot be made a workspace: {exc.strerror or exc}") from exc
    return Workspace(root=folder)
