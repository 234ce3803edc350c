"""Who reaches the inference server in a cluster: jobs, and nobody else. A model that it loads is a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from clara_wf.chart.argo import argo_workflow
from clara_wf.chart.helm import Helm
from clara_wf.chart.render import render
from clara_wf.chart.request import JobRequest
from clara_wf.model.errors import ChartError

Make = Callable[..., JobRequest]
Labels = Mapping[str, str]
HTTP, GRPC, METRICS = 8000, 8001, 8002


@pytest.fixture
def server(root: Path, helm: Helm) -> Callable[..., dict[str, Any]]:
    """Render the server's chart with values; give the objects by kind."""

    def objects(release: str = "trtis", **values: Any) -> dict[str, Any]:
        found = render(root / "charts/trtis", release, values, namespace="imaging", helm=helm)
        return {manifest.kind: manifest.body for manifest in found}

    return objects


Server = Callable[..., dict[str, Any]]


def selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a selector takes such labels, as far as ours go: equal labels, and labels that exist."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    wanted = selector.get("matchLabels", {}).items()
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "Exists" for expression in expressions)
    return wanted <= labels.items() and all(expression["key"] in labels for expression in expressions)


def reached(policy: Mapping[str, Any], labels: Labels, *, same_namespace: bool) -> set[int]:
    """Return the ports that a pod with such labels reaches under a policy."""
    ports: set[int] = set()
    for rule in policy["spec"]["ingress"]:
        peers = rule.get("from")
        if peers is None or any(
            selects(peer["podSelector"], labels) and (same_namespace or peer.get("namespaceSelector") == {})
            for peer in peers
        ):
            ports |= {port["port"] for port in rule["ports"] if port["protocol"] == "TCP"}
    return ports


def test_the_policy_is_that_of_the_servers_pods_and_of_their_ports(server: Server) -> None:
    objects = server()
    template = objects["Deployment"]["spec"]["template"]
    policy = objects["NetworkPolicy"]
    assert selects(policy["spec"]["podSelector"], template["metadata"]["labels"])
    assert policy["metadata"]["namespace"] == objects["Deployment"]["metadata"]["namespace"] == "imaging"
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert ports == {"http": HTTP, "grpc": GRPC, "metrics": METRICS}


def test_jobs_of_every_namespace_reach_the_server(server: Server, chart: Path, helm: Helm, job: Make) -> None:
    policy = server()["NetworkPolicy"]
    manifests = render(chart, "x", job("liver-seg").values(), helm=helm)
    found = next(manifest.body for manifest in manifests if manifest.kind == "Job")
    for labels in (
        found["spec"]["template"]["metadata"]["labels"],
        argo_workflow(manifests)["spec"]["podMetadata"]["labels"],
    ):
        for same_namespace in (True, False):
            assert reached(policy, labels, same_namespace=same_namespace) == {HTTP, GRPC, METRICS}


def test_nobody_else_does(server: Server) -> None:
    policy = server()["NetworkPolicy"]
    for labels in ({}, {"app.kubernetes.io/name": "trtis"}, {"app.kubernetes.io/component": "test"}):
        assert reached(policy, labels, same_namespace=True) == {METRICS}
        assert reached(policy, labels, same_namespace=False) == {METRICS}


def test_helm_test_reaches_its_own_server(server: Server) -> None:
    objects, other = server(), server("other")
    labels = objects["Pod"]["metadata"]["labels"]
    assert HTTP in reached(objects["NetworkPolicy"], labels, same_namespace=True)
    assert HTTP not in reached(objects["NetworkPolicy"], labels, same_namespace=False)
    assert HTTP not in reached(other["NetworkPolicy"], labels, same_namespace=True)


@pytest.mark.parametrize("off", [False, "false"])
def test_one_value_switches_it_off(off: object, server: Server) -> None:
    assert "NetworkPolicy" not in server(networkPolicy={"enabled": off})
    assert "NetworkPolicy" in server(networkPolicy={"enabled": "true"})


def test_what_is_neither_on_nor_off_is_refused(server: Server) -> None:
    with pytest.raises(ChartError, match=r"networkPolicy\.enabled"):
        server(networkPolicy={"enabled": "yes"})
