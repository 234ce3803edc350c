"""What an image is made of, and the digest that tells whether one that is here was made of the same."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import clara_wf
from clara_wf.containers.modules import files_of_modules
from clara_wf.containers.packages import PRUNE, SOURCE, Wanted
from clara_wf.containers.pruning import read_patterns
from clara_wf.model.errors import ClaraError, UsageError
from clara_wf.model.files import sha256_of

#: The label of an image that holds its recipe's digest.
DIGEST_LABEL = "clara-wf.recipe-digest"
#: Goes up when the same recipe is made into another image.
_FORMAT = 2
#: Files of a recipe's folder: what it is, and the packages with their hashes.
DOCKERFILE, LOCK = "Dockerfile", "requirements.lock"
#: The folders that a Dockerfile copies from, beside its own files.
PACKAGES_PART, SOURCE_PART = "packages", "source"
#: Of the recipe's folder, what no image holds.
_NOT_COPIED = {DOCKERFILE, LOCK, PRUNE, "requirements.in"}
_ARGUMENT = re.compile(r"^ARG\s+BASE_IMAGE(?:=(?P<default>\S+))?\s*$", re.MULTILINE | re.IGNORECASE)
_COMMAND = re.compile(r"^CMD\s+(?P<command>\[.*\])\s*$", re.MULTILINE | re.IGNORECASE)


class RecipeFault(ClaraError):
    """The recipe of an image is broken."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an image is put together."""

    name: str  # of the stage: dicom-reader
    folder: Path  # images/<name>
    dockerfile: str  # its text
    base: str | None  # the image that it builds on unless told otherwise; None: the Dockerfile names none
    packages: Wanted | None  # None: it has no lock file
    source: Mapping[str, Path]  # our modules, by their place below source/; empty: the Dockerfile copies none
    own: Mapping[str, Path]  # the other files of its folder, by their place in it

    def digest(self, base_id: str) -> str:
        """Return the digest of all that makes a difference to the image.

        Parameters
        ----------
        base_id : str
            The id, not the name, of the image that it builds on.
        """
        made_of = {
            "format": _FORMAT,
            "base": base_id,
            "dockerfile": self.dockerfile,
            "packages": self.packages.digest if self.packages else None,
            "version": clara_wf.__version__,
            SOURCE_PART: {place: sha256_of(file) for place, file in self.source.items()},
            # The right to run a file goes with it into the image.
            "own": {place: [sha256_of(file), _is_executable(file)] for place, file in self.own.items()},
        }
        return f"sha256:{hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()}"


def read_recipe(folder: Path, *, common: Path | None = None, lock: Path | None = None) -> Recipe:
    """Read the recipe in a folder.

    Parameters
    ----------
    folder : Path
        With a Dockerfile; its name is the stage's.
    common : Path, optional
        The list of what is left out of every image.
    lock : Path, optional
        Its packages, where its folder does not say.

    Raises
    ------
    UsageError
        There is no Dockerfile.
    RecipeFault
        The Dockerfile is not as it has to be, or names a module that is not there.
    """
    file = folder / DOCKERFILE
    if not file.is_file():
        raise UsageError(f"{folder} has no {DOCKERFILE}", remedy="`clara-wf cs NAME --code` makes one for a new stage")
    text = file.read_text(encoding="utf-8")
    argument = _ARGUMENT.search(text)
    if argument is None:
        raise RecipeFault(
            f"{file} has no line ARG BASE_IMAGE", remedy="Begin it by: ARG BASE_IMAGE, FROM ${BASE_IMAGE}"
        )
    lock = lock or folder / LOCK
    return Recipe(
        name=folder.name,
        folder=folder,
        dockerfile=text,
        base=argument["default"],
        packages=_packages(lock, common, folder / PRUNE),
        source=_source(file, text),
        own=_own(folder),
    )


def _packages(lock: Path, common: Path | None, own: Path) -> Wanted | None:
    if not lock.is_file():
        return None
    text = lock.read_text(encoding="utf-8")
    if "==" not in text:
        raise RecipeFault(f"{lock} holds no package", remedy="Make it again by .ci/lock")
    return Wanted(
        lock=text,
        common=read_patterns(common) if common else (),
        patterns=read_patterns(own),
    )


def _source(file: Path, text: str) -> dict[str, Path]:
    """Return our modules that the image's program imports, where the Dockerfile copies them."""
    if SOURCE not in text:
        return {}
    command = _COMMAND.search(text)
    module = _module(command["command"]) if command else None
    if module is None:
        raise RecipeFault(f'{file} has no line such as: CMD ["python", "-m", "clara_wf.operators.recon"]')
    package = Path(clara_wf.__file__).parent
    try:
        files = files_of_modules([module], package)
    except FileNotFoundError as exc:
        raise RecipeFault(f"{file}: {exc}") from exc
    # An installed package has its copy beside the charts', a checkout has it at the top.
    licences = (package / "_share/LICENSE", package.parent.parent / "LICENSE")
    licence = next((file for file in licences if file.is_file()), None)
    return files if licence is None else files | {"LICENSE": licence}


def _module(command: str) -> str | None:
    """Return the module that a command runs by `python -m`."""
    try:
        parts = json.loads(command)
    except ValueError:
        return None
    return str(parts[parts.index("-m") + 1]) if "-m" in parts[:-1] else None


def _own(folder: Path) -> dict[str, Path]:
    return {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in _NOT_COPIED and not _is_hidden(file.relative_to(folder))
    }


def _is_hidden(place: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in place.parts)


def _is_executable(file: Path) -> bool:
    return bool(file.stat().st_mode & stat.S_IXUSR)
