"""The same workflow by every runner, with the real images: the same files, but for times."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from base_image import start_one
from lightkube import Client, KubeConfig
from lightkube.resources.core_v1 import Node
from program import Program
from same_files import differences

from clara_wf.containers.engine import EngineFailed, find_engine
from clara_wf.model.errors import LackError

VOLUME_JOB = "00000000-0000-0000-0000-000000000000"
SERIES_JOB = "11111111-1111-1111-1111-111111111111"
WORKFLOWS = {"ai-only": VOLUME_JOB, "organ-seg": SERIES_JOB, "dicom-reader-writer": SERIES_JOB}
ByProcesses = Callable[[str], Path]
IMAGES = [f"clara-wf/{stage}:0.1.0" for stage in ("dicom-reader", "ai-vnet", "dicom-writer")]
HOW_TO = "see docs/kubernetes.md: clara-wf build"


@pytest.fixture
def cluster() -> None:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")
    client = Client(config=KubeConfig.from_env())
    nodes = client.list(Node)
    names = {name for node in nodes for image in node.status.images or [] for name in image.names or []}
    client.close()
    wanted = [*IMAGES, "clara-wf/trtis:0.1.0"]
    missing = [image for image in wanted if not any(name.endswith(image) for name in names)]
    if missing:
        pytest.skip(f"the cluster has no image {missing[0]}; {HOW_TO}")


@pytest.fixture(params=["podman", "docker"])
def engine(request: pytest.FixtureRequest) -> str:
    try:
        found = find_engine(request.param)
        for image in IMAGES:
            start_one(found, image)
    except LackError as fault:
        pytest.skip(str(fault))
    except EngineFailed as fault:
        pytest.skip(f"{fault}; {HOW_TO}")
    return str(request.param)


@pytest.fixture(scope="session")
def by_processes(models: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> ByProcesses:
    """Run a workflow by processes, once; give its payload."""

    @functools.cache
    def run(workflow: str) -> Path:
        workspace = tmp_path_factory.mktemp("processes")
        shutil.copytree(root / "charts", workspace / "charts")
        (workspace / "models").symlink_to(models)
        ended = Program(workspace=workspace)("test", workflow)
        assert ended.code == 0, ended.err
        kept = workspace / "kept" / workflow
        shutil.copytree(workspace / "test-data" / WORKFLOWS[workflow], kept, symlinks=True)
        return kept

    return run


@pytest.mark.kubernetes
@pytest.mark.slow
@pytest.mark.xdist_group("kubernetes")
@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_cluster_gives_the_same_files(
    clara_with_models: Program, cluster: None, by_processes: ByProcesses, workflow: str
) -> None:
    kept = by_processes(workflow)
    ended = clara_with_models("test", workflow, "--runner", "kubernetes", KUBECONFIG=os.environ["KUBECONFIG"])
    assert ended.code == 0, ended.err
    assert f"passed: {workflow}" in ended.out
    assert differences(kept, clara_with_models.workspace / "test-data" / WORKFLOWS[workflow]) == []


@pytest.mark.containers
@pytest.mark.slow
@pytest.mark.xdist_group("containers")
@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_containers_give_the_same_files(
    clara_with_models: Program, engine: str, by_processes: ByProcesses, workflow: str
) -> None:
    kept = by_processes(workflow)
    ended = clara_with_models("test", workflow, "--runner", "container", CLARA_WF_CONTAINER_ENGINE=engine)
    assert ended.code == 0, ended.err
    assert f"passed: {workflow}" in ended.out
    assert differences(kept, clara_with_models.workspace / "test-data" / WORKFLOWS[workflow]) == []


@pytest.fixture
def served(clara_with_models: Program, cluster: None) -> Iterator[str]:
    """Install the inference server into the cluster; give its address, where no name of the cluster is needed."""
    kubeconfig = os.environ["KUBECONFIG"]
    installed = clara_with_models("install_trtis", "--runner", "kubernetes", KUBECONFIG=kubeconfig)
    assert installed.code == 0, installed.err
    assert "TRTIS runs at: trtis.default:8000 (HTTP), :8001 (gRPC), :8002 (metrics); its address is " in installed.out
    yield installed.out.partition("its address is ")[2].split()[0]
    removed = clara_with_models("uninstall_trtis", "--runner", "kubernetes", KUBECONFIG=kubeconfig)
    assert (removed.code, removed.out) == (0, "TRTIS is uninstalled: release 'trtis'\n")
    again = clara_with_models("uninstall_trtis", "--runner", "kubernetes", KUBECONFIG=kubeconfig)
    assert (again.code, again.out) == (0, "")
    assert "TRTIS is not installed" in again.err


@pytest.mark.kubernetes
@pytest.mark.slow
@pytest.mark.xdist_group("kubernetes")
def test_a_server_in_the_cluster_gives_the_same_labels(
    clara_with_models: Program, served: str, by_processes: ByProcesses
) -> None:
    kept = by_processes("organ-seg")
    arguments = ("--runner", "kubernetes", "--trtis", f"{served}:8000")
    ended = clara_with_models("test", "organ-seg", *arguments, KUBECONFIG=os.environ["KUBECONFIG"])
    assert ended.code == 0, ended.err
    payload = clara_with_models.workspace / "test-data" / SERIES_JOB
    raw = sorted(kept.glob("ai-vnet/output/*.raw"))
    assert len(raw) == 1
    assert raw[0].read_bytes() == (payload / raw[0].relative_to(kept)).read_bytes()
    record = json.loads(next(payload.glob("ai-vnet/output/*.seg.json")).read_text())
    assert " in Triton " in json.dumps(record), "it was not the server that computed"


@pytest.mark.kubernetes
def test_a_server_that_a_pod_cannot_reach_is_refused(clara: Program) -> None:
    ended = clara("test", "organ-seg", "--runner", "kubernetes", "--trtis", "localhost:8000")
    assert ended.code == 2
    assert "error: --trtis localhost:8000 means, in a cluster, the pod itself. Name the server's Service" in ended.err
