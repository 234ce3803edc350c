"""What a cluster is told about a job beside its stages: queues, GPUs, networks, ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clara_wf.chart.helm import Helm
from clara_wf.chart.manifest import Manifest, read_manifests
from clara_wf.chart.render import plan_job, render
from clara_wf.chart.request import JobRequest
from clara_wf.model.errors import ChartError

Make = Callable[..., JobRequest]


@pytest.fixture
def rendered(chart: Path, helm: Helm, job: Make) -> Callable[..., dict[str, Any]]:
    """Render a workflow with values; give the objects by kind."""

    def objects(name: str = "recon-ai", trtis_uri: str = "", **extra: Any) -> dict[str, Any]:
        request = job(name, trtis_uri=trtis_uri, extra=extra)
        plan_job(chart, request, helm=helm)  # a laptop takes it too
        found: list[Manifest] = render(chart, "x", request.values(), helm=helm)
        return {manifest.kind: manifest.body for manifest in found}

    return objects


Rendered = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("version", "ttl", "replacement"),
    [
        ("1.20.2", None, None),
        ("1.20.15-gke.1", None, None),
        ("1.21.0", 86400, None),
        ("v1.28.9", 86400, None),
        ("1.29.0", 86400, "Failed"),
        ("1.29", 86400, "Failed"),
        ("v1.30.1-eks-ae9a62a", 86400, "Failed"),
        ("1.36.0", 86400, "Failed"),
        ("", 86400, "Failed"),  # what Helm takes for granted where there is no cluster
    ],
)
def test_older_clusters_are_not_told_what_they_do_not_know(
    version: str, ttl: int | None, replacement: str | None, rendered: Rendered
) -> None:
    spec = rendered(kubeVersion=version)["Job"]["spec"]
    assert spec.get("ttlSecondsAfterFinished") == ttl
    assert spec.get("podReplacementPolicy") == replacement


@pytest.mark.parametrize(("version", "known"), [("1.20.2", False), ("1.30.1", True)])
def test_the_program_asks_the_cluster(version: str, known: bool, chart: Path) -> None:
    """The SDK renders for no version but its own: without a cluster, `kubeVersion` is the way."""
    program = shutil.which("helm")
    if program is None:
        pytest.skip("the program `helm` is not on the PATH")
    command = [program, "template", "x", str(chart), "--kube-version", version]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
    assert ("podReplacementPolicy: Failed" in text) is known
    assert ("ttlSecondsAfterFinished:" in text) is known


def test_a_job_can_be_kept_for_ever(rendered: Rendered) -> None:
    assert "ttlSecondsAfterFinished" not in rendered(ttlSecondsAfterFinished="")["Job"]["spec"]
    assert rendered(ttlSecondsAfterFinished=0)["Job"]["spec"]["ttlSecondsAfterFinished"] == 0
    # As --set gives it.
    assert rendered(ttlSecondsAfterFinished="60")["Job"]["spec"]["ttlSecondsAfterFinished"] == 60


def test_a_queue_is_named_and_the_rest_is_kueues(rendered: Rendered) -> None:
    job = rendered(queue="radiology")["Job"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "radiology"
    assert "suspend" not in job["spec"]
    assert "kueue.x-k8s.io/queue-name" not in rendered()["Job"]["metadata"]["labels"]


def test_priority_grace_labels_and_annotations(rendered: Rendered) -> None:
    job = rendered(
        priorityClassName="urgent",
        terminationGracePeriodSeconds="5",
        jobLabels={"team": "ct"},
        podLabels={"sidecar.istio.io/inject": "false"},
        podAnnotations={"note": "1"},
    )["Job"]
    pod = job["spec"]["template"]
    assert pod["spec"]["priorityClassName"] == "urgent"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 5
    assert job["metadata"]["labels"]["team"] == "ct"
    assert "team" not in pod["metadata"]["labels"]
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert pod["metadata"]["annotations"] == {"note": "1"}
    plain = rendered()["Job"]["spec"]["template"]
    assert plain["spec"]["terminationGracePeriodSeconds"] == 10
    assert "priorityClassName" not in plain["spec"]


@pytest.mark.parametrize("label", ["clara-workflow/job-id", "app.kubernetes.io/name", "kueue.x-k8s.io/queue-name"])
def test_labels_of_ours_are_not_overwritten(label: str, rendered: Rendered) -> None:
    with pytest.raises(ChartError, match=f"values refused: .*'{label}'"):
        rendered(jobLabels={label: "x"})


def test_gpus_are_a_limit_of_the_stage(rendered: Rendered, chart: Path, helm: Helm, job: Make) -> None:
    def limits(**stages: Any) -> dict[str, Any]:
        pod = rendered(stages=stages)["Job"]["spec"]["template"]["spec"]
        return {container["name"]: container["resources"]["limits"] for container in pod["containers"]}

    assert limits() == {"recon": {"memory": "8Gi"}, "ai-vnet": {"memory": "8Gi"}}
    for number in (2, "2"):
        found = limits(**{"ai-vnet": {"gpus": number}})
        assert found == {"recon": {"memory": "8Gi"}, "ai-vnet": {"memory": "8Gi", "nvidia.com/gpu": 2}}
    request = job("recon-ai", extra={"stages": {"ai-vnet": {"gpus": 1, "resources": {"limits": {"memory": "1Gi"}}}}})
    assert plan_job(chart, request, helm=helm).stage("ai-vnet").resources.memory == 2**30


def test_a_gpu_where_the_stage_has_no_limits(rendered: Rendered) -> None:
    stages = {"recon": {"gpus": 1, "resources": {"limits": None, "requests": None}}}
    pod = rendered("recon-only", stages=stages)["Job"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": 1}}


def test_what_a_stage_may_reach(chart: Path, helm: Helm, job: Make) -> None:
    def networks(**fields: Any) -> list[str]:
        plan = plan_job(chart, job("liver-seg", **fields), helm=helm)
        return [stage.variable("NETWORK") for stage in plan.stages]

    assert networks() == ["", "", ""]
    assert networks(trtis_uri="trtis:8001") == ["", "trtis", ""]
    extra = {"stages": {"dicom-reader": {"network": "any"}, "ai-livertumor": {"network": "none"}}}
    assert networks(trtis_uri="trtis:8001", extra=extra) == ["any", "", ""]


ON = {"networkPolicy": {"enabled": True}}


def test_a_network_policy_follows_the_stages(rendered: Rendered) -> None:
    assert "NetworkPolicy" not in rendered()
    policy = rendered(**ON)["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert (policy["ingress"], policy["egress"]) == ([], [])
    job = rendered(**ON)["Job"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= job.items()
    for address, port in (("http://trtis.default:8000/", 8000), ("grpc://[::1]:8001", 8001)):
        (rule,) = rendered(trtis_uri=address, **ON)["NetworkPolicy"]["spec"]["egress"]
        assert [entry["port"] for entry in rule["ports"]] == [port, 53, 53]
    assert rendered("recon-only", trtis_uri="t:1", **ON)["NetworkPolicy"]["spec"]["egress"] == []
    bucket = {"payloads": {"bucket": {"url": "s3://b"}}}
    assert rendered("recon-only", workflow=bucket, **ON)["NetworkPolicy"]["spec"]["egress"] == [{}]


def test_what_set_gives_are_strings(rendered: Rendered) -> None:
    assert "NetworkPolicy" in rendered(networkPolicy={"enabled": "true"})
    assert "NetworkPolicy" not in rendered(networkPolicy={"enabled": "false"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ttlSecondsAfterFinished": -1}, "ttlSecondsAfterFinished"),
        ({"ttlSecondsAfterFinished": "soon"}, "ttlSecondsAfterFinished"),
        ({"terminationGracePeriodSeconds": ""}, "terminationGracePeriodSeconds"),
        ({"queue": "Not A Name"}, "queue"),
        ({"kubeVersion": "new"}, "kubeVersion"),
        ({"scratchSize": "much"}, "scratchSize"),
        ({"stages": {"recon": {"gpus": -1}}}, "stages.recon.gpus"),
        ({"stages": {"recon": {"network": "host"}}}, "stages.recon.network"),
        ({"networkPolicy": {"enabled": "yes"}}, "networkPolicy.enabled"),
        ({"podLabels": {"a": 1}}, "podLabels.a"),
    ],
)
def test_the_schema_refuses_wrong_settings(values: dict[str, Any], said: str, rendered: Rendered) -> None:
    with pytest.raises(ChartError, match="values refused") as caught:
        rendered(**values)
    assert said in str(caught.value)


def test_a_rendering_without_a_bucket_has_one_kind_of_container(chart: Path, helm: Helm, job: Make) -> None:
    text = helm.render(chart, "x", job("recon-ai").values())
    (manifest,) = [m for m in read_manifests(text, chart) if m.kind == "Job"]
    assert "initContainers" not in manifest.body["spec"]["template"]["spec"]
