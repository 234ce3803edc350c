"""KServe v2's messages for gRPC: what of `grpc_service.proto` and `model_config.proto` this client uses.

They are described here instead of being generated: generated code holds the whole program to one version of protobuf.
Numbers are the protocol's own. A map is, on the wire, a list of pairs, and is described as that.
"""

from __future__ import annotations

from functools import cache
from typing import Any

_PACKAGE = "clara_wf.kserve"
#: Message: field: (number, type); a type in brackets is repeated.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Empty": {},
    "ServerMetadata": {"name": (1, "string"), "version": (2, "string")},
    "ModelName": {"name": (1, "string"), "version": (2, "string")},
    "TensorMetadata": {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "[int64]")},
    "ModelMetadata": {"name": (1, "string"), "inputs": (4, "[TensorMetadata]"), "outputs": (5, "[TensorMetadata]")},
    "ConfigText": {"string_value": (1, "string")},
    "ConfigParameter": {"key": (1, "string"), "value": (2, "ConfigText")},
    "Config": {"max_batch_size": (4, "int32"), "parameters": (14, "[ConfigParameter]"), "backend": (17, "string")},
    "ModelConfig": {"config": (1, "Config")},
    "ModelIndex": {"name": (1, "string"), "version": (2, "string"), "state": (3, "string"), "reason": (4, "string")},
    "RepositoryIndex": {"models": (1, "[ModelIndex]")},
    "RepositoryModelLoad": {"model_name": (2, "string")},
    "Region": {"name": (1, "string"), "key": (2, "string"), "offset": (3, "uint64"), "byte_size": (4, "uint64")},
    "RegionEntry": {"key": (1, "string"), "value": (2, "Region")},
    "Regions": {"regions": (1, "[RegionEntry]")},
    "RegionName": {"name": (1, "string")},
    "Parameter": {"int64_param": (2, "int64"), "string_param": (3, "string")},
    "ParameterEntry": {"key": (1, "string"), "value": (2, "Parameter")},
    "InputTensor": {
        "name": (1, "string"),
        "datatype": (2, "string"),
        "shape": (3, "[int64]"),
        "parameters": (4, "[ParameterEntry]"),
    },
    "RequestedOutput": {"name": (1, "string"), "parameters": (2, "[ParameterEntry]")},
    "ModelInfer": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "inputs": (5, "[InputTensor]"),
        "outputs": (6, "[RequestedOutput]"),
        "raw_input_contents": (7, "[bytes]"),
    },
    "OutputTensor": {
        "name": (1, "string"),
        "datatype": (2, "string"),
        "shape": (3, "[int64]"),
        "parameters": (4, "[ParameterEntry]"),
    },
    "ModelInferred": {"outputs": (5, "[OutputTensor]"), "raw_output_contents": (6, "[bytes]")},
}
#: Method: what it takes, what it gives.
METHODS: dict[str, tuple[str, str]] = {
    "ServerMetadata": ("Empty", "ServerMetadata"),
    "ModelMetadata": ("ModelName", "ModelMetadata"),
    "ModelConfig": ("ModelName", "ModelConfig"),
    "RepositoryIndex": ("Empty", "RepositoryIndex"),
    "RepositoryModelLoad": ("RepositoryModelLoad", "Empty"),
    "SystemSharedMemoryStatus": ("Empty", "Regions"),
    "SystemSharedMemoryRegister": ("Region", "Empty"),
    "SystemSharedMemoryUnregister": ("RegionName", "Empty"),
    "ModelInfer": ("ModelInfer", "ModelInferred"),
}


@cache
def message(name: str) -> Any:  # noqa: ANN401 - a class that protobuf makes at run time
    """Return the class of a message."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> Any:  # noqa: ANN401 - protobuf is published without types
    from google.protobuf import descriptor_pb2, descriptor_pool

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="clara_wf/kserve.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        for field, (number, form) in fields.items():
            kind = form.strip("[]")
            label = kinds.LABEL_REPEATED if form.startswith("[") else kinds.LABEL_OPTIONAL
            described = made.field.add(name=field, number=number, label=label)
            if kind in _MESSAGES:
                described.type, described.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                described.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
