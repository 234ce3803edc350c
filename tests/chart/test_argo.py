"""A job as an Argo Workflow: by Argo's own schema, and the same stages as the Job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hera.workflows.models import Workflow
from pod_security import violations

from clara_wf.chart.argo import argo_workflow
from clara_wf.chart.catalog import read_catalog
from clara_wf.chart.helm import Helm
from clara_wf.chart.manifest import Manifest
from clara_wf.chart.render import render
from clara_wf.chart.request import JobRequest
from clara_wf.chart.text import to_yaml
from clara_wf.model.errors import ChartError

JOB_ID = "00000000-0000-0000-0000-000000000000"
WORKFLOWS = [workflow.name for workflow in read_catalog(Path(__file__).parents[2] / "charts/clara-workflow").workflows]
CLAIMED = {"workflow": {"payloads": {"storageClass": "fast", "bucket": {"url": "s3://b", "secretName": "keys"}}}}

Make = Callable[..., JobRequest]


@pytest.fixture
def rendered(chart: Path, helm: Helm, job: Make) -> Callable[..., list[Manifest]]:
    def objects(name: str = "liver-seg", extra: dict[str, Any] | None = None, **fields: Any) -> list[Manifest]:
        return render(chart, "x", job(name, extra=extra or {}, **fields).values(), helm=helm)

    return objects


Rendered = Callable[..., list[Manifest]]


def pod_of(manifests: list[Manifest]) -> dict[str, Any]:
    pod: dict[str, Any] = manifests[0].body["spec"]["template"]["spec"]
    return pod


def template(workflow: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in workflow["spec"]["templates"] if entry["name"] == name)
    return found


def edges(workflow: dict[str, Any]) -> dict[str, list[str]]:
    tasks = template(workflow, workflow["spec"]["entrypoint"])["dag"]["tasks"]
    return {task["name"]: task.get("dependencies", []) for task in tasks}


def valid(workflow: dict[str, Any]) -> None:
    """Argo's schema as hera has it passes unknown keys over: they are found by what comes back."""
    model = Workflow.model_validate(workflow)
    back = json.loads(model.model_dump_json(by_alias=True, exclude_unset=True))
    assert back == json.loads(json.dumps(workflow))


@pytest.mark.parametrize("extra", [{}, CLAIMED], ids=["hostPath", "bucket"])
@pytest.mark.parametrize("name", WORKFLOWS)
def test_argos_schema_takes_it(name: str, extra: dict[str, Any], rendered: Rendered) -> None:
    more = {
        "queue": "q",
        "priorityClassName": "urgent",
        "nodeSelector": {"a": "b"},
        "imagePullSecrets": [{"name": "s"}],
    }
    valid(argo_workflow(rendered(name, {**extra, **more}, deadline=90.0)))


def test_the_check_finds_a_wrong_key(rendered: Rendered) -> None:
    workflow = argo_workflow(rendered())
    workflow["spec"]["podGc"] = workflow["spec"].pop("podGC")
    with pytest.raises(AssertionError):
        valid(workflow)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_container_is_a_pod_as_it_was(name: str, rendered: Rendered) -> None:
    manifests = rendered(name)
    workflow = argo_workflow(manifests)
    containers = pod_of(manifests)["containers"]
    assert list(edges(workflow)) == [container["name"] for container in containers]
    for container in containers:
        found = template(workflow, container["name"])
        assert {"name": container["name"], **found["container"]} == container
        assert [volume["name"] for volume in found["volumes"]] == [f"tmp-{container['name']}"]
    shared = {volume["name"] for volume in workflow["spec"]["volumes"]}
    assert shared == {"payload"} | ({"models"} if any("ai-" in c["name"] for c in containers) else set())


def test_edges_are_the_wait_locks(rendered: Rendered) -> None:
    assert edges(argo_workflow(rendered())) == {
        "dicom-reader": [],
        "ai-livertumor": ["dicom-reader"],
        "dicom-writer": ["ai-livertumor"],
    }
    both = {"workflows": {"liver-seg": {"waitLocks": ["", "dicom-reader.lock", "dicom-reader.lock"]}}}
    assert edges(argo_workflow(rendered(extra=both)))["dicom-writer"] == ["dicom-reader"]


def test_a_bucket_has_its_two_ends(rendered: Rendered) -> None:
    manifests = rendered("recon-ai", CLAIMED)
    workflow = argo_workflow(manifests)
    assert edges(workflow) == {"stage-in": [], "recon": ["stage-in"], "ai-vnet": ["recon"]}
    # Whatever became of the stages: and then it must not wait for a lock that never comes.
    assert workflow["spec"]["onExit"] == "stage-out"
    env = {entry["name"]: entry.get("value") for entry in template(workflow, "stage-out")["container"]["env"]}
    assert env["NVIDIA_CLARA_WAITNAME"] == ""
    assert env["NVIDIA_CLARA_LOCKNAME"] == "stage-out.lock"


def test_what_lives_in_a_pod_cannot_be_shared_by_pods(rendered: Rendered) -> None:
    bucket = {"workflow": {"payloads": {"bucket": {"url": "s3://b"}}}}
    with pytest.raises(ChartError, match="volume 'payload' lives and dies with a pod") as caught:
        argo_workflow(rendered("recon-ai", bucket))
    assert "storageClass" in str(caught.value)


def test_the_pods_settings_are_all_there(rendered: Rendered) -> None:
    extra = {"tolerations": [{"operator": "Exists"}], "priorityClassName": "urgent", "queue": "q"}
    manifests = rendered(extra=extra, deadline=90.0)
    spec = argo_workflow(manifests, service_account="argo")["spec"]
    pod = pod_of(manifests)
    assert spec["securityContext"] == pod["securityContext"]
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["podPriorityClassName"] == "urgent"
    assert spec["activeDeadlineSeconds"] == 90
    assert spec["ttlStrategy"] == {"secondsAfterCompletion": 86400}
    assert spec["automountServiceAccountToken"] is False
    assert spec["executor"] == {"serviceAccountName": "argo"}
    assert spec["podMetadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    assert spec["podMetadata"]["labels"]["clara-workflow/job-id"] == JOB_ID
    assert json.loads(spec["podSpecPatch"]) == {"enableServiceLinks": False, "terminationGracePeriodSeconds": 10}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_pod_is_restricted(name: str, rendered: Rendered) -> None:
    """As the Job's pod is; what Argo adds is Argo's."""
    workflow = argo_workflow(rendered(name, {**CLAIMED, "models": {"existingClaim": "models"}}))
    spec = workflow["spec"]
    for entry in spec["templates"][1:]:
        container = {"name": entry["name"], **entry["container"]}
        pod = {"securityContext": spec["securityContext"], "containers": [container]}
        assert violations({**pod, "volumes": [*spec["volumes"], *entry.get("volumes", [])]}) == []


def test_what_argo_would_replace_is_refused(rendered: Rendered) -> None:
    with pytest.raises(ChartError, match=r"spec\.templates\[1\]\.container\.env\[2\]\.value: Argo would replace"):
        argo_workflow(rendered(job_name="{{workflow.name}}"))


def test_a_policy_that_would_cut_argo_off_is_refused(rendered: Rendered) -> None:
    with pytest.raises(ChartError, match=r"networkPolicy\.enabled: Argo's own container in each pod would not reach"):
        argo_workflow(rendered("recon-only", {"networkPolicy": {"enabled": True}}))


def test_a_stage_named_as_the_graph(rendered: Rendered) -> None:
    manifests = rendered("recon-only")
    pod_of(manifests)["containers"][0]["name"] = "graph"
    workflow = argo_workflow(manifests)
    assert workflow["spec"]["entrypoint"] == "graph-0"
    assert edges(workflow) == {"graph": []}


@pytest.mark.parametrize(
    "text", ["1e3", "012", "0x1F", "1_000", "y", "n", "No", "true", "TRUE", "null", "~", "1:30", "", " a", "-", "a: b",
             "# x", "2026-01-02", ".inf", "/app/input", "a\nb", "{a}", "*x", "é", "Infinity"],
)  # fmt: skip
def test_a_text_stays_a_text_for_every_parser(text: str) -> None:
    """PyYAML reads YAML 1.1, Kubernetes something in between: what neither may misread is quoted."""
    written = to_yaml([{"kind": text}]).removeprefix("---\nkind: ").strip()
    plain = written[0] not in "\"'"
    assert plain == (text in {"/app/input", "Infinity"})
