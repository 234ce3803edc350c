"""The server's environment: what is in its lock file, and what happens where it cannot be made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from triton_server import LOCK

from clara_wf.model.errors import LackError, UsageError
from clara_wf.trtis.environment import _clear, find_interpreter, is_prepared, prepare


def versions(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def test_the_server_computes_with_the_openvino_of_the_stages(root):
    ours, the_server_s = versions(root / "requirements.lock"), versions(LOCK)
    assert the_server_s["openvino"] == ours["openvino"]
    assert the_server_s["openvino-telemetry"] == ours["openvino-telemetry"]


def test_the_lock_file_holds_what_is_asked_for_and_nothing_more(root):
    wanted = (root / "requirements-trtis.in").read_text()
    assert set(versions(LOCK)) == set(re.findall(r"^[a-z][a-z-]*", wanted, re.MULTILINE))
    assert "://" not in LOCK.read_text()
    requirements = re.sub(r"\\\n", "", LOCK.read_text()).splitlines()
    assert all("--hash=sha256:" in line for line in requirements)


@pytest.mark.network
@pytest.mark.xdist_group("trtis")
def test_what_is_there_is_left_alone(trtis_environment):
    said: list[str] = []
    environment = prepare(trtis_environment, LOCK, say=said.append)
    assert said == []
    assert is_prepared(trtis_environment, LOCK, find_interpreter())
    assert os.access(environment.program, os.X_OK)
    stub = environment.backends / "python/triton_python_backend_stub"
    linked = subprocess.run(["ldd", stub], env=environment.variables(), capture_output=True, text=True, check=True)
    assert "not found" not in linked.stdout


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.xdist_group("trtis")
def test_an_interrupted_one_is_begun_again_and_another_lock_file_is_taken_up(tmp_path, trtis_environment):
    folder, lock = tmp_path / "environment", tmp_path / "lock"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/left-over").touch()
    (folder / "pyvenv.cfg").touch()
    shutil.copy(LOCK, lock)
    said: list[str] = []
    prepare(folder, lock, say=said.append)
    assert not (folder / "bin/left-over").exists()
    assert said[0].startswith("making an environment for the inference server in")
    assert said[-1] == "the inference server is installed"
    lock.write_text(LOCK.read_text() + "\n")
    assert is_prepared(folder, LOCK, find_interpreter())
    assert not is_prepared(folder, lock, find_interpreter())


def test_without_an_index_pip_s_reason_is_passed_on_but_no_address(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://somebody:secret@127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(LackError) as caught:
        prepare(tmp_path / "environment", LOCK)
    assert "could not be installed: " in caught.value.message
    assert "No matching distribution found" in caught.value.message
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    assert not is_prepared(tmp_path / "environment", LOCK, find_interpreter())


def test_what_lies_behind_a_link_is_left_alone(tmp_path):
    disk, folder = tmp_path / "disk", tmp_path / "environment"
    disk.mkdir()
    for name in ("mine", "pyvenv.cfg", "trtis.lock"):
        (disk / name).touch()
    folder.symlink_to(disk)
    with pytest.raises(UsageError) as caught:
        prepare(folder, LOCK)
    assert str(caught.value) == f"{folder} is a link: remove it, or make the folder above it the link"
    assert {path.name for path in disk.iterdir()} == {"mine", "pyvenv.cfg", "trtis.lock"}


def test_what_is_no_environment_is_left_alone(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(UsageError, match=r"holds something else than an environment\. Move it away"):
        prepare(tmp_path, LOCK)
    assert (tmp_path / "mine").exists()
    with pytest.raises(UsageError, match="is no folder"):
        prepare(tmp_path / "mine", LOCK)


def test_an_interrupted_environment_is_cleared_and_stays_known_as_one(tmp_path):
    (tmp_path / "lib/deep").mkdir(parents=True)
    (tmp_path / "away").symlink_to("/")
    (tmp_path / "pyvenv.cfg").touch()
    (tmp_path / "trtis.lock").touch()
    _clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pyvenv.cfg"]


def test_a_hash_that_is_another_is_refused(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("openvino-telemetry==2025.2.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(LackError, match="could not be installed"):
        prepare(tmp_path / "environment", lock)


def test_without_bash_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LackError, match=r"needs bash.*apt-get install bash"):
        find_interpreter()


def test_the_interpreter_s_own_libpython_or_the_system_s():
    found = find_interpreter()
    assert found.version in {"3.11", "3.12"}
    if found.library_folder is not None:
        assert (found.library_folder / f"libpython{found.version}.so.1.0").is_file()
