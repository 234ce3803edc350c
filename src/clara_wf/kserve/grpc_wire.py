"""KServe v2 over gRPC, by tritonclient."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from clara_wf.kserve.address import Address
from clara_wf.kserve.shared_memory import Region
from clara_wf.kserve.tensors import asked, scores_in, text_in
from clara_wf.kserve.wire import (
    PATIENCE,
    Answer,
    ForeignServer,
    IndexEntry,
    Question,
    ServedModel,
    ServerFault,
    ServerGone,
    TensorType,
    server_fault,
    silent,
)

# The library writes to standard error, which is the stage's log, and looks here when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

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
        self._connected: Any = None

    def version(self, patience: float = PATIENCE) -> str:
        """Return the server's version."""
        with self._client(patience) as client:
            return str(client.get_server_metadata(client_timeout=patience).version)

    def index(self) -> list[IndexEntry]:
        """Return all models of the server's repository."""
        with self._client() as client:
            found = client.get_model_repository_index(client_timeout=PATIENCE).models
        return [
            IndexEntry(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
            for entry in found
        ]

    def ready(self, name: str, version: str) -> bool:
        """Say whether a version of a model is ready, also where the server cannot list what it has."""
        try:
            with self._client() as client:
                return bool(client.is_model_ready(name, version, client_timeout=PATIENCE))
        except ServerFault:  # it knows no such model
            return False

    def model(self, name: str, version: str) -> ServedModel:
        """Describe a model that is ready."""
        with self._client() as client:
            said = client.get_model_metadata(name, version, client_timeout=PATIENCE)
            config = client.get_model_config(name, version, client_timeout=PATIENCE).config
        return ServedModel(
            inputs=tuple(_type(entry) for entry in said.inputs),
            outputs=tuple(_type(entry) for entry in said.outputs),
            max_batch_size=config.max_batch_size,
            backend=config.backend,
            parameters={key: value.string_value for key, value in config.parameters.items()},
        )

    def load(self, name: str, patience: float) -> None:
        """Have a model loaded, or loaded again."""
        with self._client(patience) as client:
            client.load_model(name, client_timeout=patience)

    def unload(self, name: str) -> None:
        """Have a model given up; what it works on is done first."""
        with self._client() as client:
            client.unload_model(name, client_timeout=PATIENCE)

    def register(self, region: Region) -> None:
        """Tell the server of a region."""
        with self._client() as client:
            client.register_system_shared_memory(region.name, region.key, region.size, client_timeout=PATIENCE)

    def unregister(self, name: str) -> None:
        """Let the server forget a region."""
        with self._client() as client:
            client.unregister_system_shared_memory(name, client_timeout=PATIENCE)

    def regions(self) -> Mapping[str, str]:
        """Return the keys of the regions that the server knows, by name."""
        with self._client() as client:
            found = client.get_system_shared_memory_status(client_timeout=PATIENCE).regions
        return {name: region.key for name, region in found.items()}

    def infer(self, question: Question, patience: float) -> Answer:
        """Ask a model."""
        with self._client(patience) as client:
            result = client.infer(**asked(tritonclient.grpc, question), client_timeout=patience)
        said = _type(result.get_output(question.output))
        return Answer(
            datatype=said.datatype,
            shape=said.shape,
            scores=None if question.target else scores_in(result, question.output),
            remark=text_in(result, question.remark),
        )

    def close(self) -> None:
        """Let go of the connection."""
        client, self._connected = self._connected, None
        if client is not None:
            client.close()

    @contextlib.contextmanager
    def _client(self, patience: float = PATIENCE) -> Iterator[Any]:
        """Give the client for a question, and say in our words what became of it."""
        if self._connected is None:
            self._connected = tritonclient.grpc.InferenceServerClient(str(self._address), channel_args=_OPTIONS)
        try:
            yield self._connected
        except InferenceServerException as exc:
            raise self._fault(exc, patience) from exc

    def _fault(self, exc: InferenceServerException, patience: float) -> Exception:
        """Say what became of a question."""
        reason = str(exc.message())
        match exc.status():
            case "StatusCode.DEADLINE_EXCEEDED":
                return silent(self._address, patience)
            case "StatusCode.UNAVAILABLE" if "http1.x" in reason:
                return ForeignServer(f"{self._address} speaks HTTP, not gRPC")
            case "StatusCode.UNAVAILABLE" | "StatusCode.CANCELLED":
                # The end of a chain of reasons: the beginning is gRPC's own.
                last = " ".join(reason.rsplit(": ", maxsplit=1)[-1].split())
                return ServerGone(f"the inference server {self._address} cannot be reached: {last}")
            case "StatusCode.UNIMPLEMENTED":
                return ForeignServer(f"{self._address} speaks gRPC, but is no inference server")
            case _:
                return server_fault(reason)


def _type(entry: Any) -> TensorType:  # noqa: ANN401 - messages have no static type
    return TensorType(name=entry.name, datatype=entry.datatype, shape=tuple(entry.shape))
