"""A job as a file for kubectl and for Argo Workflows, as a person asks for it."""

from __future__ import annotations

import shlex
import uuid
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hera.workflows.models import Workflow
from program import Ended, Program

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
    volume, claim, workflow = exported(ended)
    assert (volume["kind"], claim["kind"]) == ("PersistentVolume", "PersistentVolumeClaim")
    Workflow.model_validate(workflow)
    assert workflow["spec"]["executor"]["serviceAccountName"] == "argo"
    assert "workflowtaskresults" in heading(ended.out)
    assert f"argo --namespace default watch {workflow['metadata']['name']}" in heading(ended.out)


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


def test_argo_needs_storage_that_pods_share(clara: Program) -> None:
    ended = clara("export", "argo", "recon-ai", "--set", "workflow.payloads.bucket.url=s3://b")
    assert ended.code == 1
    assert "workflow.payloads.storageClass" in ended.err
