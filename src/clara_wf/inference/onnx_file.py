"""Looking into an ONNX file: is it whole, what does its network take, what does it give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from clara_wf.model.errors import InputError

#: Of an end: windows, channels and the voxels of three axes.
_DIMENSIONS = 5


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """The input or output of a network."""

    name: str
    type: str  # of its numbers, as ONNX names it: FLOAT
    shape: tuple[int | None, ...]  # [n, channels, x, y, z]; None where the graph leaves it open


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What goes into a network, and what comes out."""

    input: Tensor
    output: Tensor


def check_graph(file: Path) -> Graph:
    """Check that a file is a whole ONNX model with one input of five dimensions and one output.

    Raises
    ------
    InputError
        It is not.
    """
    model = _loaded(file)
    try:
        onnx.checker.check_model(model)
    except (ValueError, onnx.checker.ValidationError) as exc:
        raise InputError(f"{file.name} is no valid ONNX model: {exc}") from exc
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise InputError(f"{file.name} keeps its weights in other files", remedy="Save it as one file")
    return _graph(model, file)


def read_graph(file: Path) -> Graph:
    """Read the ends of an ONNX file that was checked when it was installed.

    Raises
    ------
    InputError
        It is not whole any more.
    """
    return _graph(_loaded(file), file)


def _loaded(file: Path) -> onnx.ModelProto:
    try:
        return onnx.load(file, load_external_data=False)
    except (ValueError, OSError, DecodeError) as exc:
        raise InputError(f"{file.name} is no valid ONNX model: {exc}") from exc


def _graph(model: onnx.ModelProto, file: Path) -> Graph:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [_tensor(value) for value in model.graph.input if value.name not in constants]
    outputs = [_tensor(value) for value in model.graph.output]
    if [len(given.shape) for given in inputs] != [_DIMENSIONS] or len(outputs) != 1:
        raise InputError(f"{file.name} does not have one input [1, 1, x, y, z] and one output [1, channels, x, y, z]")
    (output,) = outputs
    if len(output.shape) != _DIMENSIONS:  # an exporter may leave the output's dimensions out
        output = Tensor(name=output.name, type=output.type, shape=(None,) * _DIMENSIONS)
    return Graph(input=inputs[0], output=output)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    # A dimension that has a name, or nothing, or no length, is open.
    shape = tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim)
    return Tensor(name=value.name, type=onnx.TensorProto.DataType.Name(kind.elem_type), shape=shape)
