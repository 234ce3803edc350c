"""TorchScript to ONNX, where PyTorch is there to do it.

A TorchScript file is a program. PyTorch runs it in a language of its own, not as Python, but that language can read and
write files: it is run in a process of its own, with a time limit, and only for who brings such a file. That is no cage.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from clara_wf.inference.onnx_file import printable
from clara_wf.model.errors import InputError, LackError

#: Run by the interpreter that has PyTorch: file, target, x, y, z.
_SCRIPT = """
import sys
import torch
source, target, *window = sys.argv[1:]
network = torch.jit.load(source, map_location="cpu").eval()
example = torch.zeros(1, 1, *map(int, window))
axes = {0: "batch", 2: "x", 3: "y", 4: "z"}
torch.onnx.export(
    network, (example,), target, dynamo=False, opset_version=17, input_names=["image"], output_names=["scores"],
    dynamic_axes={"image": axes, "scores": axes},
)
"""
_PATIENCE_S = 900


def torch_is_there() -> bool:
    """Whether PyTorch can be imported; it is not."""
    return importlib.util.find_spec("torch") is not None


def convert(
    file: Path,
    target: Path,
    window: Sequence[int],
    *,
    python: Path | None = None,
    patience_s: float = _PATIENCE_S,
) -> None:
    """Convert a TorchScript network to ONNX, in a process of its own.

    Parameters
    ----------
    file : Path
        The TorchScript file.
    target : Path
        The ONNX file to write, in a folder that holds nothing of the package.
    window : sequence of int
        Voxels that the network is tried with.
    python : Path, optional
        The interpreter that has PyTorch; by default this one.
    patience_s : float
        Seconds after which it is given up.

    Raises
    ------
    LackError
        PyTorch is not in this environment.
    InputError
        PyTorch cannot convert the file, or not in time.
    """
    if python is None and not torch_is_there():
        raise LackError(
            f"{printable(file.name)} is TorchScript, and PyTorch is not in this environment", remedy=_remedy(window)
        )
    paths = [str(file.absolute()), str(target.absolute())]
    command = [str(python or sys.executable), "-c", _SCRIPT, *paths, *map(str, window)]
    try:
        # Python imports from the folder that it is started in: not from the package's, which may hold a torch.py.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=patience_s, check=False, cwd=target.parent
        )
    except subprocess.TimeoutExpired as exc:
        raise InputError(f"{printable(file.name)} was not converted within {patience_s:.0f} s") from exc
    if done.returncode != 0 or not target.is_file():
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit {done.returncode}")
        raise InputError(f"PyTorch cannot convert {printable(file.name)}: {printable(said)}", remedy=_remedy(window))


def _remedy(window: Sequence[int]) -> str:
    """Return the lines that do it elsewhere."""
    sizes = ", ".join(map(str, window))
    axes = '{0: "batch", 2: "x", 3: "y", 4: "z"}'
    return (
        "Install PyTorch into this environment and add it again, or run this where PyTorch is, and put model.onnx"
        f' beside model.ts: import torch; net = torch.jit.load("model.ts", map_location="cpu").eval(); axes = {axes};'
        f' torch.onnx.export(net, (torch.zeros(1, 1, {sizes}),), "model.onnx", dynamo=False, opset_version=17,'
        ' input_names=["image"], output_names=["scores"], dynamic_axes={"image": axes, "scores": axes})'
    )
