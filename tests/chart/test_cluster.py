"""Installing into a cluster: the one that KUBECONFIG names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lightkube import Client, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace

from clara_wf.chart.helm import Helm
from clara_wf.chart.render import job_values
from clara_wf.chart.request import JobRequest
from clara_wf.model.errors import ChartError

NAMESPACE = "clara-wf-test"
pytestmark = [pytest.mark.kubernetes, pytest.mark.xdist_group("kubernetes")]


@pytest.fixture
def cluster() -> None:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")
    client = Client(config=KubeConfig.from_env(), field_manager="clara-wf-test")
    client.apply(Namespace(metadata=ObjectMeta(name=NAMESPACE)))
    client.close()


@pytest.fixture
def release(cluster: None, either_helm: Helm) -> Iterator[str]:
    yield "clara-wf-test"
    either_helm.uninstall("clara-wf-test", namespace=NAMESPACE)


def test_the_inference_server_comes_and_goes(release: str, either_helm: Helm, root: Path) -> None:
    chart = root / "charts/trtis"
    either_helm.install(release, chart, {"replicas": 0}, namespace=NAMESPACE)
    either_helm.install(release, chart, {"replicas": 0}, namespace=NAMESPACE)  # again: an upgrade
    assert either_helm.uninstall(release, namespace=NAMESPACE)
    assert not either_helm.uninstall(release, namespace=NAMESPACE)


def test_a_failed_install_can_be_repaired(release: str, either_helm: Helm, root: Path) -> None:
    chart = root / "charts/trtis"
    with pytest.raises(ChartError, match="quantities must match"):
        either_helm.install(release, chart, {"replicas": 0, "resources": {"limits": {"cpu": "x"}}}, namespace=NAMESPACE)
    either_helm.install(release, chart, {"replicas": 0}, namespace=NAMESPACE)


def test_the_api_server_takes_a_job(
    release: str, either_helm: Helm, chart: Path, job: Callable[..., JobRequest], tmp_path: Path
) -> None:
    request = job("liver-seg", job_name="007", payloads=tmp_path, models=tmp_path, extra={"imagePullPolicy": "Never"})
    either_helm.install(release, chart, job_values(chart, request), namespace=NAMESPACE)


def test_waiting_ends_with_the_name_of_what_is_not_ready(release: str, either_helm: Helm, root: Path) -> None:
    with pytest.raises(ChartError, match="trtis"):
        either_helm.install(
            release, root / "charts/trtis", {"image": {"pullPolicy": "Never"}}, namespace=NAMESPACE, timeout=2
        )


def test_a_cluster_that_does_not_answer(
    either_helm: Helm, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(
        "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}],"
        " clusters: [{name: x, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: x, user: {}}]}"
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    with pytest.raises(ChartError, match=r"127\.0\.0\.1:1\b") as caught:
        either_helm.install("x", root / "charts/trtis", {})
    assert "\n" not in str(caught.value)
