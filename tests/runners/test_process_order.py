"""Stages that behave: their order, their results, their record."""

from __future__ import annotations

import json
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clara_wf.model.events import JobEnded, StageEnded, StageLogged, StageProgress, StageWaiting, StageWorking
from clara_wf.model.locks import Lock
from clara_wf.model.states import JobState, JobStatus, StageState
from clara_wf.runners import ProcessRunner

WRITE = "(context.outputs / 'result.txt').write_text(context.stage)"
COPY = "(context.outputs / 'result.txt').write_text((context.inputs / 'result.txt').read_text() + context.stage)"


def carry_out(plan, limits=None, **options):
    with ProcessRunner(limits=limits, **options).run(plan) as run:
        return list(run)


def test_a_chain_hands_its_results_on(make_plan):
    plan = make_plan({"one": WRITE, "two": COPY, "three": COPY})
    events = carry_out(plan)
    assert isinstance(events[-1], JobEnded)
    job = events[-1].job
    assert job.succeeded, job
    assert (plan.output / "result.txt").read_text() == "onetwothree"
    assert [type(event) for event in events[:3]] == [StageWaiting] * 3
    assert [event.stage for event in events if isinstance(event, StageWorking)] == ["one", "two", "three"]
    ended = [event.record for event in events if isinstance(event, StageEnded)]
    # The lock of a stage is there before its process has quite ended.
    assert sorted(record.name for record in ended) == ["one", "three", "two"]
    for record in job.stages:
        assert record.state is StageState.COMPLETED
        assert record.exit_code == 0
        assert record.wall_s >= record.work_s >= 0
        assert record.cpu_s > 0
    kept = json.loads((plan.payload / "job.json").read_text())
    assert kept["state"] == "STOPPED"
    assert kept["status"] == "HEALTHY"
    assert [stage["state"] for stage in kept["stages"]] == ["completed"] * 3


def test_progress_and_log_lines_become_events(make_plan):
    plan = make_plan({"one": "context.progress(0.5, 'half')\ncontext.log.warning('careful')\n" + WRITE})
    events = carry_out(plan)
    assert StageProgress(stage="one", fraction=0.5, message="half") in events
    assert StageLogged(stage="one", level="WARNING", message="careful") in events


def test_foreign_output_is_kept_in_a_file_and_told_in_no_event(make_plan):
    plan = make_plan(
        {
            "one": "print('MARKERNAME^ONE', flush=True)\nprint('{\"message\": \"MARKERNAME^TWO\"}', file=sys.stderr)\n"
            + WRITE
        }
    )
    events = carry_out(plan)
    kept = (plan.payload / "logs" / "one.out").read_text()
    assert "MARKERNAME^ONE" in kept
    assert "MARKERNAME^TWO" in kept
    assert "MARKERNAME" not in repr(events)


def test_a_rerun_starts_clean(make_plan):
    plan = make_plan({"one": WRITE, "two": COPY})
    assert carry_out(plan)[-1].job.succeeded
    stale = plan.payload / "two" / "output" / "old" / "slice.txt"
    stale.parent.mkdir()
    stale.write_text("old")
    (plan.payload / "locks" / ".unfinished-abc.lock").write_text("half")
    # An old lock of `one` would let `two` start before there is anything to read.
    slow = make_plan({"one": "time.sleep(0.3)\n" + WRITE, "two": COPY})
    assert carry_out(slow)[-1].job.succeeded
    assert not stale.parent.exists()
    assert not (plan.payload / "locks" / ".unfinished-abc.lock").exists()
    assert (plan.input / "in.txt").read_text() == "x"
    assert len((plan.payload / "logs" / "one.log").read_text().splitlines()) == 2


def test_the_runners_environment_is_passed_on_but_not_its_contract(make_plan, monkeypatch):
    monkeypatch.setenv("NVIDIA_CLARA_LEFTOVER", "1")
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    plan = make_plan({"one": "(context.outputs / 'e.txt').write_text(repr(dict(os.environ)))"})
    assert carry_out(plan)[-1].job.succeeded
    environment = eval((plan.output / "e.txt").read_text())  # noqa: S307 - our own repr
    assert "NVIDIA_CLARA_LEFTOVER" not in environment
    assert environment["https_proxy"] == "http://proxy:1"
    assert Path(environment["NVIDIA_CLARA_APPDIR"]).is_relative_to(plan.payload)


def test_the_modules_of_a_scaffolded_stage_are_found(make_plan, tmp_path, root, monkeypatch):
    code = tmp_path / "code"
    code.mkdir()
    (code / "my_stage.py").write_text(
        "from clara_wf.stage import main\n"
        "def execute(context, prepared): (context.outputs / 'r').write_text('mine')\n"
        "if __name__ == '__main__': main(execute=execute)\n"
    )
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", "src")  # stages work in another folder
    plan = make_plan({"mine": ["python", "-m", "my_stage"]})
    assert carry_out(plan, code_folders={"mine": code})[-1].job.succeeded
    assert (plan.output / "r").read_text() == "mine"


# A failure is as telling without being made smaller, which takes minutes here.
@settings(
    max_examples=4, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(delays=st.lists(st.tuples(st.floats(0, 0.15), st.floats(0, 0.15)), min_size=3, max_size=4))
def test_whatever_takes_long_the_order_holds(make_plan, delays):
    """Prepare and execute take any time; every stage works only after the lock of the one before it."""
    body = (
        "(context.outputs / 'began').write_text(repr(time.time()))\n"
        "time.sleep({})\n"
        "(context.outputs / 'ended').write_text(repr(time.time()))\n"
    )
    stages = {f"stage-{n}": body.format(execute) for n, (_, execute) in enumerate(delays)}
    plan = make_plan(stages)
    for n, (prepare, _) in enumerate(delays):
        file = plan.payload.parents[1] / f"stage-{n}_stage.py"
        text = file.read_text().replace("main(execute=execute)", "main(execute=execute, prepare=prepare)")
        file.write_text(text.replace("def execute", f"def prepare(context): time.sleep({prepare})\ndef execute"))
    job = carry_out(plan)[-1].job
    assert (job.state, job.status) == (JobState.STOPPED, JobStatus.HEALTHY), job
    times = [
        float((plan.payload / name / "output" / moment).read_text()) for name in stages for moment in ("began", "ended")
    ]
    assert times == sorted(times)
    locks = [Lock.read(plan.payload / "locks" / f"{name}.lock") for name in stages]
    assert [lock.ended for lock in locks] == sorted(lock.ended for lock in locks)


def test_a_stage_that_works_and_ends_between_two_looks_has_completed(make_plan):
    """A reader of the events that takes its time sees both at once; the end is what counts."""
    with ProcessRunner().run(make_plan({"one": WRITE})) as run:
        for event in run:
            if isinstance(event, StageWaiting):
                time.sleep(3)
    assert [record.state for record in run.job.stages] == [StageState.COMPLETED]
    assert run.job.succeeded
