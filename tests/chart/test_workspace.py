"""Finding a workspace, and making one."""

from __future__ import annotations

from pathlib import Path

import pytest

from clara_wf.chart.catalog import read_catalog
from clara_wf.chart.edit import create_stage
from clara_wf.chart.helm import Helm
from clara_wf.chart.workspace import Workspace, find_workspace, init_workspace, shipped_charts
from clara_wf.model.errors import UsageError


def test_the_nearest_folder_upwards_is_the_workspace(workspace: Workspace) -> None:
    deep = workspace.root / "a/b"
    deep.mkdir(parents=True)
    assert find_workspace(deep, {}) == workspace
    assert find_workspace(workspace.chart / "templates", {}) == workspace


def test_the_variable_goes_first(workspace: Workspace, tmp_path: Path) -> None:
    assert find_workspace(tmp_path, {"CLARA_WF_WORKSPACE": str(workspace.root)}) == workspace
    with pytest.raises(UsageError, match=r"has no charts/clara-workflow/Chart\.yaml"):
        find_workspace(workspace.root, {"CLARA_WF_WORKSPACE": str(tmp_path / "nowhere")})


def test_elsewhere_the_charts_of_the_package_serve(tmp_path: Path) -> None:
    found = find_workspace(tmp_path, {})
    assert found.chart == shipped_charts() / "clara-workflow"
    assert read_catalog(found.chart).workflow("ai").name == "liver-seg"


def test_init_makes_an_editable_copy(tmp_path: Path, helm: Helm) -> None:
    made = init_workspace(tmp_path / "new/work")
    shipped = shipped_charts()
    assert {file.relative_to(shipped): file.read_bytes() for file in shipped.rglob("*") if file.is_file()} == {
        file.relative_to(made.root / "charts"): file.read_bytes()
        for file in (made.root / "charts").rglob("*")
        if file.is_file()
    }
    create_stage(made, "mine", code=True)
    assert helm.lint(made.chart, {}) == []
    assert find_workspace(made.images, {}) == made


def test_init_refuses_what_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is not empty"):
        init_workspace(tmp_path)
    with pytest.raises(UsageError, match="cannot be made a workspace"):
        init_workspace(tmp_path / "file")


def test_init_continues_after_an_interruption(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-charts/half").mkdir(parents=True)
    init_workspace(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["charts"]
