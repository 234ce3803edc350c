"""Where a payload lies for a cluster: by value, and the same plan whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from pod_security import violations

from clara_wf.chart.catalog import read_catalog
from clara_wf.chart.helm import Helm
from clara_wf.chart.manifest import Manifest, read_manifests
from clara_wf.chart.plan import read_plan
from clara_wf.chart.render import plan_job, render
from clara_wf.chart.request import JobRequest, merge
from clara_wf.chart.workspace import Workspace
from clara_wf.model.errors import ChartError

JOB_ID = "00000000-0000-0000-0000-000000000000"
WORKFLOWS = [workflow.name for workflow in read_catalog(Path(__file__).parents[2] / "charts/clara-workflow").workflows]
CLAIM = f"pv-clara-payload-volume-claim-{JOB_ID}"

BUCKET = {"url": "s3://bucket/prefix/", "endpoint": "http://minio:9000", "secretName": "keys"}
STORAGES: dict[str, dict[str, Any]] = {
    "hostPath": {},
    "existingClaim": {"existingClaim": "payloads"},
    "storageClass": {"storageClass": "fast"},
    "bucket": {"bucket": BUCKET},
    "bucket in a claim": {"bucket": BUCKET, "storageClass": "fast"},
}
OBJECTS = {
    "hostPath": ["Job", "Pod", "PersistentVolumeClaim", "PersistentVolume"],
    "existingClaim": ["Job", "Pod"],
    "storageClass": ["Job", "Pod", "PersistentVolumeClaim"],
    "bucket": ["Job"],
    "bucket in a claim": ["Job", "Pod", "PersistentVolumeClaim"],
}

Make = Callable[..., JobRequest]
every_storage = pytest.mark.parametrize("storage", STORAGES)
every_workflow = pytest.mark.parametrize("name", WORKFLOWS)


def stored(storage: str, **more: Any) -> dict[str, Any]:
    return merge({"workflow": {"payloads": STORAGES[storage]}}, more)


def pod_of(manifests: list[Manifest]) -> dict[str, Any]:
    job = next(manifest for manifest in manifests if manifest.kind == "Job")
    spec: dict[str, Any] = job.body["spec"]["template"]["spec"]
    return spec


@every_storage
@every_workflow
@pytest.mark.parametrize("version", ["1.28", kubernetes_validate.latest_version()])
def test_kubernetes_takes_every_object(
    name: str, storage: str, version: str, chart: Path, helm: Helm, job: Make
) -> None:
    more = {"queue": "radiology", "networkPolicy": {"enabled": True}, "models": {"existingClaim": "models"}}
    manifests = render(chart, "strict", job(name, extra=stored(storage, **more)).values(), helm=helm)
    assert [m.kind for m in manifests if m.kind != "NetworkPolicy"] == OBJECTS[storage]
    for manifest in manifests:
        kubernetes_validate.validate(dict(manifest.body), version, strict=True)


@every_storage
def test_the_chart_lints_clean(storage: str, chart: Path, helm: Helm) -> None:
    assert helm.lint(chart, stored(storage, networkPolicy={"enabled": True})) == []


@every_storage
@every_workflow
def test_the_plan_is_the_same(name: str, storage: str, chart: Path, helm: Helm, job: Make) -> None:
    """A runner on this machine needs to know nothing of it."""
    wanted = plan_job(chart, job(name), helm=helm)
    plan = plan_job(chart, job(name, extra=stored(storage)), helm=helm)
    assert replace(plan, storage="hostPath", store="", store_endpoint="") == wanted
    assert plan.storage == storage.partition(" ")[0]
    with_bucket = storage.startswith("bucket")
    assert plan.store == (f"s3://bucket/prefix/{JOB_ID}" if with_bucket else "")
    assert plan.store_endpoint == ("http://minio:9000" if with_bucket else "")


def test_models_in_a_claim_are_where_the_value_says(chart: Path, helm: Helm, job: Make) -> None:
    request = job("ai-only", extra={"models": {"existingClaim": "models"}})
    assert plan_job(chart, request, helm=helm) == plan_job(chart, job("ai-only"), helm=helm)
    volumes = pod_of(render(chart, "x", request.values(), helm=helm))["volumes"]
    claim = {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}}
    assert claim in volumes


@every_storage
@every_workflow
@pytest.mark.parametrize("claimed", [False, True], ids=["models on the node", "models in a claim"])
def test_pods_are_restricted(name: str, storage: str, claimed: bool, chart: Path, helm: Helm, job: Make) -> None:
    """One exception, which the administrator of the node has to grant: models in a folder of the node."""
    extra = stored(storage, models={"existingClaim": "models" if claimed else ""})
    manifests = render(chart, "x", job(name, extra=extra).values(), helm=helm)
    has_models = any("ai-" in container["name"] for container in pod_of(manifests)["containers"])
    assert violations(pod_of(manifests)) == ([] if claimed or not has_models else ["volume models: hostPath"])
    for manifest in manifests:
        if manifest.kind == "Pod":
            assert violations(dict(manifest.body["spec"])) == []


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"runAsNonRoot": False}, "runAsNonRoot"),
        ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation"),
        ({"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}, "adds capabilities"),
        ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile"),
        ({"runAsUser": 0}, "runAsUser 0"),
        ({"privileged": True}, "privileged"),
    ],
)
def test_the_check_finds_what_is_not_restricted(
    context: dict[str, Any], said: str, chart: Path, helm: Helm, job: Make
) -> None:
    manifests = render(chart, "x", job("recon-only", extra={"securityContext": context}).values(), helm=helm)
    assert violations(pod_of(manifests)) == [f"recon: {said}"]


@every_storage
def test_nothing_of_a_container_is_for_writing_but_its_folders(
    storage: str, chart: Path, helm: Helm, job: Make
) -> None:
    pod = pod_of(render(chart, "x", job("recon-ai", extra=stored(storage, scratchSize="3Gi")).values(), helm=helm))
    scratch = {volume["name"]: volume.get("emptyDir") for volume in pod["volumes"]}
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounts["/tmp"] == f"tmp-{container['name']}"
        assert scratch[mounts["/tmp"]] == {"sizeLimit": "3Gi"}


def test_jobs_that_share_a_claim_never_meet(chart: Path, helm: Helm, job: Make) -> None:
    manifests = render(chart, "x", job("recon-ai", extra=stored("existingClaim")).values(), helm=helm)
    pods = [pod_of(manifests), *(m.body["spec"] for m in manifests if m.kind == "Pod")]
    paths = [
        mount.get("subPath", "")
        for pod in pods
        for container in pod["containers"]
        for mount in container["volumeMounts"]
        if mount["name"] == "payload"
    ]
    assert len(paths) == 9
    assert all(path.startswith(f"{JOB_ID}/") for path in paths)


def test_a_mount_beside_the_jobs_own_folder_is_refused(workspace: Workspace, helm: Helm, job: Make) -> None:
    """What a person adds to a stage must not lead into another job's payload."""
    file = workspace.chart / "templates/stages/recon/volume.yaml"
    mount = "- name: payload\n  mountPath: /app/notes\n  subPath: {path}\n"
    text = file.read_text()
    end = "{{- end }}"
    own = '{{ include "clara-workflow.subPath" (dict "root" .root "path" "notes") }}'
    for path, refused in (("notes", True), (own, False)):
        file.write_text(text.replace(end, mount.format(path=path) + end, 1))
        plan_job(workspace.chart, job("recon-only"), helm=helm)
        request = job("recon-only", extra=stored("existingClaim"))
        if refused:
            with pytest.raises(ChartError, match="subPath 'notes' is not below the job's folder"):
                plan_job(workspace.chart, request, helm=helm)
        else:
            stage = plan_job(workspace.chart, request, helm=helm).stages[0]
            assert stage.host_path("/app/notes") == Path("/payloads") / JOB_ID / "notes"


def test_the_group_of_a_volume_is_the_stages_unless_it_lies_on_the_node(chart: Path, helm: Helm, job: Make) -> None:
    def context(storage: str, **own: Any) -> dict[str, Any]:
        extra = stored(storage, podSecurityContext=own)
        found: dict[str, Any] = pod_of(render(chart, "x", job("recon-only", extra=extra).values(), helm=helm))
        return found["securityContext"]

    assert "fsGroup" not in context("hostPath")
    for storage in ("existingClaim", "storageClass", "bucket"):
        found = context(storage, runAsUser=1000, runAsGroup=100)
        assert (found["runAsUser"], found["runAsGroup"], found["fsGroup"]) == (1000, 100, 100)
        assert found["fsGroupChangePolicy"] == "OnRootMismatch"
        assert context(storage, fsGroup=7)["fsGroup"] == 7


def test_a_claim_of_a_class(chart: Path, helm: Helm, job: Make) -> None:
    values = {"workflow": {"payloads": {"storageClass": "fast", "accessModes": ["ReadWriteOnce"], "storage": "5Gi"}}}
    manifests = render(chart, "x", job("recon-only", extra=values).values(), helm=helm)
    spec = next(m.body["spec"] for m in manifests if m.kind == "PersistentVolumeClaim")
    assert spec == {
        "storageClassName": "fast",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "5Gi"}},
    }


def test_a_payload_from_a_bucket(chart: Path, helm: Helm, job: Make) -> None:
    pod = pod_of(render(chart, "x", job("recon-ai", extra=stored("bucket")).values(), helm=helm))
    (first,) = pod["initContainers"]
    *_, last = pod["containers"]
    assert (first["name"], last["name"]) == ("stage-in", "stage-out")
    url = ["--url", f"s3://bucket/prefix/{JOB_ID}", "--endpoint", "http://minio:9000"]
    skipped = ["--skip", "locks", "--skip", "logs", "--skip", "recon/output", "--skip", "ai-vnet/output"]
    assert first["args"] == ["in", *skipped, *url]
    assert last["args"] == ["out", "--folder", "recon/output", "--folder", "ai-vnet/output", *url]
    variables = {entry["name"]: entry.get("value") for entry in last["env"]}
    assert variables["NVIDIA_CLARA_WAITNAME"] == "ai-vnet.lock"
    assert variables["NVIDIA_CLARA_TIMEOUT"] == "10800"  # the last stage waits 3600 s and works 3600 s
    assert variables["NVIDIA_CLARA_NETWORK"] == "any"
    assert pod["volumes"][0] == {"name": "payload", "emptyDir": {"sizeLimit": "20Gi"}}
    claimed = pod_of(render(chart, "x", job("recon-ai", extra=stored("bucket in a claim")).values(), helm=helm))
    assert claimed["volumes"][0] == {"name": "payload", "persistentVolumeClaim": {"claimName": CLAIM}}


def test_a_payload_that_is_still_filled_is_waited_for_in_the_bucket(chart: Path, helm: Helm, job: Make) -> None:
    request = job("recon-only", run_simple=False, extra=stored("bucket"))
    args = pod_of(render(chart, "x", request.values(), helm=helm))["initContainers"][0]["args"]
    assert args[args.index("--wait") + 1] == "input.lock"


def test_stages_without_a_limit_are_waited_for_without_one(chart: Path, helm: Helm, job: Make) -> None:
    extra = stored("bucket", stages={"recon": {"timeout": "0"}})
    last = pod_of(render(chart, "x", job("recon-only", extra=extra).values(), helm=helm))["containers"][-1]
    assert {"name": "NVIDIA_CLARA_TIMEOUT", "value": "0"} in last["env"]


@pytest.mark.parametrize(
    ("payloads", "said"),
    [
        ({"existingClaim": "a", "storageClass": "b"}, "existingClaim and storageClass are two places for one payload"),
        ({"existingClaim": "a", "bucket": BUCKET}, "existingClaim and bucket.url are two places for one payload"),
        ({"bucket": {"secretName": "keys"}}, "endpoint and secretName are for a bucket, and url is empty"),
    ],
)
def test_two_places_for_one_payload(payloads: dict[str, Any], said: str, chart: Path, helm: Helm, job: Make) -> None:
    with pytest.raises(ChartError) as caught:
        helm.render(chart, "x", job("ai-only", extra={"workflow": {"payloads": payloads}}).values())
    assert str(caught.value).startswith(f"{chart / 'values.yaml'}: workflow.payloads")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "payloads",
    [
        {"bucket": {"url": "s3://id:key@bucket"}},
        {"bucket": {"url": "bucket/prefix"}},
        {"bucket": {"url": "s3://b?x=1"}},
        {"bucket": {"url": "s3://b", "endpoint": "http://id:key@host"}},
        {"bucket": {"url": "s3://b", "endpoint": "host:9000"}},
        {"existingClaim": "Not A Name"},
        {"storageClass": "x/y"},
        {"accessModes": ["ReadOnlyMany"]},
        {"accessModes": []},
    ],
)
def test_the_schema_refuses_wrong_storage(payloads: dict[str, Any], chart: Path, helm: Helm, job: Make) -> None:
    with pytest.raises(ChartError, match=r"values refused: workflow\.payloads"):
        helm.render(chart, "x", job("ai-only", extra={"workflow": {"payloads": payloads}}).values())


def test_a_stage_in_the_way_of_a_container(chart: Path, helm: Helm, job: Make) -> None:
    extra = stored("bucket", workflows={"recon-only": {"stages": ["stage-out"]}}, stages={"stage-out": _stage()})
    with pytest.raises(ChartError, match="a stage named 'stage-out' stands in the way"):
        helm.render(chart, "x", job("recon-only", extra=extra).values())


def _stage() -> dict[str, Any]:
    return {
        "image": {"repository": "x", "tag": "1"},
        "mount": {"in": {"name": "input"}, "out": {"name": "output"}},
        "stageName": "stage-out",
        "appDir": "/app",
        "inputs": "input",
        "outputs": "output",
        "inputLock": "/app/locks/input.lock",
        "lockDir": "/app/locks",
        "lockName": "stage-out.lock",
        "logName": "/app/logs/stage-out.log",
        "timeout": "1",
        "command": [],
        "resources": {},
    }


def test_containers_that_no_annotation_names_are_refused(chart: Path, helm: Helm, job: Make) -> None:
    rendered = read_manifests(helm.render(chart, "x", job("recon-only", extra=stored("bucket")).values()), chart)
    body = rendered[0].body
    body["metadata"]["annotations"]["clara-workflow/transfers"] = "stage-out"
    with pytest.raises(ChartError, match="initContainers is not supported"):
        read_plan(rendered, chart)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("storage", "tape", "clara-workflow/storage is 'tape', not one of hostPath, existingClaim, storageClass"),
        ("payload", "relative", "clara-workflow/payload is no absolute folder"),
        ("payload", None, "clara-workflow/payload is no absolute folder"),
    ],
)
def test_annotations_that_lead_nowhere(
    key: str, value: str | None, said: str, chart: Path, helm: Helm, job: Make
) -> None:
    rendered = read_manifests(helm.render(chart, "x", job("ai-only", extra=stored("bucket")).values()), chart)
    annotations = rendered[0].body["metadata"]["annotations"]
    annotations[f"clara-workflow/{key}"] = value
    with pytest.raises(ChartError, match=said):
        read_plan(rendered, chart)


def test_an_annotation_that_contradicts_the_volume(chart: Path, helm: Helm, job: Make) -> None:
    rendered = read_manifests(helm.render(chart, "x", job("ai-only").values()), chart)
    rendered[0].body["metadata"]["annotations"]["clara-workflow/payload"] = "/elsewhere"
    with pytest.raises(ChartError, match="clara-workflow/payload is not what volume 'payload' mounts"):
        read_plan(rendered, chart)


def test_a_chart_of_before_has_no_annotations(chart: Path, helm: Helm, job: Make) -> None:
    """A workspace keeps the charts that it was made with."""
    rendered = read_manifests(helm.render(chart, "x", job("ai-only").values()), chart)
    annotations = rendered[0].body["metadata"]["annotations"]
    for key in [key for key in annotations if key != "clara-workflow/workflow-id"]:
        del annotations[key]
    assert read_plan(rendered, chart) == plan_job(chart, job("ai-only"), helm=helm)
