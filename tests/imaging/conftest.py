"""Sources that derived objects refer to: records as the reader leaves them, with volumes to match."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import (
    Algorithm,
    Code,
    Label,
    SourceInstance,
    SourceSeries,
    Step,
    Verdict,
    VolumeRecord,
)
from clara_wf.imaging.volume import Volume

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
#: Strings that no log, message, report or file name may hold.
MARKERS = ("MARKERNAME", "MARKERID", "19661224", "MARKERACC")


def _rotation() -> np.ndarray:
    """A rotation about a skew axis by 20 degrees."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(20)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _axes(orientation: str) -> tuple[tuple[float, float, float], ...]:
    axes = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    match orientation:
        case "reversed":
            axes[0] *= -1
        case "coronal":
            axes = np.array([[0.0, 1, 0], [0, 0, -1], [1, 0, 0]])
        case "oblique":
            axes @= _rotation().T
    return tuple(tuple(float(value) for value in axis) for axis in axes)


def _plane(grid: VolumeGeometry) -> dict[str, Any]:
    return {
        "00200037": {"vr": "DS", "Value": [*grid.axes[2], *grid.axes[1]]},
        "00280030": {"vr": "DS", "Value": list(grid.spacing[1:])},
    }


@pytest.fixture
def geometry() -> Callable[..., VolumeGeometry]:
    def make(orientation: str = "axial", shape: tuple[int, int, int] = (7, 11, 13)) -> VolumeGeometry:
        return VolumeGeometry(
            shape=shape, spacing=(2.5, 0.7, 0.9), origin=(-31.5, 12.25, 400.125), axes=_axes(orientation)
        )

    return make


@pytest.fixture
def attributes() -> dict[str, Any]:
    """What a reader keeps of a CT series, in DICOM's JSON model, with markers for whatever is the patient's."""

    def text(vr: str, *values: object) -> dict[str, Any]:
        return {"vr": vr, "Value": list(values)}

    return {
        "00080005": text("CS", "ISO_IR 100"),
        "00080020": text("DA", "20230405"),
        "00080022": text("DA", "20230406"),
        "00080030": text("TM", "101112"),
        "00080032": text("TM", "111213.5"),
        "00080050": text("SH", "MARKERACC"),
        "00080060": text("CS", "CT"),
        "00080070": text("LO", "Scanner Works"),
        "00080090": text("PN", {"Alphabetic": "MARKERNAME^REFERRING"}),
        "0008103E": text("LO", "Abdomen"),
        "00100010": text("PN", {"Alphabetic": "MARKERNAME^M\u00e4rker"}),
        "00100020": text("LO", "MARKERID-1"),
        "00100030": text("DA", "19661224"),
        "00100040": text("CS", "F"),
        "00180015": text("CS", "ABDOMEN"),
        "00180050": text("DS", 2.5),
        "00180060": text("DS", 120),
        "00185100": text("CS", "HFS"),
        "00200010": text("SH", "1"),
        "00200011": text("IS", 4),
    }


@pytest.fixture
def record(attributes: dict[str, Any], geometry: Callable[..., VolumeGeometry]) -> Callable[..., VolumeRecord]:
    """Make a record: `labels` 0 is a grey volume, `placed` how the source images lie; None: it does not say."""

    def make(
        slices: int = 7,
        labels: int = 1,
        *,
        enhanced: bool = False,
        frame_of_reference: str = "1.2.9",
        placed: str | None = "axial",
        **changes: Any,
    ) -> VolumeRecord:
        grid = geometry(placed) if placed else None
        instances = tuple(
            SourceInstance(
                sop_class_uid=ENHANCED_CT if enhanced else CT,
                sop_instance_uid="1.2.3.4.500" if enhanced else f"1.2.3.4.{index + 1}",
                # Frames that run against the slices, of which the volume has not all.
                frame=slices + 2 - index if enhanced else None,
                position=tuple(grid.index_to_world((index, 0, 0)).tolist()) if grid else None,
            )
            for index in range(slices)
        )
        source = SourceSeries(
            study_uid="1.2.3",
            series_uid="1.2.3.4",
            frame_of_reference_uid=frame_of_reference,
            instances=instances,
            dataset=attributes | (_plane(grid) if grid else {}),
        )
        grey: dict[str, Any] = {"kind": "image", "modality": "CT", "units": "HU"}
        anatomy = Code(value="123037004", scheme="SCT", meaning="Anatomical Structure")
        labelled: dict[str, Any] = {
            "kind": "labels",
            "modality": "CT",
            "labels": tuple(
                Label(
                    value=value,
                    name=f"organ {value}",
                    category=anatomy,
                    type=Code(value="10200004", scheme="SCT", meaning="Liver"),
                    color=(200, 2 * value, 10),
                )
                for value in range(1, labels + 1)
            ),
            "verdict": Verdict(status="ok"),
            "algorithm": Algorithm(
                name="Organs of nobody", version="1.2", model="organs", sha256="ab" * 32, engine="none"
            ),
        }
        step = Step(stage="ai-vnet", version="0", started="2026-01-01T10:00:00Z", ended="2026-01-01T10:00:02Z")
        fields = (labelled if labels else grey) | {"source": source, "provenance": (step,)} | changes
        return VolumeRecord(**fields)

    return make


@pytest.fixture
def label_volume(geometry: Callable[..., VolumeGeometry]) -> Callable[..., Volume]:
    """Make labels that no flip or turn leaves as they are, empty in the first and last slice."""

    def make(orientation: str = "axial", labels: int = 1, shape: tuple[int, int, int] = (7, 11, 13)) -> Volume:
        array = np.zeros(shape, np.uint8)
        array[1:-2, 2:5, 3:11] = 1
        array[1, 2, 3] = 0
        for value in range(2, labels + 1):
            array[1 + value % 4, value % 11, (value // 2) % 13] = value
        return Volume(geometry=geometry(orientation, shape), array=array)

    return make


@pytest.fixture(scope="session")
def faults() -> Callable[[Path], list[str]]:
    """Give the errors, and the warnings about what is in the object, that dciodvfy finds in a file."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (Debian dicom3tools) is not installed")

    def check(path: Path) -> list[str]:
        done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, check=False)
        return [line for line in (done.stdout + done.stderr).splitlines() if re.match(r"Error", line)]

    return check
