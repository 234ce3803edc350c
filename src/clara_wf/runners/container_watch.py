"""What a container uses, by the figures that the system itself keeps for it (Linux control groups)."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from clara_wf.runners.usage import MemoryWatch

_ROOT = Path("/sys/fs/cgroup")
#: Seconds between two looks for the container's first process: at first, while it is being made, and at last.
_FIRST_PAUSE, _SHORT_PAUSE, _LAST_PAUSE = 0.02, 0.05, 1.0
#: What a busy machine may take, in seconds, from a container's id to its first process.
_MAKING = 10.0
#: Seconds between two looks at the figures.
_PAUSE = 0.2
#: What a thread may take to notice that it is over.
_PATIENCE = 2.0


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a container has used."""

    peak: int = 0  # bytes of memory; 0 where that is not known
    cpu_s: float | None = None  # processor seconds
    kills: int | None = None  # processes that the system ended for lack of memory; None where that is not known


class ContainerWatch(threading.Thread):
    """Follows a container from its first process to its last moment.

    The figures are the control group's, which is removed soon after the container's end: a thread waits for that end
    and reads them at once. A look in between serves where the system keeps no peak, or the end is missed.

    Parameters
    ----------
    id_file : Path
        Where the container's id will be written to.
    """

    def __init__(self, id_file: Path) -> None:
        super().__init__(name=f"watch {id_file.parent.name}", daemon=True)
        self._id_file = id_file
        self._over = threading.Event()
        self._figures = Figures()
        self._first: int | None = None  # the container's first process, as this machine numbers it

    def catches(self, number: int) -> bool | None:
        """Say whether the container's first process has a handler for a signal; None where it is not known."""
        if self._first is None:
            return None
        try:
            status = Path(f"/proc/{self._first}/status").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended: there is nobody to ask
            return None
        caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), None)
        return None if caught is None else bool(int(caught, 16) >> (number - 1) & 1)

    def end(self) -> Figures:
        """Stop, and return the figures."""
        self._over.set()
        self.join(_PATIENCE)
        return self._figures

    def run(self) -> None:
        """Find the container, follow it, read its figures."""
        pid = self._first = self._find()
        if pid is None:
            return
        with contextlib.suppress(OSError):  # it has ended already
            handle = os.pidfd_open(pid)
            try:
                self._follow(pid, handle)
            finally:
                os.close(handle)

    def _find(self) -> int | None:
        """Wait for the container's first process."""
        pause = _FIRST_PAUSE
        named: float | None = None  # since when its id is known
        while hasattr(os, "pidfd_open") and not self._over.wait(pause):
            with contextlib.suppress(OSError):
                container = self._id_file.read_text(encoding="ascii").strip()
                if container:
                    found = _first_process(container)
                    if found is not None:
                        return found
                    # A short one must not begin and end between two looks. One that runs in a virtual machine, or in
                    # another's account, is never found.
                    named = named or time.monotonic()
                    is_new = time.monotonic() - named < _MAKING
                    pause = min(1.2 * pause, _SHORT_PAUSE if is_new else _LAST_PAUSE)
        return None

    def _follow(self, pid: int, handle: int) -> None:
        groups = _groups_of(pid)
        tree = MemoryWatch(pid)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        ended = False
        while not ended and not self._over.is_set():
            ended = bool(poll.poll(_PAUSE * 1000))
            seen = _figures_of(groups)
            if not seen.peak and not ended:
                tree.sample(None)
                seen = replace(seen, peak=tree.peak)
            kills = self._figures.kills if seen.kills is None else seen.kills
            self._figures = Figures(
                peak=max(self._figures.peak, seen.peak),
                cpu_s=self._figures.cpu_s if seen.cpu_s is None else seen.cpu_s,
                # That there was none before the end says nothing of the end.
                kills=kills if ended else kills or None,
            )


def _first_process(container: str) -> int | None:
    """Return the process that is the first of a container, as this machine numbers it."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if container not in (folder / "cgroup").read_text(encoding="utf-8"):
                continue
            status = (folder / "status").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
        # The container's own number of it. What sets the container up is in its group too, and has none in there.
        numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
        if len(numbers) > 1 and numbers[-1] == "1":
            return int(folder.name)
    return None


def _groups_of(pid: int) -> Mapping[str, Path]:
    """Return a process' control groups: by controller of version 1, and of version 2 under an empty name."""
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = _ROOT / controller / path.lstrip("/")
    return groups


def _figures_of(groups: Mapping[str, Path]) -> Figures:
    """Read the figures of version 1 where the memory is counted there, else of version 2."""
    if "memory" in groups:
        memory = groups["memory"]
        nanoseconds = _number(groups.get("cpuacct", memory) / "cpuacct.usage")
        return Figures(
            peak=_number(memory / "memory.max_usage_in_bytes") or 0,
            cpu_s=None if nanoseconds is None else round(nanoseconds / 1e9, 3),
            kills=_field(memory / "memory.oom_control", "oom_kill"),
        )
    group = groups.get("", _ROOT / "none")
    microseconds = _field(group / "cpu.stat", "usage_usec")
    return Figures(
        # Kernels before 5.19 keep no peak.
        peak=_number(group / "memory.peak") or _number(group / "memory.current") or 0,
        cpu_s=None if microseconds is None else round(microseconds / 1e6, 3),
        kills=_field(group / "memory.events", "oom_kill"),
    )


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), None)
