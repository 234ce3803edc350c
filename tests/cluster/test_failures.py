"""What goes wrong in a cluster: one clear line each, within seconds, and nothing left behind."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from base_image import REPOSITORY
from cluster_bench import COPY, HELD, NAMESPACE, Bench, wait_for, wait_until_told, write_stage
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Node, Pod
from lightkube.types import CascadeType
from lightkube.utils.quantity import parse_quantity
from relay import Relay

from clara_wf.chart.helm import SdkHelm

MakeBench = Callable[..., Bench]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_a_job_of_three_stages(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench()
    ended = bench.run(out)
    assert ended.code == 0, ended.err
    assert (out / "file.txt").read_text() == "0onetwothree"
    record = json.loads((out / "job.json").read_text())
    assert (record["state"], record["status"]) == ("STOPPED", "HEALTHY")
    assert [stage["exit_code"] for stage in record["stages"]] == [0, 0, 0]
    bench.wait_until_gone()
    assert not bench.payload.exists()


def test_a_stage_that_fails_ends_the_job_at_once(make_bench: MakeBench, out: Path) -> None:
    # The third would wait for the second until its own time-out, of two hours.
    bench = make_bench({"two": "raise InputError('bad slices')"})
    ended = bench.run(out)
    assert ended.code == 1
    assert last_line(ended.err).startswith("error: stage two failed: bad slices. Logs: ")
    assert "three: not run" in ended.err
    bench.wait_until_gone()
    assert not out.exists()


def test_a_stage_that_never_looks_at_locks_is_ended_too(make_bench: MakeBench, out: Path) -> None:
    deaf = "import subprocess\nsubprocess.run(['sleep', '600'])"
    bench = make_bench({"one": "raise InputError('bad slices')"})
    (bench.program.workspace / "code" / "stage_three.py").write_text(deaf)
    ended = bench.run(out)
    assert last_line(ended.err).startswith("error: stage one failed: bad slices. ")
    bench.wait_until_gone()


def test_a_stage_over_its_memory_limit(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench({"two": "kept = bytearray(400 * 1024 * 1024)"})
    ended = bench.run(out, "--set", "stages.two.resources.limits.memory=100Mi")
    assert ended.code == 1
    assert last_line(ended.err).startswith("error: stage two failed: ran out of memory: its limit is 0.10 GiB")
    bench.wait_until_gone()


def test_a_job_over_its_deadline(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench({"one": HELD})
    ended = bench.run(out, "--deadline", "3")
    assert ended.code == 1
    assert last_line(ended.err).startswith("error: took longer than its deadline of 3 s. ")
    bench.wait_until_gone()


def test_an_image_that_is_not_there(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench()
    ended = bench.run(out, "--set", "stages.two.image.tag=none", "--set", "imagePullPolicy=Never")
    assert ended.code == 1
    told = f"error: stage two failed: its image {REPOSITORY}:none cannot be had (ErrImageNeverPull): "
    assert last_line(ended.err).startswith(told)
    bench.wait_until_gone()


def test_a_request_that_no_node_has_room_for(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench()
    ended = bench.run(out, "--set", "stages.one.resources.requests.memory=900Ti")
    assert ended.code == 1
    assert "error: no node can take its pod: 0/1 nodes are available: 1 Insufficient memory" in ended.err
    bench.wait_until_gone()


def test_a_full_cluster_is_waited_for(make_bench: MakeBench, out: Path, tmp_path: Path) -> None:
    """Two jobs of which one fills the node: the other waits longer than a job that no node can ever take."""
    benches = [make_bench({"one": HELD}), make_bench()]
    node = next(iter(benches[0].client.list(Node)))
    most = parse_quantity(node.status.allocatable["cpu"])
    share = ("--set", f"stages.one.resources.requests.cpu={int(most * 600)}m")
    first = benches[0].start(out, *share)
    benches[0].wait_until_running("one")
    second = benches[1].start(tmp_path / "second", *share)
    wait_until_told(second, "the job waits for room: 0/1 nodes are available: 1 Insufficient cpu")
    benches[0].let_go("one")
    assert first.wait(timeout=90) == 0
    first.communicate()
    benches[1].wait_until_running("one")
    benches[1].let_go("one")
    second.communicate(timeout=90)
    assert second.returncode == 0


def test_a_pod_that_somebody_deletes(make_bench: MakeBench, out: Path) -> None:
    """The Job makes another, which would work on what the first has left."""
    bench = make_bench({"one": HELD})
    running = bench.start(out)
    bench.wait_until_running("one")
    for pod in bench.client.list(Pod, namespace=NAMESPACE, labels={"clara-workflow/job-id": bench.job_id}):
        bench.client.delete(Pod, pod.metadata.name, namespace=NAMESPACE, grace_period=1)
    _, told = running.communicate(timeout=90)
    assert running.returncode == 1
    assert last_line(told).startswith("error: its pod was deleted from the cluster. Logs: "), told
    bench.wait_until_gone()


def test_ctrl_c_leaves_nothing(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench({"two": HELD})
    running = bench.start(out)
    bench.wait_until_running("two")
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "the job was canceled" in last_line(told)
    assert bench.objects() == []
    assert not SdkHelm().uninstall(f"clara-{bench.job_id}", namespace=NAMESPACE)


def test_the_api_server_is_away_for_twenty_seconds(
    make_bench: MakeBench, out: Path, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench({"one": HELD, "two": HELD})
    running = bench.start(out, KUBECONFIG=str(relay.kubeconfig))
    bench.wait_until_running("one")
    relay.cut()
    gone = time.monotonic()
    # The job goes on meanwhile: the second stage works, without anybody here having had a part in it.
    bench.let_go("one")
    bench.wait_until_running("two")
    time.sleep(max(0, 20 - (time.monotonic() - gone)))
    relay.mend()
    bench.let_go("two")
    _, told = running.communicate(timeout=90)
    assert running.returncode == 0, told
    assert "the cluster does not answer; the job goes on there, waiting for it" in told
    assert "the cluster answers again, after " in told
    assert (out / "file.txt").read_text() == "heldthree"
    bench.wait_until_gone()


def test_killed_and_started_again(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench({"one": HELD})
    first = bench.start(out)
    bench.wait_until_running("one")
    first.kill()
    first.communicate()
    before = _pods(bench)
    second = bench.start(out)
    wait_until_told(second, "The job is in the cluster already: it is followed from here on")
    bench.let_go("one")
    second.communicate(timeout=90)
    assert second.returncode == 0
    assert (out / "file.txt").read_text() == "heldtwothree"
    record = json.loads((out / "job.json").read_text())
    assert record["status"] == "HEALTHY"
    assert len(before) == 1
    bench.wait_until_gone()


def _pods(bench: Bench) -> set[str]:
    found = bench.client.list(Pod, namespace=NAMESPACE, labels={"clara-workflow/job-id": bench.job_id})
    return {str(pod.metadata.name) for pod in found if pod.metadata is not None}


def test_killed_and_started_again_after_the_end(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench({"one": HELD})
    first = bench.start(out)
    bench.wait_until_running("one")
    first.kill()
    first.communicate()
    bench.let_go("one")
    labels = {"clara-workflow/job-id": bench.job_id}
    wait_for(
        lambda: any(job.status.succeeded for job in bench.client.list(Job, namespace=NAMESPACE, labels=labels)), 60
    )
    second = bench.run(out)
    assert second.code == 0, second.err
    assert "followed from here on" in second.err
    assert (out / "file.txt").read_text() == "heldtwothree"
    bench.wait_until_gone()


def test_other_options_do_not_pick_up_a_job(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench({"one": HELD})
    first = bench.start(out)
    bench.wait_until_running("one")
    first.kill()
    first.communicate()
    second = bench.run(out, "--arg", "two=--other")
    assert second.code == 1
    assert f"job {bench.job_id} is running in the cluster already: there stage two has other arguments" in second.err
    assert "helm uninstall" in second.err
    assert _pods(bench), "the other job was touched"


def test_another_input_does_not_pick_up_a_job(make_bench: MakeBench, out: Path, tmp_path: Path) -> None:
    """Or the result of one patient would be delivered as another's."""
    bench = make_bench({"one": HELD})
    first = bench.start(out)
    bench.wait_until_running("one")
    first.kill()
    first.communicate()
    (bench.input / "file.txt").write_text("1")
    second = bench.run(out)
    assert second.code == 2
    assert f"error: job {bench.job_id} has another input" in second.err
    assert _pods(bench), "the other job was touched"


def test_two_jobs_at_once_do_not_meet(make_bench: MakeBench, tmp_path: Path) -> None:
    benches = [make_bench(), make_bench()]
    outs = [tmp_path / "first", tmp_path / "second"]
    running = [bench.start(out) for bench, out in zip(benches, outs, strict=True)]
    for process in running:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    assert [(out / "file.txt").read_text() for out in outs] == ["0onetwothree"] * 2
    for bench in benches:
        bench.wait_until_gone()


def test_the_same_job_twice_is_refused(make_bench: MakeBench, out: Path, tmp_path: Path) -> None:
    bench = make_bench({"one": HELD})
    first = bench.start(out)
    bench.wait_until_running("one")
    second = bench.run(tmp_path / "other")
    assert (second.code, last_line(second.err)) == (
        1,
        f"error: job {bench.job_id} is still running. Wait for its end, or stop it",
    )
    bench.let_go("one")
    assert first.wait(timeout=90) == 0
    assert (out / "file.txt").read_text() == "heldtwothree"
    first.communicate()
    bench.wait_until_gone()


def test_the_same_job_from_elsewhere_is_refused(make_bench: MakeBench, out: Path, tmp_path: Path) -> None:
    """Another workspace, as on another machine: there is no lock that both see but the cluster's."""
    bench = make_bench({"one": HELD})
    first = bench.start(out)
    bench.wait_until_running("one")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "charts").symlink_to(bench.program.workspace / "charts")
    second = bench.run(tmp_path / "other", CLARA_WF_WORKSPACE=str(elsewhere))
    assert second.code == 1
    assert f"job {bench.job_id} is running in the cluster already: there it works on another payload" in second.err
    bench.let_go("one")
    assert first.wait(timeout=90) == 0
    first.communicate()
    assert (out / "file.txt").read_text() == "heldtwothree"


def test_a_release_left_over_from_a_crash(make_bench: MakeBench, out: Path) -> None:
    """The release is there, its Job is not, and a pod without a Job still is."""
    bench = make_bench({"one": HELD})
    first = bench.start(out)
    bench.wait_until_running("one")
    first.kill()
    first.communicate()
    for job in bench.client.list(Job, namespace=NAMESPACE, labels={"clara-workflow/job-id": bench.job_id}):
        bench.client.delete(Job, job.metadata.name, namespace=NAMESPACE, cascade=CascadeType.ORPHAN)
    write_stage(bench.program.workspace / "code", "one", COPY)
    second = bench.run(out)
    assert second.code == 0, second.err
    assert "waiting until what an earlier run left in the cluster is gone: its Pod" in second.err
    assert (out / "file.txt").read_text() == "0onetwothree"
    bench.wait_until_gone()


def test_keep_leaves_the_release_to_look_at(make_bench: MakeBench, out: Path) -> None:
    bench = make_bench()
    ended = bench.run(out, "--keep")
    assert ended.code == 0, ended.err
    assert "Job" in bench.objects()
    again = bench.run(out, "--keep", "--force")
    assert again.code == 0, again.err
    assert "followed" not in again.err


def test_a_cluster_that_does_not_answer_at_all(make_bench: MakeBench, out: Path, relay: Relay) -> None:
    bench = make_bench()
    relay.cut()
    ended = bench.run(out, KUBECONFIG=str(relay.kubeconfig))
    assert (ended.code, last_line(ended.err)) == (
        3,
        "error: the Kubernetes cluster does not answer. Check KUBECONFIG and that it is up",
    )
    assert not bench.payload.exists()
