"""One stage as a process of this machine: started, signaled, ended with everything it started."""

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

from clara_wf.model.errors import LackError, UsageError
from clara_wf.model.plan import PREFIX, Plan, StagePlan
from clara_wf.runners import guardian
from clara_wf.runners.paths import StagePaths

_INTERPRETER_NAMES = ("python", "python3")
#: `ru_maxrss` is in KiB, on macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is started for a stage."""

    stage: StagePlan
    paths: StagePaths
    argv: tuple[str, ...]  # the program, absolute, and its arguments
    environment: Mapping[str, str]  # all of it


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How a process ended, and what it used."""

    exit_code: int  # negative: ended by that signal
    cpu_s: float  # processor seconds of it and of the descendants that it waited for
    peak_bytes: int  # largest resident set among these; 0 where that is not known


def program_of(plan: Plan, stage: StagePlan, code: Path | None, mark: str) -> Program:
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
    return Program(stage=stage, paths=paths, argv=(found, *rest), environment=environment)


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


class Child:
    """A running stage.

    Raises
    ------
    OSError
        The program cannot be started.
    """

    def __init__(self, program: Program, *, keep_open: tuple[int, ...], first_core: int = 0) -> None:
        # Without preexec_fn this is vfork and exec: safe beside the threads of a Go runtime or an inference engine.
        self._process = subprocess.Popen(
            program.argv,
            env=program.environment,
            cwd=program.paths.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=keep_open,
        )
        self.pid = self._process.pid
        self.started = time.monotonic()
        self._ended: tuple[int, resource.struct_rusage] | None = None
        self._mark = program.environment[guardian.MARK]
        for stream in self.streams.values():
            os.set_blocking(stream, False)
        if program.stage.resources.cpu is not None:
            _confine(self.pid, program.stage.resources.cpu, first_core)

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

    def ask_to_end(self) -> None:
        """Send SIGTERM to the stage's processes."""
        guardian.signal_group(self.pid, signal.SIGTERM)
        guardian.signal_group(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the stage and everything that it started."""
        guardian.kill_all({self.pid}, self._mark)

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
            peak_bytes=peak * _MAXRSS_UNIT if peak > own_peak else 0,
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
