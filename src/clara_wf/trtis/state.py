"""What is known of a server that was started: the state file, its process, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from clara_wf.model.errors import UsageError
from clara_wf.model.files import write_atomically

#: Told in words what happens.
Say = Callable[[str], None]

STATE_FILE = "state.json"
LOG_FILE = "server.log"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the system keeps it, and only regions of the server's own name


#: What is removed is what has such a name, whatever the state file says.
_REGIONS = re.compile(r"clara_wf_trtis_[0-9a-f]{12}_")
#: Where /proc/<pid>/stat has the time of the process's start, counted from what follows its state.
_STARTTIME = 18


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that was started here, running or not."""

    pid: int
    birth: str  # when the process began, as the system counts: its id may be another's by now
    port: int  # of HTTP; gRPC and the metrics have the next two
    models: Path
    regions: str  # what the names of its regions of shared memory begin with
    version: str  # of Triton; empty until it answers
    started: str  # UTC
    asked: tuple[str, ...] = ()  # the models that it was told to load when it was started
    # Where its process is. Empty: an earlier version has not written it down, and it is taken to be here.
    host: str = ""
    boot: str = ""  # of the system's start
    namespace: str = ""  # of process ids: a container has its own

    @property
    def http(self) -> str:
        """Where it takes requests by HTTP."""
        return f"localhost:{self.port}"

    @property
    def grpc(self) -> str:
        """Where it takes requests by gRPC."""
        return f"localhost:{self.port + 1}"

    @property
    def metrics(self) -> str:
        """Where it tells its metrics."""
        return f"http://localhost:{self.port + 2}/metrics"


def read_state(folder: Path) -> Server | None:
    """Return the server of the state file; None where there is none that this version can read."""
    try:
        content = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        server = Server(**content | {"models": Path(content["models"]), "asked": tuple(content.get("asked", ()))})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return server if _REGIONS.fullmatch(server.regions) else None


def new_regions() -> str:
    """Return a beginning for the names of a server's regions of shared memory that no other has."""
    return f"clara_wf_trtis_{os.urandom(6).hex()}_"


def write_state(folder: Path, server: Server) -> None:
    """Write the state file."""
    write_atomically(folder / STATE_FILE, json.dumps(asdict(server), indent=2, default=str) + "\n")


def find_server(folder: Path) -> Server | None:
    """Return the server that runs; None where none does. Nothing is changed."""
    server = read_state(folder)
    return server if server is not None and is_running(server) else None


@dataclass(frozen=True, kw_only=True)
class Whereabouts:
    """Where a process is: an id of a process means nothing elsewhere."""

    host: str
    boot: str
    namespace: str


def whereabouts() -> Whereabouts:
    """Return where this process is; what the system does not tell is empty."""
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return Whereabouts(host=socket.gethostname(), boot=boot, namespace=namespace)


def elsewhere(server: Server) -> str | None:
    """Say where else than here a server was started: the folder may be shared. None: it was here."""
    here = whereabouts()
    if _differ(server.boot, here.boot):
        # The same machine, started again, is here: then the server is gone.
        return None if server.host == here.host else f"on {server.host}"
    if _differ(server.namespace, here.namespace):
        return "in another container of this machine"
    return None


def _differ(one: str, other: str) -> bool:
    return bool(one and other) and one != other


def check_here(folder: Path) -> None:
    """Check that the server of a folder, running or not, is one of this machine.

    Raises
    ------
    UsageError
        It was started elsewhere: whether it runs cannot be told from here, and nothing of it is touched.
    """
    server = read_state(folder)
    place = None if server is None else elsewhere(server)
    if place is not None:
        raise UsageError(
            f"the inference server of this workspace was started {place}",
            remedy=f"Stop it there by clara-wf uninstall_trtis or, if that is gone, remove {folder / STATE_FILE}",
        )


def is_running(server: Server) -> bool:
    """Say whether its process lives here, and is the one that was started."""
    # After a restart of the machine another process may have both its id and its time.
    is_gone = _differ(server.boot, whereabouts().boot) or elsewhere(server) is not None
    return not is_gone and birth(server.pid) == server.birth


def birth(pid: int) -> str | None:
    """Return when a process began, in the system's ticks since it started; None where it has ended.

    Not the time of day: that moves when the clock is set, or after a laptop slept.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name of the program stands in parentheses, and may hold any character.
    state, *further = status.rpartition(")")[2].split()
    has_ended = state in {"Z", "X"}  # and waits to be collected by who started it
    return None if has_ended else further[_STARTTIME]


def clear_stale(folder: Path, say: Say) -> None:
    """Clear away what a server left that is gone without having been stopped.

    Raises
    ------
    UsageError
        It was started elsewhere, and may run there.
    """
    check_here(folder)
    server = read_state(folder)
    if server is None:
        (folder / STATE_FILE).unlink(missing_ok=True)
        return
    say(f"the server of {server.started} (pid {server.pid}) is gone: what it left is cleared away")
    clear(folder, server)


def clear(folder: Path, server: Server) -> None:
    """Remove the state of a server that has ended, its shared memory, and end the processes that it left."""
    with contextlib.suppress(ChildProcessError):  # not this process started it
        os.waitpid(server.pid, os.WNOHANG)
    for pid in _stubs(server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for region in _SHARED_MEMORY.glob(f"{server.regions}*"):
        region.unlink(missing_ok=True)
    (folder / STATE_FILE).unlink(missing_ok=True)


def _stubs(server: Server) -> list[int]:
    """Return the processes of its Python backend: the name of a region is among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes()
            except OSError:  # gone
                continue
            if b"triton_python_backend_stub" in arguments and server.regions.encode() in arguments:
                found.append(int(entry.name))
    return found
