"""The one piece of code that computes, wherever it computes: a network in OpenVINO on the processor.

The embedded engine runs it in the stage. For Triton's Python backend this very file is copied into the model
repository, beside `model.py`, so that stage and server cannot differ. Hence it imports nothing of ours, and nothing but
NumPy and OpenVINO.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Shape = tuple[int, int, int]


@functools.cache
def core() -> openvino.Core:
    """Return OpenVINO's core: one for the whole process, and for as long as it lives.

    A core lends the thread that first uses it a stack for signal handlers, and takes it back at its end. Of two cores,
    the one that is gone first takes a stack that is handed out again when the other goes; the next signal, such as
    SIGTERM, then ends the process by SIGSEGV without a word.
    """
    return openvino.Core()


def resolved_precision(precision: str) -> Literal["bf16", "f32"]:
    """Say which precision is computed in: what is asked for, or with ``auto`` what the processor has natively."""
    native = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if precision == "bf16" or (native and precision == "auto") else "f32"


def identity(precision: str) -> str:
    """Name the engine for the record: ``OpenVINO 2026.4.1 f32``."""
    version = str(openvino.__version__).split("-", maxsplit=1)[0]
    return f"OpenVINO {version} {resolved_precision(precision)}"


class Computation:
    """A network, compiled for windows of one shape at a time.

    Parameters
    ----------
    path : Path
        An ONNX file with one input ``[n, channels, x, y, z]`` and one output.
    precision : str
        ``auto``, ``f32`` or ``bf16``.

    Raises
    ------
    RuntimeError
        OpenVINO does not read the file.
    ValueError
        It does not have one input of five dimensions and one output.
    """

    def __init__(self, path: Path, precision: str) -> None:
        self._precision = resolved_precision(precision)
        self._model = core().read_model(path)
        if len(self._model.inputs) != 1 or len(self._model.outputs) != 1 or len(self._model.input().partial_shape) != 5:
            raise ValueError("not one input [n, channels, x, y, z] and one output")
        self._shape: tuple[int, Shape] | None = None
        self._request: Any = None

    def compile(self, shape: Shape, batch: int = 1) -> None:
        """Get ready for windows ``[batch, channels, *shape]``: a fixed shape takes less memory and time than any.

        Raises
        ------
        RuntimeError
            The network does not take them.
        """
        if (batch, shape) == self._shape:
            return
        self.release()
        channels = self._model.input().partial_shape[1]
        self._model.reshape([batch, channels.get_length() if channels.is_static else 1, *shape])
        compiled = core().compile_model(
            self._model,
            "CPU",
            {"INFERENCE_PRECISION_HINT": self._precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1},
        )
        self._request = compiled.create_infer_request()
        self._shape = (batch, shape)

    def run(self, windows: Floats) -> Floats:
        """Compute ``[n, channels, x, y, z]``; the answer is overwritten by the next one.

        Raises
        ------
        RuntimeError
            It failed.
        """
        batch, _, x, y, z = windows.shape
        self.compile((x, y, z), batch)
        answer = self._request.infer({0: np.ascontiguousarray(windows)}, share_inputs=True, share_outputs=True)
        output: Floats = answer[0]
        return output

    def release(self) -> None:
        """Give the working memory back; the next `compile` or `run` takes it again."""
        self._request = None
        self._shape = None
