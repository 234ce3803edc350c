"""What the server serves, and how it went so far: its index, its configurations and its metrics side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from clara_wf.trtis.log import remedy_for
from clara_wf.trtis.metrics import Counters, parse
from clara_wf.trtis.repository import fault_of, has_configuration, whole_models
from clara_wf.trtis.rest import ServerRefused, ask, ask_json, check_answers
from clara_wf.trtis.state import Server

_READY = "READY"
_UNAVAILABLE = "UNAVAILABLE"
#: Triton has no word for a model that nobody has asked for.
_NOT_LOADED = "NOT LOADED"


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """One version of a model, as the server has it."""

    name: str
    version: str  # empty where it never came to a version
    state: str  # READY, UNAVAILABLE, LOADING, UNLOADING or NOT LOADED
    reason: str  # why it is not READY

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked."""
        return self.state == _READY

    @property
    def is_loading(self) -> bool:
        """Whether its fate is still open."""
        return self.state not in {_READY, _UNAVAILABLE, _NOT_LOADED}


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
    try:
        entries = ask_json(server.port, "POST", "/v2/repository/index") or []
    except ServerRefused:
        if not server.models.is_dir():
            raise
        # One link that leads nowhere, and it lists nothing.
        return _states_by_folder(server)
    states = [
        _state(server, entry)
        for entry in entries
        # An installation that is not finished.
        if not entry["name"].startswith(".")
    ]
    return sorted(states, key=lambda state: (state.name, state.version))


def _states_by_folder(server: Server) -> list[ModelState]:
    """Ask the server for each model that lies there."""
    found = []
    for name in whole_models(server.models):
        versions = sorted(path.name for path in (server.models / name).iterdir() if path.name.isdigit())
        ready = [version for version in versions if _is_ready(server, name, version)]
        found += [ModelState(name=name, version=version, state=_READY, reason="") for version in ready]
        if not ready:
            found.append(_state(server, {"name": name}))
    return found


def _is_ready(server: Server, name: str, version: str) -> bool:
    try:
        ask(server.port, "GET", f"/v2/models/{quote(name)}/versions/{version}/ready")
    except ServerRefused:
        return False
    return True


def _state(server: Server, entry: dict[str, str]) -> ModelState:
    """Make the state of an entry of the server's index."""
    name, state = entry["name"], entry.get("state", "")
    # Without the way through the code to it.
    reason = " ".join(entry.get("reason", "").split("\n\nAt:")[0].split())
    remedy = remedy_for(reason)
    if remedy is not None:
        reason = f"{reason.rstrip('.')}. {remedy}"
    if not state or (not reason and state == _UNAVAILABLE):
        state, reason = _never_loaded(server.models / name, asked=name in server.asked)
    return ModelState(name=name, version=str(entry.get("version", "")), state=state, reason=reason)


def _never_loaded(folder: Path, *, asked: bool) -> tuple[str, str]:
    """Return the state of a model of which the server knows nothing but its name, and why it is so."""
    if not has_configuration(folder):
        return _UNAVAILABLE, "its folder has no config.pbtxt that can be read"
    fault = fault_of(folder)
    if fault is not None:
        return _UNAVAILABLE, fault
    if asked:
        return _UNAVAILABLE, "the server cannot make use of its config.pbtxt. See: clara-wf trtis log"
    return _NOT_LOADED, "not loaded yet: the first request loads it"


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
    check_answers(server.port)
    ask_json(server.port, "POST", f"/v2/repository/models/{quote(name)}/load", {}, timeout_s=timeout_s)
