"""What all rooms' tests share."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from program import Program
from triton_server import LOCK, running

from clara_wf.inference.download import WeightsUnavailable
from clara_wf.inference.install import install
from clara_wf.model.errors import LackError
from clara_wf.model.files import UNFINISHED
from clara_wf.phantom.job_input import ensure_test_data
from clara_wf.trtis.environment import prepare
from clara_wf.trtis.state import Server

ROOT = Path(__file__).parents[1]
# A shell that starts this in the background has it ignore Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
    # Not what another worker is at, which may vanish, nor a lock: a link to it would be the same lock.
    others = shutil.ignore_patterns(f"{UNFINISHED}*", "*.lock")
    shutil.copytree(projections, clara.workspace / "test-data", copy_function=os.link, ignore=others)


@pytest.fixture
def clara_with_models(clara: Program, models: Path) -> Program:
    """The program in a workspace of its own, with the liver networks."""
    (clara.workspace / "models").symlink_to(models)
    return clara


# The inference server. Tests that use it are marked `network` and `xdist_group("trtis")`.


@pytest.fixture(scope="session")
def trtis_environment(pytestconfig: pytest.Config) -> Path:
    """The environment of the inference server; made once (400 MB), and kept in pytest's cache."""
    folder = Path(pytestconfig.cache.mkdir("trtis")) / "environment"
    try:
        prepare(folder, LOCK)
    except LackError as fault:
        pytest.skip(str(fault))
    return folder


@pytest.fixture
def triton(trtis_environment: Path, tmp_path: Path) -> Iterator[Callable[[Path], Server]]:
    """Start a server over a repository: `triton(models)`. It ends with the test; for longer use `running`."""
    with contextlib.ExitStack() as stack:

        def start(models: Path) -> Server:
            return stack.enter_context(running(trtis_environment, models, tmp_path / "trtis"))

        yield start


@pytest.fixture
def clara_with_trtis(clara: Program, trtis_environment: Path) -> Iterator[Program]:
    """The program in a workspace of its own, with the environment of the inference server; none runs afterwards."""
    (clara.workspace / "trtis").mkdir()
    (clara.workspace / "trtis/environment").symlink_to(trtis_environment)
    yield clara
    clara("uninstall_trtis")
