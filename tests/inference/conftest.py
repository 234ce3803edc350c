"""Tiny networks and made bodies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume

TINY: dict[str, Any] = {
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


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """The description of a network that gives its input back; take a copy to change it."""
    return json.loads(json.dumps(TINY))


def _identity(path: Path) -> None:
    shape = [1, 1, "x", "y", "z"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["score"])],
        "identity",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def own_model(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder with a network that gives its input back, and the description given."""

    def make(description: dict[str, Any]) -> Path:
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        _identity(folder / "network.onnx")
        (folder / "model.yaml").write_text(yaml.safe_dump(description))
        return folder

    return make


@pytest.fixture(scope="session")
def body() -> Callable[..., Volume]:
    """Make a plain body: an ellipse of soft tissue in air, with lungs in some of its slices."""

    def make(
        *,
        height_mm: float = 240,
        half_axes_mm: tuple[float, float] = (160, 110),
        lungs_mm: tuple[float, float] | None = (150, 240),
        bone_mm: float = 0,
        spacing: tuple[float, float, float] = (5.0, 4.0, 4.0),
    ) -> Volume:
        shape = (round(height_mm / spacing[0]), 70, 100)
        y = (np.arange(shape[1]) - (shape[1] - 1) / 2) * spacing[1]
        x = (np.arange(shape[2]) - (shape[2] - 1) / 2) * spacing[2]
        radius = np.hypot(x[None] / half_axes_mm[0], y[:, None] / half_axes_mm[1])
        image = np.full(shape, -1000, np.int16)
        image[:, radius < 1] = 40
        if bone_mm:
            image[:, (radius < 1) & (radius > 1 - bone_mm / min(half_axes_mm))] = 900
        if lungs_mm:
            side = np.hypot((np.abs(x[None]) - 80) / 50, y[:, None] / 70) < 1
            z = np.arange(shape[0]) * spacing[0]
            image[np.ix_((z >= lungs_mm[0]) & (z < lungs_mm[1]), range(shape[1]), range(shape[2]))] = np.where(
                side, -850, image[0]
            )
        geometry = VolumeGeometry(shape=shape, spacing=spacing, origin=(float(x[0]), float(y[0]), -700.0))
        return Volume(geometry=geometry, array=image)

    return make
