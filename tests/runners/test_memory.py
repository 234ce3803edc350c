"""The memory runner carries out the same plans by the same contract."""

from __future__ import annotations

import threading

import pytest

from clara_wf.model.errors import InputError, UsageError
from clara_wf.model.events import JobEnded, StageEnded, StageWaiting, StageWorking
from clara_wf.model.states import JobStatus, StageState
from clara_wf.runners import Limits, MemoryRunner
from clara_wf.stage import run as run_stage


def stage(execute):
    return lambda argv, environment: run_stage(argv, environment, execute=execute)


def write(context, prepared):
    (context.outputs / "result.txt").write_text(context.stage)


def copy(context, prepared):
    (context.outputs / "result.txt").write_text((context.inputs / "result.txt").read_text() + context.stage)


def refuse(context, prepared):
    raise InputError("bad slices")


def carry_out(plan, functions):
    with MemoryRunner({name: stage(execute) for name, execute in functions.items()}).run(plan) as run:
        return list(run)


def test_a_chain_of_functions(make_plan):
    plan = make_plan({"one": [], "two": []})
    events = carry_out(plan, {"one": write, "two": copy})
    assert {type(event) for event in events} == {StageWaiting, StageWorking, StageEnded, JobEnded}
    assert events[-1].job.succeeded
    assert (plan.output / "result.txt").read_text() == "onetwo"


def test_a_failure_is_passed_on(make_plan):
    job = carry_out(make_plan({"one": [], "two": []}), {"one": refuse, "two": copy})[-1].job
    assert (job.status, job.message) == (JobStatus.FAULTED, "stage one failed: bad slices")
    assert job.stages[1].message == "upstream stage one failed: bad slices"


def test_a_canceled_run_ends_though_a_function_hangs(make_plan):
    hang = threading.Event()
    plan = make_plan({"one": [], "two": []})
    functions = {"one": stage(lambda _context, _prepared: hang.wait(30) and None), "two": stage(copy)}
    with MemoryRunner(functions, limits=Limits(tick=0.02, grace=0.2)).run(plan) as run:
        for event in run:
            if isinstance(event, StageWorking):
                run.cancel()
    hang.set()
    assert event.job.status is JobStatus.CANCELED
    assert {record.state for record in event.job.stages} == {StageState.CANCELED}


def test_a_stage_without_a_function_is_refused(make_plan):
    with pytest.raises(UsageError, match="there is no function for stage two"):
        carry_out(make_plan({"one": [], "two": []}), {"one": write})
