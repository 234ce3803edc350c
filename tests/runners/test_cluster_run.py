"""A job in a cluster that is in trouble, or newer than the one of tests/cluster: watched over a stand-in API server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import JSON, Answer, ApiServer, api_server, status

from clara_wf.bucket.payload import PayloadStore
from clara_wf.model.events import JobLogged
from clara_wf.model.locks import Lock
from clara_wf.model.plan import Plan
from clara_wf.model.states import JobStatus, StageState
from clara_wf.runners.cluster import Cluster
from clara_wf.runners.kubernetes import ClusterLimits, KubernetesRunner
from clara_wf.runners.paths import lock_path, output_folder

STARTED, ENDED = "2026-01-02T03:04:05Z", "2026-01-02T03:04:09Z"
RUNNING = {"running": {"startedAt": STARTED}}
LIMITS = ClusterLimits(tick=0.02, last_words=0.3, unstarted=60)


def ended(code: int = 0, reason: str = "Completed") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": STARTED, "finishedAt": ENDED}}


class Stand:
    """A plan of two stages, a cluster, and what becomes of the job: a step at each look, the last one for ever."""

    def __init__(self, server: ApiServer, plan: Plan) -> None:
        self.server = server
        self.plan = plan
        self.steps: list[Callable[[], None]] = []
        self.said: list[str] = []
        self._is_installed = False
        server.before_jobs = self._step

    def _step(self) -> None:
        if self._is_installed and self.steps and "j" not in self.server.deleted:
            (self.steps.pop(0) if len(self.steps) > 1 else self.steps[0])()

    def install(self) -> None:
        self._is_installed = True
        self.job()

    def uninstall(self) -> bool:
        self.server.objects.clear()
        return self._is_installed

    def job(self, **conditions: str) -> None:
        """Let the cluster have the Job, with conditions that are true and their reasons."""
        found = [{"type": kind, "status": "True", "reason": reason} for kind, reason in conditions.items()]
        self.server.objects["jobs"] = [{"metadata": {"name": "j", "uid": "u"}, "status": {"conditions": found}}]

    def pod(self, *, vanishing: bool = False, about: dict[str, Any] | None = None, **states: dict[str, Any]) -> None:
        """Let it have the pod, with the states of its containers; `_` stands for `-` in their names."""
        names = {name.replace("_", "-"): state for name, state in states.items()}
        metadata = {
            "name": "p",
            "creationTimestamp": STARTED,
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u"}],
        }
        if vanishing:
            metadata["deletionTimestamp"] = ENDED
        statuses = [
            {"name": name, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
            for name, state in names.items()
        ]
        self.server.objects["pods"] = [
            {
                "metadata": metadata,
                "spec": {"containers": [{"name": name} for name in names]},
                "status": {"phase": "Running", "containerStatuses": statuses, **(about or {})},
            }
        ]

    def leave(self, name: str, *, state: str = "completed", message: str = "") -> None:
        """Leave what a stage leaves, in the folder that the pods see."""
        stage = next(stage for stage in self.plan.stages if stage.name == name)
        output_folder(stage).mkdir(parents=True, exist_ok=True)
        (output_folder(stage) / "result.txt").write_text(name)
        Lock(stage=name, state=state, message=message).write(lock_path(stage))  # type: ignore[arg-type]

    def run(self) -> Any:
        cluster = Cluster(self.server.client, "test")
        store_of = PayloadStore if self.plan.store else lambda _: None
        runner = KubernetesRunner(cluster, lambda _: self, store_of=store_of, cluster_limits=LIMITS)
        with runner.run(self.plan) as run:
            self.said = [event.message for event in run if isinstance(event, JobLogged)]
        return run.job


@pytest.fixture
def stand(make_plan: Callable[..., Plan]) -> Iterator[Stand]:
    with api_server() as server:
        yield Stand(server, make_plan({"one": "pass", "two": "pass"}, deadline=100))


@pytest.fixture
def with_bucket(stand: Stand, tmp_path: Path) -> Stand:
    """Let the payload lie in a bucket; `stand.leave` leaves things there."""
    bucket = tmp_path / "bucket" / stand.plan.job_id
    bucket.mkdir(parents=True)
    stand.plan = dataclasses.replace(stand.plan, storage="bucket", store=f"file://{bucket}")
    return stand


def leave_in_bucket(stand: Stand, tmp_path: Path, *names: str) -> None:
    """Leave locks and outputs of stages where `stage-out` would send them."""
    bucket = tmp_path / "bucket" / stand.plan.job_id
    for name in names:
        (bucket / name / "output").mkdir(parents=True, exist_ok=True)
        (bucket / "locks").mkdir(exist_ok=True)
        (bucket / name / "output" / "result.txt").write_text(name)
        Lock(stage=name, state="completed").write(bucket / "locks" / f"{name}.lock")


def finish(stand: Stand) -> None:
    """Let both stages end well."""
    for name in ("one", "two"):
        stand.leave(name)
    stand.pod(one=ended(), two=ended())
    stand.job(Complete="")


@pytest.mark.parametrize(
    "answer", [status(403, "pods is forbidden: no pods/log"), status(500, "dial tcp 10.0.0.1:10250: no route to host")]
)
def test_logs_that_cannot_be_read_hide_no_job(stand: Stand, answer: Answer) -> None:
    stand.server.log = answer
    stand.steps = [lambda: stand.pod(one=RUNNING, two=RUNNING), lambda: finish(stand)]
    assert stand.run().succeeded
    (told,) = stand.said
    assert told.startswith("the log of stage one cannot be read: the cluster ")
    assert told.endswith("; the job goes on")


@pytest.mark.parametrize(
    "answer",
    [
        (503, None, "busy"),
        (503, JSON, '{"error": "no healthy upstream"}'),
        (502, JSON, "[]"),
        (200, "text/html", "<html>Sign in</html>"),
        status(408, "request timeout"),
        status(504, ""),
    ],
)
def test_a_proxy_that_answers_in_its_place_ends_no_job(stand: Stand, answer: Answer) -> None:
    def hiccup() -> None:
        stand.pod(one=RUNNING, two=RUNNING)
        stand.server.trouble = [answer]

    stand.steps = [hiccup, lambda: finish(stand)]
    assert stand.run().succeeded
    away, back = stand.said
    assert away.endswith("; the job goes on there, waiting for it")
    assert back.startswith("the cluster answers again, after ")


def test_a_lock_that_is_seen_late_counts(stand: Stand) -> None:
    """As where pods and this machine share a folder by NFS."""
    steps = iter(range(10))

    def late() -> None:
        stand.pod(one=ended(), two=ended())
        if next(steps, 10) == 9:
            finish(stand)

    stand.steps = [late]
    assert stand.run().succeeded


def test_a_stage_that_leaves_no_lock_has_failed(stand: Stand) -> None:
    stand.steps = [lambda: stand.pod(one=ended(), two=RUNNING)]
    job = stand.run()
    assert job.message == "stage one failed: ended with exit code 0 without leaving a lock; its log may tell more"


@pytest.mark.parametrize("condition", ["FailureTarget", "Failed"])
def test_a_deadline_is_told_as_such(stand: Stand, condition: str) -> None:
    """Since Kubernetes 1.31 a Job has `Failed` only when its pod, which heeds SIGTERM first, has ended."""

    def late() -> None:
        stand.leave("one", state="failed", message="canceled")
        stand.pod(vanishing=True, one=ended(130, "Error"), two=RUNNING)
        stand.job(**{condition: "DeadlineExceeded"})

    stand.steps = [lambda: stand.pod(one=RUNNING, two=RUNNING), late]
    job = stand.run()
    assert (job.status, job.message) == (JobStatus.FAULTED, "took longer than its deadline of 100 s")


def test_a_pod_that_is_being_deleted_is_to_blame_and_not_the_stage_that_ends_with_it(stand: Stand) -> None:
    """It is there until the Job's controller has counted it, with the exit code that SIGTERM gave it."""

    def deleted() -> None:
        stand.leave("one", state="failed", message="canceled")
        stand.pod(vanishing=True, one=ended(130, "Error"), two=ended(130, "Error"))

    stand.steps = [lambda: stand.pod(one=RUNNING, two=RUNNING), deleted]
    job = stand.run()
    assert (job.status, job.message) == (JobStatus.TERMINATED, "its pod was deleted from the cluster")


def test_a_result_that_did_not_reach_the_bucket_is_none(with_bucket: Stand, tmp_path: Path) -> None:
    def refused() -> None:
        leave_in_bucket(with_bucket, tmp_path, "one", "two")
        with_bucket.pod(one=ended(), two=ended(), stage_out=ended(1, "Error"))

    with_bucket.steps = [lambda: with_bucket.pod(one=RUNNING, two=RUNNING, stage_out=RUNNING), refused]
    job = with_bucket.run()
    told = "container stage-out ended with exit code 1"
    assert (job.status, job.message) == (JobStatus.FAULTED, told)
    assert [(stage.state, stage.message) for stage in job.stages] == [
        (StageState.COMPLETED, ""),
        (StageState.FAILED, told),
    ]


def test_a_pod_that_is_evicted_while_it_sends_has_sent_nothing(with_bucket: Stand, tmp_path: Path) -> None:
    def evicted() -> None:
        leave_in_bucket(with_bucket, tmp_path, "one", "two")
        about = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
        with_bucket.pod(about=about, one=ended(), two=ended(), stage_out=ended(143, "Error"))

    with_bucket.steps = [lambda: with_bucket.pod(one=RUNNING, two=RUNNING, stage_out=RUNNING), evicted]
    job = with_bucket.run()
    assert job.status is JobStatus.EVICTED
    assert job.message == "its pod was evicted: The node was low on resource: memory"


def test_what_a_cluster_puts_into_its_pods_is_not_waited_for(with_bucket: Stand, tmp_path: Path) -> None:
    """A proxy or an agent beside the stages never ends, and so the Job is never complete."""

    def sent() -> None:
        leave_in_bucket(with_bucket, tmp_path, "one", "two")
        with_bucket.pod(one=ended(), two=ended(), stage_out=ended(), linkerd_proxy=RUNNING)

    with_bucket.steps = [lambda: with_bucket.pod(one=RUNNING, two=RUNNING, stage_out=RUNNING), sent]
    assert with_bucket.run().succeeded
    assert (with_bucket.plan.payload / "two/output/result.txt").read_text() == "two"


def test_another_study_of_the_same_id_does_not_stay_in_the_bucket(with_bucket: Stand, tmp_path: Path) -> None:
    folder = tmp_path / "bucket" / with_bucket.plan.job_id / "one" / "input"
    folder.mkdir(parents=True)
    (folder / "of-another-study.txt").write_text("x")
    seen: set[str] = set()

    def sent() -> None:
        seen.update(path.name for path in folder.iterdir())
        leave_in_bucket(with_bucket, tmp_path, "one", "two")
        with_bucket.pod(one=ended(), two=ended(), stage_out=ended())

    with_bucket.steps = [sent]
    assert with_bucket.run().succeeded
    assert seen == {"in.txt"}


def test_of_a_failed_job_that_is_found_at_its_end_the_right_stage_is_blamed(with_bucket: Stand, tmp_path: Path) -> None:
    """In the bucket there is no output of a failed job, also none of the stage that did its part."""

    def failed() -> None:
        bucket = tmp_path / "bucket" / with_bucket.plan.job_id
        (bucket / "locks").mkdir(exist_ok=True)
        Lock(stage="two", state="failed", message="bad slices").write(bucket / "locks/two.lock")
        with_bucket.pod(one=ended(), two=ended(1, "Error"), stage_out=ended(1, "Error"))
        with_bucket.job(Failed="BackoffLimitExceeded")

    with_bucket.steps = [failed]
    job = with_bucket.run()
    assert job.message == "stage two failed: bad slices"
    assert [stage.state for stage in job.stages] == [StageState.COMPLETED, StageState.FAILED]
