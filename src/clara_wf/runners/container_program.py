"""What is asked of docker or podman for a stage: what its container sees, may do, and may use."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from clara_wf.containers.engine import Engine
from clara_wf.model.plan import Mount, Plan, StagePlan
from clara_wf.runners import guardian
from clara_wf.runners.child import Child
from clara_wf.runners.container_child import ContainerChild
from clara_wf.runners.paths import APP_FOLDERS
from clara_wf.runners.sharing import stage_user

#: Labels of a container: whose it is, for whoever clears up.
RUN_LABEL = "clara-wf.run"
PAYLOAD_LABEL = "clara-wf.payload"
#: Threads count as processes. Libraries start one for every core, each library its own; a fork bomb starts more.
_MOST_PROCESSES = 4096
#: Docker refuses less.
_LEAST_CORES = 0.01
#: Where the container's id is written to, in the stage's own folder of the payload.
_ID_FILE = "container"
_OF_KIND = {
    "docker": (),
    # The stage has the manifest's variables, not those of proxies of whoever starts it.
    "podman": ("--http-proxy=false",),
}


def payload_key(payload: Path) -> str:
    """Return what a payload is recognised by in labels and names: its path as a few letters."""
    return hashlib.sha256(os.fsencode(payload.resolve())).hexdigest()[:12]


class ContainerProgram:
    """A container, not yet started; see `Program`."""

    def __init__(self, engine: Engine, plan: Plan, stage: StagePlan, nonce: str) -> None:
        self.stage = stage
        self._engine = engine
        self._plan = plan
        self._nonce = nonce  # of the run
        self._child: ContainerChild | None = None

    @property
    def was_hurried(self) -> bool:
        """Whether it was ended before its container was there, which may therefore still appear."""
        return self._child is not None and self._child.was_hurried

    @property
    def name(self) -> str:
        """What the container is called: the same job may run in two workspaces at once, so that is told apart."""
        return f"clara-{self._plan.job_id}-{self.stage.name}-{payload_key(self._plan.payload)[:6]}"

    @property
    def id_file(self) -> Path:
        """Where its id will be written to."""
        return self._plan.payload / APP_FOLDERS / self.stage.name / _ID_FILE

    def lay_out(self, payload: Path) -> None:  # noqa: ARG002 - it is the one that it knows
        """Make room for the file with the container's id. The mounted folders are shared by the launcher."""
        self.id_file.parent.mkdir(parents=True, exist_ok=True)
        self.id_file.unlink(missing_ok=True)  # both programs refuse one that is there

    def start(self, *, keep_open: int, first_core: int) -> Child:  # noqa: ARG002 - of processes
        """Start the program that runs the container and stays until its end.

        It does not hold the payload: what outlives a killed run is removed by the next one, not waited for.
        """
        mark = f"{self._nonce}.{self._plan.stages.index(self.stage)}."
        self._child = ContainerChild(
            self.argv(),
            os.environ | {guardian.MARK: mark},
            engine=self._engine,
            name=self.name,
            id_file=self.id_file,
            memory_limit=self.stage.resources.memory,
        )
        return self._child

    def argv(self) -> list[str]:
        """Return the whole command. Links on the way to a mounted folder are followed, so it must be there."""
        stage = self.stage
        options = [
            # A missing image is found before anything is started; nothing is fetched in the middle of a job.
            "--pull=never",
            f"--name={self.name}",
            f"--label={RUN_LABEL}={self._nonce}",
            f"--label={PAYLOAD_LABEL}={payload_key(self._plan.payload)}",
            f"--cidfile={self.id_file}",
            # What a stage prints is kept by us, bounded; a second copy would lie outside the payload, for ever.
            "--log-driver=none",
            *self._rights(),
            *self._limits(),
            *_OF_KIND[self._engine.kind],
            *(f"--env={name}={value}" for name, value in stage.environment.items()),
            *(f"--mount={_mount(mount)}" for mount in stage.mounts),
        ]
        if all(mount.path.rstrip("/") != "/tmp" for mount in stage.mounts):  # noqa: S108 - the container's own
            options.append("--tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777")
        if stage.command:
            options.append(f"--entrypoint={stage.command[0]}")
        return [self._engine.program, "run", *options, stage.image, *stage.command[1:], *stage.args]

    def _rights(self) -> list[str]:
        # A stage that calls an inference server finds it at an address of this machine, often localhost: a network of
        # the container's own would not lead there. All other stages work on files alone.
        network = "none" if self.stage.variable("NETWORK") in {"", "none"} else "host"
        return [
            f"--network={network}",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            # Under SELinux a container sees only folders labeled for containers. To label the user's own folders anew
            # would change them for everybody else; so for this container the labels do not count.
            "--security-opt=label=disable",
            "--read-only",
            f"--pids-limit={_MOST_PROCESSES}",
            *self._user(),
        ]

    def _user(self) -> list[str]:
        """Say who the stage is: on the host it is whoever starts the job, whatever it is called in the container."""
        user, group = stage_user()
        if not self._engine.rootless:
            return [f"--user={user}:{group}"]
        if self._engine.kind == "podman":
            return ["--userns=keep-id", f"--user={user}:{group}"]
        return ["--user=0:0"]  # rootless docker knows no other way: its root is the caller, with no rights beyond

    def _limits(self) -> list[str]:
        resources = self.stage.resources
        options = []
        if resources.cpu is not None:
            cores = min(
                max(resources.cpu, _LEAST_CORES), float(os.cpu_count() or 1)
            )  # docker refuses more than there are
            options.append(f"--cpus={cores:.2f}")
        if resources.memory is not None:
            # As much with swap as without: what does not fit ends the stage, in place of a machine that crawls.
            options += [f"--memory={resources.memory}b", f"--memory-swap={resources.memory}b"]
        return options


def _mount(mount: Mount) -> str:
    """Return a mount as a line of comma-separated values: a path may hold colons, commas and quotes."""
    fields = ["type=bind", f"source={mount.host.resolve()}", f"target={mount.path}"]
    if mount.read_only:
        fields.append("readonly")
    return ",".join(_quoted(field) for field in fields)


def _quoted(field: str) -> str:
    return '"{}"'.format(field.replace('"', '""')) if "," in field or '"' in field else field
