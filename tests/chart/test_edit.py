"""Stages come and go whole, whatever happens in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clara_wf.chart.catalog import read_catalog
from clara_wf.chart.edit import create_stage, delete_stage
from clara_wf.chart.helm import Helm
from clara_wf.chart.journal import JOURNAL
from clara_wf.chart.render import plan_job
from clara_wf.chart.request import JobRequest
from clara_wf.chart.workspace import Workspace
from clara_wf.model.errors import ChartError, UsageError


def tree(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_a_stage_is_made_as_the_guide_says(workspace: Workspace) -> None:
    before = tree(workspace.root)
    made = create_stage(workspace, "noise-filter")
    after = tree(workspace.root)

    folder = "charts/clara-workflow/templates/stages/noise-filter"
    values = "charts/clara-workflow/values.yaml"
    assert made.templates == workspace.root / folder
    assert made.values == workspace.root / values
    assert made.code is None
    assert set(after) - set(before) == {f"{folder}/container.yaml", f"{folder}/volume.yaml"}
    assert {name for name in before if before[name] != after[name]} == {values}
    # Every byte that was there stays, comments too.
    assert after[values].startswith(before[values])
    block = after[values].removeprefix(before[values]).decode()
    assert block.startswith("##BEGIN_noise-filter##\n")
    assert block.endswith("##END_noise-filter##\n")
    assert b"__stage__" not in b"".join(after[name] for name in set(after) - set(before))


def test_deleting_undoes_it_to_the_byte(workspace: Workspace) -> None:
    before = tree(workspace.root)
    create_stage(workspace, "one")
    create_stage(workspace, "two")
    delete_stage(workspace, "one")
    assert [stage.name for stage in read_catalog(workspace.chart).stages][-1] == "two"
    (workspace.chart / "templates/stages/two/deep/er").mkdir(parents=True)
    (workspace.chart / "templates/stages/two/deep/er/notes.md").write_text("x")
    delete_stage(workspace, "two")
    assert tree(workspace.root) == before
    assert not (workspace.chart / "templates/stages/two").exists()


def test_a_name_within_another_is_another(workspace: Workspace) -> None:
    create_stage(workspace, "ai")
    create_stage(workspace, "ai-2")
    delete_stage(workspace, "ai")
    assert "ai-2" in {stage.name for stage in read_catalog(workspace.chart).stages}


def test_a_new_stage_runs_in_a_workflow(workspace: Workspace, helm: Helm, job: Callable[..., JobRequest]) -> None:
    create_stage(workspace, "noise-filter", image="registry:5000/team/filter:2.1")
    values = workspace.chart / "values.yaml"
    workflow = """workflows:
  mine:
    id: "9d3c1d3e-53a0-4a3f-8f5e-0d8a3f2f3c11"
    aliases: []
    stages: ["dicom-reader", "noise-filter"]
    waitLocks: ["", "dicom-reader.lock"]
    args: [[], ["--strength", "2"]]
    ioFolders: ["in", "dicom-reader/output", "out"]
"""
    values.write_text(values.read_text().replace("workflows:\n", workflow, 1))

    stage = plan_job(workspace.chart, job("mine"), helm=helm).stage("noise-filter")

    assert stage.image == "registry:5000/team/filter:2.1"
    assert stage.command == ()  # the image's own
    assert stage.args == ("--strength", "2")
    assert helm.lint(workspace.chart, {}) == []
    with pytest.raises(UsageError, match="stage 'noise-filter' is used by mine"):
        delete_stage(workspace, "noise-filter")


def test_code_passes_its_own_test_at_once(
    workspace: Workspace, helm: Helm, job: Callable[..., JobRequest], root: Path
) -> None:
    made = create_stage(workspace, "3d-filter", code=True)
    assert made.code == workspace.images / "3d-filter"
    assert workspace.code_folders == {made.name: made.code}
    path = f"{root / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    for test, said in (
        (["pytest", "-q", "-p", "no:cacheprovider", "images/3d-filter"], "1 passed"),
        (["unittest", "discover", "images/3d-filter"], "Ran 1 test"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *test],
            cwd=workspace.root,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout + done.stderr
    recipe = (made.code / "Dockerfile").read_text()
    assert "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}" in recipe
    assert "USER 10001" in recipe

    aliases = {"workflows": {"ai-only": {"stages": ["3d-filter"]}}}
    stage = plan_job(workspace.chart, job("ai-only", extra=aliases), helm=helm).stages[0]
    assert stage.command == ("python", "-m", "stage_3d_filter")

    delete_stage(workspace, "3d-filter")
    assert made.code.is_dir()  # a person's work
    with pytest.raises(UsageError, match="is there already"):
        create_stage(workspace, "3d-filter", code=True)


@pytest.mark.parametrize(
    "name",
    [
        *("", "A", "a_b", "-a", "a-", "a.b", "a/b", "../x", "a" * 64, "ä", "a\n"),
        # What YAML reads as numbers, truth values and nothing.
        *("1e3", "0x10", "123", "2026-11-26", "y", "n", "yes", "no", "on", "off", "true", "false", "null"),
        # What has a meaning in the chart.
        *("template", "input", "stage-in", "stage-out"),
    ],
)
def test_names_that_cannot_be(name: str, workspace: Workspace) -> None:
    before = tree(workspace.root)
    with pytest.raises(UsageError, match="cannot name a stage") as caught:
        create_stage(workspace, name)
    assert caught.value.exit_code == 2
    assert tree(workspace.root) == before


def test_the_longest_name(workspace: Workspace) -> None:
    create_stage(workspace, "a" * 63)
    assert read_catalog(workspace.chart).stage("a" * 63)


@pytest.mark.parametrize("image", ["", "x", "a b:1", "x:", ":1", 'x:1"\n  evil: y'])
def test_images_that_cannot_be(image: str, workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="is no image"):
        create_stage(workspace, "x", image=image)


def test_what_is_there_is_not_overwritten(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="stage 'recon' is there already"):
        create_stage(workspace, "recon")
    left_over = workspace.chart / "templates/stages/mine"
    left_over.mkdir()
    with pytest.raises(UsageError, match=f"{left_over} is there already"):
        create_stage(workspace, "mine")


def test_a_stage_in_use_is_not_deleted(workspace: Workspace) -> None:
    before = tree(workspace.root)
    with pytest.raises(UsageError, match="stage 'recon' is used by ct-ai, ct-partial, recon-only, recon-ai"):
        delete_stage(workspace, "recon")
    assert tree(workspace.root) == before


def test_an_unknown_stage_is_not_deleted(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match=r"there is no stage 'recom'\. Did you mean 'recon'"):
        delete_stage(workspace, "recom")


def test_lost_marks_are_not_guessed(workspace: Workspace) -> None:
    create_stage(workspace, "mine")
    file = workspace.chart / "values.yaml"
    file.write_text(file.read_text().replace("##END_mine##\n", ""))
    with pytest.raises(ChartError, match="has 0 blocks from ##BEGIN_mine##"):
        delete_stage(workspace, "mine")


def test_marks_around_too_much_are_refused(workspace: Workspace) -> None:
    create_stage(workspace, "one")
    create_stage(workspace, "two")
    file = workspace.chart / "values.yaml"
    text = file.read_text().replace("##END_one##\n", "")
    file.write_text(text.replace("##END_two##\n", "##END_one##\n##END_two##\n"))
    with pytest.raises(ChartError, match="would not hold just this stage"):
        delete_stage(workspace, "one")


def test_values_that_end_with_another_key_are_refused(workspace: Workspace) -> None:
    file = workspace.chart / "values.yaml"
    file.write_text(file.read_text() + "global: {}\n")
    before = tree(workspace.root)
    with pytest.raises(ChartError, match="`stages:` must be the last key"):
        create_stage(workspace, "mine")
    assert tree(workspace.root) == before


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False], ids=["last line ended", "last line open"])
def test_line_ends_stay_as_they_are(end: bytes, last: bool, workspace: Workspace) -> None:
    file = workspace.chart / "values.yaml"
    before = file.read_bytes().replace(b"\n", end)
    before = before if last else before.removesuffix(end)
    file.write_bytes(before)
    create_stage(workspace, "mine")
    after = file.read_bytes()
    assert after.startswith(before)
    assert after.count(end) == after.count(b"\n")
    assert read_catalog(workspace.chart).stage("mine")
    delete_stage(workspace, "mine")
    assert file.read_bytes() == before + (b"" if last else end)


def test_values_keep_their_permissions(workspace: Workspace) -> None:
    file = workspace.chart / "values.yaml"
    file.chmod(0o600)
    create_stage(workspace, "mine")
    assert file.stat().st_mode & 0o777 == 0o600
    delete_stage(workspace, "mine")
    assert file.stat().st_mode & 0o777 == 0o600


def test_values_of_a_whole_site_are_changed_where_they_are(workspace: Workspace, tmp_path: Path) -> None:
    file = workspace.chart / "values.yaml"
    site = file.rename(tmp_path / "site.yaml")
    before = site.read_bytes()
    file.symlink_to(os.path.relpath(site, file.parent))
    create_stage(workspace, "mine")
    assert file.is_symlink()
    assert b"##BEGIN_mine##" in site.read_bytes()
    delete_stage(workspace, "mine")
    assert file.is_symlink()
    assert site.read_bytes() == before


def test_templates_that_are_shared_by_a_link_stay(workspace: Workspace, tmp_path: Path) -> None:
    create_stage(workspace, "mine")
    folder = workspace.chart / "templates/stages/mine"
    shared = folder.rename(tmp_path / "shared")
    folder.symlink_to(shared)
    before = tree(shared)
    assert delete_stage(workspace, "mine").shared == shared
    assert tree(shared) == before
    assert not os.path.lexists(folder)


def test_links_among_the_templates_go_alone(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/theirs.yaml").write_text("theirs")
    create_stage(workspace, "mine")
    folder = workspace.chart / "templates/stages/mine"
    (folder / "folder").symlink_to(tmp_path / "shared")
    (folder / "file.yaml").symlink_to(tmp_path / "shared/theirs.yaml")
    (folder / "nowhere.yaml").symlink_to(tmp_path / "nowhere")
    assert delete_stage(workspace, "mine").shared is None
    assert tree(tmp_path / "shared") == {"theirs.yaml": b"theirs"}
    assert not folder.exists()


def test_a_link_that_leads_nowhere_is_not_written_through(workspace: Workspace, tmp_path: Path) -> None:
    link = workspace.chart / "templates/stages/mine"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=f"{link} is there already"):
        create_stage(workspace, "mine")


@pytest.mark.parametrize("file", ["templates/stages/template/_volume.yaml", "_stage_values.yaml", "values.yaml"])
def test_a_file_that_is_no_utf_8_is_named(file: str, workspace: Workspace) -> None:
    path = workspace.chart / file
    path.write_bytes(b"# one\n# caf\xe9\n" + path.read_bytes())
    before = tree(workspace.root)
    with pytest.raises(ChartError, match=str(path)) as caught:
        create_stage(workspace, "mine")
    assert len(str(caught.value).splitlines()) == 1
    assert tree(workspace.root) == before


def test_a_file_without_a_last_newline(workspace: Workspace) -> None:
    file = workspace.chart / "values.yaml"
    file.write_text(file.read_text().rstrip("\n"))
    create_stage(workspace, "mine")
    assert read_catalog(workspace.chart).stage("mine")


def test_the_installed_package_is_not_edited(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="clara-wf init DIR"):
        create_stage(Workspace(root=workspace.root, editable=False), "mine")


def test_a_failure_half_way_is_undone(workspace: Workspace) -> None:
    before = tree(workspace.root)
    # A file stands where the folder of the code should go: found only after the chart's files are written.
    workspace.images.write_text("no folder")
    with pytest.raises(ChartError, match="was undone"):
        create_stage(workspace, "mine", code=True)
    workspace.images.unlink()
    assert tree(workspace.root) == before
    assert not (workspace.root / JOURNAL).exists()


@pytest.mark.parametrize("what", ["create", "delete"])
def test_kill_at_any_moment_leaves_all_or_nothing(what: str, root: Path, memory_folder: Path) -> None:
    script = Path(__file__).with_name("kill_while_editing.py")
    done = subprocess.run(
        [sys.executable, str(script), str(root / "charts"), str(memory_folder), what],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    outcomes = json.loads(done.stdout)
    assert {outcome["left"] for outcome in outcomes} == {"before", "after"}
    # Once it stands, it stands: no step after the commit leads back.
    lasting = [outcome["left"] for outcome in outcomes]
    assert lasting == sorted(lasting, key=["before", "after"].index)
    # The kills did strike between two changes, or this would show nothing.
    assert sum(outcome["torn"] for outcome in outcomes) >= 10


def test_two_editors_at_once(workspace: Workspace, root: Path) -> None:
    """Each waits for the other: no stage is lost."""
    code = """
import sys
from pathlib import Path
from clara_wf.chart.edit import create_stage
from clara_wf.chart.workspace import Workspace
for number in range(5):
    create_stage(Workspace(root=Path(sys.argv[1])), f"s{sys.argv[2]}-{number}")
"""
    editors = [subprocess.Popen([sys.executable, "-c", code, str(workspace.root), str(number)]) for number in range(3)]
    assert [editor.wait(60) for editor in editors] == [0, 0, 0]
    made = {stage.name for stage in read_catalog(workspace.chart).stages}
    assert {f"s{editor}-{number}" for editor in range(3) for number in range(5)} <= made
