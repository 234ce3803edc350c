"""Every workflow renders to what lies in tests/golden, and Kubernetes would take it.

After a wanted change of the chart: CLARA_WF_RENEW_GOLDEN=1 ./run-tests tests/chart, and read the diff.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from clara_wf.chart.catalog import read_catalog
from clara_wf.chart.helm import Helm, SdkHelm
from clara_wf.chart.manifest import read_manifests
from clara_wf.chart.render import render
from clara_wf.chart.request import JobRequest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
CATALOG = read_catalog(ROOT / "charts/clara-workflow")
WORKFLOWS = [workflow.name for workflow in CATALOG.workflows]
# As FIELD notes of the first generation list them: names and ids that its users know.
KNOWN = {
    "ct-ai": "0fcdcdea-89c6-456f-b20a-bc7379c54ef2",
    "organ-seg": "1db65f99-c9b7-4329-ab9c-d519e0557638",
    "liver-seg": "fd3ee8bf-b9f3-4808-bd60-243f870ff9bd",
    "ct-partial": "a78b1e7a-0325-4d42-b90f-207eb576b14f",
    "dicom-reader-only": "1995f10e-ee14-4d67-b307-452051637dbb",
    "dicom-reader-writer": "8371285c-8ea8-41cd-958e-44e5664c6ec3",
    "recon-only": "613e3fce-0d96-495a-a760-f43e68deefd8",
    "recon-ai": "21dd9b92-f307-4e68-ba31-fe8b1449ceea",
    "ai-only": "50d31ed4-eeac-47e6-b584-c562f22a0091",
    "dicom-writer-only": "eb66f705-13ea-402c-8baa-143fb3fd9cd5",
}


def text_of(rendered: dict[str, str]) -> str:
    parts = [f"# Source: {path}\n{text.strip()}\n" for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
    return "---\n".join(parts)


def strictly_valid(body: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(body, version, strict=True)


def test_all_ten_workflows_are_there_by_name_and_id() -> None:
    assert {workflow.name: workflow.id for workflow in CATALOG.workflows} == KNOWN


@pytest.mark.parametrize("name", WORKFLOWS)
def test_manifest_is_golden(name: str, chart: Path, helm: Helm, job: Callable[..., JobRequest]) -> None:
    text = text_of(helm.render(chart, "golden", job(name).values()))
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("CLARA_WF_RENEW_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text()


def test_no_golden_manifest_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.glob("*.yaml")} == {*WORKFLOWS, "trtis"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_name_alias_and_uuid_render_the_same(
    name: str, chart: Path, helm: Helm, job: Callable[..., JobRequest]
) -> None:
    workflow = CATALOG.workflow(name)
    by_name = helm.render(chart, "same", job(name).values())
    for other in (workflow.id, workflow.id.upper(), *workflow.aliases):
        assert helm.render(chart, "same", job(other).values()) == by_name


@pytest.mark.parametrize("version", ["1.28", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", WORKFLOWS)
def test_kubernetes_takes_every_object(
    name: str, version: str, chart: Path, helm: Helm, job: Callable[..., JobRequest]
) -> None:
    manifests = render(chart, "strict", job(name, deadline=90.0).values(), helm=helm)
    assert [manifest.kind for manifest in manifests] == ["Job", "Pod", "PersistentVolumeClaim", "PersistentVolume"]
    for manifest in manifests:
        strictly_valid(dict(manifest.body), version)


def test_the_strict_check_finds_a_wrong_field(chart: Path, helm: Helm, job: Callable[..., JobRequest]) -> None:
    body = dict(render(chart, "strict", job("ai-only").values(), helm=helm)[0].body)
    body["spec"] = {**body["spec"], "backofLimit": 0}
    with pytest.raises(kubernetes_validate.ValidationError):
        strictly_valid(body, "1.28")


@pytest.mark.parametrize("version", ["1.28", kubernetes_validate.latest_version()])
@pytest.mark.parametrize(
    "values",
    [{}, {"gpus": 2, "service": {"type": "NodePort"}}, {"models": {"existingClaim": "models"}}],
    ids=["cpu", "gpu", "claim"],
)
def test_kubernetes_takes_the_inference_server(root: Path, values: dict[str, Any], version: str) -> None:
    manifests = render(root / "charts/trtis", "strict", values, helm=SdkHelm())
    assert [manifest.kind for manifest in manifests] == ["Deployment", "NetworkPolicy", "Service", "Pod"]
    for manifest in manifests:
        strictly_valid(dict(manifest.body), version)


def test_inference_server_is_golden(root: Path, helm: Helm) -> None:
    text = text_of(helm.render(root / "charts/trtis", "golden", {}))
    golden = GOLDEN / "trtis.yaml"
    if os.environ.get("CLARA_WF_RENEW_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text()


def test_inference_server_asks_for_gpus_only_where_wanted_and_takes_no_test_traffic(root: Path, helm: Helm) -> None:
    def objects(values: dict[str, Any]) -> dict[str, Any]:
        rendered = helm.render(root / "charts/trtis", "x", values)
        return {manifest.kind: manifest.body for manifest in read_manifests(rendered, root / "charts/trtis")}

    container = objects({"gpus": 3})["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 3}
    plain = objects({})
    assert "limits" not in plain["Deployment"]["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert [port["port"] for port in plain["Service"]["spec"]["ports"]] == [8000, 8001, 8002]
    selector = plain["Service"]["spec"]["selector"].items()
    assert selector <= plain["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    assert not selector <= plain["Pod"]["metadata"]["labels"].items()


@pytest.mark.parametrize("name", ["clara-workflow", "trtis"])
def test_charts_lint_clean(name: str, root: Path, either_helm: Helm) -> None:
    assert either_helm.lint(root / "charts" / name, {}) == []


def test_no_patient_data_can_reach_a_label_or_a_name(chart: Path, helm: Helm, job: Callable[..., JobRequest]) -> None:
    """Whatever somebody writes into job.name stays in the stages' variables."""
    rendered = helm.render(chart, "x", job("liver-seg", job_name="MARKERNAME^TWO").values())
    for manifest in read_manifests(rendered, chart):
        assert "MARKERNAME" not in str(manifest.body["metadata"])
        template = manifest.body["spec"].get("template", {})
        assert "MARKERNAME" not in str(template.get("metadata"))
