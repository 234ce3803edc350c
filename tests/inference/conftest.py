"""Tiny networks and made bodies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_network import described, model_folder

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """The description of a network that gives its input back; take a copy to change it."""
    return described()


@pytest.fixture
def own_model(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder with a network that gives its input back, and the description given."""

    def make(description: dict[str, Any]) -> Path:
        return model_folder(tmp_path / "own", description)

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
