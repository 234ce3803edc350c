"""What all rooms' tests share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from program import Program

from clara_wf.inference.download import WeightsUnavailable
from clara_wf.inference.install import install
from clara_wf.phantom.job_input import ensure_test_data

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


@pytest.fixture(scope="session")
def projections(pytestconfig: pytest.Config) -> Path:
    """The folder `test-data` with the phantom's projections; made once, and kept in pytest's cache."""
    root = Path(pytestconfig.cache.mkdir("test-data"))
    ensure_test_data(root, "00000000-0000-0000-0000-000000000000", "recon")
    ensure_test_data(root, "22222222-2222-2222-2222-222222222222", "dicom-reader", projections=True)
    return root


@pytest.fixture
def with_projections(clara: Program, projections: Path) -> None:
    """Give the program's workspace the phantom's projections, as links: thousands of files."""
    shutil.copytree(projections, clara.workspace / "test-data", copy_function=os.link)


@pytest.fixture
def clara_with_models(clara: Program, models: Path) -> Program:
    """The program in a workspace of its own, with the liver networks."""
    (clara.workspace / "models").symlink_to(models)
    return clara
