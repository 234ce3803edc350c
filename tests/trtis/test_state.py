"""Whose server it is that the state file tells of: of this machine, of this user, and known at all."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from program import Program

from clara_wf.model.errors import UsageError
from clara_wf.trtis import state
from clara_wf.trtis.environment import Environment
from clara_wf.trtis.server import _end, _launch, attend, start, stop
from clara_wf.trtis.state import Server, birth, find_server, new_regions, read_state, whereabouts, write_state

HERE = whereabouts()


@pytest.fixture
def process() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as running:
        yield running.pid
        running.kill()


@pytest.fixture
def server(process: int, tmp_path: Path) -> Server:
    (tmp_path / "trtis").mkdir()
    known = dataclasses.asdict(HERE)
    return Server(
        pid=process,
        birth=birth(process) or "",
        port=1,
        models=tmp_path,
        regions=new_regions(),
        version="2.0",
        started="then",
        **known,
    )


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    return Environment(folder=tmp_path, program=program, backends=tmp_path, libraries=())


def test_where_a_server_is_started_is_written_down(environment: Environment, tmp_path: Path) -> None:
    started = _launch(tmp_path, environment, tmp_path, 1)
    try:
        assert read_state(tmp_path) == find_server(tmp_path) == started
        assert (started.host, started.boot, started.namespace) == (HERE.host, HERE.boot, HERE.namespace)
        assert HERE.host
    finally:
        stop(tmp_path, timeout_s=5)


def test_a_server_that_cannot_be_written_down_does_not_run_on(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    before = psutil.Process().children()
    with pytest.raises(IsADirectoryError):
        _launch(tmp_path, environment, tmp_path, 1)
    assert psutil.Process().children() == before


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ({"host": "node-a", "boot": "another"}, "on node-a"),
        ({"host": "node-a", "boot": "another", "namespace": "pid:[1]"}, "on node-a"),
        ({"namespace": "pid:[1]"}, "in another container of this machine"),
        ({"host": "node-a", "namespace": "pid:[1]"}, "in another container of this machine"),
    ],
)
def test_a_server_that_was_started_elsewhere_is_not_touched(
    server: Server, environment: Environment, clara: Program, tmp_path: Path, other: dict[str, str], place: str
) -> None:
    folder = clara.workspace / "trtis"
    folder.mkdir()
    write_state(folder, dataclasses.replace(server, birth="1", **other))
    before = (folder / "state.json").read_bytes()
    for touch in (
        lambda: attend(folder),
        lambda: start(folder, environment, tmp_path),
        lambda: stop(folder),
    ):
        with pytest.raises(UsageError) as caught:
            touch()
        assert str(caught.value) == (
            f"the inference server of this workspace was started {place}. Stop it there by clara-wf uninstall_trtis "
            f"or, if that is gone, remove {folder / 'state.json'}"
        )
    assert find_server(folder) is None
    assert (folder / "state.json").read_bytes() == before
    told = clara("trtis", "status")
    assert (told.code, told.err) == (2, f"error: {caught.value}\n")


def test_after_a_restart_the_server_is_gone_whatever_has_its_id(server: Server, process: int) -> None:
    folder = server.models / "trtis"
    write_state(folder, dataclasses.replace(server, boot="before", namespace="pid:[1]"))
    assert find_server(folder) is None
    said: list[str] = []
    assert stop(folder, say=said.append) is None
    assert said == [f"the server of then (pid {process}) is gone: what it left is cleared away"]
    assert read_state(folder) is None
    assert birth(process) is not None


def test_in_the_same_boot_another_name_of_the_machine_changes_nothing(server: Server) -> None:
    folder = server.models / "trtis"
    write_state(folder, dataclasses.replace(server, host="before"))
    assert find_server(folder) is not None


def test_a_state_of_an_earlier_version_is_of_this_machine(server: Server) -> None:
    folder = server.models / "trtis"
    write_state(folder, server)
    content = json.loads((folder / "state.json").read_text())
    for name in ("host", "boot", "namespace"):
        del content[name]
    (folder / "state.json").write_text(json.dumps(content))
    assert find_server(folder) == dataclasses.replace(server, host="", boot="", namespace="")


def test_a_system_that_does_not_tell_is_here(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = server.models / "trtis"
    monkeypatch.setattr(state, "whereabouts", lambda: state.Whereabouts(host=HERE.host, boot="", namespace=""))
    for known in (server, dataclasses.replace(server, boot="", namespace="")):
        write_state(folder, known)
        assert find_server(folder) == known


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_s_server_is_left_to_its_owner(server: Server) -> None:
    folder = server.models / "trtis"
    write_state(folder, server)
    os.setresuid(65534, 65534, 0)
    try:
        with pytest.raises(UsageError) as caught:
            _end(folder, server, 1)
    finally:
        os.setresuid(0, 0, 0)
    assert str(caught.value) == "the inference server belongs to another user. Let its owner stop it"
    assert find_server(folder) == server
