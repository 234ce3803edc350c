"""Looking into an ONNX file before it is installed: is it whole, what does it take, what does it give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from clara_wf.model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class GraphEnds:
    """What a network says of its input and output; None where it takes or gives any number."""

    batch: int | None  # windows at once
    channels: int | None  # of the input
    shape: tuple[int | None, int | None, int | None]  # voxels of the input
    output_channels: int | None
    output_shape: tuple[int | None, ...]  # voxels of the output


def check_graph(file: Path) -> GraphEnds:
    """Check that a file is a whole ONNX model with one input of five dimensions and one output.

    Raises
    ------
    InputError
        It is not.
    """
    try:
        model = onnx.load(file, load_external_data=False)
        onnx.checker.check_model(model)
    except (ValueError, onnx.checker.ValidationError, OSError, DecodeError) as exc:
        raise InputError(f"{file.name} is no valid ONNX model: {exc}") from exc
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise InputError(f"{file.name} keeps its weights in other files", remedy="Save it as one file")
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [_sizes(value) for value in model.graph.input if value.name not in constants]
    outputs = [_sizes(value) for value in model.graph.output]
    if [len(sizes) for sizes in inputs] != [5] or len(outputs) != 1:
        raise InputError(f"{file.name} does not have one input [1, 1, x, y, z] and one output [1, channels, x, y, z]")
    batch, channels, x, y, z = inputs[0]
    # An exporter may leave the output's dimensions out.
    known = outputs[0] if len(outputs[0]) == 5 else [None] * 5
    return GraphEnds(
        batch=batch, channels=channels, shape=(x, y, z), output_channels=known[1], output_shape=tuple(known[2:])
    )


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    """Return an end's sizes; None for those that have a name or nothing."""
    return [
        dimension.dim_value if dimension.WhichOneof("value") == "dim_value" and dimension.dim_value > 0 else None
        for dimension in value.type.tensor_type.shape.dim
    ]
