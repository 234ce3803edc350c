"""The packages of a lock file in a folder of their own, as an image takes them: installed, pruned and compiled."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clara_wf.containers.pruning import prune, strip_symbols
from clara_wf.model.errors import LackError
from clara_wf.model.filelock import locked
from clara_wf.model.files import folder_appearing

Say = Callable[[str], None]

#: What the images run: the wheels are those of this Python, whichever one runs us.
PYTHON = "3.11"
#: glibc that the images have at least, as the second number of 2.x: Debian 12's.
_GLIBC = 36
_OLDEST_GLIBC = 5
#: Where an image has the packages, and our modules.
PACKAGES, SOURCE = "/opt/clara-wf/packages", "/opt/clara-wf/source"
#: Lists what is left out.
PRUNE = "prune.txt"
#: Goes up when this module makes something else of the same lock file.
_FORMAT = 1
#: All files of an image are of this day: when one was made says nothing, and would make every copy another.
EPOCH = 1_577_836_800
#: What was not used for so long is removed.
_KEPT_S = 30 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a folder of packages is made of."""

    lock: str  # the lock file's text
    common: tuple[str, ...]  # what is left out of every image
    patterns: tuple[str, ...]  # what is left out of this one besides

    @property
    def digest(self) -> str:
        """What tells one folder from another."""
        parts = [_FORMAT, PYTHON, self.lock, self.common, self.patterns]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def prepare_packages(wanted: Wanted, cache: Path, *, say: Say = lambda _: None) -> Path:
    """Make the folder, unless it is in the cache.

    An interrupted one is begun again; of two processes the second waits for the first.

    Parameters
    ----------
    wanted : Wanted
        What it is made of.
    cache : Path
        The folder that keeps those that were made.
    say : callable
        Told in words what is being done.

    Raises
    ------
    LackError
        pip is not here, or could not install the packages.
    """
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / wanted.digest
    with locked(cache / ".packages.lock", waiting=lambda: say("waiting for another process that installs packages")):
        if not target.is_dir():
            with folder_appearing(target) as folder:
                _make(wanted, folder, say)
            _forget_old(cache, target)
        os.utime(target)
    return target


def _make(wanted: Wanted, folder: Path, say: Say) -> None:
    count = len(re.findall(r"^[A-Za-z0-9]", wanted.lock, re.MULTILINE))
    say(f"installing {count} packages (once)")
    lock = folder.with_name(f"{folder.name}.lock")
    lock.write_text(wanted.lock, encoding="utf-8")
    try:
        _install(lock, folder)
    finally:
        lock.unlink()
    say("leaving out what no stage uses")
    for pattern in prune(folder, (*wanted.common, *wanted.patterns)):
        if pattern not in wanted.common:
            say(f"nothing matches {pattern} any more: take it out of {PRUNE}")
    if not strip_symbols(folder):
        say("`strip` is not here, so the image becomes larger (apt-get install binutils)")
    if not compile_modules(folder, PACKAGES):
        say(f"Python {PYTHON} is not here, so the image starts more slowly")
    settle(folder)


def _install(lock: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]
    command += ["--no-compile", "--no-deps", "--require-hashes", "--only-binary=:all:", "--progress-bar=off"]
    command += ["--implementation=cp", f"--python-version={PYTHON}"]
    # Each has to be named: pip does not know that a newer glibc runs what an older one does.
    command += [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(_GLIBC, _OLDEST_GLIBC - 1, -1)]
    command += ["--platform=manylinux2014_x86_64", f"--target={folder}", f"--requirement={lock}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise _fault(done.stderr, folder.parent)


def _fault(said: str, cache: Path) -> LackError:
    """Return the error for what pip said of its failure."""
    if any(words in said for words in _FULL):
        return LackError(
            f"the disk is full: packages are installed in {cache}, by way of {tempfile.gettempdir()}",
            remedy="Make room there, or name other folders by XDG_CACHE_HOME and TMPDIR",
        )
    if _MISMATCH in said:
        return LackError(
            "a package is not the one that the image's lock file names: its hash is another",
            remedy="Install it from another index, or renew requirements.lock if you trust it",
        )
    return LackError(
        f"the packages of an image could not be installed: {_last_word(said)}",
        remedy="Check the network and pip's settings",
    )


#: How pip, and what it calls, say that nothing more can be written.
_FULL = ("[Errno 28]", "[Errno 122]", "No space left on device", "Disk quota exceeded")
_MISMATCH = "DO NOT MATCH THE HASHES"

#: An index may be private: neither its address nor its name is repeated.
_ADDRESS = re.compile(r"\S*://\S+|host='[^']*'(, port=\d+)?")


def _last_word(text: str) -> str:
    """Return what pip said last of its failure."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return _ADDRESS.sub("...", (errors or lines or ["pip said nothing"])[-1]).rstrip(".")


def compile_modules(folder: Path, shown_as: str) -> bool:
    """Compile the modules below a folder for the images' Python; return whether that Python is here.

    A module that is compiled when it is first imported would be compiled at every start: an image's files are not for
    writing. What is made does not depend on the time of the source.

    Parameters
    ----------
    folder : Path
        Where they are.
    shown_as : str
        Where a traceback says they are.
    """
    program = _python()
    if program is None:
        return False
    command = [program, "-I", "-m", "compileall", "-q", "-j0", "--invalidation-mode=unchecked-hash"]
    # Some packages carry examples in the syntax of another Python: they stay uncompiled.
    subprocess.run(
        [*command, "-s", str(folder), "-p", shown_as, str(folder)],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return True


def _python() -> str | None:
    """Find a Python of the images' version."""
    if "{}.{}".format(*sys.version_info) == PYTHON:
        return sys.executable
    return shutil.which(f"python{PYTHON}")


def settle(folder: Path) -> None:
    """Let everybody read what is below a folder, and give all of it one time."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def _forget_old(cache: Path, newest: Path) -> None:
    """Remove folders that no image has used for a month."""
    for folder in cache.iterdir():
        if folder.is_dir() and folder != newest and time.time() - folder.stat().st_mtime > _KEPT_S:
            shutil.rmtree(folder, ignore_errors=True)
