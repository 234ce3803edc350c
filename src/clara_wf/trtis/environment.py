"""The environment of the inference server: the packages of its lock file and nothing more.

The server is the program in the wheel `nvidia-pytriton`. Its Python backend computes in a process of its own, the stub,
which is bound to one version of Python: it loads libpython, and finds its packages by the first `python3` on the PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clara_wf.model.errors import LackError, UsageError
from clara_wf.model.filelock import locked
from clara_wf.model.files import write_atomically
from clara_wf.trtis.state import Say

#: A copy of the lock file in the environment, written last: without it, or with another, the environment is made again.
_MARK = "trtis.lock"
#: What every virtual environment has.
_VENV_MARK = "pyvenv.cfg"
#: The versions of Python for which there are both a stub and the packages of the lock file.
_PYTHONS = ("3.11", "3.12")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment that is there."""

    folder: Path
    program: Path  # tritonserver
    backends: Path  # the folder that it looks for backends in
    libraries: tuple[Path, ...]  # where the loader has to look beside the system's places

    def variables(self) -> dict[str, str]:
        """Return the variables to start the server with: this process's, and what the server and its stub look for."""
        # What is meant for this Python would mean something else to the stub's.
        left_out = {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"}
        own = {key: value for key, value in os.environ.items() if key not in left_out and not key.startswith("CLARA_")}
        libraries = [*map(str, self.libraries), own.get("LD_LIBRARY_PATH", "")]
        return own | {
            "PATH": os.pathsep.join([str(self.folder / "bin"), own.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        }


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """The Python that the environment is made of."""

    program: Path
    version: str  # 3.11
    library_folder: Path | None  # of its own libpython; None: the system has it


def prepare(folder: Path, lock: Path, *, say: Say = lambda _: None) -> Environment:
    """Make the environment, unless it is there as the lock file has it.

    An interrupted one is begun again; of two processes the second waits for the first.

    Parameters
    ----------
    folder : Path
        Where it is to be.
    lock : Path
        The packages with their hashes.
    say : callable
        Told in words what is being done.

    Raises
    ------
    LackError
        This machine lacks what the server needs, or pip could not install the packages.
    UsageError
        There is something else in the folder, or a link in its place: nothing of it is touched.
    """
    interpreter = find_interpreter()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(
        folder.parent / ".environment.lock",
        waiting=lambda: say("waiting for another process that makes the environment"),
    ):
        wanted = lock.read_text(encoding="utf-8")
        if not _is_made(folder, wanted, interpreter):
            _make(folder, lock, interpreter, say)
            _lay_out(folder, interpreter)
            write_atomically(folder / _MARK, wanted)
            say("the inference server is installed")
    site = _site(folder, interpreter)
    libraries = [site / "nvidia_pytriton.libs"]
    if interpreter.library_folder is not None:
        libraries.append(interpreter.library_folder)
    return Environment(
        folder=folder,
        program=site / "pytriton/tritonserver/bin/tritonserver",
        backends=folder / "backends",
        libraries=tuple(libraries),
    )


def is_prepared(folder: Path, lock: Path, interpreter: Interpreter) -> bool:
    """Say whether the environment is there as the lock file has it, for this Python."""
    return _is_made(folder, lock.read_text(encoding="utf-8"), interpreter)


def find_interpreter() -> Interpreter:
    """Find a Python for the environment, and what else the server needs of the system.

    Raises
    ------
    LackError
        This is not Linux; there is no such Python, no libpython of it, or no bash.
    """
    if sys.platform != "linux":
        raise LackError(f"the inference server runs on Linux, not on {sys.platform}", remedy="Use one in a cluster")
    if shutil.which("bash") is None:
        raise LackError("the inference server needs bash, which is not on the PATH", remedy="apt-get install bash")
    candidates = list(_candidates())
    for program, version in candidates:
        probed = subprocess.run([program, "-c", _PROBE], capture_output=True, text=True, check=False)
        if probed.returncode == 0:
            own = probed.stdout.strip()
            return Interpreter(program=Path(program), version=version, library_folder=Path(own) if own else None)
    if candidates:
        name = f"libpython{candidates[0][1]}"
        raise LackError(f"the inference server needs {name}, which is not here", remedy=f"apt-get install {name}")
    raise LackError(f"the inference server needs Python {' or '.join(_PYTHONS)}", remedy="Install it beside this one")


#: Prints the folder of this Python's own libpython; nothing where the loader finds one itself. Fails where none is.
_PROBE = """
import ctypes, os, sys, sysconfig
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
folder = sysconfig.get_config_var("LIBDIR") or ""
if os.path.isfile(os.path.join(folder, name)):
    print(folder)
else:
    ctypes.CDLL(name)
"""


def _candidates() -> Iterator[tuple[str, str]]:
    """Give the programs that may be used, the one that runs this first, and their versions."""
    own = "{}.{}".format(*sys.version_info)
    if own in _PYTHONS:
        yield sys.executable, own
    for version in _PYTHONS:
        program = shutil.which(f"python{version}")
        if program is not None:
            yield program, version


def _is_made(folder: Path, wanted: str, interpreter: Interpreter) -> bool:
    mark = folder / _MARK
    if not mark.is_file() or mark.read_text(encoding="utf-8") != wanted:
        return False
    # The Python that it was made of may be gone since, or be another version.
    return (folder / "bin/python3").exists() and _site(folder, interpreter).is_dir()


def _make(folder: Path, lock: Path, interpreter: Interpreter, say: Say) -> None:
    """Make a virtual environment and let pip install into it."""
    _check_ours(folder)
    (folder / _MARK).unlink(missing_ok=True)
    say(f"making an environment for the inference server in {folder} (once)")
    _clear(folder)
    made = subprocess.run([interpreter.program, "-m", "venv", folder], capture_output=True, text=True, check=False)
    if made.returncode:
        raise LackError(
            "Python cannot make virtual environments", remedy=f"apt-get install python{interpreter.version}-venv"
        )
    command = [str(folder / "bin/python3"), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += [
        "--progress-bar=off",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--requirement",
        str(lock),
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as pip:
        if pip.stdout is None:  # it was asked for
            raise RuntimeError("pip has no output")
        lines = []
        try:
            for line in pip.stdout:
                lines.append(line.strip())
                _tell(lines[-1], say)
        except BaseException:  # SIGTERM does not reach it, and it would go on beside whoever begins again
            pip.kill()
            raise
    if pip.returncode:
        raise LackError(
            f"the inference server's packages could not be installed: {_last_word(lines)}",
            remedy="Check the network and pip's settings; it is begun again when you start it again",
        )


def _check_ours(folder: Path) -> None:
    """Check that a folder may be cleared: nobody's files are removed but those of an environment."""
    if folder.is_symlink():
        raise UsageError(f"{folder} is a link: remove it, or make the folder above it the link")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", remedy="Move it away")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _VENV_MARK).is_file():
        raise UsageError(f"{folder} holds something else than an environment", remedy="Move it away")


def _clear(folder: Path) -> None:
    """Remove an environment but for its mark: so it is known as one also after an interruption, at any moment."""
    folder.mkdir(exist_ok=True)
    (folder / _VENV_MARK).touch()
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _VENV_MARK:
            entry.unlink()


def _tell(line: str, say: Say) -> None:
    """Say in words what pip does."""
    fetched = _FETCHED.match(line)
    if fetched is not None:
        say(f"fetching {fetched['package'].replace('_', '-')} ({fetched['size']})")
    elif line.startswith("Installing"):
        say("installing the packages")


_FETCHED = re.compile(r"Downloading (?:\S*/)?(?P<package>[^-/ ]+)-\S+ \((?P<size>[^)]+)\)")
#: An index may be private: neither its address nor its name is repeated.
_ADDRESS = re.compile(r"\S*://\S+|host='[^']*'(, port=\d+)?")


def _last_word(lines: list[str]) -> str:
    """Return what pip said last of its failure."""
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return _ADDRESS.sub("...", (errors or [line for line in lines if line] or ["pip said nothing"])[-1])


def _lay_out(folder: Path, interpreter: Interpreter) -> None:
    """Put the Python backend and its stub into one folder, where the server looks for both; by links, 30 MB."""
    carried = _site(folder, interpreter) / "pytriton/tritonserver"
    stub = carried / "python_backend_stubs" / interpreter.version / "triton_python_backend_stub"
    python = folder / "backends/python"
    python.mkdir(parents=True)
    for file in (*sorted((carried / "backends/python").iterdir()), stub):
        if file.is_file():
            # Relative: the environment may lie behind a link, or be moved.
            (python / file.name).symlink_to(os.path.relpath(file, python))


def _site(folder: Path, interpreter: Interpreter) -> Path:
    return folder / "lib" / f"python{interpreter.version}" / "site-packages"
