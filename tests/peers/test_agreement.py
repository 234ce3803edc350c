"""Models that are added here find what MONAI and nnU-Net themselves find with them, voxel by voxel.

MONAI and nnU-Net are in an environment of their own, since both need PyTorch: CLARA_WF_PEERS names its interpreter.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.importers.adding import candidate
from clara_wf.importers.torchscript import convert
from clara_wf.inference.install import install_described
from clara_wf.inference.segment import Segmenter

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def peers(root: Path) -> Path:
    """The interpreter that has MONAI and nnU-Net."""
    named = os.environ.get("CLARA_WF_PEERS")
    python = Path(named) if named else root / ".peers/bin/python"
    if not python.is_file():
        pytest.skip("MONAI and nnU-Net are not here: CLARA_WF_PEERS=PYTHON, or .peers/bin/python in the checkout")
    return python


@pytest.fixture(scope="session")
def made(peers: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Make a package and what its own software finds with it; each once."""
    folders: dict[tuple[str, str], Path] = {}

    def make(script: str, kind: str) -> Path:
        if (script, kind) not in folders:
            folder = tmp_path_factory.mktemp(kind)
            command = [peers, "-W", "ignore", HERE / script, kind, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, cwd=HERE)
            assert done.returncode == 0, done.stderr[-2000:]
            folders[script, kind] = folder
        return folders[script, kind]

    return make


@pytest.mark.parametrize(
    ("script", "kind", "package"),
    [
        pytest.param("make_monai.py", "unet", "bundle", id="MONAI UNet: windows, linear back, softmax"),
        pytest.param("make_monai.py", "segresnet", "bundle", id="MONAI SegResNet: splines, crop, whole, nearest back"),
        pytest.param("make_nnunet.py", "ct", "export", id="nnU-Net: CT"),
        pytest.param("make_nnunet.py", "mr", "export", id="nnU-Net: transposed, an axis apart"),
    ],
)
def test_both_find_the_same(made: Callable[[str, str], Path], tmp_path: Path, script: str, kind: str, package: str):
    folder = made(script, kind)
    expected = np.load(folder / "expected.npz")
    shares = np.bincount(expected["labels"].ravel()) / expected["labels"].size
    assert len(shares) > 1, "the peers' result is empty"
    assert shares.min() > 0.05, "a label is too rare for the comparison to say anything"
    with candidate(folder / package) as found:
        # The processor may compute bf16 natively, which is another arithmetic than the peers'.
        text = yaml.safe_dump({**yaml.safe_load(found.text), "precision": "f32"})
        install_described(found.name, tmp_path, onnx_file=found.onnx, description_text=text)
    geometry = VolumeGeometry.from_affine(expected["affine"], expected["image"].shape)
    labels = np.empty(geometry.shape, np.uint8)
    Segmenter(tmp_path, found.name).segment(Volume(geometry=geometry, array=expected["image"]), labels)
    agreement = float((labels == expected["labels"]).mean())
    assert agreement >= 0.999, f"they agree in {agreement:.3%} of the voxels"


def test_torchscript_becomes_the_same_network(made: Callable[[str, str], Path], peers: Path, tmp_path: Path):
    import openvino

    models = made("make_monai.py", "segresnet") / "bundle/models"
    convert(models / "model.ts", tmp_path / "model.onnx", [32, 32, 24], python=peers)
    window = np.random.default_rng(1).normal(size=(1, 1, 40, 32, 16)).astype(np.float32)
    core = openvino.Core()
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    first, second = (
        core.compile_model(path, "CPU", precise)(window)[0] for path in (models / "model.onnx", tmp_path / "model.onnx")
    )
    assert np.abs(first - second).max() < 1e-4
