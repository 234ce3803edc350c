"""How much memory a stage uses, with all the processes that it started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clara_wf.runners.verdict import out_of_memory

if TYPE_CHECKING:
    import psutil


class MemoryWatch:
    """Samples the memory of a process and its descendants.

    The cheap figure is the sum of the resident sets. It counts pages that processes share more than once, and mapped
    files too, which the system takes back when it needs to. So a limit is judged by a second figure, taken only when
    the first one is over it: the proportional share of anonymous and shared memory, about what a container's memory
    limit counts (Linux; elsewhere the first figure is all there is).
    """

    def __init__(self, pid: int) -> None:
        self.peak = 0  # bytes, of the cheap figure
        self._pid = pid

    def sample(self, limit: int | None) -> str:
        """Take a sample; return what is wrong if the limit, in bytes, is passed, else an empty string."""
        import psutil  # here, since a run of short stages needs no sample, and this is a third of a runner's start

        try:
            leader = psutil.Process(self._pid)
            processes = [leader, *leader.children(recursive=True)]
        except psutil.Error:
            return ""
        resident = sum(_resident(process) for process in processes)
        self.peak = max(self.peak, resident)
        if limit is None or resident <= limit:
            return ""
        used = sum(_own(process) for process in processes)
        if used <= limit:
            return ""
        return out_of_memory(limit, used)


def _resident(process: psutil.Process) -> int:
    import psutil  # as above

    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0


def _own(process: psutil.Process) -> int:
    """Return the bytes that cannot be taken back from a process, shared ones in proportion."""
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return _resident(process)
    fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
    if "Pss_Anon" not in fields:
        return _resident(process)
    return sum(int(fields[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem")) * 1024
