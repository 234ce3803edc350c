"""The process runner: every stage is a process of this machine."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from clara_wf.model.errors import ClaraError
from clara_wf.model.plan import Plan, StagePlan
from clara_wf.runners.child import ProcessProgram, program_of
from clara_wf.runners.limits import Limits
from clara_wf.runners.local import LocalRun
from clara_wf.runners.runner import Capabilities


class ProcessRunner:
    """Runs each stage as a local process.

    Parameters
    ----------
    code_folders : mapping of str to Path, optional
        For a stage by its name, the folder of its own Python modules: it goes first on the stage's module path.
    limits : Limits, optional
        How patient the runner is.
    """

    capabilities = Capabilities(ends_stages=True, follows_links=True)

    def __init__(self, *, code_folders: Mapping[str, Path] | None = None, limits: Limits | None = None) -> None:
        self._code_folders = dict(code_folders or {})
        self._limits = limits or Limits()

    def run(self, plan: Plan) -> LocalRun:
        """Give the run of a plan, which has not started yet."""
        return LocalRun(plan, ProcessLauncher(self._code_folders), self._limits)


class ProcessLauncher:
    """Starts the stages of one run as processes; see `Launcher`."""

    #: Whatever such a stage starts is a process of this machine.
    removal = None

    def __init__(self, code_folders: Mapping[str, Path]) -> None:
        self._code_folders = code_folders
        self._nonce = uuid.uuid4().hex

    @property
    def mark(self) -> str:
        """How the mark of every process begins."""
        return f"{self._nonce}."

    def faults(self, plan: Plan) -> list[ClaraError]:  # noqa: ARG002 - see `Launcher`
        """Return nothing: what this machine lacks is told stage by stage."""
        return []

    def program(self, plan: Plan, stage: StagePlan) -> ProcessProgram:
        """Say what to start for a stage."""
        mark = f"{self.mark}{plan.stages.index(stage)}."
        return program_of(plan, stage, self._code_folders.get(stage.name), mark)

    def begin(self, plan: Plan) -> None:
        """Do nothing: the processes of a killed run hold the payload."""

    def end(self) -> None:
        """Do nothing: every stage has ended with its processes."""
