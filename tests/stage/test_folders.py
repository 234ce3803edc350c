"""Folders appear whole or not at all."""

from __future__ import annotations

import pytest

from clara_wf.model.files import UNFINISHED, folder_appearing


def make(target, text: str, *, end: BaseException | None = None) -> None:
    with folder_appearing(target) as folder:
        assert folder.name.startswith(UNFINISHED)
        assert folder.parent == target.parent
        (folder / "in").mkdir()
        (folder / "in" / "file").write_text(text)
        (folder / "link").symlink_to("nowhere")
        if end is not None:
            raise end


def test_a_folder_appears_and_takes_the_place_of_another(tmp_path):
    target = tmp_path / "a"
    for text in ("first", "second"):
        make(target, text)
        assert (target / "in/file").read_text() == text
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), OSError("disk full")])
@pytest.mark.parametrize("earlier", [False, True])
def test_what_fails_leaves_what_was_there(tmp_path, end, earlier):
    target = tmp_path / "a"
    if earlier:
        make(target, "first")
    with pytest.raises(type(end)):
        make(target, "second", end=end)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"] * earlier
    assert not earlier or (target / "in/file").read_text() == "first"


def test_it_has_the_usual_permissions(tmp_path):
    (tmp_path / "common").mkdir()
    make(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "common").stat().st_mode


def test_it_needs_the_folder_around_it(tmp_path):
    with pytest.raises(FileNotFoundError):
        make(tmp_path / "missing" / "a", "x")
