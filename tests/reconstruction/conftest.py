"""Small files of projections, made by code that has no part of the readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ct_pd_files import Scan

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.metaimage import write_volume
from clara_wf.imaging.volume import Volume


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    return Scan(tmp_path / "input")


@pytest.fixture
def fan() -> dict[str, Any]:
    """The content of a good geometry file of 3 views."""
    return {
        "schema": "clara-wf/geometry/1",
        "beam": "cone",
        "patient_position": "HFS",
        "detector": {"row_spacing_mm": 2, "column_spacing_mm": 1.5, "central_row": 1.5, "central_column": 2.25},
        "angles_deg": [0, 120, 240],
        "source_to_isocenter_mm": 500,
        "source_to_detector_mm": 1000,
    }


@pytest.fixture
def stack(tmp_path: Path) -> Callable[..., Path]:
    """Write `<name>.mhd` and, if given, its geometry file."""

    def make(
        content: object = None,
        *,
        name: str = "scan",
        beside: str = "{name}.geometry.json",
        array: np.ndarray | None = None,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> Path:
        array = np.arange(72, dtype=np.float32).reshape(3, 4, 6) if array is None else array
        grid = VolumeGeometry(shape=array.shape, spacing=spacing, origin=origin)
        path = tmp_path / f"{name}.mhd"
        write_volume(path, Volume(geometry=grid, array=array))
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / beside.format(name=name)).write_text(text)
        return path

    return make
