"""What the server serves, and how it went so far: its index, its configurations and its metrics side by side."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from clara_wf.trtis.metrics import Counters, parse
from clara_wf.trtis.rest import ask, ask_json
from clara_wf.trtis.state import Server

_READY = "READY"
_UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """One version of a model, as the server has it."""

    name: str
    version: str  # empty where it never came to a version
    state: str  # READY, UNAVAILABLE, LOADING or UNLOADING
    reason: str  # why it is not READY

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked."""
        return self.state == _READY

    @property
    def is_loading(self) -> bool:
        """Whether its fate is still open."""
        return self.state not in {_READY, _UNAVAILABLE}


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One version of a model, with its figures."""

    model: ModelState
    backend: str  # empty where it is not served
    counters: Counters | None  # None: the server has none of it


def model_states(server: Server) -> list[ModelState]:
    """Ask the server for its models.

    Raises
    ------
    ServerSilent
        It does not answer.
    """
    entries = ask_json(server.port, "POST", "/v2/repository/index") or []
    states = [
        ModelState(
            name=entry["name"],
            version=str(entry.get("version", "")),
            state=entry.get("state") or _UNAVAILABLE,
            reason=_reason(entry),
        )
        for entry in entries
        # An installation that is not finished.
        if not entry["name"].startswith(".")
    ]
    return sorted(states, key=lambda state: (state.name, state.version))


def _reason(entry: dict[str, str]) -> str:
    """Say why a model is not served, without the way through the code to it."""
    reason = entry.get("reason", "").split("\n\nAt:")[0]
    if not reason and entry.get("state") != _READY:
        return "its folder has no config.pbtxt that can be read"
    return " ".join(reason.split())


def model_rows(server: Server) -> list[ModelRow]:
    """Ask the server for its models and their figures.

    Raises
    ------
    ServerSilent
        It does not answer.
    """
    counters = parse(ask(server.port + 2, "GET", "/metrics").decode())
    return [
        ModelRow(
            model=state,
            backend=_backend(server, state) if state.is_ready else "",
            counters=counters.get((state.name, state.version)),
        )
        for state in model_states(server)
    ]


def _backend(server: Server, state: ModelState) -> str:
    config = ask_json(server.port, "GET", f"/v2/models/{quote(state.name)}/versions/{state.version}/config")
    return str(config.get("backend") or config.get("platform", ""))


def load_model(server: Server, name: str, *, timeout_s: float = 600) -> None:
    """Have the server load a model that is new, or again after its configuration changed.

    Raises
    ------
    ServerSilent
        It does not answer.
    ServerRefused
        It cannot serve it; the reason is in the message.
    """
    ask_json(server.port, "POST", f"/v2/repository/models/{quote(name)}/load", {}, timeout_s=timeout_s)
