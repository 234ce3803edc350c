"""What the launcher does before there is an environment: whose files it removes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

#: New enough, and it says how it was called; it makes nothing.
PYTHON = '#!/bin/sh\n[ "$1" = -c ] || { echo "python $*"; exit 1; }\n'


@pytest.fixture
def python(tmp_path: Path) -> Path:
    program = tmp_path / "python"
    program.write_text(PYTHON)
    program.chmod(0o755)
    return program


def make(root: Path, venv: Path | str, python: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        ["sh", root / ".ci/make-environment", venv, "runtime"],
        capture_output=True,
        text=True,
        check=False,
        # Its lock keeps others from the same checkout waiting, and is not what is tested.
        env=os.environ | {"CLARA_WF_PYTHON": str(python), "CLARA_WF_SETUP_LOCKED": "1"},
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize("tail", ["", "/"])
def test_what_lies_behind_a_link_is_left_alone(root: Path, tmp_path: Path, python: Path, tail: str) -> None:
    disk, venv = tmp_path / "disk", tmp_path / "venv"
    disk.mkdir()
    (disk / "mine").touch()
    (disk / "pyvenv.cfg").touch()
    venv.symlink_to(disk)
    code, said = make(root, f"{venv}{tail}", python)
    assert code == 2
    assert said == [f"clara-wf: {venv}{tail} is a link: remove it, or make the folder above it the link"]
    assert {path.name for path in disk.iterdir()} == {"mine", "pyvenv.cfg"}


def test_what_is_no_environment_is_left_alone(root: Path, tmp_path: Path, python: Path) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / ".mine").touch()
    code, said = make(root, venv, python)
    assert (code, said) == (2, [f"clara-wf: {venv} holds something else than an environment. Move it away"])
    assert (venv / ".mine").exists()
    (venv / ".mine").unlink()
    venv.rmdir()
    venv.touch()
    code, said = make(root, venv, python)
    assert (code, said) == (2, [f"clara-wf: {venv} is no folder. Move it away"])


@pytest.mark.parametrize("left", [None, (), ("pyvenv.cfg", ".hidden", "bin", "lib/a b")])
def test_a_new_folder_an_empty_one_and_an_interrupted_environment_are_begun(
    root: Path, tmp_path: Path, python: Path, left: tuple[str, ...] | None
) -> None:
    venv = tmp_path / "the venv"
    for name in left or ():
        (venv / name).parent.mkdir(parents=True, exist_ok=True)
        (venv / name).touch()
    if left == ():
        venv.mkdir()
    code, said = make(root, venv, python)
    assert code == 3
    assert said[0] == f"python -m venv {venv}"
    assert [path.name for path in venv.iterdir()] == ["pyvenv.cfg"], "an interrupted one is known as an environment"
