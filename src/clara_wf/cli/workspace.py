"""Where the command line works: charts, models, payloads and test data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from clara_wf.chart.workspace import VARIABLE, Workspace, find_workspace, init_workspace
from clara_wf.cli.terminal import remark
from clara_wf.model.errors import LackError

__all__ = ["VARIABLE", "Places", "home_folder", "init", "places"]


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders of one workspace."""

    workspace: Workspace  # the charts
    data: Path  # what is made here: the workspace itself, or the user's data folder where that is not for writing

    @property
    def models(self) -> Path:
        """The model repository."""
        return self.data / "models"

    @property
    def trtis(self) -> Path:
        """The inference server of this machine: its environment, its state, its log."""
        return self.data / "trtis"

    @property
    def payloads(self) -> Path:
        """One folder a job of `run`."""
        return self.data / "payloads"

    @property
    def test_data(self) -> Path:
        """One folder a job of `test`."""
        return self.data / "test-data"


def places() -> Places:
    """Find the folders to work in.

    An installed package is not for writing: what is made then goes to the user's data folder.
    """
    workspace = find_workspace(say=remark)
    if workspace.editable:
        return Places(workspace=workspace, data=workspace.root)
    home = os.environ.get("XDG_DATA_HOME") or home_folder() / ".local" / "share"
    return Places(workspace=workspace, data=Path(home) / "clara-wf")


def home_folder() -> Path:
    """Return the user's own folder.

    Raises
    ------
    LackError
        There is none: HOME is not set, and the system does not know the user. So it often is in containers.
    """
    try:
        return Path.home()
    except RuntimeError as exc:
        raise LackError("this user has no home folder", remedy="Name one by HOME") from exc


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
) -> None:
    """Make a workspace of your own: a copy of the charts, to edit."""
    workspace = init_workspace(folder)
    print(f"Workspace is created at: {workspace.root}")
    print(f"Work in it:              cd {workspace.root} && clara-wf ls")
