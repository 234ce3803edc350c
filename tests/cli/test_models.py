"""The model repository, as a person uses it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from program import Program
from tiny_network import described, model_folder

from clara_wf.cli import doctor
from clara_wf.cli.doctor import Finding
from clara_wf.inference.repository import ModelDamaged, find_model, list_models


def test_a_network_of_one_s_own_is_installed_listed_and_shown(clara: Program, tmp_path: Path) -> None:
    assert json.loads(clara("model", "list", "--json").out) == []
    source = model_folder(tmp_path / "own", described())
    installed = clara("model", "install", "tiny", "--from", source)
    assert installed.code == 0, installed.err
    assert f"Model 'tiny' is installed at: {clara.workspace / 'models/tiny'}" in installed.out
    (listed,) = json.loads(clara("model", "list", "--json").out)
    assert (listed["name"], listed["version"]) == ("tiny", "1")
    shown = json.loads(clara("model", "show", "tiny", "--json").out)
    assert shown["sha256"] == listed["sha256"]
    assert shown["labels"][0]["name"] == "bright"
    assert "Not for clinical use." in clara("model", "show", "tiny").out


def test_one_damaged_network_does_not_hide_the_others(clara: Program, tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        source = model_folder(tmp_path / name, described(name=name))
        assert clara("model", "install", name, "--from", source).code == 0
    (clara.workspace / "models/first/installed.json").write_text("{")
    (clara.workspace / "models/third/1/model.onnx").write_bytes(b"another")
    ended = clara("model", "list", "--json")
    assert ended.code == 0, ended.err
    first, second, third = json.loads(ended.out)
    assert (first["name"], second["name"], third["name"]) == ("first", "second", "third")
    assert "installed.json is broken" in first["damaged"]
    assert "damaged" not in second
    assert "another" not in third["damaged"]
    assert "model.onnx has the hash" in third["damaged"]
    shown = clara("model", "list")
    assert shown.code == 0, shown.err
    assert shown.out.count("damaged") >= 2
    assert "second" in shown.out


@pytest.mark.parametrize("file", ["model.yaml", "1/model.onnx"])
def test_one_network_that_cannot_be_read_does_not_hide_the_others(clara: Program, tmp_path: Path, file: str) -> None:
    """A folder in a file's place is what even root cannot read."""
    for name in ("first", "second"):
        source = model_folder(tmp_path / name, described(name=name))
        assert clara("model", "install", name, "--from", source).code == 0
    broken = clara.workspace / "models/first" / file
    broken.unlink()
    broken.mkdir()
    (clara.workspace / "models/first").rename(clara.workspace / "models/liver")
    ended = clara("model", "list", "--json")
    assert ended.code == 0, ended.err
    liver, second = json.loads(ended.out)
    assert f"{Path(file).name} cannot be read: Is a directory" in liver["damaged"]
    assert second["version"] == "1"
    findings = {finding["name"]: finding for finding in json.loads(clara("doctor", "--json").out)}
    assert "cannot be read" in findings["model liver"]["detail"]
    assert "clara-wf model install liver" in findings["model liver"]["remedy"]
    assert {"model liver-lesion", "engine", "ports"} <= set(findings)


@pytest.fixture
def without_rights(tmp_path: Path) -> None:
    """Have a folder of nobody's business, `models/secret`, for whoever runs the tests."""
    (tmp_path / "models/secret").mkdir(parents=True)
    (tmp_path / "models/secret").chmod(0)


@pytest.mark.usefixtures("without_rights")
def test_a_network_of_another_user_is_listed_as_one_that_cannot_be_read(tmp_path: Path) -> None:
    root = tmp_path / "models"
    for folder in tmp_path.parents:  # pytest's are for their owner alone
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root reads all
    try:
        assert list_models(root) == ["secret"]
        with pytest.raises(ModelDamaged, match=r"installed\.json cannot be read: Permission denied\. Let this user"):
            find_model(root, "secret")
    finally:
        os.seteuid(user)


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(_where: object) -> list[Finding]:
        raise ImportError("libsomething.so is missing")

    monkeypatch.setattr(doctor, "places", lambda: None)
    lives = [Finding(name="ports", ok=True, detail="free")]
    monkeypatch.setattr(doctor, "_CHECKS", {"containers": fails, "ports": lambda _: lives})
    doctor.doctor(as_json=True)
    containers, ports = json.loads(capsys.readouterr().out)
    assert containers["detail"] == "cannot be looked at: ImportError: libsomething.so is missing"
    assert not containers["ok"]
    assert not containers["needed"]
    assert containers["remedy"]
    assert ports["ok"]
