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
