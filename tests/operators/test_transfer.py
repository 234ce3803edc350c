"""The two containers that carry a payload to a pod and back, as the chart writes them, against a real S3 server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from s3_server import KEY_ID, SECRET, Bucket, empty_bucket, running_server

from clara_wf.chart.helm import SdkHelm
from clara_wf.chart.render import render
from clara_wf.chart.request import JobRequest
from clara_wf.model.locks import Lock

JOB = "12345678-1234-1234-1234-123456789012"
# In a file's name: it must not be told.
PATIENT = "MARKERNAME"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    with running_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_server: str) -> Iterator[Bucket]:
    with empty_bucket(s3_server) as made:
        yield made


@dataclass(frozen=True, kw_only=True)
class Pod:
    """The pod's two containers, started as processes on a folder in place of its volume."""

    payload: Path
    containers: dict[str, Any]

    def start(self, name: str, **keys: str) -> subprocess.Popen[str]:
        container = self.containers[name]
        variables = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        paths = {key: value.replace("/app", str(self.payload.parent)) for key, value in variables.items()}
        given = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET} | keys
        own = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        return subprocess.Popen(
            [sys.executable, *container["command"][1:], *container["args"]],
            env=own | paths | given,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, **keys: str) -> tuple[int, str]:
        process = self.start(name, **keys)
        said = process.communicate(timeout=60)[1]
        assert PATIENT not in said
        assert SECRET not in said
        return process.returncode, said

    def lock(self, name: str) -> Lock:
        lock = Lock.read(self.payload / "locks" / name)
        assert lock is not None
        return lock


@pytest.fixture
def pod(bucket: Bucket, root: Path, tmp_path: Path) -> Callable[..., Pod]:
    """Render a job whose payload lies in the bucket."""

    def make(*, simple: bool = True) -> Pod:
        store = {"url": f"{bucket.url}/p", "endpoint": bucket.endpoint, "secretName": "keys", "timeout": "30"}
        request = JobRequest(
            workflow="recon-ai",
            job_id=JOB,
            job_name="test",
            payloads=tmp_path,
            models=tmp_path,
            run_simple=simple,
            extra={"workflow": {"payloads": {"bucket": store}}},
        )
        job = render(root / "charts/clara-workflow", "x", request.values(), helm=SdkHelm())[0].body
        spec = job["spec"]["template"]["spec"]
        payload = tmp_path / "app/payload"
        payload.mkdir(parents=True)
        return Pod(payload=payload, containers={c["name"]: c for c in (*spec["initContainers"], *spec["containers"])})

    return make


def test_the_input_is_fetched_and_nothing_that_an_earlier_run_left(pod: Callable[..., Pod], bucket: Bucket) -> None:
    job = pod()
    bucket.put(f"p/{JOB}/recon/input/{PATIENT}.dcm", b"one")
    for old in ("locks/recon.lock", "logs/recon.log", "recon/output/old.mhd", "ai-vnet/output/old.mhd"):
        bucket.put(f"p/{JOB}/{old}")
    bucket.put("p/other/recon/input/2.dcm")
    code, said = job.run("stage-in")
    assert code == 0, said
    files = {path.relative_to(job.payload).as_posix() for path in job.payload.rglob("*") if path.is_file()}
    assert files == {f"recon/input/{PATIENT}.dcm", "locks/stage-in.lock", "logs/stage-in.log"}
    # The stages' own folders are there, and belong to whom the stages run as.
    assert (job.payload / "ai-vnet/output").is_dir()
    assert "fetched 1 files" in said
    assert job.lock("stage-in.lock").state == "completed"


def test_nothing_to_fetch_is_a_failure(pod: Callable[..., Pod]) -> None:
    job = pod()
    code, said = job.run("stage-in")
    assert (code, job.lock("stage-in.lock").state) == (1, "failed")
    assert f"s3://payloads/p/{JOB}: there is nothing" in said


def test_wrong_keys_are_a_lack(pod: Callable[..., Pod]) -> None:
    code, said = pod().run("stage-in", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_EC2_METADATA_DISABLED="true")
    assert code == 3
    assert "there are no keys for the store" in said


def test_a_payload_that_is_still_filled_is_waited_for(pod: Callable[..., Pod], bucket: Bucket) -> None:
    job = pod(simple=False)
    bucket.put(f"p/{JOB}/recon/input/1.dcm", b"one")
    process = job.start("stage-in")
    time.sleep(2.5)
    assert process.poll() is None
    bucket.put(f"p/{JOB}/recon/input/2.dcm", b"two")
    bucket.put(f"p/{JOB}/locks/input.lock", b"{}")
    assert process.communicate(timeout=30)
    assert process.returncode == 0
    assert sorted(path.name for path in (job.payload / "recon/input").iterdir()) == ["1.dcm", "2.dcm"]
    assert job.lock("input.lock").state == "completed"  # which the first stage waits for


def made_by_stages(job: Pod, *, last: str) -> None:
    """Leave what the two stages of the workflow leave."""
    for stage, state in (("recon", "completed"), ("ai-vnet", last)):
        for folder in (f"{stage}/output", "locks", "logs"):
            (job.payload / folder).mkdir(parents=True, exist_ok=True)
        (job.payload / f"{stage}/output/{PATIENT}.raw").write_bytes(b"voxels")
        (job.payload / f"logs/{stage}.log").write_text("{}\n")
        Lock(stage=stage, state=state, message="too few slices").write(job.payload / f"locks/{stage}.lock")  # type: ignore[arg-type]
    (job.payload / "recon/input").mkdir(parents=True)
    (job.payload / "recon/input/1.dcm").write_bytes(b"input")


def test_what_the_stages_made_is_sent(pod: Callable[..., Pod], bucket: Bucket) -> None:
    job = pod()
    made_by_stages(job, last="completed")
    code, said = job.run("stage-out")
    assert code == 0, said
    names = {key.removeprefix(f"p/{JOB}/") for key in bucket.objects}
    assert names == {
        f"recon/output/{PATIENT}.raw",
        f"ai-vnet/output/{PATIENT}.raw",
        *(f"locks/{stage}.lock" for stage in ("recon", "ai-vnet")),
        *(f"logs/{stage}.log" for stage in ("recon", "ai-vnet", "stage-out")),
    }
    assert job.lock("stage-out.lock").state == "completed"


def test_it_waits_for_the_last_stage(pod: Callable[..., Pod], bucket: Bucket) -> None:
    job = pod()
    process = job.start("stage-out")
    time.sleep(1.5)
    assert process.poll() is None
    made_by_stages(job, last="completed")
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"p/{JOB}/locks/ai-vnet.lock" in bucket.objects


def test_of_a_failed_job_the_logs_and_locks_are_sent_and_it_stays_failed(
    pod: Callable[..., Pod], bucket: Bucket
) -> None:
    job = pod()
    made_by_stages(job, last="failed")
    code, said = job.run("stage-out")
    assert code == 1
    assert "upstream stage ai-vnet failed: too few slices" in said
    names = {key.removeprefix(f"p/{JOB}/") for key in bucket.objects}
    # Not that of recon, which says that it completed: its output is not there.
    assert names == {"locks/ai-vnet.lock", *(f"logs/{stage}.log" for stage in ("recon", "ai-vnet", "stage-out"))}
    sent = bucket.objects[f"p/{JOB}/locks/ai-vnet.lock"]
    assert json.loads(sent)["message"] == "too few slices"
    assert job.lock("stage-out.lock").state == "failed"


def test_outputs_that_cannot_be_sent_leave_no_word_that_they_are_there(pod: Callable[..., Pod], bucket: Bucket) -> None:
    job = pod()
    made_by_stages(job, last="completed")
    os.mkfifo(job.payload / "ai-vnet/output/pipe")
    code, said = job.run("stage-out")
    assert code == 1
    assert "holds something that is no file" in said
    names = {key.removeprefix(f"p/{JOB}/") for key in bucket.objects}
    assert not {name for name in names if name.startswith("locks/")}
    assert "logs/stage-out.log" in names


@pytest.mark.parametrize("folder", ["recon/output", "logs"])
def test_links_do_not_have_the_keys_sent(pod: Callable[..., Pod], bucket: Bucket, folder: str) -> None:
    job = pod()
    made_by_stages(job, last="completed")
    (job.payload / folder / "link").symlink_to("/proc/self/environ")
    code, said = job.run("stage-out")
    assert code == 1
    assert "holds a link that leads out of the payload" in said
    assert not [key for key in bucket.objects if key.endswith("link")]


def test_of_a_canceled_job_the_logs_are_sent(pod: Callable[..., Pod], bucket: Bucket) -> None:
    job = pod()
    (job.payload / "logs").mkdir()
    (job.payload / "logs/recon.log").write_text("{}\n")
    process = job.start("stage-out")
    while not (job.payload / "logs/stage-out.log").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"p/{JOB}/logs/recon.log" in bucket.objects


def test_keys_are_named_and_never_written(pod: Callable[..., Pod]) -> None:
    containers = pod().containers
    for name, container in containers.items():
        secrets = {entry["name"]: entry["valueFrom"] for entry in container["env"] if "valueFrom" in entry}
        if name not in {"stage-in", "stage-out"}:
            assert secrets == {}
        else:
            assert secrets == {
                key: {"secretKeyRef": {"name": "keys", "key": key}}
                for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
            }
