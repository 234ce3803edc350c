"""One stage as a program of this machine: what every kind has in common, and the kind that is a plain process."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Protocol

from clara_wf.model.errors import ClaraError, LackError, UsageError
from clara_wf.model.plan import PREFIX, Plan, StagePlan
from clara_wf.runners import guardian
from clara_wf.runners.paths import StagePaths
from clara_wf.runners.usage import MemoryWatch

_INTERPRETER_NAMES = ("python", "python3")
#: `ru_maxrss` is in KiB, on macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_READ_BYTES = 65536


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How a stage's program ended, and what it used."""

    exit_code: int  # negative: ended by that signal
    cpu_s: float | None  # processor seconds of it and of what it started; None where that is not known
    peak_bytes: int  # most memory that these held at once; 0 where that is not known
    fault: str = ""  # why it ended, where that is known better than by its exit code
    left: str = ""  # what of it is still there, and how that is removed; empty: nothing, as far as is known


class Child(Protocol):
    """A running stage."""

    @property
    def pid(self) -> int:
        """The process whose end is the stage's end; it leads a session of its own."""

    @property
    def started(self) -> float:
        """When it was started, on the monotonic clock."""

    @property
    def streams(self) -> dict[str, int]:
        """The descriptors of standard output and standard error, by name."""

    @property
    def has_exited(self) -> bool:
        """Whether it has ended, and waits to be collected."""

    def read(self, stream: str) -> bytes:
        """Return what there is on a stream, at most some kilobytes; nothing at its end.

        Raises
        ------
        BlockingIOError
            There is nothing yet.
        """

    def sample(self, limit: int | None) -> str:
        """Look at its memory; return what is wrong if it must be ended for it, else an empty string."""

    def ask_to_end(self) -> None:
        """Ask it to end, and do not wait for that."""

    def kill(self) -> None:
        """End it and everything that it started."""

    def clear(self) -> None:
        """Once it has exited: end and remove what it left behind."""

    def collect(self) -> Usage:
        """Return how it ended and what it used, once it is cleared and read. Its streams stay open for `close`."""

    def close(self) -> None:
        """Close the streams."""


class Program(Protocol):
    """What is started for a stage."""

    @property
    def stage(self) -> StagePlan:
        """The stage."""

    def lay_out(self, payload: Path) -> None:
        """Create the folders that it needs.

        Raises
        ------
        OSError
            The payload cannot be written.
        """

    def start(self, *, keep_open: int, first_core: int) -> Child:
        """Start it.

        Parameters
        ----------
        keep_open : int
            The descriptor that holds the payload, for a stage that shall hold it too.
        first_core : int
            Where the cores begin that it may use, where it is confined to some.

        Raises
        ------
        OSError or ValueError
            It cannot be started.
        """


class Launcher(Protocol):
    """Knows what to start for the stages of one run, and clears up before and after them."""

    @property
    def mark(self) -> str:
        """What everything of this run is recognised by."""

    @property
    def removal(self) -> guardian.Removal | None:
        """How that is removed which is no process of this machine; None where there is no such thing."""

    def faults(self, plan: Plan) -> list[ClaraError]:
        """Return what this machine lacks for the plan as a whole."""

    def program(self, plan: Plan, stage: StagePlan) -> Program:
        """Say what to start for a stage.

        Raises
        ------
        ChartError, LackError, UsageError
            It cannot be started on this machine.
        """

    def begin(self, plan: Plan) -> None:
        """Make the payload ready, which is ours by now: nothing of an earlier run is alive after this.

        Raises
        ------
        OSError
            The payload cannot be written.
        """

    def end(self) -> None:
        """See to it that nothing of this run is left."""


@dataclass(frozen=True, kw_only=True)
class ProcessProgram:
    """A process of this machine, not yet started."""

    stage: StagePlan
    paths: StagePaths
    argv: tuple[str, ...]  # the program, absolute, and its arguments
    environment: Mapping[str, str]  # all of it

    def lay_out(self, payload: Path) -> None:
        """Create the links that stand for its mounts."""
        self.paths.lay_out(payload)

    def start(self, *, keep_open: int, first_core: int) -> Child:
        """Start the process, and confine it to its cores."""
        child = ProcessChild(self.argv, self.environment, self.paths.root, keep_open=(keep_open,))
        if self.stage.resources.cpu is not None:
            _confine(child.pid, self.stage.resources.cpu, first_core)
        return child


def program_of(plan: Plan, stage: StagePlan, code: Path | None, mark: str) -> ProcessProgram:
    """Say what to start for a stage.

    The runner's own environment is passed on, without the variables of the contract, and under the stage's own.
    `python` means the interpreter that runs this.

    Parameters
    ----------
    plan : Plan
        The job.
    stage : StagePlan
        One of its stages.
    code : Path or None
        The folder of the stage's own Python modules.
    mark : str
        What the processes of the stage are recognised by.

    Raises
    ------
    UsageError
        The stage has only an image.
    LackError
        Its program, or the Python module that it is, is not on this machine.
    ChartError
        Its mounts need a container.
    """
    if not stage.command:
        raise UsageError(
            f"stage {stage.name} has no command, only the image {stage.image}",
            remedy="Give the stage a command in values.yaml, or use a runner that starts containers",
        )
    paths = StagePaths(plan, stage)
    own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)])
    environment = own | {name: paths.translate(value) for name, value in stage.environment.items()}
    environment[guardian.MARK] = mark
    # A stage works in a folder of its own, where a relative entry would mean something else.
    modules = [str(Path(entry).absolute()) for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if code is not None:
        modules.insert(0, str(code.absolute()))
    if modules:
        environment["PYTHONPATH"] = os.pathsep.join(modules)
    first, *rest = (paths.translate(word) for word in (*stage.command, *stage.args))
    found = sys.executable if first in _INTERPRETER_NAMES else shutil.which(first, path=environment["PATH"])
    if found is None:
        raise LackError(
            f"stage {stage.name}: the program {stage.command[0]!r} is not on this machine",
            remedy="Install it, or use a runner that starts containers",
        )
    if found == sys.executable and rest[:1] == ["-m"] and len(rest) > 1 and not _is_module(rest[1], modules):
        raise LackError(
            f"stage {stage.name}: there is no Python module {rest[1]}",
            remedy="Install it, give the stage another command in values.yaml, or run a workflow without the stage",
        )
    return ProcessProgram(stage=stage, paths=paths, argv=(found, *rest), environment=environment)


def _is_module(name: str, folders: Sequence[str]) -> bool:
    """Say whether `python -m` finds a module in the folders or where this interpreter looks; nothing is imported."""
    first, *inner = name.split(".")
    spec = PathFinder.find_spec(first, folders) or importlib.util.find_spec(first)
    path = first
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return False
        path = f"{path}.{part}"
        spec = PathFinder.find_spec(path, spec.submodule_search_locations)
    return spec is not None


class ProcessChild:
    """A running process; see `Child`.

    Raises
    ------
    OSError
        The program cannot be started.
    """

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, *, keep_open: tuple[int, ...] = ()
    ) -> None:
        # Without preexec_fn this is vfork and exec: safe beside the threads of a Go runtime or an inference engine.
        self._process = subprocess.Popen(
            argv,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=keep_open,
        )
        self.pid = self._process.pid
        self.started = time.monotonic()
        self._ended: tuple[int, resource.struct_rusage] | None = None
        self._mark = environment[guardian.MARK]
        self._memory = MemoryWatch(self.pid)
        for stream in self.streams.values():
            os.set_blocking(stream, False)

    @property
    def streams(self) -> dict[str, int]:
        """The descriptors of standard output and standard error, by name."""
        stdout, stderr = self._process.stdout, self._process.stderr
        if stdout is None or stderr is None:  # both were asked for
            raise RuntimeError(f"process {self.pid} has no pipes")
        return {"stdout": stdout.fileno(), "stderr": stderr.fileno()}

    @property
    def has_exited(self) -> bool:
        """Whether the program has ended; where the system can tell so without collecting it, its id stays its own."""
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        self._collect(os.WNOHANG)
        return self._ended is not None

    def read(self, stream: str) -> bytes:
        """Return what there is on a stream."""
        return os.read(self.streams[stream], _READ_BYTES)

    def sample(self, limit: int | None) -> str:
        """Look at the memory of the process and its descendants."""
        return self._memory.sample(limit)

    def wait(self, seconds: float) -> None:
        """Wait for the program's end, at most so long."""
        end = time.monotonic() + seconds
        while not self.has_exited and time.monotonic() < end:
            time.sleep(0.01)

    def ask_to_end(self) -> None:
        """Send SIGTERM to the stage's processes."""
        guardian.signal_group(self.pid, signal.SIGTERM)
        guardian.signal_group(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the stage and everything that it started."""
        guardian.kill_all({self.pid}, self._mark)

    def clear(self) -> None:
        """End what the program started and left running."""
        self.kill()

    def collect(self) -> Usage:
        """Collect a program that has ended, and what it used. Its pipes stay open for `close`."""
        self._collect(0)
        if self._ended is None:
            raise RuntimeError(f"process {self.pid} has not ended")
        code, used = self._ended
        # Until it called exec the child shared this process's memory, and the system counts that as the child's. So a
        # peak below our own says nothing.
        peak, own_peak = used.ru_maxrss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Usage(
            exit_code=code,
            cpu_s=round(used.ru_utime + used.ru_stime, 3),
            peak_bytes=max(peak * _MAXRSS_UNIT if peak > own_peak else 0, self._memory.peak),
        )

    def _collect(self, options: int) -> None:
        if self._ended is None:
            pid, status, used = os.wait4(self.pid, options)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self._ended = self._process.returncode, used

    def close(self) -> None:
        """Close the pipes."""
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def _confine(pid: int, cores: float, first: int) -> None:
    """Keep a process to so many cores, as a container's limit would; its descendants inherit it (Linux)."""
    if sys.platform != "linux":
        return
    available = sorted(os.sched_getaffinity(0))
    count = math.ceil(cores)
    if count < len(available):
        chosen = {available[(first + index) % len(available)] for index in range(count)}
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.sched_setaffinity(pid, chosen)
