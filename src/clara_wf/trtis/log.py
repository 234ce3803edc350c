"""What can be told from the server's log: progress while it loads models, and why it ended."""

from __future__ import annotations

import re
import time
from pathlib import Path

from clara_wf.trtis.state import Say

_LOADING = re.compile(r"\"loading: (?P<name>\S+):\d+\"")
_LOADED = re.compile(r"\"successfully loaded '(?P<name>[^']+)'")
_FAILED = re.compile(r"\"failed to load '(?P<name>[^']+)'")
#: What stands before the words of a log line: level, date, process and place.
_PREFIX = re.compile(r"^[IWE]\d{4} \S+ \d+ \S+\] ")
#: Complaints about a graphics card that is not there.
_HARMLESS = re.compile(r"cuda|nvml|dcgm", re.IGNORECASE)
#: What the server's words mean for who runs it.
_REMEDIES = (
    (
        re.compile(
            r"shm-size|shared memory pool|(initialize|increase|grow)\b.*shared memory|no space left", re.IGNORECASE
        ),
        "Make /dev/shm larger (mount -o remount,size=2G /dev/shm; in a container: --shm-size), and start it again",
    ),
    (
        re.compile(r"failed to open directory|failed to poll from model repository", re.IGNORECASE),
        "Is its folder of models still there? Then: clara-wf uninstall_trtis, and install_trtis again",
    ),
    (
        re.compile(r"failed to stat file", re.IGNORECASE),
        "Remove the link that leads nowhere, and run: clara-wf install_trtis",
    ),
)
#: Silence for longer than this is broken.
_PATIENCE_S = 10


class Progress:
    """Follows the log of a server that starts, and tells what happens to its models.

    Parameters
    ----------
    path : Path
        The log.
    say : callable
        Told in words.
    """

    def __init__(self, path: Path, say: Say) -> None:
        self._path = path
        self._say = say
        self._read = 0
        self._loading: list[str] = []
        self._begin = self._spoke = time.monotonic()

    def tell(self) -> None:
        """Tell what has been added to the log since."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self._look_at(line)
        if self._loading and time.monotonic() - self._spoke > _PATIENCE_S:
            self._tell(f"still loading {', '.join(self._loading)} ({time.monotonic() - self._begin:.0f} s)")

    def _look_at(self, line: str) -> None:
        if (match := _LOADING.search(line)) and match["name"] not in self._loading:
            self._loading.append(match["name"])
        elif match := _LOADED.search(line) or _FAILED.search(line):
            if match["name"] in self._loading:
                self._loading.remove(match["name"])
            if match.re is _LOADED:
                self._tell(f"the model {match['name']} is served")

    def _tell(self, text: str) -> None:
        self._spoke = time.monotonic()
        self._say(text)


def last_words(path: Path) -> str:
    """Return the last line of a log that tells of a fault; where none does, the last line."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    faults = [line for line in lines if re.match(r"E\d{4} |error", line) and not _HARMLESS.search(line)]
    chosen = (faults or lines or ["its log is empty"])[-1]
    return _PREFIX.sub("", chosen).strip().strip('"')


def remedy_for(text: str) -> str | None:
    """Return what can be done about what the server says, where that is known."""
    return next((remedy for pattern, remedy in _REMEDIES if pattern.search(text)), None)


def tail(path: Path, count: int) -> list[str]:
    """Return the last lines of a log; none where there is none."""
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
