"""A job as a file for kubectl and for Argo Workflows, as a person asks for it."""

from __future__ import annotations

import json
import re
import shlex
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from hera.workflows.models import Workflow
from program import Ended, Program

from clara_wf.chart.helm import SdkHelm
from clara_wf.chart.render import render
from clara_wf.chart.request import merge

JOB = "12345678-1234-1234-1234-123456789012"


def documents(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def heading(text: str) -> str:
    return text.partition("---\n")[0]


def exported(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.err
    return documents(ended.out)


def test_manifests_are_whole_and_stand_alone(clara: Program) -> None:
    ended = clara("export", "manifests", "ai", "--job-id", JOB, "--namespace", "radiology")
    objects = exported(ended)
    # What is claimed comes first; nothing of `helm test`, and nothing that Helm looks after.
    assert [found["kind"] for found in objects] == ["PersistentVolume", "PersistentVolumeClaim", "Job"]
    for found in objects:
        kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)
        assert found["metadata"].get("namespace", "radiology") == "radiology"
        assert "helm" not in str(found).lower()
    payload = objects[0]["spec"]["hostPath"]["path"]
    assert payload == f"/var/lib/clara/payloads/{JOB}"  # of the chart: a cluster's node, not this workspace
    said = heading(ended.out)
    assert f"{payload}/dicom-reader/input" in said
    assert "kubectl apply -f -\n" in said
    assert "For Kubernetes 1.29 or newer: --kubernetes VERSION makes it for an older one." in said
    for folder in ("locks", "logs", "dicom-reader/output", "ai-livertumor/output", "dicom-writer/output"):
        assert f"#   {folder}\n" in said
    assert "user 10001" in said
    assert "Not for clinical use" in said


def test_every_export_has_an_id_of_its_own(clara: Program) -> None:
    ids = set()
    for _ in range(2):
        job = exported(clara("export", "manifests", "recon-only"))[-1]
        ids.add(str(uuid.UUID(job["metadata"]["labels"]["clara-workflow/job-id"])))
    assert len(ids) == 2


def test_options_become_values(clara: Program) -> None:
    options = ("--payloads", "/data/p", "--models", "/data/m", "--trtis", "trtis:8001", "--kubernetes", "1.20.2")
    values = ("--set", "queue=ct", "--set", "stages.ai-vnet.gpus=1", "--set", "runSimple=FALSE")
    ended = clara("export", "manifests", "recon-ai", *options, *values)
    *_, job = exported(ended)
    pod = job["spec"]["template"]["spec"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "ct"
    assert "podReplacementPolicy" not in job["spec"]
    assert pod["containers"][1]["resources"]["limits"]["nvidia.com/gpu"] == 1
    variables = {entry["name"]: entry["value"] for entry in pod["containers"][1]["env"]}
    assert variables["NVIDIA_CLARA_TRTISURI"] == "trtis:8001"
    assert variables["NVIDIA_CLARA_NETWORK"] == "trtis"
    assert {"path": "/data/m", "type": "DirectoryOrCreate"} in [volume.get("hostPath") for volume in pod["volumes"]]
    assert "locks/input.lock" in heading(ended.out)
    assert "For Kubernetes 1.20.2 or newer.\n" in heading(ended.out)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["workflow.payloads.existingClaim=payloads"], f"{JOB}/recon/input of the claim"),
        (["workflow.payloads.storageClass=fast"], "recon/input of the claim pv-clara-payload-volume-claim"),
        (["workflow.payloads.bucket.url=s3://b/p"], f"s3://b/p/{JOB}/recon/input"),
    ],
)
def test_the_heading_says_where_the_input_has_to_be(values: list[str], said: str, clara: Program) -> None:
    options = [part for value in values for part in ("--set", value)]
    ended = clara("export", "manifests", "recon-only", "--job-id", JOB, *options)
    assert exported(ended)[-1]["kind"] == "Job"
    assert said in heading(ended.out)


@pytest.mark.parametrize(
    ("what", "name"), [("manifests", "job.yaml"), ("argo", "job.yaml"), ("manifests", "a job's.yaml")]
)
def test_a_file_appears_whole(clara: Program, tmp_path: Path, what: str, name: str) -> None:
    file = tmp_path / f"new/{name}"
    ended = clara("export", what, "recon-only", "--output", file)
    assert (ended.code, ended.out) == (0, "")
    assert f"written: {file}" in ended.err
    text = file.read_text()
    assert f"kubectl apply -f {shlex.quote(str(file))}\n" in heading(text)
    assert documents(text)[-1]["kind"] == ("Job" if what == "manifests" else "Workflow")
    assert list(file.parent.iterdir()) == [file]


def test_an_argo_workflow(clara: Program) -> None:
    ended = clara("export", "argo", "liver-seg", "--job-id", JOB, "--service-account", "argo")
    volume, claim, _, workflow = exported(ended)
    assert (volume["kind"], claim["kind"]) == ("PersistentVolume", "PersistentVolumeClaim")
    Workflow.model_validate(workflow)
    assert workflow["spec"]["executor"]["serviceAccountName"] == "argo"
    assert "'argo' must be there, and be allowed to create and patch workflowtaskresults" in heading(ended.out)
    assert f"argo --namespace default watch {workflow['metadata']['name']}" in heading(ended.out)


def test_argo_finds_a_token_which_no_cluster_makes_by_itself_any_more(clara: Program) -> None:
    options = ("recon-only", "--service-account", "argo", "--namespace", "radiology")
    (*_, secret, workflow), (*_, again, _) = (exported(clara("export", "argo", *options)) for _ in range(2))
    kubernetes_validate.validate(secret, kubernetes_validate.latest_version(), strict=True)
    account = workflow["spec"]["executor"]["serviceAccountName"]
    # As Argo's documentation has it, "Service Account Secrets", discovery by name.
    assert secret == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"{account}.service-account-token",
            "namespace": "radiology",
            "annotations": {"kubernetes.io/service-account.name": account},
        },
        "type": "kubernetes.io/service-account-token",
    }
    # Jobs share it: to apply the next one's must change nothing.
    assert again == secret
    said = heading(clara("export", "argo", *options).out)
    assert "from the Secret argo.service-account-token" in said
    assert "leave it when you remove one" in said
    assert all(found["kind"] != "Secret" for found in exported(clara("export", "manifests", "recon-only")))


@pytest.mark.parametrize("what", ["manifests", "argo"])
@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["liver-sge"], 2, "Did you mean 'liver-seg'"),
        (["recon-only", "--job-id", "5"], 2, "is no UUID"),
        (["recon-only", "--payloads", "here"], 2, "--payloads here is a folder of the cluster's node"),
        (["recon-only", "--set", "queue"], 2, "--set queue is not KEY=VALUE"),
        (["recon-only", "--set", "quue=x"], 1, "'quue' not allowed"),
        (["recon-only", "--kubernetes", "new"], 1, "kubeVersion"),
        (
            ["recon-only", "--set", "workflow.payloads.existingClaim=a", "--set", "workflow.payloads.storageClass=b"],
            1,
            "are two places for one payload",
        ),
    ],
)
def test_what_cannot_be_exported(what: str, options: list[str], code: int, said: str, clara: Program) -> None:
    ended = clara("export", what, *options)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_plain_helm_as_documented_makes_the_job_of_an_export(clara: Program, root: Path) -> None:
    page = (root / "docs/kubernetes.md").read_text()
    (command,) = re.findall(r"^    helm install clara-ID (?:.*\\\n)*.*$", page, re.MULTILINE)
    words = shlex.split(command.replace("\\\n", " ").replace("ID", JOB))
    values: dict[str, Any] = {}
    for option, value in pairwise(words):
        if option == "--set-string":
            values = merge(values, helm_python.parse_set_string_values(value))
    release, chart, namespace = words[2], words[3], words[words.index("--namespace") + 1]
    rendered = render(root / chart, release, values, namespace=namespace, helm=SdkHelm())
    plain = {found.kind: dict(found.body) for found in rendered if not found.is_hook}

    payloads = values["workflow"]["payloads"]["hostPath"]
    options = ("--job-id", JOB, "--payloads", payloads, "--namespace", namespace)
    ended = clara("export", "manifests", values["workflow"]["id"], *options)
    wanted = {found["kind"]: found for found in exported(ended)}
    assert f"{payloads}/{JOB}/dicom-reader/input of the node before" in heading(ended.out)
    # All but who looks after it, and what people call it.
    names = {plain["Job"]["spec"]["template"]["spec"]["containers"][0]["env"][2]["value"], f"organ-seg-{JOB[:8]}"}
    assert json.loads(without(plain, "Helm", *names)) == json.loads(without(wanted, "clara-wf", *names))


def without(objects: dict[str, Any], *texts: str) -> str:
    """Return objects as JSON, and what is but one of these texts as nothing."""
    found = json.dumps(objects)
    for text in texts:
        found = found.replace(json.dumps(text), '""')
    return found


def test_argo_needs_storage_that_pods_share(clara: Program) -> None:
    ended = clara("export", "argo", "recon-ai", "--set", "workflow.payloads.bucket.url=s3://b")
    assert ended.code == 1
    assert "workflow.payloads.storageClass" in ended.err


@pytest.mark.parametrize("what", ["manifests", "argo"])
@pytest.mark.parametrize(
    ("own", "pods"),
    [("{name: mine}", ""), ("{name: mine, labels: }", "{labels: }"), ("{name: mine}", "{annotations: {a: b}}")],
)
def test_objects_without_labels_are_exported(what: str, own: str, pods: str, clara: Program) -> None:
    """A chart of one's own may say less than ours: of another object, and of the pod."""
    templates = clara.workspace / "charts/clara-workflow/templates"
    (templates / "mine.yaml").write_text(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {own}\n")
    job = templates / "deployment.yaml"
    pod = re.search(r"\n  template:\n(    metadata:\n(?:      .*\n)+)", job.read_text())
    assert pod is not None
    job.write_text(job.read_text().replace(pod[1], f"    metadata: {pods}\n" if pods else "", 1))

    objects = exported(clara("export", what, "recon-only"))
    mine = next(found for found in objects if found["kind"] == "ConfigMap")
    assert mine["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "clara-wf"}
    spec = objects[-1]["spec"]
    found = spec["template"]["metadata"] if what == "manifests" else spec["podMetadata"]
    assert found["labels"] == {"app.kubernetes.io/managed-by": "clara-wf"}
    assert ("annotations" in found) == ("annotations" in pods)


def test_labels_that_are_none_are_named(clara: Program) -> None:
    own = clara.workspace / "charts/clara-workflow/templates/mine.yaml"
    own.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine, labels: [a]}\n")
    ended = clara("export", "manifests", "recon-only")
    assert (ended.code, ended.out) == (1, "")
    assert f"{own}: ConfigMap mine: metadata.labels is no mapping" in ended.err
    assert ended.err.count("\n") == 1
