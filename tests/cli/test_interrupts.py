"""What SIGTERM and the end of the terminal do to a command that is at something."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from program import Ended, Program

from clara_wf.cli.interrupts import ended_by_signals, interrupted_by_signals

#: The program, in which a function sends the program a signal when it is called for the nth time, and then goes on.
INTERRUPTED = """
import importlib, os, signal, sys, time
module, name, number, nth = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[5]))
called, target = 0, importlib.import_module(module)
original = getattr(target, name)
def replaced(*arguments, **options):
    global called
    called += 1
    if called == nth:
        os.kill(os.getpid(), number)
        time.sleep(0.2)
    return original(*arguments, **options)
setattr(target, name, replaced)
from clara_wf.cli import app
del sys.argv[1:6]
app.main()
"""


def interrupt(
    clara: Program, at: tuple[str, str, int], number: signal.Signals, *arguments: str | Path, hangup: str = "SIG_DFL"
) -> Ended:
    module, name, nth = at
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, name, str(int(number)), str(nth), hangup, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=clara.environment(),
        timeout=120,
    )
    return Ended(code=done.returncode, out=done.stdout, err=done.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_command_as_ctrl_c_does(clara: Program, tmp_path: Path, number: signal.Signals) -> None:
    ended = interrupt(clara, ("shutil", "copytree", 1), number, "init", tmp_path / "mine")
    assert (ended.code, ended.out, ended.err) == (130, "", "")


def test_a_command_under_nohup_outlives_its_terminal(clara: Program, tmp_path: Path) -> None:
    at = ("shutil", "copytree", 1)
    ended = interrupt(clara, at, signal.SIGHUP, "init", tmp_path / "mine", hangup="SIG_IGN")
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "mine/charts").is_dir()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_phantom_leaves_no_smaller_series(
    clara: Program, tmp_path: Path, number: signal.Signals
) -> None:
    at = ("clara_wf.phantom.dicom_series", "dcmwrite", 17)
    ended = interrupt(clara, at, number, "phantom", tmp_path / "made")
    assert (ended.code, ended.out) == (130, "")
    assert not list((tmp_path / "made").iterdir())


def test_after_a_killed_phantom_the_same_command_makes_it(clara: Program, tmp_path: Path) -> None:
    at = ("clara_wf.phantom.inserts", "inserts_truth", 1)
    wish = ("--projections", "parallel", "--anatomy", "inserts", "--views", "4", "--no-noise")
    killed = interrupt(clara, at, signal.SIGKILL, "phantom", tmp_path / "made", *wish)
    assert killed.code == -signal.SIGKILL
    left = list((tmp_path / "made").iterdir())
    assert left
    assert all(path.name.startswith(".unfinished-") for path in left)
    ended = clara("phantom", tmp_path / "made", *wish)
    assert ended.code == 0, ended.err
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"projections", "truth"}


def test_handlers_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interrupted_by_signals():
        within = signal.getsignal(signal.SIGTERM)
        with ended_by_signals():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is within is not before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
