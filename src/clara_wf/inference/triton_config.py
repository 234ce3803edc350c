"""A model's `config.pbtxt`: what Triton has to know of it.

Names and shapes are those of the ONNX graph. What a client has to know beside them stands among the parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from clara_wf.inference.description import ModelDescription
from clara_wf.inference.onnx_file import Graph, Tensor
from clara_wf.model.errors import UsageError

Backend = Literal["python", "onnxruntime", "tensorrt"]
Precision = Literal["auto", "f32", "bf16", "f16"]

#: A second output of the Python backend: what computed, for the record.
ENGINE = "engine"
_FLOAT = "TYPE_FP32"
#: From ONNX's names of number types to Triton's.
_TYPES = {"FLOAT": _FLOAT, "FLOAT16": "TYPE_FP16", "BFLOAT16": "TYPE_BF16", "DOUBLE": "TYPE_FP64"}


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a model is served."""

    backend: Backend = "python"  # python: OpenVINO on the processor, as the stages have it; the others want a GPU
    instances: int = 1  # how many requests it works on at once; each takes memory of its own
    max_batch: int = 1  # windows in a request, where the graph leaves their number open
    queue_delay_us: int | None = None  # how long a request waits for others to go with it; None: not at all
    precision: Precision | None = None  # None: what the model's description says


def config_text(name: str, description: ModelDescription, sha256: str, graph: Graph, serving: Serving) -> str:
    """Return the text of `config.pbtxt`.

    Parameters
    ----------
    name : str
        The model's folder.
    description : ModelDescription
        How the network is used.
    sha256 : str
        Of its ONNX file.
    graph : Graph
        Its input and output.
    serving : Serving
        How it is to be served.

    Raises
    ------
    UsageError
        This network or this backend cannot be served so.
    """
    precision = serving.precision or description.precision
    _check(name, graph, serving, precision)
    # Empty where it depends on the image: then the first request compiles.
    size = "x".join(map(str, description.usual_window or ()))
    parameters = {"sha256": sha256, "precision": precision, "window": size, "version": description.version}
    lines = [
        "# Written by clara-wf; change it by: clara-wf model configure",
        f"name: {_text(name)}",
        f"backend: {_text(serving.backend)}",
        f"max_batch_size: {serving.max_batch if _is_batched(graph) else 0}",
        f"input [ {_end(graph.input, graph, serving)} ]",
        f"output [ {', '.join(_outputs(graph, serving))} ]",
        f"instance_group [ {{ kind: {_KINDS[serving.backend]} count: {serving.instances} }} ]",
        *_batching(serving),
        *_acceleration(serving, precision),
        *_warmup(description, graph, serving),
        *(
            f"parameters {{ key: {_text(key)} value {{ string_value: {_text(text)} }} }}"
            for key, text in parameters.items()
        ),
    ]
    return "\n".join(lines) + "\n"


#: ONNX Runtime computes on a processor where there is no GPU.
_KINDS = {"python": "KIND_CPU", "onnxruntime": "KIND_AUTO", "tensorrt": "KIND_GPU"}


def _check(name: str, graph: Graph, serving: Serving, precision: str) -> None:
    if serving.max_batch > 1 and not _is_batched(graph):
        raise UsageError(
            f"the network of {name} takes one window at a time: its first dimension is {graph.input.shape[0]}",
            remedy="Leave --max-batch at 1, or save the ONNX file with a symbolic first dimension",
        )
    if serving.backend == "python" and serving.queue_delay_us is not None:
        raise UsageError(
            "a processor computes one window after the other, so requests would wait for nothing",
            remedy="Leave --queue-delay out, or add --backend onnxruntime or --backend tensorrt",
        )
    if serving.queue_delay_us is not None and serving.max_batch == 1:
        raise UsageError("requests that are not batched need not wait for others", remedy="Add --max-batch")
    if serving.backend == "python" and precision == "f16":
        raise UsageError("f16 is computed on a GPU", remedy="Add --backend onnxruntime or --backend tensorrt")
    if serving.backend != "python" and serving.precision == "bf16":
        raise UsageError(f"the backend {serving.backend} does not compute bf16", remedy="Say --precision f16 or f32")


def _outputs(graph: Graph, serving: Serving) -> Iterator[str]:
    yield _end(graph.output, graph, serving)
    if serving.backend == "python" and ENGINE not in {graph.input.name, graph.output.name}:
        yield f"{{ name: {_text(ENGINE)} data_type: TYPE_STRING dims: [ 1 ] }}"


def _end(tensor: Tensor, graph: Graph, serving: Serving) -> str:
    # The Python backend converts; others take and give what the graph has.
    kind = _FLOAT if serving.backend == "python" else _type(tensor)
    dims = [-1 if length is None else length for length in tensor.shape]
    return f"{{ name: {_text(tensor.name)} data_type: {kind} dims: {dims[1:] if _is_batched(graph) else dims} }}"


def _is_batched(graph: Graph) -> bool:
    """Whether the number of windows is left open."""
    return graph.input.shape[0] is None


def _type(tensor: Tensor) -> str:
    return _TYPES.get(tensor.type, _FLOAT)


def _batching(serving: Serving) -> Iterator[str]:
    if serving.queue_delay_us is not None:
        yield f"dynamic_batching {{ max_queue_delay_microseconds: {serving.queue_delay_us} }}"


def _acceleration(serving: Serving, precision: str) -> Iterator[str]:
    if serving.backend == "onnxruntime" and precision == "f16":
        mode = 'parameters { key: "precision_mode" value: "FP16" }'
        accelerator = f'gpu_execution_accelerator [ {{ name: "tensorrt" {mode} }} ]'
        yield f"optimization {{ execution_accelerators {{ {accelerator} }} }}"


def _warmup(description: ModelDescription, graph: Graph, serving: Serving) -> Iterator[str]:
    """Let the first request find a network that was run once. Of Python, `model.py` sees to it."""
    if serving.backend == "python" or description.usual_window is None:
        return
    window = [graph.input.shape[1] or 1, *description.usual_window]
    dims = window if _is_batched(graph) else [graph.input.shape[0], *window]
    tensor = f"data_type: {_type(graph.input)} dims: {dims} zero_data: true"
    inputs = f"inputs {{ key: {_text(graph.input.name)} value {{ {tensor} }} }}"
    yield f'model_warmup [ {{ name: "window" batch_size: 1 {inputs} }} ]'


def _text(text: str) -> str:
    """Quote a text for protobuf's text format, which escapes as JSON does."""
    return json.dumps(text, ensure_ascii=False)
