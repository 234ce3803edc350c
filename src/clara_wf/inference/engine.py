"""The embedded engine: a network on this machine's processor.

`Network` is all that the rest of the room knows of an engine. OpenVINO is the choice on a processor
(docs/decisions/0003 has the measurement against ONNX Runtime).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from clara_wf.inference.description import IntTriple
from clara_wf.model.errors import InputError

Floats = NDArray[np.float32]
Precision = Literal["auto", "f32"]


class EngineError(InputError):
    """The engine cannot load or run a model."""


class Network(Protocol):
    """A network that is ready to be asked."""

    @property
    def identity(self) -> str:
        """What runs it, for the record: ``OpenVINO 2026.4.1 f32``."""

    def prepare(self, shape: IntTriple) -> None:
        """Do for a window of this shape what can be done before the image is there."""

    def infer(self, window: Floats) -> Floats:
        """Run ``[channel, x, y, z]`` and return the same, as the network gives it."""

    def release(self) -> None:
        """Give the working memory back; the next `prepare` or `infer` takes it again."""


def describe(precision: Precision = "auto") -> str:
    """Name the engine, its version, the precision that it would use here, and the processor: for `clara-wf doctor`."""
    import openvino

    core = openvino.Core()
    processor = " ".join(str(core.get_property("CPU", "FULL_DEVICE_NAME")).split())
    return f"OpenVINO {_version()} {_resolved(core, precision)} on {processor}"


def _version() -> str:
    import openvino

    return str(openvino.__version__).split("-", maxsplit=1)[0]


def _resolved(core: Any, precision: Precision) -> Literal["bf16", "f32"]:  # noqa: ANN401 - OpenVINO carries no types
    """Say which precision is computed in: what is asked for, or what the processor has natively."""
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if native and precision == "auto" else "f32"


class OpenVinoNetwork:
    """A network in OpenVINO, on the processor.

    Parameters
    ----------
    path : Path
        An ONNX file with one input ``[1, channels, x, y, z]`` and one output.
    precision : {"auto", "f32"}
        auto: bf16 where the processor computes it natively, f32 elsewhere. Measured on the liver network, bf16 halves
        time and memory and leaves Dice as it is.

    Raises
    ------
    EngineError
        The file is no model that OpenVINO reads.
    """

    def __init__(self, path: Path, *, precision: Precision = "auto") -> None:
        # Half a second of imports, which only a stage that infers should pay.
        import openvino

        self._core = openvino.Core()
        self._precision = _resolved(self._core, precision)
        self._shape: IntTriple | None = None
        self._request: Any = None
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as exc:
            raise EngineError(f"{path.parent.parent.name}: {path.name} is no model that OpenVINO reads") from exc
        if len(self._model.inputs) != 1 or len(self._model.outputs) != 1 or len(self._model.input().partial_shape) != 5:
            raise EngineError(
                f"{path.parent.parent.name}: {path.name} does not have one input [1, channels, x, y, z] and one output"
            )

    @property
    def identity(self) -> str:
        """OpenVINO, its version and the precision that it was told to use."""
        return f"OpenVINO {_version()} {self._precision}"

    def prepare(self, shape: IntTriple) -> None:
        """Compile for a window: less memory and time than a graph that takes any shape."""
        if shape == self._shape:
            return
        self.release()
        channels = self._model.input().partial_shape[1]
        try:
            self._model.reshape([1, channels.get_length() if channels.is_static else 1, *shape])
            compiled = self._core.compile_model(
                self._model,
                "CPU",
                {"INFERENCE_PRECISION_HINT": self._precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1},
            )
        except RuntimeError as exc:
            raise EngineError(f"the network does not take a window of {shape}") from exc
        self._request = compiled.create_infer_request()
        self._shape = shape

    def infer(self, window: Floats) -> Floats:
        """Run ``[channel, x, y, z]``."""
        _, x, y, z = window.shape
        self.prepare((x, y, z))
        try:
            result = self._request.infer({0: np.ascontiguousarray(window)[None]}, share_inputs=True)
        except RuntimeError as exc:
            raise EngineError(f"the network failed on a window of {(x, y, z)}") from exc
        output: Floats = result[0][0].copy()
        return output

    def release(self) -> None:
        """Drop what was compiled: a network that has answered must not hold gigabytes while another works."""
        self._request = None
        self._shape = None
