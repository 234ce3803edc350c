"""A container that cannot be removed is told of, by a program that stands for podman and refuses to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clara_wf.containers.engine import find_engine
from clara_wf.model.events import StageLogged, StageWaiting
from clara_wf.model.plan import Plan
from clara_wf.model.states import JobStatus
from clara_wf.runners import ContainerRunner, Limits
from clara_wf.runners.container_program import payload_key

REFUSED = "Error: container is in use"
#: Answers as podman does, as far as a run asks. @WORK@ stands for the container's program.
PODMAN = """#!/bin/sh
case "$1" in
info) echo "5.4.2|true" ;;
image) echo 1 ;;
ps) ;;
inspect) echo "2026-01-02 03:04:05|false|false" ;;
rm) echo "$@" >> '@CALLS@'; echo '@REFUSAL@' >&2; exit 125 ;;
run)
    for word; do
        case "$word" in --cidfile=*) echo 1 > "${word#--cidfile=}" ;; esac
    done
    @WORK@ ;;
esac
"""
#: A container's program that keeps the contract: a result, and a lock.
GOOD = "echo x > '{payload}/one/output/result.txt'; echo x > '{payload}/locks/one.lock'"


@pytest.fixture
def with_podman(
    make_plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], Plan]:
    """Put the program on the PATH, and make a plan of one stage for it."""

    def make(work: str, refusal: str = REFUSED) -> Plan:
        plan = make_plan({"one": ["work"]})
        text = PODMAN.replace("@WORK@", work.format(payload=plan.payload)).replace("@REFUSAL@", refusal)
        program = tmp_path / "programs/podman"
        program.parent.mkdir()
        program.write_text(text.replace("@CALLS@", str(tmp_path / "calls")))
        program.chmod(0o755)
        monkeypatch.setenv("CLARA_WF_CONTAINER_ENGINE", str(program))
        return plan

    return make


WithPodman = Callable[..., Plan]


def told(plan: Plan) -> StageLogged:
    """Return what has to be told of a container that was not removed."""
    name = f"clara-{plan.job_id}-one-{payload_key(plan.payload)[:6]}"
    return StageLogged(
        stage="one",
        level="WARNING",
        message=f"its container may still be there, and run: `podman rm` failed: {REFUSED}."
        f" Remove it: podman rm --force {name}",
    )


def test_a_stage_that_has_done_well_and_whose_container_stays(
    with_podman: WithPodman, quick: Limits, tmp_path: Path
) -> None:
    plan = with_podman(GOOD)
    with ContainerRunner(find_engine(), limits=quick).run(plan) as run:
        events = list(run)
    assert run.job.status is JobStatus.HEALTHY
    assert [event for event in events if isinstance(event, StageLogged)] == [told(plan)]
    # What is told to a person is what was tried, without the haste.
    tried = (tmp_path / "calls").read_text().splitlines()[0].split()
    assert [word for word in tried if word not in {"--volumes", "--time=0"}] == told(plan).message.split()[-3:]


def test_a_stage_that_is_canceled_and_whose_container_runs_on(with_podman: WithPodman, quick: Limits) -> None:
    plan = with_podman("exec sleep 60")
    with ContainerRunner(find_engine(), limits=quick).run(plan) as run:
        events = []
        for event in run:
            events.append(event)
            if isinstance(event, StageWaiting):
                run.cancel()
    assert run.job.status is JobStatus.CANCELED
    assert told(plan) in events


def test_a_container_that_is_gone_already_is_no_matter(with_podman: WithPodman, quick: Limits) -> None:
    plan = with_podman(GOOD, 'Error: no container with name or ID "x" found: no such container')
    with ContainerRunner(find_engine(), limits=quick).run(plan) as run:
        events = list(run)
    assert run.job.status is JobStatus.HEALTHY
    assert not any(isinstance(event, StageLogged) for event in events)
