"""Every command that the README and the docs show is run here, in a copy of the checkout, in the order of the page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
#: Commands that a test cannot run, and why.
NOT_RUN = {
    "./run-tests": "it runs this test",
    "./run-tests tests/chart": "it runs in this very test run",
}


def _commands(page: Path) -> list[str]:
    """Return the lines of a page's `sh` blocks, without remarks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"\s+#.*$", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _with_its_group(page: Path) -> Any:
    """Let pages that use an inference server run after one another, with its tests, which look at what it leaves."""
    group = "trtis" if any("trtis" in command for command in _commands(page)) else "network"
    return pytest.param(page, marks=pytest.mark.xdist_group(group), id=str(page.relative_to(ROOT)))


PAGES_WITH_COMMANDS = [_with_its_group(page) for page in PAGES if _commands(page)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, models: Path, trtis_environment: Path, study: Path) -> Path:
    """A copy of the files that a clone would have, with an environment and networks that are there already."""
    copy = tmp_path_factory.mktemp("clone") / "clara-wf"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in files.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    shutil.copytree(models, copy / "models")  # a page may change how one is served
    (copy / "trtis").mkdir()
    (copy / "trtis/environment").symlink_to(trtis_environment)
    # What the launcher looks for, standing for this environment and this copy's lock file.
    (copy / ".venv/bin").mkdir(parents=True)
    shutil.copy(copy / "requirements.lock", copy / ".venv/runtime.lock")
    python = copy / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={copy / "src"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    home = copy.parent / "home"
    home.mkdir()
    (home / "study").symlink_to(study)
    return copy


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of somebody who is nobody."""
    from clara_wf.phantom.dicom_series import write_ct_series
    from clara_wf.phantom.patient import EVERYDAY, make_phantom

    folder = tmp_path_factory.mktemp("study")
    write_ct_series(folder, make_phantom(EVERYDAY, seed=1).image, seed=1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS)
def test_the_commands_of_a_page_work(page: Path, checkout: Path) -> None:
    commands = [command for command in _commands(page) if command not in NOT_RUN]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CLARA_", "PYTEST_"))}
    environment |= {"HOME": str(checkout.parent / "home")}
    for name in ("result", "my-workspace"):
        shutil.rmtree(checkout.parent / "home" / name, ignore_errors=True)
    done = subprocess.run(
        ["sh", "-e", "-x"],
        input="\n".join(commands),
        text=True,
        capture_output=True,
        cwd=checkout,
        env=environment,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_links_between_the_pages_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_what_is_not_run_is_still_shown() -> None:
    shown = {command for page in PAGES for command in _commands(page)}
    assert set(NOT_RUN) <= shown
