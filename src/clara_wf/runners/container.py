"""The container runner: every stage is a container of this machine, run by docker or podman."""

from __future__ import annotations

import uuid

from clara_wf.containers.engine import Engine, EngineFailed
from clara_wf.model.errors import ChartError, ClaraError, LackError
from clara_wf.model.plan import Plan, StagePlan
from clara_wf.runners.container_child import ANSWER_SECONDS, REMOVE
from clara_wf.runners.container_program import PAYLOAD_LABEL, RUN_LABEL, ContainerProgram, payload_key
from clara_wf.runners.guardian import Removal
from clara_wf.runners.limits import Limits
from clara_wf.runners.local import LocalRun
from clara_wf.runners.runner import Capabilities
from clara_wf.runners.sharing import share_folders

#: A daemon makes a container within these seconds, also where the program is gone that asked for it.
_LATE_SECONDS = {"docker": 2.0, "podman": 0.0}


class ContainerRunner:
    """Runs each stage as a container.

    Parameters
    ----------
    engine : Engine
        Docker or podman.
    limits : Limits, optional
        How patient the runner is.
    """

    capabilities = Capabilities(ends_stages=True, follows_links=False)

    def __init__(self, engine: Engine, *, limits: Limits | None = None) -> None:
        self._engine = engine
        self._limits = limits or Limits()

    def run(self, plan: Plan) -> LocalRun:
        """Give the run of a plan, which has not started yet."""
        return LocalRun(plan, ContainerLauncher(self._engine), self._limits)


class ContainerLauncher:
    """Starts the stages of one run as containers; see `Launcher`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._nonce = uuid.uuid4().hex
        self._programs: list[ContainerProgram] = []

    @property
    def mark(self) -> str:
        """How the mark of every program begins that runs a container."""
        return f"{self._nonce}."

    @property
    def removal(self) -> Removal:
        """How the containers of this run are removed."""
        return self._removal(RUN_LABEL, self._nonce)

    def faults(self, plan: Plan) -> list[ClaraError]:
        """Return the images that are not on this machine, all in one line."""
        missing = []
        for image in dict.fromkeys(stage.image for stage in plan.stages):
            try:
                self._engine.call("image", "inspect", "--format", "{{.Id}}", image, timeout=ANSWER_SECONDS)
            except EngineFailed as fault:
                if not fault.is_absent:
                    return [LackError(f"{self._engine.kind} does not work: {fault.message}")]
                missing.append(image)
        if not missing:
            return []
        what = "the image is" if len(missing) == 1 else "the images are"
        remedy = f"Build it with `clara-wf build`, or pull it with `{self._engine.kind} pull`"
        return [LackError(f"{what} not on this machine: {', '.join(missing)}", remedy=remedy)]

    def program(self, plan: Plan, stage: StagePlan) -> ContainerProgram:
        """Say what to start for a stage."""
        for mount in stage.mounts:
            if "\n" in str(mount.host) or "\n" in mount.path:
                raise ChartError(f"stage {stage.name} mounts {str(mount.host)!r}: a line break is in the way")
            if not mount.host.is_relative_to(plan.payload) and not mount.host.exists():
                raise LackError(
                    f"stage {stage.name}: the folder {mount.host}, which it mounts as {mount.path}, is not there",
                    remedy="Create it, or name another in values.yaml",
                )
        program = ContainerProgram(self._engine, plan, stage, self._nonce)
        self._programs.append(program)
        return program

    def begin(self, plan: Plan) -> None:
        """Remove the containers that a killed run of this payload has left: they are nobody's. Share the folders."""
        self._removal(PAYLOAD_LABEL, payload_key(plan.payload)).remove()
        share_folders(plan)

    def end(self) -> None:
        """Remove what is left, and what a daemon still makes for a program that was ended while it asked for it."""
        if any(program.was_hurried for program in self._programs):
            self.removal.remove_late()
        else:
            self.removal.remove()

    def _removal(self, label: str, value: str) -> Removal:
        listing = ("ps", "--all", "--quiet", "--filter", f"label={label}={value}")
        program, kind = self._engine.program, self._engine.kind
        return Removal((program, *listing), (program, *REMOVE[kind]), late=_LATE_SECONDS[kind])
