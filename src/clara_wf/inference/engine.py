"""The embedded engine: a network on this machine's processor.

`Network` is all that the rest of the room knows of an engine. OpenVINO is the choice on a processor
(docs/decisions/0003 has the measurement against ONNX Runtime).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from clara_wf.inference.reader import IntTriple
from clara_wf.model.errors import InputError

Floats = NDArray[np.float32]
Precision = Literal["auto", "f32", "bf16"]


class EngineError(InputError):
    """The engine cannot load or run a model."""


class Network(Protocol):
    """A network that is ready to be asked."""

    @property
    def identity(self) -> str:
        """What runs it, for the record: ``OpenVINO 2026.4.1 f32``."""

    @property
    def batch(self) -> int:
        """The most windows that it takes at once."""

    def prepare(self, shape: IntTriple, *, batch: int = 1) -> None:
        """Do for windows ``[batch, channel, *shape]`` what can be done before the image is there."""

    def infer(self, windows: Floats) -> Floats:
        """Run ``[n, channel, x, y, z]`` and return the same, as the network gives it.

        The answer is the network's own memory: it may be overwritten by the next call, and is gone after `release`.
        """

    def release(self) -> None:
        """Give the working memory back; the next `prepare` or `infer` takes it again."""


def describe(precision: Precision = "auto") -> str:
    """Name the engine, its version, the precision that it would use here, and the processor: for `clara-wf doctor`."""
    from clara_wf.inference.openvino_network import core, identity

    processor = " ".join(str(core().get_property("CPU", "FULL_DEVICE_NAME")).split())
    return f"{identity(precision)} on {processor}"


class OpenVinoNetwork:
    """A network in OpenVINO, on the processor.

    Parameters
    ----------
    path : Path
        An ONNX file with one input ``[n, channels, x, y, z]`` and one output.
    precision : {"auto", "f32", "bf16"}
        auto: bf16 where the processor computes it natively, f32 elsewhere. Measured on the liver network, bf16 halves
        time and memory and leaves Dice as it is.

    Raises
    ------
    EngineError
        The file is no model that OpenVINO reads.
    """

    def __init__(self, path: Path, *, precision: Precision = "auto") -> None:
        # Half a second of imports, which only a stage that infers should pay.
        from clara_wf.inference.openvino_network import Computation, identity

        self._identity = identity(precision)
        model = path.parent.parent.name
        try:
            self._computation = Computation(path, precision)
        except RuntimeError as exc:
            raise EngineError(f"{model}: {path.name} is no model that OpenVINO reads") from exc
        except ValueError as exc:
            raise EngineError(
                f"{model}: {path.name} does not have one input [n, channels, x, y, z] and one output"
            ) from exc

    @property
    def identity(self) -> str:
        """OpenVINO, its version and the precision that it was told to use."""
        return self._identity

    @property
    def batch(self) -> int:
        """One: a processor gains nothing from several, and would need the memory for all of them."""
        return 1

    def prepare(self, shape: IntTriple, *, batch: int = 1) -> None:
        """Compile for a window: less memory and time than a graph that takes any shape."""
        try:
            self._computation.compile(shape, batch)
        except RuntimeError as exc:
            raise EngineError(f"the network does not take a window of {shape}") from exc

    def infer(self, windows: Floats) -> Floats:
        """Run ``[n, channel, x, y, z]``."""
        batch, _, x, y, z = windows.shape
        self.prepare((x, y, z), batch=batch)
        try:
            return self._computation.run(windows)
        except RuntimeError as exc:
            raise EngineError(f"the network failed on a window of {(x, y, z)}") from exc

    def release(self) -> None:
        """Drop what was compiled: a network that has answered must not hold gigabytes while another works."""
        self._computation.release()
