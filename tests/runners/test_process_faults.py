"""Stages that misbehave: each ends in one clear line, and none is left."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from clara_wf.model.errors import ChartError, InputError, LackError, UsageError
from clara_wf.model.events import StageLogged
from clara_wf.model.locks import Lock
from clara_wf.model.plan import Mount, Resources
from clara_wf.model.states import JobStatus, StageState
from clara_wf.runners import Limits, ProcessRunner

WRITE = "(context.outputs / 'result.txt').write_text(context.stage)"


def carry_out(plan, limits=None):
    with ProcessRunner(limits=limits).run(plan) as run:
        return list(run)


def fault_of(plan, limits=None):
    """The failed stage's message, after the checks that hold for every failure."""
    job = carry_out(plan, limits)[-1].job
    assert job.status is JobStatus.FAULTED
    failed = next(record for record in job.stages if record.state is StageState.FAILED)
    assert job.message == f"stage {failed.name} failed: {failed.message}"
    assert "\n" not in job.message
    lock = Lock.read(plan.payload / "locks" / f"{failed.name}.lock")
    assert lock is not None
    return failed.message


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise InputError('the folder is empty', remedy='Give DICOM files')", "the folder is empty. Give DICOM files"),
        ("raise ValueError('MARKERNAME^ONE')", "unexpected ValueError; the log of the stage has the trace"),
        ("open(context.inputs / 'absent')", "No such file or directory (errno 2)"),
        ("sys.exit(3)", "ended itself by sys.exit, in place of returning"),
        ("os._exit(3)", "ended with exit code 3 without saying why; its log may tell more"),
        ("os._exit(0)", "ended with exit code 0 without leaving a lock; its log may tell more"),
        ("os.abort()", "ended by SIGABRT without saying why; its log may tell more"),
        (
            "os.kill(os.getpid(), 9)",
            "ended by SIGKILL (perhaps out of memory) without saying why; its log may tell more",
        ),
        ("pass", "completed, but left nothing in its output folder"),
        ("(context.outputs / '.unfinished-1').write_text('')", "completed, but left nothing in its output folder"),
    ],
)
def test_a_failed_stage_says_why(make_plan, body, message):
    assert fault_of(make_plan({"one": body})) == message


def test_a_foreign_stage_is_held_to_the_contract_too(make_plan):
    lock = "touch $NVIDIA_CLARA_LOCKDIR/$NVIDIA_CLARA_LOCKNAME"
    good = make_plan({"one": ["sh", "-c", f"touch $NVIDIA_CLARA_APPDIR/output/x; {lock}"]})
    assert carry_out(good)[-1].job.succeeded
    empty = make_plan({"one": ["sh", "-c", lock]})
    assert fault_of(empty) == "completed, but left nothing in its output folder"
    torn = make_plan({"one": ["sh", "-c", f"touch $NVIDIA_CLARA_APPDIR/output/x; {lock}; exit 4"]})
    assert fault_of(torn) == "said completed, then ended with exit code 4"


def test_those_behind_a_failed_stage_stop_at_once_and_name_it(make_plan):
    plan = make_plan({"one": "raise InputError('bad slices')", "two": WRITE, "three": WRITE}, timeout=100)
    start = time.monotonic()
    job = carry_out(plan, Limits(patience=60))[-1].job
    assert time.monotonic() - start < 50  # neither their time-out nor the patience with them
    assert job.message == "stage one failed: bad slices"
    assert [record.message for record in job.stages[1:]] == ["upstream stage one failed: bad slices"] * 2


#: As an interpreter that shuts down: what it has loaded takes its time to go, and SIGTERM ends it by then.
SLOW_END = """
import atexit
atexit.register(time.sleep, {seconds})
atexit.register(signal.signal, signal.SIGTERM, signal.SIG_DFL)
raise LackError('the server does not answer')
"""


@pytest.mark.parametrize(
    ("seconds", "limits"),
    [(1.0, Limits(patience=60)), (3.5, Limits())],
    ids=["within the patience with others", "past it"],
)
def test_a_failed_stage_that_takes_its_time_to_end_keeps_its_exit_code(make_plan, seconds, limits):
    fails = "from clara_wf.model.errors import LackError" + SLOW_END.format(seconds=seconds)
    plan = make_plan({"one": fails, "two": WRITE})
    job = carry_out(plan, limits)[-1].job
    assert job.message == "stage one failed: the server does not answer"
    assert [record.exit_code for record in job.stages] == [LackError.exit_code, 1]
    assert [record.state for record in job.stages] == [StageState.FAILED, StageState.FAILED]


def test_those_before_a_failed_stage_are_ended(make_plan, quick):
    plan = make_plan({"one": "time.sleep(60)", "two": WRITE, "three": ["sh", "-c", "exit 5"]})
    job = carry_out(plan, quick)[-1].job
    assert job.status is JobStatus.FAULTED
    assert job.message.startswith("stage three failed: ended with exit code 5")
    assert [record.state for record in job.stages] == [StageState.CANCELED, StageState.CANCELED, StageState.FAILED]


def test_a_stage_that_hangs_in_compiled_code_is_ended(make_plan, quick):
    """The interpreter's lock is held for ever: neither the watchdog nor a signal handler of the stage can run."""
    plan = make_plan({"one": "import ctypes\nctypes.PyDLL(None).sleep(60)"}, timeout=0.3)
    assert fault_of(plan, quick) == "worked for more than 0.3 s, its time-out, and did not stop"


def test_a_stage_keeps_its_own_time_out(make_plan):
    plan = make_plan({"one": "time.sleep(60)"}, timeout=0.3)
    job = carry_out(plan)[-1].job
    assert job.stages[0].exit_code == 124
    assert job.stages[0].message == "worked for more than 0.3 s, its time-out"


def test_the_deadline_ends_the_job(make_plan, quick):
    plan = make_plan({"one": "time.sleep(60)", "two": WRITE}, deadline=0.5)
    job = carry_out(plan, quick)[-1].job
    assert (job.status, job.message) == (JobStatus.FAULTED, "took longer than its deadline of 0.5 s")


def test_a_stage_over_its_memory_limit_is_ended(make_plan):
    hog = "hold = []\nfor _ in range(400):\n    hold.append(b'x' * 2**20)\n    time.sleep(0.001)\ntime.sleep(60)"
    plan = make_plan({"one": hog}, resources=Resources(memory=150 * 2**20))
    events = carry_out(plan)
    record = events[-1].job.stages[0]
    assert record.message.startswith("ran out of memory: its limit is 0.15 GiB, it had used 0."), record
    assert record.peak_bytes > 150 * 2**20


def test_the_memory_of_a_stages_children_counts(make_plan):
    child = "hold = bytearray(2**20) * 300; import time; time.sleep(60)"
    plan = make_plan({"one": f"subprocess.run([sys.executable, '-c', {child!r}])"}, resources=Resources(memory=2**28))
    assert "ran out of memory: its limit is 0.25 GiB" in fault_of(plan)


def test_mapped_files_do_not_count_against_the_limit(make_plan, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(bytes(100 * 2**20))
    body = f"import mmap\nm = mmap.mmap(os.open({str(big)!r}, os.O_RDONLY), 0, prot=mmap.PROT_READ)\n"
    body += "sum(m[i] for i in range(0, len(m), 4096))\ntime.sleep(0.4)\n" + WRITE
    assert carry_out(make_plan({"one": body}, resources=Resources(memory=100 * 2**20)))[-1].job.succeeded


def test_a_stage_with_fewer_cores_sees_fewer(make_plan):
    plan = make_plan({"one": "time.sleep(0.2)\n(context.outputs / 'n').write_text(str(len(os.sched_getaffinity(0))))"},
                     resources=Resources(cpu=0.5))  # fmt: skip
    assert carry_out(plan)[-1].job.succeeded
    assert (plan.output / "n").read_text() == "1"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_of_output_is_bounded_and_does_not_block_the_stage(make_plan, quick, stream):
    body = f"for _ in range(300):\n    sys.{stream}.write('x' * 9999 + '\\n')\nsys.{stream}.write('y' * 3_000_000)\n"
    plan = make_plan({"one": body + WRITE})
    events = carry_out(plan, quick)
    assert events[-1].job.succeeded
    assert (plan.payload / "logs" / "one.out").stat().st_size < 2 * quick.output_bytes
    warnings = [event.message for event in events if isinstance(event, StageLogged)]
    assert warnings == ["wrote too much to standard output: the rest is not kept (one.out)"]


def test_a_log_file_that_grows_without_end_ends_its_stage(make_plan, quick):
    log = '"$NVIDIA_CLARA_APPDIR/$NVIDIA_CLARA_LOGNAME"'
    flood = f"while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done > {log}"
    assert fault_of(make_plan({"one": ["sh", "-c", flood]}), quick) == "its log one.log grew past 0.286102 MiB"


def test_a_stage_that_logs_without_end_does_not_fill_the_disk(make_plan):
    plan = make_plan({"one": "for _ in range(20_000):\n    context.log.info('x' * 1000)\n" + WRITE})
    events = carry_out(plan)
    assert events[-1].job.succeeded
    assert (plan.payload / "logs" / "one.log").stat().st_size < 17 * 2**20
    assert sum(isinstance(event, StageLogged) for event in events) <= 10_001


def test_what_a_stage_leaves_running_is_ended(make_plan):
    """A child in the stage's session, and one that left it by a double fork."""
    body = """
    code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    subprocess.Popen([sys.executable, "-c", code, context.outputs / "a"])
    starter = "import subprocess, sys; subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True)"
    subprocess.run([sys.executable, "-c", starter, "-c", code, context.outputs / "b"])
    while not all((context.outputs / n).exists() and (context.outputs / n).read_text() for n in "ab"):
        time.sleep(0.01)
    """
    plan = make_plan({"one": body})
    assert carry_out(plan)[-1].job.succeeded
    pids = [int((plan.output / name).read_text()) for name in "ab"]
    end = time.monotonic() + 30  # sooner than they would end by themselves
    while any(is_alive(pid) for pid in pids):  # what has been killed may need a moment to go
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_missing_program_is_refused_before_anything_is_touched(make_plan):
    good = make_plan({"one": WRITE})
    carry_out(good)
    with pytest.raises(LackError, match="stage one: the program 'no-such-program' is not on this machine"):
        carry_out(make_plan({"one": ["no-such-program"]}))
    assert (good.output / "result.txt").exists()


@pytest.mark.parametrize("module", ["clara_wf.operators.no_such_stage", "no_such_package.stage", "json.tool.inner"])
def test_a_missing_module_is_refused_before_anything_is_touched(make_plan, module):
    good = make_plan({"one": WRITE})
    carry_out(good)
    with pytest.raises(LackError, match=f"stage one: there is no Python module {module}"):
        carry_out(make_plan({"one": ["python", "-m", module]}))
    assert (good.output / "result.txt").exists()


def test_a_variable_that_no_process_can_have(make_plan):
    plan = make_plan({"one": WRITE}, variables={"JOBNAME": "a\0b"})
    assert fault_of(plan) == "its program cannot be started: embedded null byte"


def test_a_stage_of_an_image_alone_needs_containers(make_plan):
    with pytest.raises(UsageError, match="stage one has no command, only the image clara/one:0"):
        carry_out(make_plan({"one": []}))


def test_all_faults_of_a_plan_are_told_at_once(make_plan):
    plan = make_plan({"one": [], "two": ["no-such-program"]}, variables={"TIMEOUT": "soon"})
    with pytest.raises(ChartError) as caught:
        carry_out(plan)
    for part in ("time-out 'soon' of stage one", "time-out 'soon' of stage two", "stage one has no", "no-such-program"):
        assert part in str(caught.value)


def test_a_program_that_cannot_be_started_fails_its_stage(make_plan, tmp_path):
    program = tmp_path / "broken"
    program.write_bytes(b"\x7fELFnonsense")
    program.chmod(0o755)
    assert fault_of(make_plan({"one": [str(program)]})) == "its program cannot be started: Exec format error"


def test_a_payload_that_cannot_be_written_is_refused(make_plan, tmp_path):
    plan = make_plan({"one": WRITE})
    (tmp_path / "file").write_text("")
    lost = dataclasses.replace(plan, payload=tmp_path / "file" / "x")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        carry_out(lost)


def test_a_mount_inside_a_mount_is_refused(make_plan):
    plan = make_plan({"one": WRITE})
    stage = plan.stages[0]
    inner = Mount(path="/app/input/masks", host=plan.payload / "masks")
    nested = dataclasses.replace(plan, stages=(dataclasses.replace(stage, mounts=(*stage.mounts, inner)),))
    with pytest.raises(ChartError, match="mounts /app/input/masks over or inside another folder"):
        carry_out(nested)


def test_an_output_that_is_the_input_is_not_cleared(make_plan):
    plan = make_plan({"one": WRITE})
    stage = plan.stages[0]
    mounts = tuple(
        dataclasses.replace(mount, host=plan.input) if mount.path == "/app/output" else mount for mount in stage.mounts
    )
    same = dataclasses.replace(plan, stages=(dataclasses.replace(stage, mounts=mounts),))
    assert carry_out(same)[-1].job.succeeded
    assert (plan.input / "in.txt").exists()


def test_a_result_outside_the_payload_is_not_cleared(make_plan, tmp_path):
    plan = make_plan({"one": WRITE})
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("precious")
    stage = plan.stages[0]
    mounts = tuple(
        dataclasses.replace(mount, host=home) if mount.path == "/app/output" else mount for mount in stage.mounts
    )
    carry_out(dataclasses.replace(plan, stages=(dataclasses.replace(stage, mounts=mounts),)))
    assert sorted(path.name for path in home.iterdir()) == ["result.txt", "thesis.txt"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two MiB, which only root can make."""
    folder = tmp_path / "payloads"
    folder.mkdir()
    made = os.geteuid() == 0 and subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    if not made:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["/bin/umount", "-l", folder], check=False)


def test_a_full_disk_is_told_and_leaves_no_half_file(make_plan, small_disk):
    body = """
    from clara_wf.model.files import write_atomically
    write_atomically(context.outputs / "big", bytes(4_000_000))
    """
    plan = make_plan({"one": body, "two": WRITE})
    assert fault_of(plan) == "No space left on device (errno 28)"
    assert list((plan.payload / "one" / "output").iterdir()) == []


def test_a_disk_that_is_full_for_good_still_ends_the_job(make_plan, small_disk, quick):
    body = """
    try:
        (context.outputs / "big").write_bytes(bytes(4_000_000))
    except OSError:
        pass
    print("x" * 100_000)
    context.log.info("x" * 100_000)
    time.sleep(0.2)
    """
    plan = make_plan({"one": body, "two": WRITE})
    events = carry_out(plan, quick)
    job = events[-1].job
    assert job.status is JobStatus.FAULTED
    assert "job.json could not be written: No space left on device" in job.message
    assert any("its output is not kept any more" in event.message for event in events if isinstance(event, StageLogged))


def test_a_signal_from_outside_fails_the_stage(make_plan):
    plan = make_plan({"one": "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)"})
    assert fault_of(plan) == "canceled"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
