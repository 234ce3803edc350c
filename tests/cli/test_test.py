"""`test`: what it says where its phantom is not as it was made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from program import Program
from tiny_network import DESCRIPTION, described, model_folder

JOB = "00000000-0000-0000-0000-000000000000"


@pytest.mark.slow
def test_a_broken_engine_is_noticed_in_a_copy_and_not_in_a_changed_input(clara: Program, tmp_path: Path) -> None:
    """The network that stands for it marks all that is bright, and calls it a liver."""
    labels = [{**DESCRIPTION["labels"][0], "name": "liver"}]
    source = model_folder(tmp_path / "own", described(labels=labels))
    assert clara("model", "install", "tiny", "--from", source).code == 0
    made = clara("test", "--model", "tiny", "--json")
    assert made.code == 1
    assert "the liver's Dice" in made.err
    assert made.events[-1]["compared"] is True

    copy = Program(workspace=tmp_path / "copy")
    shutil.copytree(clara.workspace, copy.workspace, symlinks=True, copy_function=shutil.copy)
    copied = copy("test", "--model", "tiny", "--json")
    assert copied.code == 1, "the phantom is the same: it is compared"
    assert copied.events[-1]["compared"] is True
    assert "was changed" not in copied.err

    folder = copy.workspace / "test-data" / JOB / "ai-vnet/input"
    raw = folder / "recon.raw"
    raw.write_bytes(b"\x01" + raw.read_bytes()[1:])
    changed = copy("test", "--model", "tiny", "--json")
    assert changed.code == 0, changed.err
    assert changed.events[-1]["compared"] is False
    assert f"The input was changed since it was made: nothing was compared. To have it made again, remove {folder}" in (
        changed.err.splitlines()
    )
    assert raw.read_bytes().startswith(b"\x01"), "it may be the user's"
