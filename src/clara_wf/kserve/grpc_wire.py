"""KServe v2 over gRPC."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from clara_wf.kserve.address import Address
from clara_wf.kserve.messages import METHODS, message
from clara_wf.kserve.shared_memory import Region
from clara_wf.kserve.wire import (
    PATIENCE,
    Answer,
    ForeignServer,
    IndexEntry,
    Question,
    ServedModel,
    ServerGone,
    TensorType,
    server_fault,
    silent,
    text_of,
)

_SERVICE = "/inference.GRPCInferenceService/"
_OPTIONS = (
    # gRPC takes no more than 4 MB by default.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A peer whose machine is gone is noticed. Servers take a ping in five minutes, and hang up on more.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # As over HTTP: a server is named by its own address.
    ("grpc.enable_http_proxy", 0),
    # After a restart the server is found again at once, not when a growing interval ends.
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Channels do not share connections: one that was closed is closed.
    ("grpc.use_local_subchannel_pool", 1),
)


class GrpcWire:
    """A server's gRPC port.

    Parameters
    ----------
    address : Address
        Of the server.
    """

    name = "gRPC"

    def __init__(self, address: Address) -> None:
        self._address = address
        self._channel: Any = None

    def version(self, patience: float = PATIENCE) -> str:
        """Return the server's version."""
        return str(self._call("ServerMetadata", patience=patience).version)

    def index(self) -> list[IndexEntry]:
        """Return all models of the server's repository."""
        return [
            IndexEntry(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
            for entry in self._call("RepositoryIndex").models
        ]

    def model(self, name: str, version: str) -> ServedModel:
        """Describe a model that is ready."""
        said = self._call("ModelMetadata", name=name, version=version)
        config = self._call("ModelConfig", name=name, version=version).config
        return ServedModel(
            inputs=_types(said.inputs),
            outputs=_types(said.outputs),
            max_batch_size=config.max_batch_size,
            backend=config.backend,
            parameters={entry.key: entry.value.string_value for entry in config.parameters},
        )

    def load(self, name: str, patience: float) -> None:
        """Have a model loaded, or loaded again."""
        self._call("RepositoryModelLoad", patience=patience, model_name=name)

    def register(self, region: Region) -> None:
        """Tell the server of a region."""
        self._call("SystemSharedMemoryRegister", name=region.name, key=region.key, byte_size=region.size)

    def unregister(self, name: str) -> None:
        """Let the server forget a region."""
        self._call("SystemSharedMemoryUnregister", name=name)

    def regions(self) -> Mapping[str, str]:
        """Return the keys of the regions that the server knows, by name."""
        return {entry.key: entry.value.key for entry in self._call("SystemSharedMemoryStatus").regions}

    def infer(self, question: Question, patience: float) -> Answer:
        """Ask a model."""
        windows = question.windows
        outputs = [{"name": question.output, "parameters": _place(question.target)}]
        if question.remark:
            outputs.append({"name": question.remark})
        answer = self._call(
            "ModelInfer",
            patience=patience,
            model_name=question.model,
            model_version=question.version,
            inputs=[
                {
                    "name": question.input,
                    "datatype": "FP32",
                    "shape": windows.shape,
                    "parameters": _place(question.source, windows.nbytes),
                }
            ],
            outputs=outputs,
            raw_input_contents=[] if question.source else [windows.tobytes()],
        )
        # An entry for each output, empty for one in shared memory; none at all where every one is there.
        contents = list(answer.raw_output_contents) or [b""] * len(answer.outputs)
        found = {output.name: (output, data) for output, data in zip(answer.outputs, contents, strict=True)}
        output, data = found[question.output]
        return Answer(
            datatype=output.datatype,
            shape=tuple(output.shape),
            scores=None if question.target else np.frombuffer(data, np.float32),
            remark=text_of(found[question.remark][1]) if question.remark in found else "",
        )

    def close(self) -> None:
        """Let go of the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _call(self, method: str, *, patience: float = PATIENCE, **fields: Any) -> Any:  # noqa: ANN401 - messages have no static type
        # The library writes to standard error, which is the stage's log.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc

        if self._channel is None:
            self._channel = grpc.insecure_channel(str(self._address), options=_OPTIONS)
        given, taken = METHODS[method]
        call = self._channel.unary_unary(
            _SERVICE + method,
            request_serializer=message(given).SerializeToString,
            response_deserializer=message(taken).FromString,
        )
        try:
            return call(message(given)(**fields), timeout=patience)
        except grpc.RpcError as exc:
            raise self._fault(exc, patience) from exc

    def _fault(self, exc: Any, patience: float) -> Exception:  # noqa: ANN401 - see above
        """Say what became of a call."""
        import grpc

        match exc.code():
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return silent(self._address, patience)
            case grpc.StatusCode.UNAVAILABLE if "http1.x" in str(exc.details()):
                return ForeignServer(f"{self._address} speaks HTTP, not gRPC")
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                return ServerGone(f"the inference server {self._address} cannot be reached: {_reason(exc)}")
            case grpc.StatusCode.UNIMPLEMENTED:
                return ForeignServer(f"{self._address} speaks gRPC, but is no inference server")
            case _:
                return server_fault(str(exc.details()))


def _reason(exc: Any) -> str:  # noqa: ANN401 - see above
    """Take the end of a chain of reasons: the beginning is gRPC's own."""
    return " ".join(str(exc.details()).rsplit(": ", maxsplit=1)[-1].split())


def _place(region: Region | None, size: int | None = None) -> list[dict[str, Any]]:
    """Name a region as a tensor's place; nothing if there is none."""
    if region is None:
        return []
    return [
        {"key": "shared_memory_region", "value": {"string_param": region.name}},
        {"key": "shared_memory_byte_size", "value": {"int64_param": size or region.size}},
    ]


def _types(entries: Any) -> tuple[TensorType, ...]:  # noqa: ANN401 - see above
    return tuple(TensorType(name=entry.name, datatype=entry.datatype, shape=tuple(entry.shape)) for entry in entries)
