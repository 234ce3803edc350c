"""A stage's life, as a function and as a process: it always leaves a lock and the right exit code."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clara_wf.model.errors import InputError, LackError
from clara_wf.model.locks import Lock
from clara_wf.stage import StageContext, run
from clara_wf.stage.log import LOG_LIMIT_BYTES, logging_to


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "input").mkdir()
    values = {
        "STAGENAME": "two",
        "JOBID": "00000000-0000-0000-0000-000000000000",
        "APPDIR": str(tmp_path),
        "INPUTS": "input",
        "OUTPUTS": "output",
        "LOCKDIR": "locks",
        "LOCKNAME": "two.lock",
        "LOGNAME": "logs/two.log",
        "IMAGE": "clara/two:1",
        "RUNSIMPLE": "TRUE",
    }
    return {f"NVIDIA_CLARA_{name}": value for name, value in values.items()}


def write(context: StageContext, prepared: object) -> None:
    (context.outputs / "result").write_text(repr(prepared))


def lock_of(variables: dict[str, str]) -> Lock | None:
    return Lock.read(Path(variables["NVIDIA_CLARA_APPDIR"]) / "locks" / "two.lock")


def log_of(variables: dict[str, str]) -> list[dict[str, str]]:
    path = Path(variables["NVIDIA_CLARA_APPDIR"]) / "logs" / "two.log"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_prepare_execute_cleanup_lock(variables, tmp_path):
    life = []

    def prepare(context):
        life.append("prepare")
        return 42

    def execute(context, prepared):
        life.append("execute")
        assert lock_of(variables) is None
        write(context, prepared)

    def cleanup(context, prepared):
        life.append(f"cleanup {prepared}")
        assert lock_of(variables) is None

    assert run([], variables, prepare=prepare, execute=execute, cleanup=cleanup) == 0
    assert life == ["prepare", "execute", "cleanup 42"]
    assert (tmp_path / "output" / "result").read_text() == "42"
    lock = lock_of(variables)
    assert (lock.stage, lock.state, lock.image) == ("two", "completed", "clara/two:1")
    assert lock.started <= lock.ended


def test_the_stage_prepares_before_it_waits(variables, tmp_path):
    variables["NVIDIA_CLARA_WAITNAME"] = "one.lock"

    def prepare(context):
        Lock(stage="one", state="completed").write(tmp_path / "locks" / "one.lock")

    assert run([], variables, prepare=prepare, execute=write) == 0


def test_a_failure_upstream_is_passed_on_and_nothing_is_executed(variables, tmp_path):
    variables["NVIDIA_CLARA_WAITNAME"] = "one.lock"
    Lock(stage="one", state="failed", message="bad slices").write(tmp_path / "locks" / "one.lock")
    assert run([], variables, execute=write) == 1
    assert lock_of(variables).message == "upstream stage one failed: bad slices"
    assert not (tmp_path / "output" / "result").exists()


def test_waiting_has_a_time_out(variables):
    variables |= {"NVIDIA_CLARA_WAITNAME": "one.lock", "NVIDIA_CLARA_TIMEOUT": "0.1"}
    assert run([], variables, execute=write) == 1
    assert lock_of(variables).message == "waited 0.1 s for the lock one.lock, which did not appear"


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (InputError("a", remedy="Do b"), 1, "a. Do b"),
        (LackError("no model"), 3, "no model"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/MARKERNAME^ONE"),
            1,
            "No space left on device (errno 28)",
        ),
        (ValueError("MARKERNAME^ONE"), 1, "unexpected ValueError; the log of the stage has the trace"),
        (MemoryError("2 GiB"), 1, "out of memory: 2 GiB"),
        (MemoryError(), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "canceled"),
        (SystemExit(7), 7, "ended itself by sys.exit, in place of returning"),
        (SystemExit("MARKERNAME^ONE"), 1, "ended itself by sys.exit, in place of returning"),
        (SystemExit(0), 1, "ended itself by sys.exit, in place of returning"),
    ],
)
@pytest.mark.parametrize("place", ["prepare", "execute", "cleanup"])
def test_every_fault_becomes_a_lock_and_a_code_and_no_name_leaks(variables, capsys, fault, code, message, place):
    def fail(*_):
        raise fault

    assert run([], variables, **({"execute": write} | {place: fail})) == code
    lock = lock_of(variables)
    assert (lock.state, lock.message) == ("failed", message)
    assert "MARKERNAME" not in json.dumps(log_of(variables))
    assert "MARKERNAME" not in capsys.readouterr().err


def test_the_trace_names_the_place(variables):
    def execute(context, prepared):
        raise ValueError("MARKERNAME^ONE")

    run([], variables, execute=execute)
    trace = next(entry["trace"] for entry in log_of(variables) if "trace" in entry)
    assert "test_lifecycle.py" in trace
    assert trace.endswith("ValueError")


def test_cleanup_runs_after_a_failure_and_does_not_hide_it(variables):
    cleaned = []

    def execute(context, prepared):
        raise InputError("the cause")

    def cleanup(context, prepared):
        cleaned.append(True)
        raise OSError("the consequence")

    assert run([], variables, execute=execute, cleanup=cleanup) == 1
    assert cleaned
    assert lock_of(variables).message == "the cause"


def test_an_empty_result_is_no_success(variables):
    assert run([], variables, execute=lambda *_: None) == 1
    assert lock_of(variables).message == "completed, but left nothing in its output folder"


def test_wrong_arguments_leave_a_lock(variables):
    def arguments(parser):
        parser.add_argument("--level", type=int)

    assert run(["--level", "high"], variables, execute=write, arguments=arguments) == 2
    assert "the stage's arguments are wrong: argument --level" in lock_of(variables).message
    (Path(variables["NVIDIA_CLARA_APPDIR"]) / "locks" / "two.lock").unlink()
    assert run(["--level", "3"], variables, arguments=arguments, execute=lambda c, _: write(c, c.options.level)) == 0


def test_a_broken_contract_is_one_line(capsys):
    assert run([], {}, execute=write) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_lock_that_cannot_be_written_is_a_failure(variables, tmp_path):
    (tmp_path / "locks").write_text("in the way")
    assert run([], variables, execute=write) == 1
    assert any("the lock cannot be written" in entry["message"] for entry in log_of(variables))


def test_a_log_that_cannot_be_written_is_no_failure(variables, tmp_path, capsys):
    (tmp_path / "logs").write_text("in the way")
    assert run([], variables, execute=write) == 0
    assert "the log file cannot be opened" in capsys.readouterr().err


def test_inputs_and_outputs_may_name_a_file(variables, tmp_path):
    variables |= {"NVIDIA_CLARA_INPUTS": "input/in.mhd", "NVIDIA_CLARA_OUTPUTS": "output/out.mhd"}

    def execute(context, prepared):
        assert context.input_folder == tmp_path / "input"
        assert context.output_folder == tmp_path / "output"
        context.outputs.write_text("x")

    assert run([], variables, execute=execute) == 0


def test_a_stage_as_a_function_changes_no_signal_handler(variables):
    before = signal.getsignal(signal.SIGTERM)
    results = []
    thread = threading.Thread(target=lambda: results.append(run([], variables, execute=write)))
    thread.start()
    thread.join()
    assert results == [0]
    assert signal.getsignal(signal.SIGTERM) is before


def test_progress_is_a_log_line(variables):
    def execute(context, prepared):
        context.progress(1.7, "nearly")
        write(context, prepared)

    run([], variables, execute=execute)
    entry = next(entry for entry in log_of(variables) if "progress" in entry)
    assert (entry["progress"], entry["message"], entry["stage"]) == (1.0, "nearly", "two")


def test_a_log_is_bounded(tmp_path):
    with logging_to("two", "j", tmp_path / "two.log") as log:
        for _ in range(30):
            log.info("x" * 1_000_000)
    size = (tmp_path / "two.log").stat().st_size
    assert LOG_LIMIT_BYTES <= size < LOG_LIMIT_BYTES + 1_100_000
    assert json.loads((tmp_path / "two.log").read_text().splitlines()[-1])["level"] == "WARNING"


def test_two_lives_in_one_process_have_a_log_each(tmp_path):
    for name in ("a.log", "b.log"):
        with logging_to("two", "j", tmp_path / name) as log:
            log.info(name)
    assert "b.log" not in (tmp_path / "a.log").read_text()


def test_a_name_that_is_no_text_can_be_logged(tmp_path, root):
    # In a process of its own: what pytest captures of this one cannot be sent from worker to worker.
    code = (
        "import os, pathlib\n"
        "from clara_wf.stage.log import logging_to\n"
        "with logging_to('two', 'j', pathlib.Path('two.log')) as log:\n"
        "    log.info(os.fsdecode(b'caf\\xe9'))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    for text in (done.stderr, (tmp_path / "two.log").read_text()):
        assert json.loads(text)["message"] == os.fsdecode(b"caf\xe9")


PROGRAM = """
import os, signal, sys, time
from clara_wf.stage import main
def execute(context, prepared):
    {body}
main(execute=execute)
"""


@pytest.fixture
def start(variables, root):
    def start(body: str, **changes: str) -> subprocess.Popen[bytes]:
        environment = os.environ | variables | {f"NVIDIA_CLARA_{name}": value for name, value in changes.items()}
        environment["PYTHONPATH"] = str(root / "src")
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(body=body)], env=environment, stderr=subprocess.PIPE
        )

    return start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_stage(variables, start, number):
    with start("context.log.info('here'); time.sleep(60)") as process:
        while b"here" not in process.stderr.readline():
            pass
        process.send_signal(number)
        told = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert lock_of(variables).message == "canceled"
    assert b"Traceback" not in told


def test_a_signal_that_an_import_swallows_cancels_all_the_same(variables, root):
    """As extension modules do that import others: the exception is gone, and the wish is not."""
    program = """
import sys, time
from clara_wf.stage import main
def prepare(context):
    print("here", file=sys.stderr, flush=True)
    try:
        time.sleep(30)
    except BaseException:
        pass
def execute(context, prepared):
    (context.outputs / "x").write_text("x")
main(prepare=prepare, execute=execute)
"""
    environment = os.environ | variables | {"PYTHONPATH": str(root / "src")}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE) as process:
        while b"here" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert lock_of(variables).message == "canceled"


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(60)",
        "import ctypes; ctypes.CDLL(None).sleep(60)",
        "signal.pthread_sigmask(0, [14, 15]); os.read(os.pipe()[0], 1)",
    ],
)
def test_a_stage_that_works_for_too_long_is_ended(variables, start, body):
    begin = time.monotonic()
    with start(body, TIMEOUT="0.3") as process:
        process.communicate(timeout=30)
    assert time.monotonic() - begin < 30
    assert process.returncode == 124
    lock = lock_of(variables)
    assert (lock.state, lock.message) == ("failed", "worked for more than 0.3 s, its time-out")


def test_a_signal_at_any_moment_leaves_one_lock_that_fits_the_exit_code(variables, start):
    for delay in (0.0, 0.002, 0.005, 0.01):
        (Path(variables["NVIDIA_CLARA_APPDIR"]) / "locks" / "two.lock").unlink(missing_ok=True)
        with start("(context.outputs / 'x').write_text(''); context.log.info('here')") as process:
            while b"here" not in process.stderr.readline():
                pass
            time.sleep(delay)
            process.terminate()
            process.communicate(timeout=20)
        lock = lock_of(variables)
        # After the last word, the interpreter's own end may still be cut short by the signal.
        expected = {"completed": {0, -signal.SIGTERM}, "failed": {130, -signal.SIGTERM}}
        assert process.returncode in expected[lock.state]
