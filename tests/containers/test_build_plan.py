"""Which images are built, and in which order, where one builds on another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clara_wf.chart.workspace import Workspace
from clara_wf.cli.build_plan import Target, plan

ROOT = Path(__file__).parents[2]
ORGANS, TUMOURS = "clara-wf/ai-vnet:0.1.0", "clara-wf/ai-livertumor:0.1.0"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copytree(ROOT / "charts", tmp_path / "charts")
    return Workspace(root=tmp_path)


def brief(targets: list[Target]) -> list[tuple[str, str, bool]]:
    return [(target.image, target.base, target.wanted) for target in targets]


def test_an_image_comes_after_the_one_that_it_builds_on(workspace: Workspace) -> None:
    python = "python:3.11-slim-bookworm"
    assert brief(plan(workspace, ["ai-livertumor"], None)) == [(ORGANS, python, False), (TUMOURS, ORGANS, True)]
    both = [(ORGANS, python, True), (TUMOURS, ORGANS, True)]
    assert brief(plan(workspace, ["ai-livertumor", "ai-vnet"], None)) == both
    assert brief(plan(workspace, ["ai-vnet", "ai-livertumor"], None)) == both


def test_images_may_have_other_names_in_the_chart(workspace: Workspace) -> None:
    values = workspace.chart / "values.yaml"
    values.write_text(values.read_text().replace('"clara-wf/', '"registry:5000/hospital/'))
    below, tumours = plan(workspace, ["ai-livertumor"], None)
    assert (below.image, below.wanted) == (ORGANS, False)
    assert (tumours.image, tumours.base) == ("registry:5000/hospital/ai-livertumor:0.1.0", ORGANS)
