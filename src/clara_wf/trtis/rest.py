"""What a server is asked over HTTP, always on this machine."""

from __future__ import annotations

import http.client
import json
from typing import Any

from clara_wf.model.errors import ClaraError
from clara_wf.trtis.log import remedy_for

#: Not urllib: it would send a request to this machine through the proxy that the environment names.
_HOST = "127.0.0.1"
_TIMEOUT_S = 10
#: For a server that has nothing to do but to say that it is there.
_PATIENCE_S = 5


class ServerSilent(ClaraError):
    """The server does not answer."""


class ServerRefused(ClaraError):
    """The server answers that it cannot, or will not."""


def is_live(port: int, *, timeout_s: float = 2) -> bool:
    """Say whether a server answers there in time.

    Raises
    ------
    ServerRefused
        It answers that it does not live: it could not start.
    """
    try:
        ask(port, "GET", "/v2/health/live", timeout_s=timeout_s)
    except ServerSilent:
        return False
    return True


def check_answers(port: int) -> None:
    """Check that a server that is there answers: what takes long is asked only then.

    Raises
    ------
    ServerSilent
        It does not.
    """
    if not is_live(port, timeout_s=_PATIENCE_S):
        raise ServerSilent(
            f"the inference server on port {port} is there, but does not answer within {_PATIENCE_S} s",
            remedy="See: clara-wf trtis log. To start it again: clara-wf uninstall_trtis, then install_trtis",
        )


def ask_json(port: int, method: str, path: str, body: Any = None, *, timeout_s: float = _TIMEOUT_S) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Send a request with JSON, and return the JSON of the answer; None for an empty one.

    Raises
    ------
    ServerSilent
        It does not answer.
    ServerRefused
        It says why not; that is in the message.
    """
    answer = ask(port, method, path, b"" if body is None else json.dumps(body).encode(), timeout_s=timeout_s)
    return json.loads(answer) if answer.strip() else None


def ask(port: int, method: str, path: str, body: bytes = b"", *, timeout_s: float = _TIMEOUT_S) -> bytes:
    """Send a request and return the answer.

    Raises
    ------
    ServerSilent
        It does not answer.
    ServerRefused
        It says why not; that is in the message.
    """
    connection = http.client.HTTPConnection(_HOST, port, timeout=timeout_s)
    try:
        connection.request(method, path, body=body)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as exc:
        raise ServerSilent(f"the server on port {port} does not answer", remedy="See: clara-wf trtis log") from exc
    finally:
        connection.close()
    if response.status != http.client.OK:
        reason = _reason(answer)
        raise ServerRefused(f"the server on port {port} answers {response.status}: {reason}", remedy=remedy_for(reason))
    return answer


def _reason(answer: bytes) -> str:
    text = answer.decode(errors="replace").strip()
    try:
        content = json.loads(text)
    except ValueError:
        return text
    return str(content.get("error", text)) if isinstance(content, dict) else text
