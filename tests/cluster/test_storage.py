"""Where a payload may lie for a cluster, beside a folder of its node."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from base_image import BASE_IMAGE, REPOSITORY, TAG
from cluster_bench import COPY, NAMESPACE, Bench, wait_for
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import (
    Container,
    EnvVar,
    HostPathVolumeSource,
    PersistentVolumeClaimSpec,
    PersistentVolumeSpec,
    PodSpec,
    Volume,
    VolumeMount,
    VolumeResourceRequirements,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import PersistentVolume, PersistentVolumeClaim, Pod, Secret
from s3_server import BUCKET, KEY_ID, SECRET, Bucket, empty_bucket

MakeBench = Callable[..., Bench]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def shared_claim(make_bench: MakeBench, client: Client) -> Iterator[Bench]:
    """Make a claim on a folder that this machine sees too, as an NFS share would be."""
    bench = make_bench()
    folder = bench.program.workspace / "payloads"
    folder.mkdir()
    name = "clara-wf-test-shared"
    volume = PersistentVolume(
        metadata=ObjectMeta(name=name),
        spec=PersistentVolumeSpec(
            storageClassName=name,
            capacity={"storage": "1Gi"},
            accessModes=["ReadWriteMany"],
            persistentVolumeReclaimPolicy="Retain",
            hostPath=HostPathVolumeSource(path=str(folder)),
        ),
    )
    claim = PersistentVolumeClaim(
        metadata=ObjectMeta(name=name, namespace=NAMESPACE),
        spec=PersistentVolumeClaimSpec(
            storageClassName=name,
            accessModes=["ReadWriteMany"],
            resources=VolumeResourceRequirements(requests={"storage": "1Gi"}),
        ),
    )
    client.create(volume)
    client.create(claim)
    yield bench
    client.delete(PersistentVolumeClaim, name, namespace=NAMESPACE)
    client.delete(PersistentVolume, name)


def test_a_claim_that_many_jobs_share(shared_claim: Bench, out: Path) -> None:
    ended = shared_claim.run(out, "--set", "workflow.payloads.existingClaim=clara-wf-test-shared")
    assert ended.code == 0, ended.err
    assert (out / "file.txt").read_text() == "0onetwothree"
    shared_claim.wait_until_gone()


def test_a_claim_that_is_not_mounted_here(shared_claim: Bench, out: Path, tmp_path: Path) -> None:
    """This machine looks for the payload where the claim is not."""
    elsewhere = ("--set", f"workflow.payloads.hostPath={tmp_path / 'elsewhere'}")
    ended = shared_claim.run(out, "--set", "workflow.payloads.existingClaim=clara-wf-test-shared", *elsewhere)
    assert ended.code == 1
    assert f"nothing of it is seen here: is the claim mounted at {tmp_path / 'elsewhere'}?" in ended.err
    shared_claim.wait_until_gone()


def test_a_storage_class_alone_is_an_empty_volume(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench()
    ended = bench.run(out, "--set", "workflow.payloads.storageClass=fast")
    assert ended.code == 2
    assert ended.err.strip().splitlines()[-1] == (
        "error: workflow.payloads.storageClass gives every job an empty volume, which nobody fills. "
        "Name a bucket too (workflow.payloads.bucket.url), or an existing claim"
    )
    assert bench.objects() == []


@pytest.fixture
def s3(client: Client) -> Iterator[Bucket]:
    """Run an S3 server in the cluster: pods reach it, and so does this machine."""
    pod = Pod(
        metadata=ObjectMeta(name="s3", namespace=NAMESPACE),
        spec=PodSpec(
            containers=[
                Container(
                    name="s3",
                    image=BASE_IMAGE,
                    command=["python", "-m", "moto.server", "-H", "0.0.0.0", "-p", "5000"],  # noqa: S104 - of the pod
                    env=[EnvVar(name="PYTHONPATH", value="/code"), EnvVar(name="PYTHONDONTWRITEBYTECODE", value="1")],
                    volumeMounts=[VolumeMount(name="code", mountPath="/code", readOnly=True)],
                )
            ],
            volumes=[Volume(name="code", hostPath=HostPathVolumeSource(path=sysconfig.get_path("purelib")))],
        ),
    )
    keys = Secret(
        metadata=ObjectMeta(name="bucket-keys", namespace=NAMESPACE),
        stringData={"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET},
    )
    client.create(pod)
    client.create(keys)
    try:
        wait_for(lambda: _answers(client), 60)
        with empty_bucket(_endpoint(client)) as bucket:
            yield bucket
    finally:
        client.delete(Pod, "s3", namespace=NAMESPACE, grace_period=0)
        client.delete(Secret, "bucket-keys", namespace=NAMESPACE)


def _endpoint(client: Client) -> str:
    found = client.get(Pod, "s3", namespace=NAMESPACE)
    return f"http://{found.status.podIP}:5000" if found.status and found.status.podIP else ""


def _answers(client: Client) -> bool:
    import httpx2 as httpx

    try:
        return bool(_endpoint(client)) and httpx.get(_endpoint(client)).status_code < 500
    except (httpx.HTTPError, ApiError):
        return False


def _with_bucket(s3: Bucket) -> list[str]:
    settings = {
        "url": f"s3://{BUCKET}/jobs",
        "endpoint": s3.endpoint,
        "secretName": "bucket-keys",
        "image.repository": REPOSITORY,
        "image.tag": TAG,
    }
    return [part for key, value in settings.items() for part in ("--set", f"workflow.payloads.bucket.{key}={value}")]


KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}


def test_a_bucket_there_and_back(make_bench: MakeBench, out: Path, s3: Bucket) -> None:
    bench = make_bench()
    ended = bench.run(out, *_with_bucket(s3), **KEYS)
    assert ended.code == 0, ended.err
    assert (out / "file.txt").read_text() == "0onetwothree"
    assert s3.objects == {}, "a payload was left in the bucket"
    assert SECRET not in ended.err + ended.out
    bench.wait_until_gone()


def test_a_failure_behind_a_bucket_is_told_as_well(make_bench: MakeBench, out: Path, s3: Bucket) -> None:
    bench = make_bench({"two": "raise InputError('bad slices')"})
    ended = bench.run(out, *_with_bucket(s3), **KEYS)
    assert ended.code == 1
    assert "error: stage two failed: bad slices. Logs: " in ended.err
    assert s3.objects == {}
    bench.wait_until_gone()


def test_a_result_that_cannot_be_sent_is_none(make_bench: MakeBench, out: Path, s3: Bucket) -> None:
    bench = make_bench({"three": f"{COPY}\nos.mkfifo(context.outputs / 'pipe')"})
    ended = bench.run(out, *_with_bucket(s3), **KEYS)
    assert ended.code == 1
    told = "error: container stage-out ended with exit code 1: the folder to send holds something that is no file"
    assert told in ended.err
    assert not out.exists()
    assert s3.objects == {}
    bench.wait_until_gone()


def test_a_bucket_that_refuses(make_bench: MakeBench, out: Path, s3: Bucket) -> None:
    bench = make_bench()
    ended = bench.run(out, *_with_bucket(s3), "--set", "workflow.payloads.bucket.url=s3://nobodys/jobs", **KEYS)
    assert ended.code != 0
    assert "Traceback" not in ended.err
    assert bench.objects() == []


def test_a_carrier_that_fails_tells_why(make_bench: MakeBench, out: Path, s3: Bucket) -> None:
    """What the pod is given as the bucket's server is not what this machine reaches."""
    bench = make_bench()
    file = bench.program.workspace / "charts/clara-workflow/templates/_transfer.tpl"
    file.write_text(file.read_text().replace('(list "--endpoint" .)', '(list "--endpoint" "ftp://nowhere")'))
    ended = bench.run(out, *_with_bucket(s3), **KEYS)
    assert ended.code == 1
    told = "error: container stage-in ended with exit code 2: the store's endpoint is not of the form http://host:port"
    assert told in ended.err
    bench.wait_until_gone()


def test_a_carrier_without_image(make_bench: MakeBench, out: Path, s3: Bucket) -> None:
    bench = make_bench()
    without = ["--set", "workflow.payloads.bucket.image.tag=none", "--set", "imagePullPolicy=Never"]
    ended = bench.run(out, *_with_bucket(s3), *without, **KEYS)
    assert ended.code == 1
    assert f"error: container stage-in: its image {REPOSITORY}:none cannot be had" in ended.err
    bench.wait_until_gone()
