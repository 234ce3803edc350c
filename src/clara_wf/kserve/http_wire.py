"""KServe v2 over HTTP.

Each question has a connection of its own: on one machine that costs nothing beside a network's work, and no connection
can have died between two volumes. Windows are sent from where they lie, and answers read to where they stay.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clara_wf.kserve.address import Address
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

_HEADER = "Inference-Header-Content-Length"
#: Bytes of JSON that are read: whoever listens might never end.
_LONGEST = 2**26
#: Seconds for a connection to be made.
_CONNECTING = 5.0
#: A peer whose machine is gone sends nothing, not even an end: it is asked for a sign of life after so many seconds, at
#: intervals of so many, so many times.
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4))


@dataclass(frozen=True, kw_only=True)
class _Response:
    """A whole answer."""

    status: int
    head: Any  # its JSON
    body: NDArray[np.uint8]  # what follows the JSON


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
        response = self._request("GET", "/v2", patience=patience)
        if response.status >= 500:
            raise ServerGone(f"the inference server {self._address} is not ready (HTTP status {response.status})")
        if response.status != 200 or not isinstance(response.head, dict) or "version" not in response.head:
            raise ForeignServer(f"{self._address} speaks HTTP, but is no inference server")
        return str(response.head["version"])

    def index(self) -> list[IndexEntry]:
        """Return all models of the server's repository."""
        return [
            IndexEntry(**{name: str(entry.get(name, "")) for name in ("name", "version", "state", "reason")})
            for entry in self._ask("POST", "/v2/repository/index")
        ]

    def model(self, name: str, version: str) -> ServedModel:
        """Describe a model that is ready."""
        path = f"/v2/models/{name}/versions/{version}"
        said, config = self._ask("GET", path), self._ask("GET", f"{path}/config")
        return ServedModel(
            inputs=_types(said["inputs"]),
            outputs=_types(said["outputs"]),
            max_batch_size=int(config.get("max_batch_size", 0)),
            backend=str(config.get("backend", "")),
            parameters={key: str(value.get("string_value", "")) for key, value in config.get("parameters", {}).items()},
        )

    def load(self, name: str, patience: float) -> None:
        """Have a model loaded, or loaded again."""
        self._ask("POST", f"/v2/repository/models/{name}/load", patience=patience)

    def register(self, region: Region) -> None:
        """Tell the server of a region."""
        self._ask(
            "POST",
            f"/v2/systemsharedmemory/region/{region.name}/register",
            {"key": region.key, "offset": 0, "byte_size": region.size},
        )

    def unregister(self, name: str) -> None:
        """Let the server forget a region."""
        self._ask("POST", f"/v2/systemsharedmemory/region/{name}/unregister")

    def regions(self) -> Mapping[str, str]:
        """Return the keys of the regions that the server knows, by name."""
        return {str(entry["name"]): str(entry["key"]) for entry in self._ask("GET", "/v2/systemsharedmemory/status")}

    def infer(self, question: Question, patience: float) -> Answer:
        """Ask a model."""
        windows = question.windows
        outputs = [{"name": question.output, "parameters": _place(question.target) or {"binary_data": True}}]
        if question.remark:
            outputs.append({"name": question.remark, "parameters": {"binary_data": True}})
        content = {
            "inputs": [
                {
                    "name": question.input,
                    "datatype": "FP32",
                    "shape": list(windows.shape),
                    "parameters": _place(question.source, windows.nbytes) or {"binary_data_size": windows.nbytes},
                }
            ],
            "outputs": outputs,
        }
        response = self._request(
            "POST",
            f"/v2/models/{question.model}/versions/{question.version}/infer",
            content,
            () if question.source else (windows,),
            patience=patience,
        )
        if response.status != 200:
            raise self._fault(response)
        found, remark = {}, ""
        body = response.body
        for output in response.head["outputs"]:
            size = int(output.get("parameters", {}).get("binary_data_size", 0))
            found[output["name"]] = (output, body[:size])
            body = body[size:]
        if question.remark in found:
            remark = text_of(found[question.remark][1].tobytes())
        output, data = found[question.output]
        return Answer(
            datatype=str(output["datatype"]),
            shape=tuple(int(length) for length in output["shape"]),
            scores=None if question.target else data.view(np.float32),
            remark=remark,
        )

    def close(self) -> None:
        """Let go of nothing: each question's connection ends with its answer."""

    def _ask(self, method: str, path: str, content: object = None, *, patience: float = PATIENCE) -> Any:  # noqa: ANN401 - JSON
        response = self._request(method, path, content, patience=patience)
        if response.status != 200:
            raise self._fault(response)
        if response.head is None:
            raise ForeignServer(f"{self._address} does not answer as an inference server does")
        return response.head

    def _fault(self, response: _Response) -> Exception:
        """Make the error for an answer that is none."""
        head = response.head
        reason = str(head.get("error", "")) if isinstance(head, dict) else ""
        if response.status == 503:
            return ServerGone(f"the inference server {self._address} is stopping or not ready: {reason}")
        return server_fault(reason or f"HTTP status {response.status}")

    def _request(
        self, method: str, path: str, content: object = None, windows: Sequence[NDArray[Any]] = (), *, patience: float
    ) -> _Response:
        """Send a request and read the whole answer."""
        connection = http.client.HTTPConnection(self._address.host, self._address.port, timeout=_CONNECTING)
        head = b"" if content is None else json.dumps(content).encode()
        size = len(head) + sum(array.nbytes for array in windows)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE:
                connection.sock.setsockopt(socket.IPPROTO_TCP, option, value)
            connection.sock.settimeout(patience)
            connection.putrequest(method, path, skip_accept_encoding=True)
            connection.putheader("Connection", "close")
            connection.putheader("Content-Length", str(size))
            if windows:
                connection.putheader(_HEADER, str(len(head)))
            connection.endheaders(head)
            for array in windows:
                connection.send(array.data.cast("B"))
            return _read(connection.getresponse())
        except TimeoutError as exc:
            raise self._silent(exc, patience) from exc
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise self._lost(exc) from exc
        finally:
            connection.close()

    def _silent(self, exc: TimeoutError, patience: float) -> Exception:
        """Tell a server that is slow from a machine that is gone: the system says that too by a time-out."""
        if exc.errno is not None:
            return ServerGone(f"the inference server {self._address} is gone ({exc.strerror})")
        return silent(self._address, patience)

    def _lost(self, exc: Exception) -> Exception:
        """Say what became of a connection."""
        match exc:
            case http.client.RemoteDisconnected() | http.client.IncompleteRead():
                reason = "it closed the connection"
            case socket.gaierror():
                reason = "its name is not known"
            case OSError():
                reason = exc.strerror or type(exc).__name__
            case _:
                return ForeignServer(f"{self._address} does not speak HTTP as an inference server does")
        return ServerGone(f"the inference server {self._address} cannot be reached: {reason}")


def _place(region: Region | None, size: int | None = None) -> dict[str, Any]:
    """Name a region as a tensor's place; nothing if there is none."""
    if region is None:
        return {}
    return {"shared_memory_region": region.name, "shared_memory_byte_size": size or region.size}


def _types(entries: Sequence[Mapping[str, Any]]) -> tuple[TensorType, ...]:
    return tuple(
        TensorType(
            name=str(entry["name"]),
            datatype=str(entry["datatype"]),
            shape=tuple(int(length) for length in entry["shape"]),
        )
        for entry in entries
    )


def _read(response: http.client.HTTPResponse) -> _Response:
    """Read an answer: its JSON, and the bytes after it straight to where they stay."""
    length = response.getheader("Content-Length")
    head_length = response.getheader(_HEADER)
    if length is None or head_length is None:
        text = response.read(_LONGEST if length is None else min(int(length), _LONGEST))
        body = np.empty(0, np.uint8)
    else:
        text = response.read(int(head_length))
        body = np.empty(int(length) - int(head_length), np.uint8)
        view = body.data
        while view:
            count = response.readinto(view)
            if not count:
                raise http.client.IncompleteRead(b"", len(view))
            view = view[count:]
    try:
        head = json.loads(text) if text else {}
    except ValueError:
        head = None  # an error page
    return _Response(status=response.status, head=head, body=body)
