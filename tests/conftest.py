"""What all rooms' tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from program import Program

from clara_wf.inference.download import WeightsUnavailable
from clara_wf.inference.install import install

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
def models(pytestconfig: pytest.Config) -> Path:
    """A repository with the liver and the lesion network; fetched once, and kept in pytest's cache."""
    repository = Path(pytestconfig.cache.mkdir("models"))
    try:
        install("liver-lesion", repository)
    except WeightsUnavailable as fault:
        pytest.skip(str(fault))
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
