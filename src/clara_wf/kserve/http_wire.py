"""KServe v2 over HTTP, by tritonclient.

Each question has a client and with it a connection of its own: a client's time-out is its connection's, and no
connection can have died between two volumes. On one machine that costs nothing beside a network's work. tritonclient
works on gevent's sockets; nothing of Python's own is patched for that.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gevent
import gevent.socket
import tritonclient.http
from geventhttpclient.response import HTTPParseError
from tritonclient.utils import InferenceServerException

from clara_wf.kserve.address import Address
from clara_wf.kserve.shared_memory import Region
from clara_wf.kserve.tensors import asked, scores_in, text_in
from clara_wf.kserve.wire import (
    LIMIT,
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
)

#: Seconds for a connection to be made.
_CONNECTING = 5.0
#: Bytes that are read at once. By geventhttpclient's own 4 KiB, a large answer takes half as long again.
_BLOCK = 2**18
#: Bytes of an answer that holds no scores, at most.
_SMALL = 2**26
#: A peer whose machine is gone sends nothing, not even an end: it is asked for a sign of life after so many seconds, at
#: intervals of so many, so many times.
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4))
#: The parser's number for an answer that ends too early.
_ENDED = 14
#: What tritonclient says where an error's body is not Triton's.
_NO_REASON = "an exception occurred in the client"


class HttpWire:
    """A server's HTTP port.

    Parameters
    ----------
    address : Address
        Of the server.
    """

    name = "HTTP"

    def __init__(self, address: Address) -> None:
        self._address = address

    def version(self, patience: float = PATIENCE) -> str:
        """Return the server's version."""
        # Whoever listens may be no inference server at all: no words of his are quoted.
        stranger = ForeignServer(f"{self._address} speaks HTTP, but is no inference server")
        with self._client(patience) as client:
            try:
                said = client.get_server_metadata()
            except InferenceServerException as exc:
                if str(exc.status()) >= "500":
                    reason = f"is not ready (HTTP status {exc.status()})"
                    raise ServerGone(f"the inference server {self._address} {reason}") from exc
                raise stranger from exc
        if not isinstance(said, dict) or "version" not in said:
            raise stranger
        return str(said["version"])

    def index(self) -> list[IndexEntry]:
        """Return all models of the server's repository."""
        with self._client() as client:
            return [
                IndexEntry(**{name: str(entry.get(name, "")) for name in ("name", "version", "state", "reason")})
                for entry in client.get_model_repository_index()
            ]

    def ready(self, name: str, version: str) -> bool:
        """Say whether a version of a model is ready, also where the server cannot list what it has."""
        with self._client() as client:
            return bool(client.is_model_ready(name, version))

    def model(self, name: str, version: str) -> ServedModel:
        """Describe a model that is ready."""
        with self._client() as client:
            said, config = client.get_model_metadata(name, version), client.get_model_config(name, version)
            settings = config.get("parameters", {})
            return ServedModel(
                inputs=tuple(_type(entry) for entry in said["inputs"]),
                outputs=tuple(_type(entry) for entry in said["outputs"]),
                max_batch_size=int(config.get("max_batch_size", 0)),
                backend=str(config.get("backend", "")),
                parameters={key: str(value.get("string_value", "")) for key, value in settings.items()},
            )

    def load(self, name: str, patience: float) -> None:
        """Have a model loaded, or loaded again."""
        with self._client(patience) as client:
            client.load_model(name)

    def unload(self, name: str) -> None:
        """Have a model given up; what it works on is done first."""
        with self._client() as client:
            client.unload_model(name)

    def register(self, region: Region) -> None:
        """Tell the server of a region."""
        with self._client() as client:
            client.register_system_shared_memory(region.name, region.key, region.size)

    def unregister(self, name: str) -> None:
        """Let the server forget a region."""
        with self._client() as client:
            client.unregister_system_shared_memory(name)

    def regions(self) -> Mapping[str, str]:
        """Return the keys of the regions that the server knows, by name."""
        with self._client() as client:
            return {str(entry["name"]): str(entry["key"]) for entry in client.get_system_shared_memory_status()}

    def infer(self, question: Question, patience: float) -> Answer:
        """Ask a model."""
        with self._client(patience, limit=_SMALL if question.target is not None else LIMIT) as client:
            result = client.infer(**asked(tritonclient.http, question))
            said = _type(result.get_output(question.output))
            return Answer(
                datatype=said.datatype,
                shape=said.shape,
                scores=None if question.target else scores_in(result, question.output),
                remark=text_in(result, question.remark),
            )

    def close(self) -> None:
        """Let go of nothing: each question's connection ends with its answer."""

    @contextlib.contextmanager
    def _client(self, patience: float = PATIENCE, *, limit: int = _SMALL) -> Iterator[Any]:
        """Give a client for one question, and say in our words what became of it."""
        # What a signal's handler raises is raised here, but gevent prints it too, into the stage's log.
        gevent.get_hub().exception_stream = None
        client = tritonclient.http.InferenceServerClient(
            str(self._address), connection_timeout=_CONNECTING, network_timeout=patience
        )
        # geventhttpclient can do both, but tritonclient does not hand them on.
        transport = client._client_stub  # noqa: SLF001
        transport.block_size = _BLOCK
        pool = transport._connection_pool  # noqa: SLF001
        pool.after_connect = _keep_alive
        pool._create_tcp_socket = functools.partial(_LimitedSocket, limit)  # noqa: SLF001
        try:
            # The client's own time-out is for each piece of an answer, which may have no end.
            with gevent.Timeout(patience, TimeoutError()):
                yield client
        except InferenceServerException as exc:
            raise self._fault(exc) from exc
        except TimeoutError as exc:
            raise self._silent(exc, patience) from exc
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise self._lost(exc) from exc
        except (AttributeError, LookupError, TypeError) as exc:
            # JSON of another form than is read here, or by tritonclient.
            raise ForeignServer(f"{self._address} does not answer as an inference server does") from exc
        finally:
            client.close()

    def _fault(self, exc: InferenceServerException) -> Exception:
        """Make the error for an answer that is none."""
        status, reason = exc.status(), str(exc.message())
        if reason.startswith(_NO_REASON):
            reason = f"HTTP status {status}"
        if status == "503":
            return ServerGone(f"the inference server {self._address} is stopping or not ready: {reason}")
        return server_fault(reason)

    def _silent(self, exc: TimeoutError, patience: float) -> Exception:
        """Tell a server that is slow from a machine that is gone: the system says that too by a time-out."""
        if exc.errno is not None:
            return ServerGone(f"the inference server {self._address} is gone ({exc.strerror})")
        return silent(self._address, patience)

    def _lost(self, exc: Exception) -> Exception:
        """Say what became of a connection."""
        match exc:
            case HTTPParseError() if _is_end(exc):
                reason = "it closed the connection"
            case socket.gaierror():
                reason = "its name is not known"
            case OSError():
                reason = exc.strerror or type(exc).__name__
            case _:
                return ForeignServer(f"{self._address} does not speak HTTP as an inference server does")
        return ServerGone(f"the inference server {self._address} cannot be reached: {reason}")


class _LimitedSocket(gevent.socket.socket):  # type: ignore[misc]  # published without types
    """A connection on which no more than so many bytes come: tritonclient reads an answer to its end, if it has one."""

    def __init__(self, limit: int, *arguments: Any) -> None:  # noqa: ANN401 - those of a socket
        super().__init__(*arguments)
        self._left = limit

    def recv(self, size: int, *arguments: Any) -> bytes:  # noqa: ANN401 - those of a socket
        """Receive a piece; what a server says of its length is not believed."""
        piece: bytes = super().recv(min(size, _BLOCK), *arguments)
        self._left -= len(piece)
        if self._left < 0:
            raise ValueError("the answer is too long")
        return piece


def _keep_alive(connection: socket.socket) -> None:
    """Have the system find out whether the peer's machine is still there."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _is_end(exc: Exception) -> bool:
    """Say whether an answer, or its absence, is that the connection was closed: the rest has the parser's number."""
    return len(exc.args) < 2 or exc.args[1] == _ENDED


def _type(entry: Mapping[str, Any]) -> TensorType:
    shape: Sequence[Any] = entry["shape"]
    return TensorType(
        name=str(entry["name"]), datatype=str(entry["datatype"]), shape=tuple(int(length) for length in shape)
    )
