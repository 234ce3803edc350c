"""What holds for every runner, whatever it runs stages with."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from clara_wf.model.events import JobEnded, StageEnded, StageWaiting, StageWorking
from clara_wf.model.states import JobStatus, StageState
from clara_wf.runners import Limits, MemoryRunner, ProcessRunner
from clara_wf.stage import run as run_stage

LIMITS = Limits(tick=0.05, grace=0.5)
WRITE = "(context.outputs / 'result.txt').write_text(context.stage)"
COPY = "(context.outputs / 'result.txt').write_text((context.inputs / 'result.txt').read_text() + context.stage)"


def function_of(file: str):
    execute = runpy.run_path(file)["execute"]
    return lambda argv, environment: run_stage(argv, environment, execute=execute)


@pytest.fixture(params=["process", "memory"])
def runner_for(request):
    """Make a runner that can carry out a plan of the stages that `make_plan` wrote."""

    def make(plan):
        if request.param == "process":
            return ProcessRunner(limits=LIMITS)
        return MemoryRunner({stage.name: function_of(stage.command[1]) for stage in plan.stages}, limits=LIMITS)

    return make


def test_events_tell_the_whole_story(make_plan, runner_for):
    plan = make_plan({"one": WRITE, "two": COPY})
    with runner_for(plan).run(plan) as run:
        events = list(run)
    assert isinstance(events[-1], JobEnded)
    assert events[-1].job == run.job
    assert run.job.succeeded
    for kind in (StageWaiting, StageWorking):
        assert [event.stage for event in events if isinstance(event, kind)] == ["one", "two"]
    assert {event.record for event in events if isinstance(event, StageEnded)} == set(run.job.stages)
    assert (plan.output / "result.txt").read_text() == "onetwo"
    assert json.loads((plan.payload / "job.json").read_text()) == json.loads(json.dumps(run.job.to_json()))


def test_a_failure_ends_the_job_and_is_named(make_plan, runner_for):
    plan = make_plan({"one": "raise InputError('bad slices')", "two": COPY})
    with runner_for(plan).run(plan) as run:
        list(run)
    assert (run.job.status, run.job.message) == (JobStatus.FAULTED, "stage one failed: bad slices")


def test_a_canceled_job_ends_whatever_the_runner_can_end(make_plan, runner_for, tmp_path):
    late = tmp_path / "late"
    plan = make_plan({"one": f"time.sleep(2)\nopen({str(late)!r}, 'w').close()\n{WRITE}", "two": COPY})
    runner = runner_for(plan)
    with runner.run(plan) as run:
        for event in run:
            if isinstance(event, StageWorking):
                run.cancel()
    assert run.job.status is JobStatus.CANCELED
    assert {record.state for record in run.job.stages} == {StageState.CANCELED}
    if runner.capabilities.ends_stages:
        with pytest.raises(ProcessLookupError):
            _find(plan.payload)
    assert not late.exists()


def _find(payload: Path) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(payload).encode() in (entry / "environ").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    raise ProcessLookupError
