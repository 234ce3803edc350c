"""What is read out of a Job and its pod, as clusters of several versions write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lightkube.models.core_v1 import ResourceRequirements
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Event, Pod

from clara_wf.model.plan import Plan, Resources
from clara_wf.model.states import JobStatus
from clara_wf.runners.cluster_state import Further, Phase, memory_fault, one_line, same_work, view

MIB = 1024**2


@pytest.fixture
def plan(make_plan: Callable[..., Plan]) -> Plan:
    return make_plan({"one": "pass", "two": "pass"})


def job(*conditions: dict[str, str], **status: Any) -> Job:
    return Job.from_dict({"metadata": {"name": "j", "uid": "u"}, "status": {"conditions": list(conditions), **status}})


def pod(*containers: dict[str, Any], conditions: tuple[dict[str, str], ...] = (), **status: Any) -> Pod:
    return Pod.from_dict(
        {
            "metadata": {"name": "j-x"},
            "spec": {"containers": [{"name": found["name"], "image": "clara/x:0"} for found in containers]},
            "status": {"containerStatuses": list(containers), "conditions": list(conditions), **status},
        }
    )


def container(name: str, **state: Any) -> dict[str, Any]:
    return {"name": name, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}


def test_a_job_that_runs(plan: Plan) -> None:
    ended = {
        "exitCode": 0,
        "reason": "Completed",
        "startedAt": "2026-01-02T03:04:05Z",
        "finishedAt": "2026-01-02T03:04:09Z",
    }
    running = {"startedAt": "2026-01-02T03:04:05Z"}
    seen = view(plan, job(active=1), [pod(container("one", terminated=ended), container("two", running=running))])
    one, two = seen.containers["one"], seen.containers["two"]
    assert (one.phase, one.exit_code, two.phase) == (Phase.ENDED, 0, Phase.RUNNING)
    assert (one.ended - one.started).total_seconds() == 4
    assert (seen.finished, seen.started, seen.trouble, seen.pod) == (False, True, None, "j-x")


def test_the_end_of_a_job(plan: Plan) -> None:
    assert view(plan, job({"type": "Complete", "status": "True"}), [pod(container("one"))]).finished
    # Newer clusters say first that it will be complete, and later that it is.
    early = view(plan, job({"type": "SuccessCriteriaMet", "status": "True"}), [pod(container("one"))])
    assert not early.finished
    assert not view(plan, job({"type": "Failed", "status": "False"}), [pod(container("one"))]).finished


@pytest.mark.parametrize(
    ("reason", "patience", "told"),
    [
        ("ErrImageNeverPull", 0.0, "its image clara/x:0 cannot be had (ErrImageNeverPull): not here"),
        ("ImagePullBackOff", 5.0, "its image clara/x:0 cannot be had (ImagePullBackOff): not here"),
        ("CreateContainerConfigError", 3.0, "its container cannot be started (CreateContainerConfigError): not here"),
    ],
)
def test_a_container_that_cannot_start(plan: Plan, reason: str, patience: float, told: str) -> None:
    waiting = container("two", waiting={"reason": reason, "message": "not here"})
    trouble = view(plan, job(), [pod(container("one", running={}), waiting)]).trouble
    assert (trouble.stage, trouble.patience, trouble.message) == ("two", patience, told)


def test_starting_is_no_trouble(plan: Plan) -> None:
    waiting = container("one", waiting={"reason": "ContainerCreating"})
    assert view(plan, job(), [pod(waiting)]).trouble is None
    assert view(plan, job(), []).trouble is None


def test_of_nested_errors_the_innermost_is_told(plan: Plan) -> None:
    nested = (
        'rpc error: code = Unknown desc = failed to pull and unpack image "r.example/a:1": failed to resolve reference '
        '"r.example/a:1": failed to do request: Head "https://r.example/v2/": dial tcp: no such host'
    )
    waiting = container("one", waiting={"reason": "ErrImagePull", "message": nested})
    trouble = view(plan, job(), [pod(waiting)]).trouble
    assert trouble.message == "its image clara/x:0 cannot be had (ErrImagePull): dial tcp: no such host"


def test_a_pod_without_a_node(plan: Plan) -> None:
    def unscheduled(message: str) -> dict[str, str]:
        return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}

    def trouble(message: str, nodes: list[dict[str, str]] | None) -> Any:
        wanting = pod(container("one"), conditions=(unscheduled(message),))
        wanting.spec.containers[0].resources = ResourceRequirements(requests={"cpu": "1500m", "memory": "4Gi"})
        return view(plan, job(), [wanting], Further(nodes=nodes)).trouble

    small, large = {"cpu": "1", "memory": "64Gi"}, {"cpu": "2", "memory": "4Gi"}
    full = "0/2 nodes are available: 2 Insufficient cpu."
    # A queue is normal: it waits where a node could take it, and where nobody can tell.
    assert trouble(full, [small, large]) is None
    assert trouble(full, None) is None
    never = trouble(full, [small])
    told = "no node can take its pod: 0/2 nodes are available: 2 Insufficient cpu"
    assert (never.message, never.patience) == (told, 20)
    assert trouble("0/2 nodes are available: 2 node(s) had untolerated taint {gpu: }", [large]).patience == 20
    assert trouble("pod has unbound immediate PersistentVolumeClaims", [large]).patience == 60


@pytest.mark.parametrize(
    "why",
    [
        "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }",
        "0/1 nodes are available: 1 node(s) had taint {node.kubernetes.io/disk-pressure: }, that the pod does not bear",
        "0/1 nodes are available: 1 node(s) were unschedulable",
    ],
)
def test_a_node_that_starts_again_or_is_cordoned_may_come_back(plan: Plan, why: str) -> None:
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    seen = view(plan, job(), [pod(container("one"), conditions=(unscheduled,))])
    assert seen.trouble.patience == 600
    assert seen.may_get_well


@pytest.mark.parametrize("reason", ["TriggeredScaleUp", "Nominated"])
def test_a_node_that_an_autoscaler_makes_is_waited_for(plan: Plan, reason: str) -> None:
    why = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu"
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    event = Event.from_dict({"metadata": {"name": "e"}, "involvedObject": {}, "reason": reason, "message": "1->2"})
    waiting = pod(container("one"), conditions=(unscheduled,))
    waiting.spec.containers[0].resources = ResourceRequirements(requests={"nvidia.com/gpu": "1"})
    assert view(plan, job(), [waiting], Further(events=[event], nodes=[{"cpu": "4"}])).trouble is None
    assert view(plan, job(), [waiting], Further(nodes=[{"cpu": "4"}])).trouble is not None


def test_an_eviction_old_and_new(plan: Plan) -> None:
    old = pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    new = pod(conditions=({"type": "DisruptionTarget", "status": "True", "message": "Taint manager: deleting pod"},))
    for found, why in ((old, "The node was low on resource: memory"), (new, "Taint manager: deleting pod")):
        trouble = view(plan, job(), [found]).trouble
        assert (trouble.status, trouble.message) == (JobStatus.EVICTED, f"its pod was evicted: {why}")


def test_what_is_gone(plan: Plan) -> None:
    trouble = view(plan, None, []).trouble
    assert (trouble.message, trouble.status) == ("its Job was deleted from the cluster", JobStatus.TERMINATED)
    failed = job({"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"})
    assert view(plan, failed, []).trouble.message == "its pod was deleted from the cluster"
    late = job({"type": "Failed", "status": "True", "reason": "DeadlineExceeded"})
    assert view(plan, late, []).trouble.message == "took longer than its deadline"


def test_a_cluster_that_refuses_the_pod(plan: Plan) -> None:
    refused = Event.from_dict(
        {
            "metadata": {"name": "e"},
            "involvedObject": {},
            "reason": "FailedCreate",
            "message": 'Error creating: pods "j-x" is forbidden: violates PodSecurity "restricted:latest": hostPath',
        }
    )
    trouble = view(plan, job(), [], Further(events=[refused])).trouble
    assert trouble.message.startswith("the cluster refuses its pod: ")
    assert 'violates PodSecurity "restricted:latest"' in trouble.message


def test_a_quota_is_waited_for(plan: Plan) -> None:
    refused = {"metadata": {"name": "e"}, "involvedObject": {}, "reason": "FailedCreate"}
    refused["message"] = 'Error creating: pods "j-x" is forbidden: exceeded quota: cpu, requested: 2'
    seen = view(plan, job(), [], Further(events=[Event.from_dict(refused)]))
    assert seen.trouble is None
    assert seen.waits_for.endswith("exceeded quota: cpu, requested: 2")


def test_a_mount_that_fails_is_told_after_a_while(plan: Plan) -> None:
    said = {"metadata": {"name": "e"}, "involvedObject": {}, "reason": "FailedMount", "message": "no such claim"}
    waiting = container("one", waiting={"reason": "ContainerCreating"})
    trouble = view(plan, job(), [pod(waiting)], Further(events=[Event.from_dict(said)])).trouble
    assert (trouble.message, trouble.patience) == ("its pod does not start: no such claim", 60)


def test_out_of_memory(plan: Plan) -> None:
    def of(**ended: Any) -> str:
        seen = view(plan, job(), [pod(container("one", terminated=ended))]).containers["one"]
        return memory_fault(limited, seen)

    limited = _with_limit(plan, 512 * MIB)
    told = "ran out of memory: its limit is 0.50 GiB"
    assert of(exitCode=137, reason="OOMKilled") == told
    # With cgroup v2 and one process killed of several, some clusters say Error.
    assert of(exitCode=137, reason="Error") == told
    assert not of(exitCode=1, reason="Error")
    limited = _with_limit(plan, None)
    assert not of(exitCode=137, reason="Error")
    assert of(exitCode=137, reason="OOMKilled") == "ran out of memory"


def _with_limit(plan: Plan, memory: int | None) -> Any:
    from dataclasses import replace

    return replace(plan.stages[0], resources=Resources(memory=memory))


def test_a_carrier_that_fails_behind_a_stage_is_not_to_blame(plan: Plan) -> None:
    def trouble(code: int) -> Any:
        stages = [container("one", terminated={"exitCode": code}), container("stage-out", terminated={"exitCode": 1})]
        return view(plan, job(), [pod(*stages)]).trouble

    assert trouble(0).container == "stage-out"
    assert trouble(1) is None


def test_one_line_is_one_line_of_bounded_length() -> None:
    assert one_line("a\n  b.\n") == "a b"
    assert len(one_line("x" * 10_000)) == 400


def test_other_work_is_told_from_the_same(plan: Plan) -> None:
    def as_job(**changes: Any) -> Job:
        containers = [
            {
                "name": stage.name,
                "image": stage.image,
                "command": list(stage.command),
                "args": list(stage.args),
                "env": [{"name": name, "value": value} for name, value in stage.environment.items()],
                **changes,
            }
            for stage in plan.stages
        ]
        return Job.from_dict({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"containers": containers}}}})

    assert same_work(plan, as_job()) == ""
    assert same_work(plan, as_job(image="other:1")) == "there stage one has the image other:1"
    assert same_work(plan, as_job(args=["--more"])) == "there stage one has other arguments or variables"
    assert same_work(plan, as_job(env=[])) == "there stage one has other arguments or variables"
    assert same_work(plan, as_job(name="three")) == "there it has no stage one"
