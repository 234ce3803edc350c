"""The model repository: ``<root>/<name>/{config.pbtxt,model.yaml,installed.json,1/model.onnx}``.

The layout is Triton's, so that the same folder serves the embedded engine and an inference server. `model.yaml` says
how to use a model; `installed.json` holds the hash that its file had when it was installed.
"""

from __future__ import annotations

import difflib
import json
import re
import stat
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from clara_wf.inference.description import FILE_NAME, DescriptionError, ModelDescription, load
from clara_wf.model.errors import LackError, ModelMissing, UsageError
from clara_wf.model.files import sha256_of

RECEIPT = "installed.json"
CONFIG = "config.pbtxt"
#: Triton's default name of an ONNX model's file.
MODEL_FILE = "model.onnx"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class ModelDamaged(LackError):
    """A model's file is not the one that was installed."""


@dataclass(frozen=True, kw_only=True)
class InstalledModel:
    """A model of the repository."""

    name: str  # its folder
    folder: Path
    file: Path  # the ONNX file of its highest version
    sha256: str  # of that file when it was installed
    description: ModelDescription


def check_name(name: str) -> str:
    """Return a model's name if a folder, a URL and a Triton model can be called so.

    Raises
    ------
    UsageError
        It is not made of lower-case letters, digits and hyphens.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a model: lower-case letters, digits and hyphens, 63 at most")
    return name


def list_models(root: Path) -> list[str]:
    """Return the names of the installed models; none if there is no repository."""
    if not root.is_dir():
        return []
    return sorted(entry.name for entry in root.iterdir() if _NAME.fullmatch(entry.name) and has_receipt(entry))


def has_receipt(folder: Path) -> bool:
    """Whether we installed what is in a folder. Where that may not be looked up it may be so, and reading it will say.

    Not by `is_file`, which raises for such a folder in one version of Python and hides it in another.
    """
    try:
        return stat.S_ISREG((folder / RECEIPT).stat().st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def find_model(root: Path, name: str) -> InstalledModel:
    """Find a model and read its description; its file is not read yet.

    Raises
    ------
    ModelMissing
        It is not installed; the remedy is the command that installs it.
    ModelDamaged
        Its receipt is broken, or its folder cannot be read.
    DescriptionError
        Its description is wrong.
    """
    folder = root / check_name(name)
    if not has_receipt(folder):
        known = list_models(root)
        nearest = difflib.get_close_matches(name, known, n=1)
        raise ModelMissing(
            f"the model {name} is not installed (installed: {', '.join(known) or 'none'})",
            remedy=(f"Did you mean {nearest[0]}? " if nearest else "") + _remedy(name),
        )
    try:
        content = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        file, sha256 = folder / str(content["file"]), str(content["sha256"])
    except OSError as exc:
        raise unreadable(name, RECEIPT, exc) from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise damaged(name, f"{RECEIPT} is broken") from exc
    try:
        description = load(folder / FILE_NAME)
    except DescriptionError as exc:
        raise DescriptionError(exc.message, remedy=_remedy(name)) from exc
    except OSError as exc:
        raise unreadable(name, FILE_NAME, exc) from exc
    return InstalledModel(name=name, folder=folder, file=file, sha256=sha256, description=description)


def check_chain(model: InstalledModel) -> None:
    """Check that the models which a model works within, one within the next, come to an end.

    Raises
    ------
    DescriptionError
        They lead back to one of them.
    ModelMissing, ModelDamaged
        See `find_model`.
    """
    names = [model.name]
    root, within = model.folder.parent, model.description.within
    while within is not None:
        names.append(within.model)
        if within.model in names[:-1]:
            raise DescriptionError(
                f"the models work within one another in a circle: {' within '.join(names)}",
                remedy="Let one of them have no `within`, and install it again",
            )
        within = find_model(root, within.model).description.within


def verify(model: InstalledModel) -> None:
    """Check that a model's file is the one that was installed.

    Raises
    ------
    ModelDamaged
        It is another, gone, or cannot be read.
    """
    try:
        actual = sha256_of(model.file)
    except FileNotFoundError as exc:
        raise damaged(model.name, f"{MODEL_FILE} is missing") from exc
    except OSError as exc:
        raise unreadable(model.name, MODEL_FILE, exc) from exc
    if actual != model.sha256:
        raise damaged(model.name, f"{MODEL_FILE} has the hash {actual[:12]}..., {model.sha256[:12]}... was installed")


def damaged(name: str, what: str) -> ModelDamaged:
    """Make the error for a model of whose files one is not as it was installed."""
    return ModelDamaged(f"the model {name} is damaged: {what}", remedy=_remedy(name))


def unreadable(name: str, file: str, fault: OSError) -> ModelDamaged:
    """Make the error for a model of whose files one cannot be read."""
    what = f"{file} cannot be read: {fault.strerror or type(fault).__name__}"
    if isinstance(fault, PermissionError):  # to install it again would fail likewise
        return ModelDamaged(f"the model {name} is damaged: {what}", remedy="Let this user read its folder")
    return damaged(name, what)


def catalogue_path(name: str) -> Path:
    """Return where this version keeps its description of a model; there is a file for those that it can fetch."""
    return Path(str(resources.files("clara_wf.inference") / "catalogue" / f"{name}.yaml"))


def _remedy(name: str) -> str:
    """Return the command that installs a model: those that this version can fetch need no folder."""
    source = "" if catalogue_path(name).is_file() else " --from FOLDER"
    return f"Run: clara-wf model install {name}{source}"
