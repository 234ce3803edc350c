"""A workspace to edit, and requests to render."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clara_wf.chart.helm import Helm, ProgramHelm, SdkHelm
from clara_wf.chart.request import JobRequest
from clara_wf.chart.workspace import Workspace

JOB_ID = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="session")
def helm() -> Helm:
    return SdkHelm()


@pytest.fixture(scope="session", params=["sdk", "program"])
def either_helm(request: pytest.FixtureRequest) -> Helm:
    """Both backends; the program only where it is installed."""
    if request.param == "sdk":
        return SdkHelm()
    if shutil.which("helm") is None:
        pytest.skip("the program `helm` is not on the PATH")
    return ProgramHelm()


@pytest.fixture
def workspace(tmp_path: Path, root: Path) -> Workspace:
    """A copy of the charts that a test may spoil."""
    shutil.copytree(root / "charts", tmp_path / "work/charts")
    return Workspace(root=tmp_path / "work")


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder where forcing to the disk costs nothing, for tests that do it a thousand times."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def chart(root: Path) -> Path:
    """The chart as shipped; not for editing."""
    return root / "charts/clara-workflow"


@pytest.fixture(scope="session")
def job() -> Callable[..., JobRequest]:
    """Make a request, on folders that are the same on every machine."""

    def make(workflow: str, **fields: object) -> JobRequest:
        given = {"job_id": JOB_ID, "job_name": "test", "payloads": Path("/payloads"), "models": Path("/models")}
        return JobRequest(workflow=workflow, **{**given, **fields})  # type: ignore[arg-type]

    return make
