"""What holds for every runner, whatever it runs stages with."""

from __future__ import annotations

import json
import runpy
import threading
from pathlib import Path

import pytest

from clara_wf.model.events import JobEnded, StageEnded, StageWaiting, StageWorking
from clara_wf.model.states import JobStatus, StageState
from clara_wf.runners import ContainerRunner, Limits, MemoryRunner, ProcessRunner
from clara_wf.stage import run as run_stage

from .conftest import ENGINES, engine_of

LIMITS = Limits(tick=0.05, grace=0.5)
WRITE = "(context.outputs / 'result.txt').write_text(context.stage)"
COPY = "(context.outputs / 'result.txt').write_text((context.inputs / 'result.txt').read_text() + context.stage)"


def function_of(file: str):
    execute = runpy.run_path(file)["execute"]
    return lambda argv, environment: run_stage(argv, environment, execute=execute)


@pytest.fixture(params=["process", "memory", *ENGINES])
def start(request, in_containers):
    """Give a runner that can carry out a plan of the stages that `make_plan` wrote, and the run of it."""

    def make(plan):
        match request.param:
            case "process":
                runner = ProcessRunner(limits=LIMITS)
            case "memory":
                functions = {stage.name: function_of(stage.command[1]) for stage in plan.stages}
                runner = MemoryRunner(functions, limits=LIMITS)
            case kind:
                runner, plan = ContainerRunner(engine_of(kind), limits=LIMITS), in_containers(plan)
        return runner, runner.run(plan)

    return make


def test_events_tell_the_whole_story(make_plan, start):
    plan = make_plan({"one": WRITE, "two": COPY})
    with start(plan)[1] as run:
        events = list(run)
    assert isinstance(events[-1], JobEnded)
    assert events[-1].job == run.job
    assert run.job.succeeded
    for kind in (StageWaiting, StageWorking):
        assert [event.stage for event in events if isinstance(event, kind)] == ["one", "two"]
    assert {event.record for event in events if isinstance(event, StageEnded)} == set(run.job.stages)
    assert (plan.output / "result.txt").read_text() == "onetwo"
    assert json.loads((plan.payload / "job.json").read_text()) == json.loads(json.dumps(run.job.to_json()))


def test_a_failure_ends_the_job_and_is_named(make_plan, start):
    plan = make_plan({"one": "raise InputError('bad slices')", "two": COPY})
    with start(plan)[1] as run:
        list(run)
    assert (run.job.status, run.job.message) == (JobStatus.FAULTED, "stage one failed: bad slices")


#: Goes on when it may, or shortly before its time-out, and says so.
SLOW = """
end = time.monotonic() + 25
while not os.path.exists('{go}') and time.monotonic() < end:
    time.sleep(0.02)
open('{late}', 'w').close()
"""


def test_a_canceled_job_ends_whatever_the_runner_can_end(make_plan, start, tmp_path):
    go, late = tmp_path / "go", tmp_path / "late"
    plan = make_plan({"one": SLOW.format(go=go, late=late) + WRITE, "two": COPY})
    runner, starting = start(plan)
    with starting as run:
        for event in run:
            if isinstance(event, StageWorking):
                run.cancel()
    assert run.job.status is JobStatus.CANCELED
    assert {record.state for record in run.job.stages} == {StageState.CANCELED}
    if runner.capabilities.ends_stages:
        with pytest.raises(ProcessLookupError):
            _find(plan.payload)
    assert not late.exists()
    go.touch()
    for thread in threading.enumerate():
        if thread.name == "one":  # what cannot be ended shall not disturb the next test
            thread.join(60)


def _find(payload: Path) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(payload).encode() in (entry / "environ").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    raise ProcessLookupError
