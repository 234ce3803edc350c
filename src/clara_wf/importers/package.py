"""What a user brings: a folder, a zip or an ONNX file, and which kind of package it is.

Three kinds are known: an ONNX file with our `model.yaml`, a MONAI bundle, and an nnU-Net v2 export. Files are looked at
by name only; none is imported, evaluated or unpickled.
"""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from clara_wf.importers import monai_bundle, nnunet_export
from clara_wf.importers.translation import listed, shown
from clara_wf.importers.unpacking import DEFAULT_LIMITS, Limits, unpack
from clara_wf.inference.description import FILE_NAME
from clara_wf.inference.install import LINK_REMEDY, leads_out
from clara_wf.model.errors import InputError

Kind = Literal["ONNX with model.yaml", "MONAI bundle", "nnU-Net export"]
#: What is unpacked of a zip: the rest is never read, whatever it is.
_WANTED = {".onnx", ".json", ".yaml", ".yml", ".ts"}
#: Weights that only unpickling opens, which runs whatever code they hold.
_PICKLED = {".pt", ".pth", ".pkl", ".ckpt"}
#: Names that packers leave beside what was packed.
_LITTER = {"__MACOSX", ".DS_Store"}
_MOST_FILES = 20_000
_BUNDLE_REMEDY = (
    "Pickled weights are not opened: unpickling runs whatever code they hold. Where MONAI is, in the bundle's folder,"
    " run: python -m monai.bundle onnx_export --net_id network_def --filepath models/model.onnx"
    " --ckpt_file models/model.pt --meta_file configs/metadata.json --config_file configs/inference.json"
)
_EXPORT_REMEDY = (
    "Pickled weights are not opened: unpickling runs whatever code they hold. Where nnU-Net is, load it by"
    " nnUNetPredictor.initialize_from_trained_model_folder and write its network by torch.onnx.export, with deep"
    " supervision off, beside plans.json"
)


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package whose kind is known."""

    kind: Kind
    root: Path  # the folder that its parts are named from
    weights: Path  # ONNX, or TorchScript of a MONAI bundle
    configuration: Path  # model.yaml, configs/inference.json or plans.json


@contextlib.contextmanager
def open_package(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Package]:
    """Find out what a path holds; a zip is unpacked for as long as the block lasts.

    Raises
    ------
    InputError
        It is nothing of what is known; the message says what was looked for and what is there.
    LackError
        There is no room to unpack it.
    """
    if path.is_dir():
        yield _recognise(path, _files(path), path.name)
    elif not path.is_file():
        raise InputError(f"there is no file or folder {path.name}")
    elif path.suffix.lower() == ".onnx":
        yield _beside(path)
    elif path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory(prefix="clara-wf-") as temporary:
            # A bundle without a name is called as its folder is.
            folder = Path(temporary) / (path.stem.strip(".") or "package")
            folder.mkdir()
            names = unpack(path, folder, suffixes=_WANTED, limits=limits)
            yield _recognise(folder, names, path.name)
    else:
        raise InputError(f"{path.name} is no folder, no zip and no ONNX file")


def _files(folder: Path) -> list[str]:
    """Return the names of a folder's files, from the folder on."""
    names: list[str] = []
    for entry in folder.rglob("*"):
        if entry.is_symlink():
            _refuse_link(entry, folder)
        if entry.is_file():
            names.append(entry.relative_to(folder).as_posix())
        if len(names) > _MOST_FILES:
            raise InputError(f"{folder.name} holds more than {_MOST_FILES} files: give the package's own folder")
    return names


def _refuse_link(entry: Path, folder: Path) -> None:
    """Refuse what leads out of a folder, as a zip's links are: somebody else made it, and this user's files are read.

    Raises
    ------
    InputError
        It does.
    """
    if leads_out(entry, folder):
        named = shown(entry.relative_to(folder).as_posix())
        raise InputError(f"{named} is a link that leads out of the folder {shown(folder.name)}", remedy=LINK_REMEDY)


def _beside(file: Path) -> Package:
    """Read an ONNX file by what lies beside it."""
    for name in (FILE_NAME, nnunet_export.PLANS, nnunet_export.DATASET):
        _refuse_link(file.parent / name, file.parent)
    if (file.parent / FILE_NAME).is_file():
        return Package(
            kind="ONNX with model.yaml", root=file.parent, weights=file, configuration=file.parent / FILE_NAME
        )
    if all((file.parent / name).is_file() for name in (nnunet_export.PLANS, nnunet_export.DATASET)):
        plans = file.parent / nnunet_export.PLANS
        return Package(kind="nnU-Net export", root=file.parent, weights=file, configuration=plans)
    raise InputError(
        f"beside {file.name} there is neither {FILE_NAME} nor {nnunet_export.PLANS} and {nnunet_export.DATASET}",
        remedy="Of a MONAI bundle, give the folder that holds configs and models",
    )


def _recognise(folder: Path, names: list[str], called: str) -> Package:
    """Tell the kind of a package by the names of its files."""
    root, names = _within(folder, [name for name in names if not _LITTER & set(PurePosixPath(name).parts)])
    found = set(names)
    if FILE_NAME in found:
        return Package(
            kind="ONNX with model.yaml",
            root=root,
            weights=_only(root, names, ".onnx", called),
            configuration=root / FILE_NAME,
        )
    inference = [name for name in monai_bundle.INFERENCE if name in found]
    if monai_bundle.METADATA in found and inference:
        return _bundle(root, names, root / inference[0], called)
    if {nnunet_export.PLANS, nnunet_export.DATASET} <= found:
        return Package(
            kind="nnU-Net export",
            root=root,
            weights=_only(root, names, ".onnx", called, remedy=_EXPORT_REMEDY),
            configuration=root / nnunet_export.PLANS,
        )
    shallow_first = sorted(names, key=lambda name: (name.count("/"), name))
    there = listed(shallow_first) or "nothing"
    raise InputError(
        f"{called} is no package that is known. Looked for: an .onnx with {FILE_NAME}; a MONAI bundle"
        f" ({monai_bundle.METADATA}, {monai_bundle.INFERENCE[0]}, models/model.onnx); an nnU-Net export"
        f" ({nnunet_export.PLANS}, {nnunet_export.DATASET}, an .onnx). Found: {there}"
    )


def _within(root: Path, names: list[str]) -> tuple[Path, list[str]]:
    """Go into a folder that is around everything."""
    while names and all("/" in name for name in names):
        tops = {name.split("/", 1)[0] for name in names}
        (top, *others) = tops
        # The parts of a bundle that has nothing beside its configs are no folder around everything.
        if others or top == "configs":
            break
        root, names = root / top, [name.split("/", 1)[1] for name in names]
    return root, names


def _bundle(root: Path, names: list[str], inference: Path, called: str) -> Package:
    """Find a bundle's weights: ONNX before TorchScript, its usual place before any other."""
    for suffix in (".onnx", ".ts"):
        usual = f"models/model{suffix}"
        if usual in names:
            weights = root / usual
        elif any(name.lower().endswith(suffix) for name in names):
            weights = _only(root, names, suffix, called)
        else:
            continue
        return Package(kind="MONAI bundle", root=root, weights=weights, configuration=inference)
    raise _no_weights(names, called, "models/model.onnx or models/model.ts", _BUNDLE_REMEDY)


def _only(root: Path, names: list[str], suffix: str, called: str, *, remedy: str | None = None) -> Path:
    """Return the one file with a suffix."""
    found = sorted(name for name in names if name.lower().endswith(suffix))
    if not found:
        raise _no_weights(names, called, f"{suffix} file", remedy)
    if len(found) > 1:
        raise InputError(f"{called} holds {len(found)} {suffix} files ({listed(found)}), one is needed")
    return root / found[0]


def _no_weights(names: list[str], called: str, wanted: str, remedy: str | None) -> InputError:
    pickled = sorted(name for name in names if PurePosixPath(name).suffix.lower() in _PICKLED)
    if pickled:
        return InputError(f"{called} holds its weights only as {listed(pickled)}, no {wanted}", remedy=remedy)
    return InputError(f"{called} holds no {wanted}")
