"""The inference server as a user has it: install_trtis, trtis status, model configure, uninstall_trtis."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from program import Program
from served_code import wait_until
from tiny_network import described, model_folder
from triton_server import ECHO, free_port, handmade, infer

from clara_wf.trtis.state import find_server, is_running

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("trtis")]


@pytest.fixture
def clara_with_tiny(clara_with_trtis: Program, tmp_path: Path) -> Program:
    """The program with the server's environment and a tiny network."""
    folder = model_folder(tmp_path / "tiny", described())
    ended = clara_with_trtis("model", "install", "tiny", "--from", folder)
    assert ended.code == 0, ended.err
    return clara_with_trtis


def test_from_install_to_uninstall(clara_with_tiny: Program) -> None:
    clara, port = clara_with_tiny, free_port()
    installed = clara("install_trtis", "--port", str(port))
    assert installed.code == 0, installed.err
    assert "the model tiny is served" in installed.err
    assert installed.out.splitlines() == [
        f"TRTIS runs at: localhost:{port} (HTTP), localhost:{port + 1} (gRPC), http://localhost:{port + 2}/metrics",
        f"Use it:        clara-wf test organ-seg --trtis localhost:{port}",
    ]
    again = clara("install_trtis")
    assert (again.code, again.out) == (0, installed.out)
    assert "the server runs already" in again.err
    other = clara("install_trtis", "--port", str(port + 10))
    assert other.code == 2
    assert f"on port {port} and not {port + 10}" in other.err

    status = clara("trtis", "status")
    assert status.code == 0, status.err
    assert ["tiny", "1", "ready", "python", "0", "0", "0"] in [line.split() for line in status.out.splitlines()]
    told = json.loads(clara("trtis", "status", "--json").out)
    assert told["server"]["http"] == f"localhost:{port}"
    (model,) = told["models"]
    assert (model["name"], model["state"], model["figures"]["requests"]) == ("tiny", "READY", 0)
    ports = {line["name"]: line for line in json.loads(clara("doctor", "--json").out)}["ports"]
    assert (ports["ok"], ports["detail"]) == (True, f"our inference server runs on {port} to {port + 2}")

    log = clara("trtis", "log", "--lines", "3")
    assert len(log.out.splitlines()) == 3
    assert str(clara.workspace / "trtis/server.log") in log.err

    gone = clara("uninstall_trtis")
    assert (gone.code, f"it ran at localhost:{port}" in gone.out) == (0, True)
    twice = clara("uninstall_trtis")
    assert (twice.code, twice.err) == (0, "TRTIS does not run on this machine\n")
    none = clara("trtis", "status")
    assert none.code == 3
    assert none.err == "error: no inference server runs on this machine. Run: clara-wf install_trtis\n"


def test_a_model_is_served_otherwise_at_once(clara_with_tiny: Program) -> None:
    clara = clara_with_tiny
    shown = clara("model", "configure", "tiny")
    assert shown.out == "Model 'tiny' is served by: python in auto, instances: 1, one window a request\n"
    assert clara("install_trtis", "--port", str(free_port())).code == 0
    changed = clara("model", "configure", "tiny", "--instances", "2", "--precision", "f32", "--json")
    assert changed.code == 0, changed.err
    assert "config.pbtxt, serving.json" in changed.err
    assert "The server that runs has loaded tiny again" in changed.err
    assert json.loads(changed.out)["instances"] == 2
    server = find_server(clara.workspace / "trtis")
    assert server is not None
    answer = infer(server, "tiny", np.ones((1, 1, 4, 4, 4), np.float32))
    assert answer["engine"].tolist()[0].endswith(" f32")
    kept = clara("model", "configure", "tiny", "--instances", "1")
    assert "python in f32, instances: 1" in kept.out
    assert "python in auto, instances: 1" in clara("model", "configure", "tiny", "--reset").out
    refused = clara("model", "configure", "tiny", "--max-batch", "4")
    assert refused.code == 2
    assert "takes one window at a time" in refused.err
    assert clara("model", "configure", "lung").code == 3


def test_what_the_server_does_not_serve_is_said(clara_with_tiny: Program) -> None:
    clara = clara_with_tiny
    handmade(clara.workspace / "models", "broken", "raise RuntimeError('broken on purpose')\n")
    installed = clara("install_trtis", "--port", str(free_port()))
    assert installed.code == 0
    assert "the model broken is not served: Internal: RuntimeError: broken on purpose" in installed.err
    status = clara("trtis", "status")
    assert "broken: Internal: RuntimeError: broken on purpose" in status.err
    server = find_server(clara.workspace / "trtis")
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not is_running(server))
    gone = clara("trtis", "status")
    assert gone.code == 3
    assert f"(pid {server.pid}) is gone" in gone.err


def test_ctrl_c_while_it_starts_leaves_no_server(clara_with_trtis: Program) -> None:
    clara = clara_with_trtis
    handmade(clara.workspace / "models", "slow", "import time\ntime.sleep(600)\n" + ECHO)
    process = subprocess.Popen(
        clara.command("install_trtis", "--port", str(free_port())),
        env=clara.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while (server := find_server(clara.workspace / "trtis")) is None:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert find_server(clara.workspace / "trtis") is None
    assert not Path(f"/proc/{server.pid}").exists() or "Z" in Path(f"/proc/{server.pid}/stat").read_text()
    assert not list(Path("/dev/shm").glob(f"{server.regions}*"))


def test_a_port_that_is_taken(clara_with_trtis: Program) -> None:
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port + 1))
        other.listen()
        ended = clara_with_trtis("install_trtis", "--port", str(port))
    assert ended.code == 2
    assert f"port {port + 1} (gRPC) is not free" in ended.err
    assert "--port" in ended.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("install_trtis", "--gpus", "1"), "computes on the processor"),
        (("install_trtis", "--namespace", "x"), "--namespace is for a cluster"),
        (("uninstall_trtis", "--namespace", "x"), "--namespace is for a cluster"),
        (("install_trtis", "--runner", "kubernetes", "--port", "9000"), "--port is for a server on this machine"),
    ],
)
def test_options_of_the_other_runner_are_refused(clara: Program, arguments: tuple[str, ...], says: str) -> None:
    ended = clara(*arguments)
    assert ended.code == 2
    assert says in ended.err


def test_where_no_server_ran_there_is_no_log(clara: Program) -> None:
    ended = clara("trtis", "log")
    assert ended.code == 3
    assert "no inference server ran here" in ended.err


def test_what_an_earlier_version_installed_is_served(clara_with_tiny: Program) -> None:
    clara = clara_with_tiny
    folder = clara.workspace / "models/tiny"
    (folder / "config.pbtxt").write_text('name: "tiny"\nbackend: "onnxruntime"\nmax_batch_size: 0\n')
    (folder / "1/model.py").unlink()
    installed = clara("install_trtis", "--port", str(free_port()))
    assert "tiny is made ready for the inference server" in installed.err
    assert "the model tiny is served" in installed.err
