"""Finding a workspace, and making one."""

from __future__ import annotations

import os
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


#: Nobody's here.
STRANGER = 54321
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")


@as_root
@pytest.mark.parametrize("part", ["charts", "charts/clara-workflow", "charts/clara-workflow/Chart.yaml", "images"])
def test_a_stranger_s_workspace_is_not_come_upon_but_may_be_named(workspace: Workspace, part: str) -> None:
    workspace.images.mkdir(exist_ok=True)
    os.chown(workspace.root / part, STRANGER, STRANGER)
    (workspace.root / "a").mkdir()
    with pytest.raises(UsageError) as caught:
        find_workspace(workspace.root / "a", {})
    assert str(caught.value) == (
        f"the workspace {workspace.root} belongs to another user. "
        "If you mean it, say so by --workspace or CLARA_WF_WORKSPACE"
    )
    assert find_workspace(workspace.root / "a", {"CLARA_WF_WORKSPACE": str(workspace.root)}) == workspace


@as_root
@pytest.mark.parametrize("part", ["charts", "charts/clara-workflow", "charts/clara-workflow/Chart.yaml"])
def test_a_stranger_s_link_to_what_is_trusted_is_a_stranger_s(workspace: Workspace, part: str) -> None:
    (workspace.root / part).rename(workspace.root / "away")
    (workspace.root / part).symlink_to(workspace.root / "away")
    assert find_workspace(workspace.root, {}) == workspace
    os.chown(workspace.root / part, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(UsageError, match="belongs to another user"):
        find_workspace(workspace.root, {})


@as_root
def test_under_sudo_the_user_s_own_workspace_is_found(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(workspace.chart / "Chart.yaml", STRANGER, STRANGER)
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    assert find_workspace(workspace.root, {}) == workspace
    for other in (str(STRANGER + 1), "", "nonsense"):
        monkeypatch.setenv("SUDO_UID", other)
        with pytest.raises(UsageError, match="belongs to another user"):
            find_workspace(workspace.root, {})


@as_root
def test_another_user_uses_the_system_s_workspace(workspace: Workspace) -> None:
    for folder in workspace.root.parents:
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    os.setresuid(STRANGER, STRANGER, 0)
    try:
        assert find_workspace(workspace.root, {}) == workspace
    finally:
        os.setresuid(0, 0, 0)


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
