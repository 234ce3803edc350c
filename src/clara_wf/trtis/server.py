"""Starting the server and ending it.

It is a process of its own, in a session of its own: it outlives the command that started it, and no Ctrl-C reaches it.
What it prints goes to a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import psutil

from clara_wf.model.errors import ClaraError, UsageError
from clara_wf.model.filelock import locked
from clara_wf.trtis.environment import Environment
from clara_wf.trtis.log import Progress, last_words, remedy_for
from clara_wf.trtis.repository import faults, whole_models
from clara_wf.trtis.rest import ServerRefused, ServerSilent, ask_json, check_answers, is_live
from clara_wf.trtis.state import (
    LOG_FILE,
    Say,
    Server,
    birth,
    check_here,
    clear,
    clear_stale,
    find_server,
    is_running,
    new_regions,
    whereabouts,
    write_state,
)
from clara_wf.trtis.status import ModelState, model_states

DEFAULT_PORT = 8000
#: Compiling a large network takes seconds; a repository holds a handful.
_START_TIMEOUT_S = 600
#: How long the server itself waits for requests that it works on, once asked to end.
_EXIT_TIMEOUT_S = 20
#: How long a server that did not get ready is waited for: it works on nothing, and while it loads it does not listen.
_ABANDON_S = 3
_POLL_S = 0.1


def start(
    folder: Path,
    environment: Environment,
    models: Path,
    *,
    port: int = DEFAULT_PORT,
    say: Say = lambda _: None,
    timeout_s: float = _START_TIMEOUT_S,
) -> Server:
    """Start the server and wait until it serves, or cannot serve, each model.

    One that runs already is left alone. What cannot be served is said, and hinders no other model.

    Parameters
    ----------
    folder : Path
        For its state and its log.
    environment : Environment
        What it runs in.
    models : Path
        The model repository.
    port : int
        Of HTTP; gRPC and the metrics have the next two.
    say : callable
        Told in words what happens.
    timeout_s : float
        When to give up.

    Raises
    ------
    UsageError
        A port is taken, the server runs already on another port or machine, or there is no such repository.
    ServerSilent
        One runs already, but does not answer.
    ClaraError
        It ended, or did not get ready in time. Then nothing of it is left.
    """
    if not models.is_dir():
        raise UsageError(f"there is no folder {models} with models")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, say):
        running = _find(folder, port, say, timeout_s)
        if running is not None:
            return running
        clear_stale(folder, say)
        _check_ports(port)
        for fault in faults(models):
            say(fault)
        server = _launch(folder, environment, models.resolve(), port)
        return _wait_or_end(folder, server, say, timeout_s)


def attend(
    folder: Path, port: int | None = None, *, say: Say = lambda _: None, timeout_s: float = _START_TIMEOUT_S
) -> Server | None:
    """Return the server that runs, once it serves its models; None where none runs.

    Raises
    ------
    UsageError
        It has another port than the one that is asked for, or was started on another machine.
    ServerSilent
        It is there, but does not answer.
    ClaraError
        It was still starting, and ended or did not get ready in time. Then nothing of it is left.
    """
    check_here(folder)
    if find_server(folder) is None:
        return None
    with _alone(folder, say):
        return _find(folder, port, say, timeout_s)


def _find(folder: Path, port: int | None, say: Say, timeout_s: float) -> Server | None:
    """Look for a server that runs; whoever started one may have been killed before it was ready."""
    running = find_server(folder)
    if running is None:
        return None
    check_port(running, running.port if port is None else port)
    say(f"the server runs already: {running.http}, pid {running.pid}, since {running.started}")
    if not running.version:
        return _wait_or_end(folder, running, say, timeout_s)
    check_answers(running.port)
    return running


def _wait_or_end(folder: Path, server: Server, say: Say, timeout_s: float) -> Server:
    try:
        return _wait(folder, server, say, time.monotonic() + timeout_s)
    except BaseException:  # also of Ctrl-C: a server that nobody waits for is not left behind
        with contextlib.suppress(UsageError):  # but another user's, who may wait for it
            _end(folder, server, _ABANDON_S)
        raise


def check_port(running: Server, port: int) -> None:
    """Check that a server that runs has the port that is asked for.

    Raises
    ------
    UsageError
        It has another.
    """
    if running.port != port:
        raise UsageError(
            f"the server runs already, on port {running.port} and not {port}",
            remedy="Stop it first: clara-wf uninstall_trtis",
        )


def stop(folder: Path, *, say: Say = lambda _: None, timeout_s: float = _EXIT_TIMEOUT_S + 10) -> Server | None:
    """End the server, and clear away what it leaves. Return the one that ran; None where none did.

    It finishes what it works on; after `timeout_s` it is ended without being asked.

    Raises
    ------
    UsageError
        It belongs to another user, or was started on another machine.
    """
    if not folder.is_dir():
        return None
    with _alone(folder, say):
        running = find_server(folder)
        if running is not None:
            _end(folder, running, timeout_s)
        else:
            clear_stale(folder, say)
        return running


def _launch(folder: Path, environment: Environment, models: Path, port: int) -> Server:
    """Start the process, and write down which it is."""
    log = folder / LOG_FILE
    if log.exists():
        log.replace(log.with_name(f"{LOG_FILE}.1"))
    regions, asked = new_regions(), tuple(whole_models(models))
    command = [str(environment.program), *_arguments(environment, models, port, regions)]
    # Not "*": with that, one thing that cannot be read keeps all models from being served.
    command += [f"--load-model={name}" for name in asked]
    to_log = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    # Between these two a server would run that nobody knows.
    with _uninterrupted():
        # Not subprocess: what it starts is its to collect, and the server is to outlive this process.
        pid = os.posix_spawn(
            environment.program,
            command,
            environment.variables(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), to_log, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
        )
        try:
            server = Server(
                pid=pid,
                birth=birth(pid) or "",
                port=port,
                models=models,
                regions=regions,
                version="",
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                asked=asked,
                **asdict(whereabouts()),
            )
            write_state(folder, server)
        except BaseException:  # the disk is full, for example
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    return server


def _arguments(environment: Environment, models: Path, port: int, regions: str) -> list[str]:
    options = {
        "model-repository": models,
        "backend-directory": environment.backends,
        "backend-config": f"python,shm-region-prefix-name={regions}",
        "http-address": "127.0.0.1",
        "http-port": port,
        "grpc-address": "127.0.0.1",
        "grpc-port": port + 1,
        "metrics-address": "127.0.0.1",
        "metrics-port": port + 2,
        # Models are loaded by name: one that is installed later waits until it is whole.
        "model-control-mode": "explicit",
        # One broken model must not take the others down, nor make the server seem out of order.
        "exit-on-error": "false",
        "strict-readiness": "false",
        "exit-timeout-secs": _EXIT_TIMEOUT_S,
        "allow-gpu-metrics": "false",
    }
    return [f"--{name}={value}" for name, value in options.items()] + ["--disable-auto-complete-config"]


def _wait(folder: Path, server: Server, say: Say, deadline: float) -> Server:
    """Wait until the server answers and is done with every model; tell which it serves."""
    progress = Progress(folder / LOG_FILE, say)
    states: list[ModelState] | None = None
    # It opens its ports one by one, that of the metrics last, behind the one that answers here.
    while states is None or any(state.is_loading for state in states) or not _listens(server):
        if not is_running(server):
            raise _failure(folder, "ended while it started")
        if time.monotonic() > deadline:
            raise _failure(folder, "did not get ready in time")
        time.sleep(_POLL_S)
        progress.tell()
        try:
            states = model_states(server) if is_live(server.port) else None
        except ServerSilent:
            states = None  # it was there a moment ago: the next look tells whether it has ended
        except ServerRefused as exc:
            raise _failure(folder, "cannot start") from exc
    version = str(ask_json(server.port, "GET", "/v2")["version"])
    progress.tell()  # a model may have become ready between the last look at the log and that at the models
    for state in states:
        if not state.is_ready:
            say(f"the model {state.name} is not served: {state.reason}")
    ready = dataclasses.replace(server, version=version)
    write_state(folder, ready)
    return ready


def _listens(server: Server) -> bool:
    """Say whether the server takes connections on its three ports."""
    for port in range(server.port, server.port + 3):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
    return True


def _failure(folder: Path, what: str) -> ClaraError:
    log = folder / LOG_FILE
    reason = last_words(log)
    remedies = (remedy_for(reason), f"Its log: {log}")
    return ClaraError(f"the inference server {what}: {reason}", remedy=". ".join(filter(None, remedies)))


def _end(folder: Path, server: Server, timeout_s: float) -> None:
    """Ask a server to end, and end it if it does not; then clear away what it leaves.

    Raises
    ------
    UsageError
        It belongs to another user.
    """
    try:
        process = psutil.Process(server.pid)
        processes = [process, *process.children(recursive=True)] if is_running(server) else []
        if processes:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout_s)
    except psutil.AccessDenied as exc:
        raise UsageError("the inference server belongs to another user", remedy="Let its owner stop it") from exc
    except psutil.NoSuchProcess:
        processes = []
    except psutil.TimeoutExpired:
        for each in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()  # psutil looks whether the id is still the same process's
        psutil.wait_procs(processes, timeout=10)
    clear(folder, server)


def _check_ports(port: int) -> None:
    """Check that nobody listens on the three ports."""
    for number, what in ((port, "HTTP"), (port + 1, "gRPC"), (port + 2, "metrics")):
        with socket.socket() as probe:
            # As the server does: a port that was just given back counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
            except OSError as exc:
                raise UsageError(
                    f"port {number} ({what}) is not free: {exc.strerror}",
                    remedy="Name the first of three others: --port",
                ) from exc


def _alone(folder: Path, say: Say) -> AbstractContextManager[None]:
    """Let one process at a time start or stop the server."""
    return locked(
        folder / ".server.lock", waiting=lambda: say("waiting for another command that starts or stops the server")
    )


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and the end of the terminal wait for the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
