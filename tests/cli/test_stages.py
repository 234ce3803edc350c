"""The guide's commands for stages, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from program import Ended, Program, add_workflow

Clara = Callable[..., Ended]


@pytest.mark.parametrize("name", ["list_stages", "list", "ls"])
def test_every_name_of_list_stages_lists_the_five_stages(clara: Program, name: str) -> None:
    ended = clara(name, "--json")
    stages = {stage["name"] for stage in json.loads(ended.out)}
    assert stages == {"dicom-reader", "recon", "ai-vnet", "ai-livertumor", "dicom-writer"}
    assert ended.code == 0


@pytest.mark.parametrize(("create", "delete"), [("cs", "ds"), ("create", "delete"), ("create_stage", "delete_stage")])
def test_a_stage_is_created_and_deleted_with_the_guide_s_words(clara: Program, create: str, delete: str) -> None:
    values = clara.workspace / "charts/clara-workflow/values.yaml"
    templates = clara.workspace / "charts/clara-workflow/templates/stages/my-stage"
    before = values.read_bytes()
    made = clara(create, "my-stage")
    assert made.out.splitlines() == [
        f"Stage 'my-stage' is created at: {templates}",
        f"Default values for Stage 'my-stage' are added to: {values}",
    ]
    assert {file.name for file in templates.iterdir()} == {"container.yaml", "volume.yaml"}
    assert b"##BEGIN_my-stage##" in values.read_bytes()
    gone = clara(delete, "my-stage")
    assert gone.code == 0, gone.err
    assert not templates.exists()
    assert values.read_bytes() == before


def test_a_created_stage_passes_its_own_test_at_once(clara: Program) -> None:
    assert clara("cs", "smooth", "--code").code == 0
    folder = clara.workspace / "images/smooth"
    tested = subprocess.run(
        [sys.executable, "-m", "unittest", "discover", folder], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stderr
    assert "Ran 1 test" in tested.stderr


def test_an_image_is_taken_over(clara: Program) -> None:
    assert clara("cs", "mine", "--image", "example.org/mine:2.0").code == 0
    stages = {stage["name"]: stage["image"] for stage in json.loads(clara("ls", "--json").out)}
    assert stages["mine"] == "example.org/mine:2.0"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cs", "template"), "'template' cannot name a stage"),
        (("cs", "My_Stage"), "'My_Stage' cannot name a stage"),
        (("cs", "input"), "Its lock would be input.lock, which says that the payload is complete"),
        (("cs", "no"), "'no' cannot name a stage. YAML takes it for a truth value"),
        (("cs", "1e3"), "'1e3' cannot name a stage. YAML takes it for a number"),
        (("cs", "../evil"), "'../evil' cannot name a stage"),
        (("cs", "recon"), "stage 'recon' is there already"),
        (("cs", "x", "--image", "no tag"), "'no tag' is no image"),
        (("ds", "ai-vnet"), "organ-seg"),
        (("ds", "ai-vnett"), "Did you mean 'ai-vnet'?"),
    ],
)
def test_wrong_use_gets_one_line_and_exit_2(clara: Program, arguments: tuple[str, ...], says: str) -> None:
    ended = clara(*arguments)
    assert ended.code == 2
    assert says in ended.err
    assert len(ended.err.splitlines()) == 1
    assert ended.out == ""


def test_shared_templates_are_said_to_stay(clara: Program, tmp_path: Path) -> None:
    assert clara("cs", "mine").code == 0
    folder = clara.workspace / "charts/clara-workflow/templates/stages/mine"
    shared = folder.rename(tmp_path / "shared")
    folder.symlink_to(shared)
    ended = clara("ds", "mine")
    assert f"Its templates were a link; what they are stays at: {shared}" in ended.out
    assert {file.name for file in shared.iterdir()} == {"container.yaml", "volume.yaml"}


def test_a_text_that_is_no_utf_8_gets_one_line(clara: Program) -> None:
    template = clara.workspace / "charts/clara-workflow/templates/stages/template/_container.yaml"
    template.write_bytes(template.read_bytes() + b"# caf\xe9\n")
    ended = clara("cs", "mine")
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert f"{template}:" in ended.err


def _cut_off(clara: Program) -> None:
    """End `cs mine` by force before its change stands."""
    hook = """
import os, sys
def die(event, arguments):
    if event == "os.remove" and str(arguments[0]).endswith("undo.json"):
        os._exit(9)
sys.addaudithook(die)
from clara_wf.cli.app import main
sys.argv[1:] = ["cs", "mine"]
main()
"""
    killed = subprocess.run([sys.executable, "-c", hook], env=clara.environment(), check=False)
    assert killed.returncode == 9


def test_an_edit_that_was_cut_off_is_undone_by_the_next_command_with_a_remark(clara: Program) -> None:
    values = clara.workspace / "charts/clara-workflow/values.yaml"
    before = values.read_bytes()
    _cut_off(clara)
    assert values.read_bytes() != before
    ended = clara("ls", "--json")
    assert ended.code == 0
    assert len(json.loads(ended.out)) == 5
    assert len(ended.err.splitlines()) == 1
    assert f"An edit of {clara.workspace} that was cut off is undone: charts/clara-workflow/values.yaml, " in ended.err
    assert values.read_bytes() == before
    assert clara("ls").err == ""


def test_the_next_command_does_not_undo_what_was_written_by_hand(clara: Program) -> None:
    values = clara.workspace / "charts/clara-workflow/values.yaml"
    _cut_off(clara)
    values.write_text(values.read_text() + "# by hand\n")
    written = values.read_bytes()
    ended = clara("ls")
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert f"{values} was changed by hand" in ended.err
    # Tab says nothing.
    tab = clara(_CLARA_WF_COMPLETE="complete_bash", COMP_WORDS="clara-wf model test ", COMP_CWORD="3")
    assert (tab.out.strip(), tab.err) == ("", "")
    assert values.read_bytes() == written


def test_a_stage_in_a_workflow_runs_what_its_module_says(clara: Program, tmp_path: Path) -> None:
    """From `cs --code` to a result: what the stage author's guide promises."""
    assert clara("cs", "hand-on", "--code").code == 0
    add_workflow(clara.workspace, "handed", ["hand-on"])
    (tmp_path / "in").mkdir()
    (tmp_path / "in/note.txt").write_text("hello")
    ended = clara("run", "handed", "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert (tmp_path / "out/note.txt").read_text() == "hello"
    assert json.loads((tmp_path / "out/job.json").read_text())["status"] == "HEALTHY"
    assert list((clara.workspace / "payloads").iterdir()) == []
