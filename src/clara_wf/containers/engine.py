"""Docker or podman, whichever is found: one small way to call it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from clara_wf.model.errors import ClaraError, LackError, UsageError

#: Names the program: "docker", "podman", or a path of one of them. Unset: the first that works.
CHOICE = "CLARA_WF_CONTAINER_ENGINE"
#: Podman first: it needs no daemon, and no rights of root.
KINDS = ("podman", "docker")
#: The first podman whose `rm` knows --time: an older one would remove no container of ours.
_OLDEST_PODMAN = 4
#: What stands before the first point of a version, as builders write it: 4.3.1+ds1, 5.0.0-rc1, v4.9.
_MAJOR = re.compile(r"v?(\d+)\.")
#: A daemon that hangs must not hang us.
_ANSWER_SECONDS = 20.0
#: How docker and podman say that an image or a container is not there.
_ABSENT = (
    "no such image",
    "no such object",
    "no such container",
    "image not known",
    "container not known",
    "failed to find image",
    "unable to find image",
)


class EngineFailed(ClaraError):
    """Docker or podman refused or failed; the message is its own last line."""

    @property
    def is_absent(self) -> bool:
        """Whether it says that there is no such image or container, rather than that it does not work."""
        text = self.message.lower()
        return any(words in text for words in _ABSENT)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A program that makes and runs containers, and that answers."""

    kind: str  # docker or podman
    program: str  # absolute path
    version: str  # of the program that does the work: of docker, the daemon
    rootless: bool  # its containers' root is no root of this machine

    def call(self, *arguments: str, timeout: float | None = None) -> str:
        """Run it with these arguments and return its standard output.

        Raises
        ------
        EngineFailed
            It failed, could not be started, or did not answer within `timeout` seconds.
        """
        try:
            done = subprocess.run(
                [self.program, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us to obey, and for no `rm` that tidies up behind it
            )
        except subprocess.TimeoutExpired as exc:
            raise EngineFailed(f"`{self.kind} {arguments[0]}` did not answer within {timeout:g} s") from exc
        except OSError as exc:
            raise self.not_started(exc) from exc
        if done.returncode:
            cause = last_line(done.stderr) or f"exit code {done.returncode}"
            raise EngineFailed(f"`{self.kind} {arguments[0]}` failed: {cause}")
        return done.stdout

    def not_started(self, fault: OSError) -> EngineFailed:
        """Return the error for a program that was removed meanwhile, or is none."""
        return EngineFailed(f"{self.program} cannot be started: {fault.strerror or fault}")


def find_engine(choice: str | None = None) -> Engine:
    """Return the program that `choice`, or else the variable CLARA_WF_CONTAINER_ENGINE, names.

    Parameters
    ----------
    choice : str, optional
        "docker", "podman" or a path of one. None and unset: the first of `KINDS` that is there and answers.

    Raises
    ------
    LackError
        None is there, or the one that is there does not work (docker without its daemon, a podman before 4.0).
    UsageError
        The choice is neither docker nor podman.
    """
    wanted = choice or os.environ.get(CHOICE, "")
    if wanted and os.path.basename(wanted) not in KINDS:  # noqa: PTH119 - a name or a path
        raise UsageError(f"{CHOICE}={wanted} is neither docker nor podman", remedy="Name one of them, or a path of one")
    problems = []
    for program in [wanted] if wanted else KINDS:
        found = shutil.which(program)
        if found is None:
            problems.append(f"{program} is not on the PATH")
            continue
        try:
            return _look_at(found)
        except EngineFailed as fault:
            problems.append(f"{program} does not work: {fault}")
    raise LackError(
        f"there is no program for containers: {'; '.join(problems)}",
        remedy=f"Install podman {_OLDEST_PODMAN}.0 or newer, or docker and start its daemon",
    )


def _look_at(program: str) -> Engine:
    kind = os.path.basename(program)  # noqa: PTH119 - a path as `which` gives it
    form = {
        "docker": "{{.ServerVersion}}|{{.SecurityOptions}}",
        "podman": "{{.Version.Version}}|{{.Host.Security.Rootless}}",
    }[kind]
    probe = Engine(kind=kind, program=program, version="", rootless=False)
    version, _, security = probe.call("info", "--format", form, timeout=_ANSWER_SECONDS).strip().partition("|")
    if not version:
        raise EngineFailed("its daemon does not answer")
    major = _MAJOR.match(version)  # a version of another form is nobody's that we know: it is let through
    if kind == "podman" and major is not None and int(major[1]) < _OLDEST_PODMAN:
        raise EngineFailed(f"{version} is too old, {_OLDEST_PODMAN}.0 is needed to remove containers")
    return Engine(kind=kind, program=program, version=version, rootless="rootless" in security or security == "true")


def last_line(text: str) -> str:
    """Return the last line that is not empty, which is where both programs say why they failed; "" where none is."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
