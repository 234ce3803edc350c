"""A network that gives its input back, and its description: a label for what is brighter than 100."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import yaml
from onnx import TensorProto, helper

from clara_wf.inference.install import install_described

DESCRIPTION: dict[str, Any] = {
    "schema": "clara-wf/model/1",
    "name": "tiny",
    "version": "1",
    "title": "What is brighter than 100",
    "modality": "CT",
    "orientation": "RAS",
    "spacing_mm": [2, 2, 2],
    "intensity": {"clip": [-1000, 1000], "scale": 1, "offset": 0},
    "window": {"size": [16, 16, 16], "step": [8, 8, 8], "padding": -1000},
    "threshold": 100,
    "labels": [
        {
            "value": 1,
            "name": "bright",
            "category": {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"},
            "type": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"},
        }
    ],
    "licence": "Apache-2.0",
    "citation": "none",
    "limits": "Not for clinical use.",
}


def described(**changes: Any) -> dict[str, Any]:
    """Return a description of its own, with changes to its top level."""
    return {**copy.deepcopy(DESCRIPTION), **changes}


def save_network(
    path: Path, *, operation: str = "Identity", shape: Sequence[int | str] = (1, 1, "x", "y", "z")
) -> None:
    """Save a network of one operation as ONNX."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "score")]
    graph = helper.make_graph([helper.make_node(operation, ["image"], ["score"])], "tiny", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def model_folder(folder: Path, description: dict[str, Any]) -> Path:
    """Make what `model install NAME --from FOLDER` takes."""
    folder.mkdir(exist_ok=True)
    save_network(folder / "network.onnx")
    (folder / "model.yaml").write_text(yaml.safe_dump(description))
    return folder


def install_instead(name: str, root: Path, *, source: Path) -> None:
    """Install what `model_folder` made, in the place of another model of that name."""
    text = (source / "model.yaml").read_text()
    install_described(name, root, onnx_file=source / "network.onnx", description_text=text, force=True)
