"""An edit that fails or is cut off is undone, and never at the cost of what a person has written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clara_wf.chart.journal import JOURNAL, change, exclusive, recover
from clara_wf.chart.workspace import find_workspace
from clara_wf.model.errors import ChartError

VALUES = Path("charts/values.yaml")
LINK = Path("charts/shared")
NEW = Path("charts/stages/new.yaml")
GONE = Path("charts/stages-gone/gone.yaml")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace of a file to change, one to remove, and a link to remove."""
    root = tmp_path / "work"
    (root / GONE).parent.mkdir(parents=True)
    (root / VALUES).write_text("old")
    (root / GONE).write_text("gone")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/theirs.yaml").write_text("theirs")
    (root / LINK).symlink_to(tmp_path / "shared")
    return root


def tree(root: Path) -> dict[str, str]:
    """Return the files' contents, and where links lead."""
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def cut_off(root: Path) -> None:
    """Change all files, and end before the change stands."""
    code = f"""
import os, sys
from pathlib import Path
from clara_wf.chart.journal import change
def die(event, arguments):
    if event == "os.remove" and str(arguments[0]).endswith("undo.json"):
        os._exit(9)
sys.addaudithook(die)
changes = {{"{VALUES}": "new", "{NEW}": "made", "{GONE}": None, "{LINK}": None}}
change(Path(sys.argv[1]), {{Path(path): content for path, content in changes.items()}})
"""
    assert subprocess.run([sys.executable, "-c", code, root], check=False).returncode == 9
    assert tree(root)[str(VALUES)] == "new"
    assert not {str(GONE), str(LINK)} & set(tree(root))


def test_an_edit_that_was_cut_off_is_undone_and_said(root: Path) -> None:
    before = tree(root)
    cut_off(root)
    said: list[str] = []
    recover(root, said.append)
    recover(root, said.append)
    assert tree(root) == before
    assert (root.parent / "shared/theirs.yaml").read_text() == "theirs"
    assert not (root / NEW).parent.exists()
    assert said == [f"An edit of {root} that was cut off is undone: {VALUES}, {NEW}, {GONE}, {LINK}"]


@pytest.mark.parametrize("path", [VALUES, NEW, GONE, LINK])
def test_what_a_person_has_written_since_stays(path: Path, root: Path) -> None:
    before = tree(root)
    cut_off(root)
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text("by hand")
    torn = tree(root)

    for _ in range(2):
        with pytest.raises(ChartError, match=f"^{root / path} was changed by hand after an edit was cut off") as caught:
            recover(root)
        assert tree(root) == torn
    assert len(str(caught.value).splitlines()) == 1
    copies = {VALUES: "old", GONE: "gone"}
    if path in copies:
        copy = root / JOURNAL / {VALUES: "0", GONE: "2"}[path]
        assert f"The content before the edit is {copy}" in str(caught.value)
        assert copy.read_text() == copies[path]
        (root / path).write_text(copies[path])
    else:
        assert "Move it away" in str(caught.value)
        (root / path).unlink()
    # As the message advises.
    recover(root)
    assert tree(root) == before


def test_a_file_that_is_put_back_by_hand_is_passed_over(root: Path) -> None:
    before = tree(root)
    cut_off(root)
    (root / VALUES).write_text("old")
    said: list[str] = []
    recover(root, said.append)
    assert tree(root) == before
    assert str(VALUES) not in said[0]


def test_a_file_that_is_gone_is_put_back(root: Path) -> None:
    before = tree(root)
    cut_off(root)
    (root / VALUES).unlink()
    recover(root)
    assert tree(root) == before


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"charts/values.yaml": "0"}, "folders": []}'])
def test_a_journal_that_cannot_be_understood_stays(text: str, root: Path) -> None:
    cut_off(root)
    (root / JOURNAL / "undo.json").write_text(text)
    torn = tree(root)
    with pytest.raises(ChartError, match=r"undo\.json cannot be understood"):
        recover(root)
    assert tree(root) == torn


def test_nothing_is_said_where_nothing_had_changed(root: Path) -> None:
    (root / JOURNAL).mkdir()
    (root / JOURNAL / "0").write_text("old")
    said: list[str] = []
    recover(root, said.append)
    assert said == []
    assert not (root / JOURNAL).exists()


def test_a_file_keeps_its_permissions_when_changed_and_when_put_back(root: Path) -> None:
    for path in (VALUES, GONE):
        (root / path).chmod(0o600)
    cut_off(root)
    assert (root / VALUES).stat().st_mode & 0o777 == 0o600
    # The copies in the journal are no more public than what they are of.
    assert {(root / JOURNAL / copy).stat().st_mode & 0o777 for copy in "02"} == {0o600}
    recover(root)
    assert {(root / path).stat().st_mode & 0o777 for path in (VALUES, GONE)} == {0o600}


def test_a_link_is_written_through_and_put_back_there(root: Path, memory_folder: Path) -> None:
    """Also onto another disk, where no file of the workspace can be moved to."""
    site = memory_folder / "values.yaml"
    site.write_text("old")
    (root / VALUES).unlink()
    (root / VALUES).symlink_to(site)
    before = tree(root) | {str(VALUES): f"-> {site}"}
    with exclusive(root):
        change(root, {VALUES: "newer"})
    assert tree(root) == before
    assert (root / VALUES).is_symlink()
    assert site.read_text() == "newer"

    with exclusive(root), pytest.raises(FileExistsError):
        change(root, {VALUES: "newest", VALUES / "no-folder": ""})
    assert tree(root) == before
    assert site.read_text() == "newer"


def outcomes_of(kind: str, charts: Path, folder: Path) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("break_while_editing.py")
    done = subprocess.run(
        [sys.executable, str(script), str(charts), str(folder), kind],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(outcomes) > 20
    assert outcomes.pop()["said"] == "made"
    return outcomes


def test_a_full_disk_undoes_an_edit_at_once(pytestconfig: pytest.Config, memory_folder: Path) -> None:
    """What was there needs no room: it is moved back."""
    for outcome in outcomes_of("full", pytestconfig.rootpath / "charts", memory_folder):
        assert "the edit failed and was undone: No space left on device" in outcome["said"]
        assert outcome["left"] == "before"
        assert outcome["remarks"] == []
        assert outcome["edit by hand stays"]


def test_a_broken_disk_loses_nothing(pytestconfig: pytest.Config, memory_folder: Path) -> None:
    outcomes = outcomes_of("broken", pytestconfig.rootpath / "charts", memory_folder)
    for outcome in outcomes:
        # "Undone" is said only where it is true.
        assert ("was undone" in outcome["said"]) == (outcome["left"] == "before"), outcome
        assert ("cannot be undone yet" in outcome["said"]) == (outcome["left"] != "before"), outcome
        assert outcome["recovered"] == "before"
        assert outcome["edit by hand stays"]
        assert outcome.get("old content is kept", True)
    stopped = [outcome for outcome in outcomes if "fault" in outcome]
    assert all("values.yaml was changed by hand" in outcome["fault"] for outcome in stopped)
    assert all(len(outcome["remarks"]) <= 1 for outcome in outcomes)
    assert any(outcome["remarks"] for outcome in outcomes)
    assert len(stopped) > 5


def test_a_workspace_is_found_with_a_remark(root: Path) -> None:
    mark = root / "charts/clara-workflow/Chart.yaml"
    mark.parent.mkdir()
    mark.touch()
    cut_off(root)
    said: list[str] = []
    assert find_workspace(root, {}, say=said.append).root == root
    assert len(said) == 1
    assert list(root.iterdir()) == [root / "charts"]
