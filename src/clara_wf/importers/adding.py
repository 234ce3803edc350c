"""Adding a model that a user brings: recognised, translated, checked against its ONNX file, installed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clara_wf.importers.bundle_config import read_config
from clara_wf.importers.monai_bundle import translate_bundle
from clara_wf.importers.nnunet_export import translate_export
from clara_wf.importers.package import Kind, Package, open_package
from clara_wf.importers.torchscript import convert
from clara_wf.importers.translation import MOST_TOLD, Translation, Untranslatable, as_yaml
from clara_wf.importers.unpacking import DEFAULT_LIMITS, Limits
from clara_wf.inference.description import ModelDescription, is_orientation, load, parse
from clara_wf.inference.install import text_faults
from clara_wf.inference.onnx_file import Graph, check_graph, misfits, printable
from clara_wf.inference.repository import check_name
from clara_wf.model.errors import UsageError

#: Voxels of an axis with which a network is tried that takes any number.
_TRIAL = 96


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that is ready to be installed."""

    kind: Kind
    name: str  # in the repository
    onnx: Path  # for as long as the package is open
    text: str  # model.yaml
    description: ModelDescription
    became: tuple[tuple[str, str], ...]  # what the package says, what it is here
    ignored: tuple[str, ...]  # what changes no voxel
    remarks: tuple[str, ...]  # what was taken for granted


@contextlib.contextmanager
def candidate(
    path: Path,
    *,
    name: str | None = None,
    orientation: str | None = None,
    configuration: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Candidate]:
    """Read a package and check all of it; nothing is installed yet.

    Parameters
    ----------
    path : Path
        A folder, a zip or an ONNX file.
    name : str, optional
        Of the model; otherwise the package's own.
    orientation : str, optional
        Where the axes grow to, for a package that does not say it.
    configuration : str, optional
        Of an nnU-Net export's plans.
    limits : Limits
        How much a zip may become.

    Raises
    ------
    UsageError
        The name is none, or an option does not fit the package.
    InputError
        The package is not known, not whole, or asks for what is not done here.
    LackError
        It is TorchScript, and PyTorch is not in this environment.
    """
    if name is not None:
        check_name(name)
    orientation = _checked_orientation(orientation)
    with open_package(path, limits=limits) as package, tempfile.TemporaryDirectory(prefix="clara-wf-") as folder:
        _check_options(package, orientation, configuration)
        if package.kind == "ONNX with model.yaml":
            yield _own(package, name)
            return
        if package.kind == "MONAI bundle":
            found = translate_bundle(package.root, package.configuration, name=name, orientation=orientation)
        else:
            found = translate_export(package.root, name=name, orientation=orientation, configuration=configuration)
        onnx = package.weights
        if onnx.suffix.lower() == ".ts":
            # What is wrong with the description is said before minutes are spent.
            parse(found.description, where=package.configuration.name)
            onnx = Path(folder) / "model.onnx"
            convert(package.weights, onnx, _trial_window(found.description))
        yield _translated(package, found, onnx)


def _checked_orientation(orientation: str | None) -> str | None:
    if orientation is None:
        return None
    if not is_orientation(orientation.upper()):
        raise UsageError(f"--orientation {orientation} is not three of R/L, A/P and S/I")
    return orientation.upper()


def _check_options(package: Package, orientation: str | None, configuration: str | None) -> None:
    if orientation is not None and package.kind == "ONNX with model.yaml":
        raise UsageError("--orientation is for packages that do not say it: model.yaml does")
    if configuration is not None and package.kind != "nnU-Net export":
        raise UsageError(f"--configuration is for an nnU-Net export, this is: {package.kind}")


def _own(package: Package, name: str | None) -> Candidate:
    """Read an ONNX file with our own description; another name is written into it."""
    description = load(package.configuration)
    text = package.configuration.read_text(encoding="utf-8")
    if name is not None and name != description.name:
        text = as_yaml({**read_config(package.configuration), "name": name})
        description = parse(yaml.safe_load(text), where=package.configuration.name)
    check_name(description.name)
    if faults := text_faults(description):
        raise Untranslatable(f"{package.configuration.name}: {'; '.join(faults[:MOST_TOLD])}")
    _check_fit(package, description, check_graph(package.weights))
    return Candidate(
        kind=package.kind,
        name=description.name,
        onnx=package.weights,
        text=text,
        description=description,
        became=(),
        ignored=(),
        remarks=(),
    )


def _translated(package: Package, found: Translation, onnx: Path) -> Candidate:
    graph = check_graph(onnx)
    window: dict[str, Any] = dict(found.description["window"])
    remarks = list(found.remarks)
    batch = graph.input.shape[0]
    if batch is not None and window.get("batch", 1) != batch:
        remarks.append(f"The ONNX file takes {batch} window{'s' if batch > 1 else ''} at once: so does clara-wf")
        window["batch"] = batch
    text = as_yaml({**found.description, "window": window})
    description = parse(yaml.safe_load(text), where=f"{printable(package.root.name)} as model.yaml")
    check_name(description.name)
    _check_fit(package, description, graph)
    return Candidate(
        kind=package.kind,
        name=description.name,
        onnx=onnx,
        text=text,
        description=description,
        became=found.became,
        ignored=found.ignored,
        remarks=tuple(remarks),
    )


def _check_fit(package: Package, description: ModelDescription, graph: Graph) -> None:
    if faults := misfits(graph, description):
        raise Untranslatable(f"{printable(package.weights.name)} does not fit its description: {'; '.join(faults)}")


def _trial_window(description: Mapping[str, Any]) -> list[int]:
    """Return the voxels that a network is tried with: its window, or enough to be halved often."""
    window = description["window"]
    return list(window["size"]) if window["tiling"] else [_TRIAL] * 3
