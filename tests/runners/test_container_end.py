"""Containers that fail, or are ended: each in one clear line, and none is ever left."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from clara_wf.containers.engine import find_engine
from clara_wf.model.errors import LackError
from clara_wf.model.events import JobEnded, StageWorking
from clara_wf.model.plan import Mount
from clara_wf.model.states import JobStatus, StageState
from clara_wf.runners import ContainerRunner, Limits
from clara_wf.runners.container_child import cause_of

from .conftest import any_engine, containers_of, engine_of

LIMITS = Limits(tick=0.05, grace=0.6, patience=0.4, overtime=0.4)
WRITE = "(context.outputs / 'result.txt').write_text(context.stage)"
#: Says that it is there, then works for ever.
SLEEP = "(context.outputs / 'there').write_text('')\ntime.sleep(60)"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n(context.outputs / 'there').write_text('')\ntime.sleep(60)"
PROGRAM = """
import pickle, sys
from clara_wf.containers.engine import find_engine
from clara_wf.runners import ContainerRunner, Limits, canceling_on_signals
plan = pickle.load(open(sys.argv[1], "rb"))
limits = Limits(tick=0.05, grace=0.5)
with ContainerRunner(find_engine(sys.argv[2]), limits=limits).run(plan) as run, canceling_on_signals(run):
    print("started", flush=True)
    for event in run:
        print(type(event).__name__, flush=True)
print(run.job.status, flush=True)
"""


def carry_out(engine, plan):
    with ContainerRunner(engine, limits=LIMITS).run(plan) as run:
        *_, last = run
    return last.job


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@pytest.fixture
def start_program(tmp_path, engine):
    """Carry out a plan in a program of its own, as a command line does."""
    started = []

    def start(plan):
        (tmp_path / "plan").write_bytes(pickle.dumps(plan))
        command = [sys.executable, "-c", PROGRAM, tmp_path / "plan", engine.kind]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True))
        assert started[-1].stdout.readline() == "started\n"
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such"], 'its program cannot be started: exec: "no-such": executable file not found in $PATH'),
        (["/etc/passwd"], 'its program cannot be started: exec: "/etc/passwd": permission denied'),
        # Its own exit code, whatever the number.
        (["sh", "-c", "no-such"], "ended with exit code 127 without saying why; its log may tell more"),
    ],
)
def test_a_stage_that_does_not_come_to_work_says_why(make_contained, engine, command, message):
    job = carry_out(engine, make_contained({"one": command}))
    assert (job.status, job.message) == (JobStatus.FAULTED, f"stage one failed: {message}")


def test_missing_images_are_refused_at_once_and_before_anything_is_touched(make_contained, engine):
    plan = make_contained({"one": WRITE, "two": WRITE, "three": WRITE})
    (plan.payload / "one" / "output").mkdir(parents=True)
    (plan.payload / "one" / "output" / "kept").write_text("")
    one, two, three = plan.stages
    stages = (dataclasses.replace(one, image="clara/one:9"), two, dataclasses.replace(three, image="clara/three:9"))
    run = ContainerRunner(engine).run(dataclasses.replace(plan, stages=stages))
    with pytest.raises(LackError, match="the images are not on this machine: clara/one:9, clara/three:9") as caught:
        run.__enter__()
    assert "`clara-wf build`" in str(caught.value)
    assert (plan.payload / "one" / "output" / "kept").exists()


@any_engine
def test_a_folder_that_is_not_there_is_refused(make_contained, engine, tmp_path):
    plan = make_contained({"one": WRITE})
    stage = plan.stages[0]
    lost = dataclasses.replace(stage, mounts=(*stage.mounts, Mount(path="/models", host=tmp_path / "models")))
    with pytest.raises(LackError, match="models, which it mounts as /models, is not there"):
        ContainerRunner(engine).run(dataclasses.replace(plan, stages=(lost,))).__enter__()


def test_a_canceled_job_leaves_no_container_however_stubborn(make_contained, engine):
    plan = make_contained({"one": STUBBORN, "two": WRITE})
    with ContainerRunner(engine, limits=LIMITS).run(plan) as run:
        for event in run:
            if isinstance(event, StageWorking):
                wait_until((plan.payload / "one" / "output" / "there").exists)
                assert containers_of(engine, plan)
                run.cancel()
    assert isinstance(event, JobEnded)
    assert event.job.status is JobStatus.CANCELED
    assert {record.state for record in event.job.stages} == {StageState.CANCELED}
    assert containers_of(engine, plan) == []


def test_a_program_that_heeds_no_signal_is_not_waited_for(make_contained, engine):
    """The first process of a container does not get SIGTERM unless it catches it."""
    plan = make_contained({"one": ["sh", "-c", "touch /app/output/there; exec sleep 100000"]})
    with ContainerRunner(engine, limits=dataclasses.replace(LIMITS, grace=100_000)).run(plan) as run:
        for event in run:
            if isinstance(event, StageWorking):
                wait_until((plan.payload / "one" / "output" / "there").exists)
                time.sleep(0.3)
                run.cancel()
    assert run.job.status is JobStatus.CANCELED


@any_engine
def test_a_stage_that_does_not_keep_its_time_out_is_ended(make_contained, engine):
    job = carry_out(engine, make_contained({"one": ["sleep", "60"]}, timeout=0.3))
    assert job.message == "stage one failed: worked for more than 0.3 s, its time-out, and did not stop"


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_ctrl_c_at_any_moment_ends_in_order(make_contained, engine, start_program, delay):
    """It reaches the whole group of the terminal."""
    plan = make_contained({"one": WRITE, "two": WRITE})
    process = start_program(plan)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    told = process.communicate(timeout=60)[0].splitlines()
    assert told[-2] == "JobEnded"
    assert told[-1] in {"CANCELED", "HEALTHY"}
    assert containers_of(engine, plan) == []


@pytest.mark.parametrize("delay", [0.15, None])
def test_a_killed_runner_leaves_no_container(make_contained, engine, start_program, delay):
    plan = make_contained({"one": STUBBORN, "two": WRITE})
    process = start_program(plan)
    if delay is None:
        wait_until((plan.payload / "one" / "output" / "there").exists)
    else:
        time.sleep(delay)
    guardian = guardian_of(process)
    process.kill()
    process.wait()
    psutil.wait_procs([guardian] if guardian else [], timeout=60)
    wait_until(lambda: containers_of(engine, plan) == [])


def guardian_of(process):
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if any("guardian" in word for word in child.cmdline()):
                return child
    return None


def test_what_a_killed_guardian_leaves_is_removed_by_the_next_run(make_contained, engine, start_program):
    plan = make_contained({"one": STUBBORN})
    process = start_program(plan)
    wait_until((plan.payload / "one" / "output" / "there").exists)
    guardian_of(process).kill()
    process.kill()
    process.wait()
    assert len(containers_of(engine, plan)) == 1
    good = make_contained({"one": WRITE})
    assert carry_out(engine, good).succeeded


@any_engine
def test_a_container_that_somebody_removes_is_told(make_contained, engine):
    plan = make_contained({"one": SLEEP})
    with ContainerRunner(engine, limits=LIMITS).run(plan) as run:
        for event in run:
            if isinstance(event, StageWorking):
                wait_until((plan.payload / "one" / "output" / "there").exists)
                engine.call("kill", *containers_of(engine, plan))
    assert run.job.message.startswith("stage one failed: ended by SIGKILL")


def test_a_program_of_the_engine_that_somebody_kills_is_told(make_contained, engine):
    plan = make_contained({"one": SLEEP})
    with ContainerRunner(engine, limits=LIMITS).run(plan) as run:
        for event in run:
            if isinstance(event, StageWorking):
                wait_until((plan.payload / "one" / "output" / "there").exists)
                os.kill(run._stages["one"]._child.pid, signal.SIGKILL)
    assert run.job.message == f"stage one failed: `{engine.kind} run` ended before its container did"


class Wire:
    """Stands between docker and its daemon, until it is cut."""

    def __init__(self, path: Path) -> None:
        self._server = socket.create_server(str(path), family=socket.AF_UNIX)
        self._ends: list[socket.socket] = []
        self._path = path
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._server.accept()[0]
                far = socket.socket(socket.AF_UNIX)
                far.connect("/var/run/docker.sock")
                self._ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        self._path.unlink()
        for end in (self._server, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.mark.containers
@pytest.mark.xdist_group("containers")
def test_a_daemon_that_is_gone_in_the_middle_is_told(make_plan, in_containers, tmp_path, monkeypatch):
    docker = engine_of("docker")
    short = Path(f"/tmp/clara-wire-{os.getpid()}")
    wire = Wire(short)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{short}")
    plan = in_containers(make_plan({"one": SLEEP}))
    try:
        with ContainerRunner(find_engine("docker"), limits=LIMITS).run(plan) as run:
            for event in run:
                if isinstance(event, StageWorking):
                    wait_until((plan.payload / "one" / "output" / "there").exists)
                    wire.cut()
    finally:
        monkeypatch.delenv("DOCKER_HOST")
        docker.call("rm", "--force", *containers_of(docker, plan))
    assert run.job.message.startswith("stage one failed: docker does not answer any more: ")
    assert "Cannot connect to the Docker daemon" in run.job.message


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one MiB, which only root can make."""
    folder = tmp_path / "payloads"
    folder.mkdir()
    command = ["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["/bin/umount", "-l", folder], check=False)


@any_engine
def test_a_full_disk_is_told(small_disk, make_contained, engine):
    body = (
        "from clara_wf.model.files import write_atomically\nwrite_atomically(context.outputs / 'big', bytes(2_000_000))"
    )
    job = carry_out(engine, make_contained({"one": body}))
    assert job.message == "stage one failed: No space left on device (errno 28)"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            """docker: Error response from daemon: failed to create shim task: OCI runtime create failed: runc create \
failed: unable to start container process: exec: "x": executable file not found in $PATH: unknown.

Run 'docker run --help' for more information""",
            'exec: "x": executable file not found in $PATH',
        ),
        (
            """Error: crun: executable file `x` not found in $PATH: No such file or directory: OCI runtime attempted \
to invoke a command that was not found""",
            "executable file `x` not found in $PATH: No such file or directory",
        ),
        ("Error: statfs /nosuch: no such file or directory\n", "statfs /nosuch: no such file or directory"),
        ("time=... level=warning msg=swap\nError: no space left on device", "no space left on device"),
        ("", ""),
    ],
)
def test_causes_are_given_without_their_wrapping(said, cause):
    assert cause_of(said) == cause
