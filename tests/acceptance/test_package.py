"""The wheel: what `pip install .` gives in an environment where nobody has the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The bin folder of a new environment with the wheel; the packages that it needs are those of this one."""
    folder = tmp_path_factory.mktemp("package")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, root],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = folder.glob("clara_wf-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env/bin/python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel], check=True)
    # Only the dependencies, not this checkout: a path file would also run the one that points to it.
    (site / "dependencies.pth").write_text(f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n")
    return folder / "env/bin"


def _run(program: Path, *arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("CLARA_", "PYTHON"))}
    return subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env=clean | {"HOME": str(home), "XDG_DATA_HOME": str(home / "data")},
    )


def test_the_program_works_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    program = installed / "clara-wf"
    listed = _run(program, "workflows", "--json", home=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert len(json.loads(listed.stdout)) == 10
    refused = _run(program, "cs", "mine", home=tmp_path)
    assert refused.returncode == 2
    assert "clara-wf init DIR" in refused.stderr
    made = _run(program, "init", tmp_path / "work", home=tmp_path)
    assert made.returncode == 0, made.stderr
    created = _run(program, "--workspace", tmp_path / "work", "cs", "mine", home=tmp_path)
    assert created.returncode == 0, created.stderr


def test_a_workflow_runs_and_its_data_go_to_the_user_s_folder(installed: Path, tmp_path: Path) -> None:
    ended = _run(installed / "clara-wf", "test", "dicom-reader-only", home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "data/clara-wf/test-data").is_dir()
