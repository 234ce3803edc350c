"""The end that comes from outside: cancel, Ctrl-C, SIGTERM, SIGKILL, a second run. No process is ever left."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from clara_wf.model.errors import JobError
from clara_wf.model.events import JobEnded, StageWorking
from clara_wf.model.locks import Lock
from clara_wf.model.states import JobState, JobStatus, StageState
from clara_wf.runners import Limits, ProcessRunner
from clara_wf.runners.guardian import MARK

WRITE = "(context.outputs / 'result.txt').write_text(context.stage)"
#: Says which process it is, then works for ever.
SLEEP = "(context.outputs / 'pid').write_text(str(os.getpid()))\ntime.sleep(60)"
#: Does not want to end, and neither does its child.
STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", code])
time.sleep(0.1)
(context.outputs / 'pid').write_text(str(os.getpid()))
while True:
    time.sleep(1)
"""


def left_of(payload: Path) -> list[int]:
    """Every process that was started for a payload, stages and what they started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(payload).encode() in environment and MARK.encode() in environment:
                found.append(int(entry.name))
    return found


def is_free(payload: Path) -> bool:
    """Whether nobody holds a payload: a process that is about to end has lost its environment before its files."""
    with (payload / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@pytest.mark.parametrize("body", [SLEEP, STUBBORN], ids=["sleeping", "stubborn"])
def test_a_canceled_job_ends_all_its_stages(make_plan, quick, body):
    plan = make_plan({"one": body, "two": WRITE})
    with ProcessRunner(limits=quick).run(plan) as run:
        for event in run:
            if isinstance(event, StageWorking):
                wait_until((plan.payload / "one" / "output" / "pid").exists)
                run.cancel()
    assert isinstance(event, JobEnded)
    assert (event.job.state, event.job.status) == (JobState.STOPPED, JobStatus.CANCELED)
    assert {record.state for record in event.job.stages} == {StageState.CANCELED}
    assert json.loads((plan.payload / "job.json").read_text())["status"] == "CANCELED"
    assert Lock.read(plan.payload / "locks" / "one.lock").message == "canceled"
    assert left_of(plan.payload) == []


def test_a_run_can_be_canceled_from_another_thread(make_plan, quick):
    plan = make_plan({"one": SLEEP})
    with ProcessRunner(limits=quick).run(plan) as run:
        threading.Timer(0.3, run.cancel).start()
        *_, last = run
    assert last.job.status is JobStatus.CANCELED


def test_an_error_of_the_reader_ends_the_stages(make_plan, quick):
    plan = make_plan({"one": SLEEP, "two": WRITE})
    run = ProcessRunner(limits=quick).run(plan)

    def read():
        with run:
            for event in run:
                if isinstance(event, StageWorking):
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    assert run.job.status is JobStatus.CANCELED
    assert json.loads((plan.payload / "job.json").read_text())["status"] == "CANCELED"
    assert left_of(plan.payload) == []


def test_a_run_that_nobody_read_is_canceled(make_plan):
    plan = make_plan({"one": SLEEP})
    with ProcessRunner().run(plan) as run:
        pass
    assert run.job.status is JobStatus.CANCELED


def test_a_second_run_of_a_running_job_is_refused(make_plan, quick):
    plan = make_plan({"one": SLEEP})
    with ProcessRunner(limits=quick).run(plan) as first:
        events = iter(first)
        next(events)
        with pytest.raises(JobError, match="job 00000000-0000-0000-0000-000000000000 is still running"):
            ProcessRunner().run(plan).__enter__()
        assert (plan.payload / "locks" / "input.lock").exists()
        first.cancel()
        assert list(events)[-1].job.status is JobStatus.CANCELED
    assert ProcessRunner(limits=quick).run(plan).__enter__().__exit__(None, None, None) is None


PROGRAM = """
import pickle, signal, sys
from clara_wf.runners import Limits, ProcessRunner, canceling_on_signals
plan = pickle.load(open(sys.argv[1], "rb"))
# These tests may themselves run under nohup.
signal.signal(signal.SIGHUP, signal.SIG_IGN if "nohup" in sys.argv else signal.SIG_DFL)
with ProcessRunner(limits=Limits(tick=0.05, grace=0.5)).run(plan) as run, canceling_on_signals(run):
    print("started", flush=True)
    for event in run:
        print(type(event).__name__, flush=True)
print(run.job.status, flush=True)
"""


@pytest.fixture
def start_program(tmp_path):
    """Carry out a plan in a program of its own, as a command line does."""
    started = []

    def start(plan, *arguments):
        (tmp_path / "plan").write_bytes(pickle.dumps(plan))
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, tmp_path / "plan", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_job_in_order(make_plan, start_program, number):
    plan = make_plan({"one": SLEEP, "two": WRITE})
    process = start_program(plan)
    wait_until((plan.payload / "one" / "output" / "pid").exists)
    process.send_signal(number)
    told = process.communicate(timeout=60)[0].splitlines()
    assert told[-2:] == ["JobEnded", "CANCELED"]
    assert json.loads((plan.payload / "job.json").read_text())["status"] == "CANCELED"
    assert left_of(plan.payload) == []


def test_a_program_under_nohup_goes_on_when_its_terminal_is_gone(make_plan, start_program):
    plan = make_plan({"one": SLEEP.replace("60", "1")})
    process = start_program(plan, "nohup")
    wait_until((plan.payload / "one" / "output" / "pid").exists)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=60)[0].splitlines()[-2:] == ["JobEnded", "HEALTHY"]


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_ctrl_c_at_any_moment_ends_in_order(make_plan, start_program, delay):
    """From before the first stage to after the last: never a trace, never a process left."""
    plan = make_plan({"one": WRITE, "two": WRITE})
    process = start_program(plan)
    assert process.stdout.readline() == "started\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[0].splitlines()
    if process.returncode == 0:  # else the interpreter was already on its way out
        assert told[-1] in {"CANCELED", "HEALTHY"}
        assert told[-2] == "JobEnded"
    assert json.loads((plan.payload / "job.json").read_text())["state"] == "STOPPED"
    assert left_of(plan.payload) == []


def test_two_ctrl_c_do_not_wait_for_stubborn_stages(make_plan):
    plan = make_plan({"one": STUBBORN})
    with ProcessRunner(limits=Limits(grace=600)).run(plan) as run:
        for event in run:
            if isinstance(event, StageWorking):
                wait_until((plan.payload / "one" / "output" / "pid").exists)
                run.cancel()
                run.cancel()
                start = time.monotonic()
    assert time.monotonic() - start < 300  # not the grace
    assert run.job.status is JobStatus.CANCELED


@pytest.mark.parametrize("body", [SLEEP, STUBBORN], ids=["sleeping", "stubborn"])
def test_a_killed_runner_leaves_no_stage_alive(make_plan, start_program, body):
    plan = make_plan({"one": body, "two": WRITE})
    process = start_program(plan)
    wait_until((plan.payload / "one" / "output" / "pid").exists)
    assert len(left_of(plan.payload)) >= 2
    process.kill()
    # Sooner than they would end by themselves.
    wait_until(lambda: left_of(plan.payload) == [] and is_free(plan.payload), 30)
    # and the job can be run again
    with ProcessRunner().run(make_plan({"one": WRITE, "two": WRITE})) as run:
        assert list(run)[-1].job.succeeded


def test_while_a_stage_of_a_killed_runner_lives_the_job_is_running(make_plan, start_program):
    """The guardian killed too: what is left holds the payload."""
    plan = make_plan({"one": SLEEP})
    process = start_program(plan)
    pid = plan.payload / "one" / "output" / "pid"
    wait_until(lambda: pid.exists() and pid.read_text())
    for child in psutil.Process(process.pid).children():
        if child.pid != int(pid.read_text()):
            child.kill()
    process.kill()
    process.wait()
    try:
        with pytest.raises(JobError, match="is still running"):
            ProcessRunner().run(plan).__enter__()
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
