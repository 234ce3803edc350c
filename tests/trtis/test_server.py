"""The server's life: started, found, ended, however it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from served_code import wait_until
from triton_server import ECHO, LOCK, free_port, handmade, running

from clara_wf.model.errors import ClaraError, UsageError
from clara_wf.trtis.environment import Environment, prepare
from clara_wf.trtis.rest import ServerSilent, is_live
from clara_wf.trtis.server import attend, start, stop
from clara_wf.trtis.state import Server, birth, find_server, is_running, new_regions, read_state, write_state
from clara_wf.trtis.status import load_model, model_rows, model_states

#: The code of a model that takes the server down with it, like a crash in a backend.
FATAL = """
import os, pathlib, signal
parent = os.getppid()
while not pathlib.Path(f"/proc/{parent}/exe").resolve().name == "tritonserver":
    parent = int(pathlib.Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
os.kill(parent, signal.SIGKILL)
"""

#: A server that takes its time between one port and the next, as the real one does on a busy machine.
HESITANT = f"""#!{sys.executable}
import json, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps([] if self.path.endswith("index") else {{"version": "2.0"}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
ports = dict(each.split("=") for each in sys.argv[1:] if "-port=" in each)
for what in ("--http-port", "--grpc-port", "--metrics-port"):
    server = ThreadingHTTPServer(("127.0.0.1", int(ports[what])), Answer)
    threading.Thread(target=server.serve_forever).start()
    time.sleep(0.7)
"""

#: A server that says of a model that it is loaded while it is asked for its models, after a look at its log.
CHATTY = HESITANT.replace("0.7", "0").replace(
    "        body =",
    "        if self.path.endswith('index'):\n"
    "            print('\"loading: echo:1\"', '\"successfully loaded \\'echo\\'\"', sep='\\n', flush=True)\n"
    "        body =",
)

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("trtis")]


@pytest.fixture(scope="module")
def environment(trtis_environment: Path) -> Environment:
    return prepare(trtis_environment, LOCK)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    handmade(tmp_path / "models", "echo", ECHO)
    return tmp_path / "models"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "trtis"
    stop(tmp_path / "trtis")


def regions(server: Server) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{server.regions}*"))


def stubs(server: Server) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if server.regions in (entry / "cmdline").read_text():
                found.append(entry.name)
    return [pid for pid in found if pid != str(server.pid)]


def test_it_starts_serves_and_ends_without_a_trace(environment, models, folder):
    said: list[str] = []
    port = free_port()
    server = start(folder, environment, models, port=port, say=said.append)
    assert find_server(folder) == server == read_state(folder)
    assert (server.http, server.grpc) == (f"localhost:{port}", f"localhost:{port + 1}")
    assert server.version.startswith("2.")
    assert said == ["the model echo is served"]
    (row,) = model_rows(server)
    assert (row.model.name, row.model.state, row.backend) == ("echo", "READY", "python")
    assert os.getsid(server.pid) == server.pid, "a session of its own"
    assert regions(server)
    assert stubs(server)
    assert stop(folder) == server
    assert birth(server.pid) is None
    assert find_server(folder) is read_state(folder) is None
    assert not regions(server)
    assert not stubs(server)
    assert stop(folder) is None


def test_it_listens_on_this_machine_alone(environment, models, folder):
    server = start(folder, environment, models, port=free_port())
    listening = [each for each in psutil.Process(server.pid).net_connections() if each.status == "LISTEN"]
    assert {each.laddr.port for each in listening} == {server.port, server.port + 1, server.port + 2}
    assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} == {"127.0.0.1"}


def test_it_is_ready_when_the_last_of_its_ports_is(environment, models, folder, tmp_path):
    program = tmp_path / "hesitant"
    program.write_text(HESITANT)
    program.chmod(0o755)
    server = start(folder, dataclasses.replace(environment, program=program), models, port=free_port())
    for port in (server.port, server.port + 1, server.port + 2):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()


def test_what_it_says_last_is_told(environment, models, folder, tmp_path):
    program = tmp_path / "chatty"
    program.write_text(CHATTY)
    program.chmod(0o755)
    said: list[str] = []
    start(folder, dataclasses.replace(environment, program=program), models, port=free_port(), say=said.append)
    asked = (folder / "server.log").read_text().count("successfully")
    assert said == ["the model echo is served"] * asked


def test_starting_it_twice_changes_nothing(environment, models, folder):
    server = start(folder, environment, models, port=free_port())
    said: list[str] = []
    assert start(folder, environment, models, port=server.port, say=said.append) == server
    assert said == [f"the server runs already: {server.http}, pid {server.pid}, since {server.started}"]
    with pytest.raises(UsageError, match=rf"runs already, on port {server.port} and not {server.port + 5}"):
        start(folder, environment, models, port=server.port + 5)
    assert is_live(server.port)


def test_a_log_of_the_start_before_is_kept(environment, models, folder):
    for _ in range(2):
        start(folder, environment, models, port=free_port())
        stop(folder)
    assert (folder / "server.log").read_text() != (folder / "server.log.1").read_text()


@pytest.mark.parametrize(("offset", "what"), [(0, "HTTP"), (1, "gRPC"), (2, "metrics")])
def test_a_port_that_is_taken_is_named(environment, models, folder, offset, what):
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port + offset))
        other.listen()
        with pytest.raises(UsageError, match=rf"port {port + offset} \({what}\) is not free.*--port"):
            start(folder, environment, models, port=port)
    assert read_state(folder) is None


def test_a_server_that_was_killed_is_cleared_away(environment, models, folder):
    server = start(folder, environment, models, port=free_port())
    os.kill(server.pid, signal.SIGKILL)
    while is_running(server):
        time.sleep(0.01)
    assert find_server(folder) is None
    assert regions(server)
    said: list[str] = []
    again = start(folder, environment, models, port=free_port(), say=said.append)
    assert f"(pid {server.pid}) is gone" in said[0]
    assert not regions(server)
    assert not stubs(server)
    assert is_live(again.port)


def test_another_process_with_its_id_is_left_alone(environment, models, folder):
    folder.mkdir()
    with subprocess.Popen(["sleep", "600"]) as other:
        gone = Server(
            pid=other.pid, birth="1", port=1, models=models, regions=new_regions(), version="", started="then"
        )
        write_state(folder, gone)
        assert find_server(folder) is None
        said: list[str] = []
        assert stop(folder, say=said.append) is None
        assert said == [f"the server of then (pid {other.pid}) is gone: what it left is cleared away"]
        assert read_state(folder) is None
        assert other.poll() is None
        other.kill()


def test_a_state_file_that_is_broken_is_none(environment, models, folder):
    folder.mkdir()
    write_state(folder, Server(pid=1, birth="1", port=1, models=models, regions="", version="", started="then"))
    assert read_state(folder) is None, "every region of this machine would be its own"
    (folder / "state.json").write_text("{")
    assert find_server(folder) is None
    assert is_live(start(folder, environment, models, port=free_port()).port)


def test_a_server_that_ends_while_it_starts_is_said(environment, models, folder):
    handmade(models, "fatal", FATAL)
    with pytest.raises(ClaraError, match=r"the inference server ended while it started: .*server\.log"):
        start(folder, environment, models, port=free_port())
    assert read_state(folder) is None


def test_a_server_that_does_not_get_ready_is_ended(environment, models, folder):
    handmade(models, "slow", "import time\ntime.sleep(600)\n" + ECHO)
    with pytest.raises(ClaraError, match="did not get ready in time"):
        start(folder, environment, models, port=free_port(), timeout_s=3)
    assert read_state(folder) is None


def halt(server: Server) -> None:
    """Stop the server's process where it stands. One of its threads may still answer before all of them stand still."""
    os.kill(server.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(server.pid).status() == psutil.STATUS_STOPPED)


def test_one_that_does_not_end_by_itself_is_ended(environment, models, folder):
    server = start(folder, environment, models, port=free_port())
    halt(server)
    stop(folder, timeout_s=1)
    assert not is_running(server)
    assert not stubs(server)
    assert not regions(server)


def test_a_broken_model_hinders_no_other(environment, models, folder):
    handmade(models, "broken", "raise RuntimeError('broken on purpose')\n")
    (models / "half").mkdir()
    (models / ".unfinished-0123/1").mkdir(parents=True)
    said: list[str] = []
    server = start(folder, environment, models, port=free_port(), say=said.append)
    states = {state.name: state for state in model_states(server)}
    assert set(states) == {"broken", "echo", "half"}
    assert states["echo"].is_ready
    assert states["broken"].reason.endswith("RuntimeError: broken on purpose")
    assert "config.pbtxt" in states["half"].reason
    assert f"the model broken is not served: {states['broken'].reason}" in said


def test_a_model_that_comes_later_is_loaded_by_name(environment, models, folder):
    server = start(folder, environment, models, port=free_port())
    handmade(models, "later", ECHO)
    load_model(server, "later")
    assert [state.name for state in model_states(server) if state.is_ready] == ["echo", "later"]
    with pytest.raises(ClaraError, match="never"):
        load_model(server, "never")


def test_without_a_repository_there_is_no_server(environment, folder, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        start(folder, environment, tmp_path / "nowhere", port=free_port())


def test_a_proxy_is_not_asked(environment, models, folder, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with running(environment.folder, models, folder) as server:
        assert is_live(server.port)


def test_where_it_stands_is_written_before_it_is_ready(environment, models, folder):
    """Whoever looks while it starts finds it."""
    seen: list[Server | None] = []
    server = start(folder, environment, models, port=free_port(), say=lambda _: seen.append(find_server(folder)))
    assert seen == [dataclasses.replace(server, version="")]


def test_what_is_broken_in_the_repository_hinders_no_model(environment, models, folder):
    """Triton itself would load none, and list none."""
    (models / "dead").symlink_to("/nowhere")
    handmade(models, "without-code", ECHO)
    (models / "without-code/1/model.py").unlink()
    (models / "without-code/1/model.py").symlink_to("/nowhere")
    (models / "round").symlink_to("round")
    (models / "a file").touch()
    said: list[str] = []
    server = start(folder, environment, models, port=free_port(), say=said.append)
    assert said == [
        "dead is not served: dead is a link that leads nowhere. Remove it",
        "round is not served: round is a link that leads nowhere. Remove it",
        "without-code is not served: without-code/1/model.py is a link that leads nowhere. Remove it",
        "the model echo is served",
    ]
    assert server.asked == ("echo",)
    handmade(models, "later", ECHO)
    assert [(state.name, state.state) for state in model_states(server)] == [("echo", "READY"), ("later", "NOT LOADED")]
    load_model(server, "later")
    assert all(state.is_ready for state in model_states(server))


def test_a_model_that_came_later_is_not_loaded_yet(environment, models, folder):
    handmade(models, "misnamed", ECHO)
    (models / "misnamed/config.pbtxt").write_text('name: "otherwise"')
    server = start(folder, environment, models, port=free_port())
    handmade(models, "later", ECHO)
    states = {state.name: (state.state, state.reason) for state in model_states(server)}
    assert states["later"] == ("NOT LOADED", "not loaded yet: the first request loads it")
    assert states["misnamed"][0] == "UNAVAILABLE"
    assert "cannot make use of its config.pbtxt" in states["misnamed"][1]


def test_a_server_that_does_not_answer_is_not_taken_for_one_that_runs(environment, models, folder):
    server = start(folder, environment, models, port=free_port())
    halt(server)
    for ask in (
        lambda: load_model(server, "echo"),
        lambda: attend(folder),
        lambda: start(folder, environment, models, port=server.port),
    ):
        with pytest.raises(ServerSilent, match=r"is there, but does not answer within 5 s.*uninstall_trtis"):
            ask()
    os.kill(server.pid, signal.SIGCONT)
    assert attend(folder) == server


def test_whoever_comes_after_a_start_that_was_killed_waits_as_it_would_have(environment, models, folder):
    server = start(folder, environment, models, port=free_port())
    write_state(folder, dataclasses.replace(server, version=""))
    assert attend(folder) == server == read_state(folder)
    assert attend(folder / "other") is None


def test_a_folder_of_models_that_is_gone_has_a_remedy(environment, models, folder):
    server = start(folder, environment, models, port=free_port())
    models.rename(models.with_name("moved"))
    for ask in (lambda: load_model(server, "echo"), lambda: model_states(server)):
        with pytest.raises(ClaraError, match="install_trtis again"):
            ask()
