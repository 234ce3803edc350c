"""Tests against a real cluster: the one that KUBECONFIG names. They work in a namespace of their own.

Most use no image of ours: stages are small programs, mounted into a bare Python.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from base_image import BASE_IMAGE
from cluster_bench import COPY, NAMESPACE, Bench, write_stage
from cluster_chart import mount_checkout
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, ServiceAccount
from program import Program, add_workflow
from relay import Relay

from clara_wf.chart.helm import SdkHelm
from clara_wf.runners.cluster import Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker has the cluster: tests there count what is left over."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.xdist_group("kubernetes"))


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """The cluster, with a namespace for these tests."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")
    client = Client(config=KubeConfig.from_env(), field_manager="clara-wf-test")
    try:
        client.create(Namespace(metadata=ObjectMeta(name=NAMESPACE)))
    except ApiError as fault:
        if fault.status.code != 409:
            raise
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        accounts = list(client.list(ServiceAccount, namespace=NAMESPACE))
        if any(account.metadata and account.metadata.name == "default" for account in accounts):
            break
        time.sleep(0.2)
    yield client
    client.close()


@pytest.fixture
def relay(client: Client, tmp_path: Path) -> Iterator[Relay]:
    """Give a way to the cluster that the test can cut."""
    folder = tmp_path / "relay"
    folder.mkdir()
    relay = Relay(folder)
    yield relay
    relay.cut()


@pytest.fixture
def make_bench(clara: Program, client: Client, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Make a workspace whose stages `one`, `two` and `three` do what the test says."""
    source = tmp_path / "in put"  # a blank in a path is no trap
    source.mkdir()
    (source / "file.txt").write_text("0")
    made: list[Bench] = []

    def make(bodies: Mapping[str, str] | None = None) -> Bench:
        if not made:
            code = clara.workspace / "code"
            code.mkdir()
            mount_checkout(clara.workspace, code)
            for stage in ("one", "two", "three"):
                assert clara("cs", stage, "--image", BASE_IMAGE).code == 0
                write_stage(code, stage, (bodies or {}).get(stage, COPY))
            values = clara.workspace / "charts/clara-workflow/values.yaml"
            text = values.read_text()
            for stage in ("one", "two", "three"):
                head, mark, rest = text.partition(f"##BEGIN_{stage}##")
                text = head + mark + rest.replace("command: []", f'command: ["python", "-m", "stage_{stage}"]', 1)
            values.write_text(text)
            add_workflow(clara.workspace, "chain", ["one", "two", "three"])
        made.append(Bench(program=clara, client=client, input=source))
        return made[-1]

    yield make
    for job_id in {bench.job_id for bench in made}:
        SdkHelm().uninstall(f"clara-{job_id}", namespace=NAMESPACE)
        Cluster(client, NAMESPACE).clear(job_id, grace=1)
