"""The model repository, as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

from program import Program
from tiny_network import described, model_folder


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
