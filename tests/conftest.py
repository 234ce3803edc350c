"""What all rooms' tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from program import Program

from clara_wf.inference.install import install
from clara_wf.model.errors import LackError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images, which lie beside the checkout and are no part of it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real images (../shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def models() -> Path:
    """The checkout's own model repository, with the liver networks: fetched once, then left alone."""
    repository = ROOT / "models"
    try:
        install("liver-lesion", repository)
    except LackError as fault:
        pytest.skip(f"the liver networks cannot be fetched here: {fault}")
    return repository


@pytest.fixture
def clara(tmp_path: Path) -> Program:
    """The program in a workspace of its own, without networks."""
    workspace = tmp_path / "workspace"
    shutil.copytree(ROOT / "charts", workspace / "charts")
    return Program(workspace=workspace)


@pytest.fixture
def clara_with_models(clara: Program, models: Path) -> Program:
    """The program in a workspace of its own, with the liver networks."""
    (clara.workspace / "models").symlink_to(models)
    return clara
