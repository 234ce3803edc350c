"""Looking into an ONNX file: is it whole, what does its network take, what does it give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from clara_wf.inference.description import ModelDescription
from clara_wf.model.errors import InputError

#: Of an end: windows, channels and the voxels of three axes.
_DIMENSIONS = 5
#: Of a protobuf message. What is larger is no ONNX file, and protobuf crashes on it instead of saying so.
_MOST_BYTES = 1 << 31
_MOST_SHOWN = 100


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
    """Check that a file is a whole ONNX model with one input and one output of five dimensions, all 32-bit floats.

    Raises
    ------
    InputError
        It is not.
    """
    model = _loaded(file)
    name = printable(file.name)
    # The checker would look for the other files in the folder that the command was started in.
    if any(_is_external(tensor) for tensor in _tensors(model)):
        raise InputError(f"{name} keeps its weights in other files", remedy="Save it as one file")
    try:
        onnx.checker.check_model(model)
    except (ValueError, onnx.checker.ValidationError) as exc:
        raise InputError(f"{name} is no valid ONNX model: {printable(str(exc))}") from exc
    graph = _graph(model, file)
    # Other floats are not refused by the engines, but rounded or overflown; a server takes 32 bits alone.
    odd = [
        f"its {end} is {tensor.type}"
        for end, tensor in (("input", graph.input), ("output", graph.output))
        if tensor.type != "FLOAT"
    ]
    if odd:
        raise InputError(f"{name} does not compute with 32-bit floats: {', '.join(odd)}, not FLOAT")
    return graph


def misfits(graph: Graph, description: ModelDescription) -> list[str]:
    """Say where a network of fixed sizes does not fit its description; what it leaves open shows when it is run."""
    faults = []
    window = description.window
    taken, given = graph.input.shape, graph.output.shape
    if taken[1] not in {None, 1}:
        faults.append(f"it takes {taken[1]} channels, not one")
    if given[1] not in {None, description.channels}:
        background = " and a background" if description.background else ""
        faults.append(f"it gives {given[1]} channels, the labels are {len(description.labels)}{background}")
    if taken[0] not in {None, window.batch}:
        faults.append(f"it takes {taken[0]} windows at once, window.batch is {window.batch}")
    if None not in {taken[0], given[0]} and taken[0] != given[0]:
        faults.append(f"it gives {given[0]} windows of {taken[0]}")
    sizes = _sizes(taken[2:])
    grows = not window.tiling and any(window.step)
    if description.preprocess and grows and any(taken[2:]):
        faults.append(f"it takes {sizes} voxels, but is to be given the whole image: export it with any size")
    elif any(size not in {None, wanted} for size, wanted in zip(taken[2:], window.size, strict=True)):
        faults.append(f"it takes {sizes} voxels, its windows are {_sizes(window.size)}")
    # Where the input is open, the output can be no other than the window's, unless that grows.
    known = [size or (None if grows else wanted) for size, wanted in zip(taken[2:], window.size, strict=True)]
    due = [size and size - 2 * edge for size, edge in zip(known, window.margin, strict=True)]
    if any(size and wanted and size != wanted for size, wanted in zip(given[2:], due, strict=True)):
        margin = f" with a margin of {_sizes(window.margin)}" if any(window.margin) else ""
        faults.append(f"it gives {_sizes(given[2:])} voxels of {_sizes(known)}{margin}")
    return faults


def printable(text: str) -> str:
    """Return a text of somebody else's as a message may hold it: one line, cut, and nothing that acts on a terminal."""
    line = " ".join(text[: 10 * _MOST_SHOWN].split())
    safe = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line[:_MOST_SHOWN])
    return safe if len(line) <= _MOST_SHOWN else f"{safe}..."


def _sizes(shape: Iterable[int | None]) -> str:
    return "x".join("any" if size is None else str(size) for size in shape)


def read_graph(file: Path) -> Graph:
    """Read the ends of an ONNX file that was checked when it was installed.

    Raises
    ------
    InputError
        It is not whole any more.
    """
    return _graph(_loaded(file), file)


def _loaded(file: Path) -> onnx.ModelProto:
    name = printable(file.name)
    try:
        if file.stat().st_size >= _MOST_BYTES:
            raise InputError(f"{name} is larger than an ONNX file can be (2 GiB)")
        return onnx.load(file, load_external_data=False)
    except OSError as exc:
        raise InputError(f"{name} is no valid ONNX model: {exc.strerror}") from exc
    except (ValueError, DecodeError) as exc:
        raise InputError(f"{name} is no valid ONNX model: {printable(str(exc))}") from exc


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model: of its graph, of those within its nodes, of functions and of training."""
    graphs = [model.graph]
    for training in model.training_info:
        graphs += [training.initialization, training.algorithm]
    attributes = [attribute for function in model.functions for attribute in function.attribute_proto]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes or attributes:
        for graph in graphs:
            yield from graph.initializer
            yield from _of_sparse(graph.sparse_initializer)
            nodes += graph.node
        attributes += [attribute for node in nodes for attribute in node.attribute]
        graphs, nodes = [], []
        for attribute in attributes:
            yield attribute.t
            yield from attribute.tensors
            yield from _of_sparse([attribute.sparse_tensor, *attribute.sparse_tensors])
            graphs += [attribute.g] if attribute.HasField("g") else []
            graphs += attribute.graphs
        attributes = []


def _of_sparse(tensors: Iterable[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
    for sparse in tensors:
        yield from (sparse.values, sparse.indices)


def _graph(model: onnx.ModelProto, file: Path) -> Graph:
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    inputs = [_tensor(value) for value in model.graph.input if value.name not in constants]
    outputs = [_tensor(value) for value in model.graph.output]
    if [len(given.shape) for given in inputs] != [_DIMENSIONS] or len(outputs) != 1:
        raise InputError(
            f"{printable(file.name)} does not have one input [1, 1, x, y, z] and one output [1, channels, x, y, z]"
        )
    (output,) = outputs
    if not output.shape:  # an exporter may leave the output's dimensions out
        output = Tensor(name=output.name, type=output.type, shape=(None,) * _DIMENSIONS)
    elif len(output.shape) != _DIMENSIONS:
        raise InputError(
            f"{printable(file.name)} gives an output of {len(output.shape)} dimensions, not [1, channels, x, y, z]"
        )
    return Graph(input=inputs[0], output=output)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    # A dimension that has a name, or nothing, or no length, is open.
    shape = tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim)
    return Tensor(name=value.name, type=_type(value.type), shape=shape)


def _type(kind: onnx.TypeProto) -> str:
    """Name the type of a tensor's numbers; of what is no tensor, what it is."""
    which = kind.WhichOneof("value")
    if which not in {None, "tensor_type"}:
        return str(which).removesuffix("_type").upper()
    number = kind.tensor_type.elem_type
    known = onnx.TensorProto.DataType.values()
    return onnx.TensorProto.DataType.Name(number) if number in known else f"the unknown type {number}"
