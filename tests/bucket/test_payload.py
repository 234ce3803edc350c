"""The payload of a job goes through a bucket: its input there, all else back."""

from __future__ import annotations

from pathlib import Path

import pytest
from s3_server import Bucket

from clara_wf.bucket.payload import PayloadStore
from clara_wf.model.errors import InputError
from clara_wf.model.plan import Mount, Plan, StagePlan

JOB = "12345678-1234-1234-1234-123456789012"


def plan_in(payload: Path, url: str, endpoint: str = "") -> Plan:
    stage = StagePlan(
        name="one",
        image="one:1",
        command=("true",),
        environment={"NVIDIA_CLARA_INPUTS": "input", "NVIDIA_CLARA_OUTPUTS": "output"},
        mounts=tuple(Mount(path=f"/app/{name}", host=payload / "one" / name) for name in ("input", "output")),
    )
    return Plan(
        workflow="w",
        workflow_id=JOB,
        job_id=JOB,
        job_name="w",
        payload=payload,
        stages=(stage,),
        storage="bucket",
        store=url,
        store_endpoint=endpoint,
    )


def test_there_and_back(bucket: Bucket, tmp_path: Path) -> None:
    payload = tmp_path / JOB
    (payload / "one/input/series").mkdir(parents=True)
    (payload / "one/input/series/1.dcm").write_bytes(b"image")
    (payload / "job.json").write_text("this machine's own")
    store = PayloadStore(plan_in(payload, f"{bucket.url}/{JOB}", bucket.endpoint))
    bucket.put("another/one/output/result", b"of another job")

    sent: list[float] = []
    store.send(sent.append)
    assert sent[-1] == 1.0
    assert bucket.objects.pop(f"{JOB}/one/input/series/1.dcm") == b"image"
    assert f"{JOB}/job.json" not in bucket.objects

    bucket.put(f"{JOB}/one/input/series/1.dcm", b"changed there")
    bucket.put(f"{JOB}/one/output/result", b"result")
    bucket.put(f"{JOB}/locks/one.lock", b"{}")
    fetched: list[float] = []
    store.fetch(fetched.append)
    assert fetched[-1] == 1.0
    assert (payload / "one/output/result").read_bytes() == b"result"
    assert (payload / "locks/one.lock").is_file()
    assert (payload / "one/input/series/1.dcm").read_bytes() == b"image"

    store.remove()
    store.remove()
    assert list(bucket.objects) == ["another/one/output/result"]


def test_nobody_need_ask_how_far_it_is(tmp_path: Path) -> None:
    payload = tmp_path / JOB
    (payload / "one/input").mkdir(parents=True)
    (payload / "one/input/1.dcm").write_bytes(b"image")
    store = PayloadStore(plan_in(payload, f"file://{tmp_path}/store/{JOB}"))
    store.send()
    with pytest.raises(InputError, match="there is nothing"):
        store.fetch()  # the input alone is no result
    store.remove()
    assert not list((tmp_path / "store").rglob("*.dcm"))
