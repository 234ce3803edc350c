"""A stage as a container: the program that runs it stays in the foreground, and stands for it."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clara_wf.containers.engine import Engine, EngineFailed
from clara_wf.runners.child import ProcessChild, Usage
from clara_wf.runners.container_watch import ContainerWatch
from clara_wf.runners.verdict import KILLED, out_of_memory

#: What removes containers at once, running or not, with the volumes that their images ask for.
REMOVE = {
    "docker": ("rm", "--force", "--volumes"),
    # Without --time it asks the container first, and waits.
    "podman": ("rm", "--force", "--volumes", "--time=0"),
}
#: Whether it says that the system ended a container for lack of memory; podman does so in newer versions alone.
_TELLS_OUT_OF_MEMORY = {"docker": True, "podman": False}
#: Kept of standard error: what docker and podman say themselves is short.
_TAIL_BYTES = 4096
#: A call that looks or removes; a daemon that hangs must not hang us.
ANSWER_SECONDS = 30.0
#: What podman takes at most to finish with a container that it is just making.
_HALF_MADE_SECONDS = 2.0
#: The exit codes of `docker run` and `podman run` where the container did not come to run its program.
_REFUSED, _NOT_EXECUTABLE, _NOT_FOUND = 125, 126, 127
#: How Go writes a moment that has not come.
_NEVER = "0001-01-01"
_STATE = "{{.State.StartedAt}}|{{.State.Running}}|{{.State.OOMKilled}}"
#: What stands before and after a cause, in the words of docker, podman, runc and crun.
_BEFORE = re.compile(r"^(?:docker: |Error: |Error response from daemon: |OCI runtime error: |runc: |crun: )+")
_LONG_BEFORE = re.compile(r"^.*unable to start container process: ")
_AFTER = re.compile(
    r"(?:: unknown\.?|: OCI runtime attempted to invoke a command that was not found|: OCI permission denied)$"
)


@dataclass(frozen=True, kw_only=True)
class _State:
    """What docker or podman knows of a container that has ended."""

    started: bool  # its program did run
    running: bool  # and still does
    ran_out: bool  # the system ended it for lack of memory; False also where nobody tells


class ContainerChild:
    """A running container; see `Child`.

    Raises
    ------
    OSError or ValueError
        The program that runs it cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        engine: Engine,
        name: str,
        id_file: Path,
        memory_limit: int | None,
    ) -> None:
        self.was_hurried = False  # ended before it was known whether there is a container
        self._engine = engine
        self._name = name
        self._id_file = id_file
        self._memory_limit = memory_limit
        self._client = ProcessChild(argv, environment, Path("/"))
        self.pid, self.started, self.streams = self._client.pid, self._client.started, self._client.streams
        self._watch = ContainerWatch(id_file)
        self._watch.start()
        self._tail = b""
        self._killed = False
        self._state: _State | None = None
        self._silence = ""  # why nothing is known of its state
        self._left = ""  # what the last attempt to remove it came to; empty: it is gone

    @property
    def has_exited(self) -> bool:
        """Whether the program that runs the container has ended, and with it, as a rule, the container."""
        return self._client.has_exited

    def read(self, stream: str) -> bytes:
        """Return what there is on a stream."""
        data = self._client.read(stream)
        if stream == "stderr":
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
        return data

    def sample(self, limit: int | None) -> str:  # noqa: ARG002 - the system holds the limit
        """Do nothing: the system counts, and ends what takes too much."""
        return ""

    def ask_to_end(self) -> None:
        """Send SIGTERM to the container's program, by way of the program that runs it.

        The first process of a container does not get a signal that it does not catch, also where that would end any
        other: such a program, or one that is still being loaded, would be waited for in vain. So it is ended at once.
        """
        heeds = self._watch.catches(signal.SIGTERM)
        if heeds is None:  # not running yet, or out of sight in a virtual machine
            state = self._look() if self._has_container() else None
            heeds = state is not None and state.running
        if heeds:
            self._client.ask_to_end()
        else:
            self.kill()

    def kill(self) -> None:
        """End and remove the container."""
        self._killed = True
        if not self._has_container():
            # Podman, killed while it makes a container, would leave half of one that it does not know of.
            self.was_hurried = True
            self._client.ask_to_end()
            self._client.wait(_HALF_MADE_SECONDS)
        self._remove()
        self._client.kill()

    def clear(self) -> None:
        """Learn what the container came to, and remove it."""
        if not self._killed:
            self._state = self._look()
        self._remove()
        self._client.kill()

    def collect(self) -> Usage:
        """Return how the container ended and what it used."""
        figures = self._watch.end()
        code = self._client.collect().exit_code
        fault = (
            out_of_memory(self._memory_limit, figures.peak)
            if self._ran_out(code, figures.kills)
            else self._start_fault(code)
        )
        return Usage(exit_code=code, cpu_s=figures.cpu_s, peak_bytes=figures.peak, fault=fault, left=self._left)

    def close(self) -> None:
        """Close the streams."""
        self._client.close()

    def _has_container(self) -> bool:
        """Whether there is a container by now: its id is known."""
        with contextlib.suppress(OSError):
            return self._id_file.stat().st_size > 0
        return False

    def _look(self) -> _State | None:
        """Ask for the state of the container; None where there is none, or nobody who knows."""
        try:
            told = self._engine.call(
                "inspect", "--type=container", f"--format={_STATE}", self._name, timeout=ANSWER_SECONDS
            )
        except EngineFailed as fault:
            if not fault.is_absent:
                self._silence = fault.message
            return None
        started, running, ran_out = told.strip().split("|")
        return _State(started=not started.startswith(_NEVER), running=running == "true", ran_out=ran_out == "true")

    def _remove(self) -> None:
        kind = self._engine.kind
        self._left = ""
        try:
            self._engine.call(*REMOVE[kind], self._name, timeout=ANSWER_SECONDS)
        except EngineFailed as fault:
            # It is tried again at the end of the run, which has nobody left to tell: so it is told now.
            if not fault.is_absent:
                self._left = (
                    f"its container may still be there, and run: {fault.message}."
                    f" Remove it: {kind} rm --force {self._name}"
                )

    def _ran_out(self, code: int, kills: int | None) -> bool:
        """Whether the container failed for lack of memory, as far as anybody can tell."""
        if self._killed or self._memory_limit is None or code == 0:
            return False
        if (kills or 0) > 0 or (self._state is not None and self._state.ran_out):
            return True
        return code == KILLED and kills is None and not _TELLS_OUT_OF_MEMORY[self._engine.kind]

    def _start_fault(self, code: int) -> str:
        """Say why the container did not run, or not to its end, if so."""
        kind = self._engine.kind
        if self._killed or code == 0:
            return ""
        if self._silence:
            return f"{kind} does not answer any more: {self._silence}"
        if self._state is not None and self._state.running:
            return f"`{kind} run` ended before its container did"
        if self._state is not None and self._state.started:
            return ""
        if self._state is None and self._has_container():
            return "its container was removed by somebody else"
        # What was said is the word of docker or podman, since no program of the stage has run.
        what = "program" if code in {_NOT_EXECUTABLE, _NOT_FOUND} else "container"
        return f"its {what} cannot be started: {cause_of(self._tail.decode(errors='replace')) or f'exit code {code}'}"


def cause_of(text: str) -> str:
    """Return the cause that docker or podman gives for not running a container, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("docker: ", "Error: "))]
    if not lines:
        return ""
    return _AFTER.sub("", _LONG_BEFORE.sub("", _BEFORE.sub("", (errors or lines)[-1])))
