"""The input of a job in its payload: what is copied and for whom, what is refused, and what is taken back."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from program import Program, add_workflow

from clara_wf.cli import job_input
from clara_wf.cli.job_input import staged_in
from clara_wf.cli.test import _let_stages_read
from clara_wf.model.errors import InputError, UsageError
from clara_wf.model.plan import Mount, Plan, StagePlan
from clara_wf.runners.sharing import stage_user

JOB = "12345678-1234-1234-1234-123456789012"
#: In a file's name: it must not be told.
PATIENT = "MARKERNAME"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    payload = tmp_path / "payloads" / JOB
    stage = StagePlan(
        name="copier",
        image="clara-wf/copier:1",
        command=(),
        environment={"NVIDIA_CLARA_APPDIR": "/app", "NVIDIA_CLARA_INPUTS": "input"},
        mounts=(Mount(path="/app/input", host=payload / "copier/input"),),
    )
    return Plan(workflow="w", workflow_id=JOB, job_id=JOB, job_name="w", payload=payload, stages=(stage,))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "series").mkdir(parents=True)
    (folder / "series" / f"{PATIENT}.dcm").write_bytes(b"first")
    (folder / "note.txt").write_bytes(b"note")
    return folder


@pytest.fixture
def tight_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def modes(folder: Path) -> set[tuple[bool, int, int, int]]:
    found = [path.stat() for path in (folder, *folder.rglob("*"))]
    return {(stat.S_ISDIR(each.st_mode), stat.S_IMODE(each.st_mode), each.st_uid, each.st_gid) for each in found}


@pytest.mark.parametrize("umask", [0o077, 0o777, 0o000])
def test_a_copy_is_for_the_stages_user_alone(plan: Plan, source: Path, umask: int) -> None:
    (source / "note.txt").chmod(0o444)
    plan.payload.mkdir(parents=True)
    (plan.payload / "copier").mkdir()
    (plan.payload / ".lock").touch()
    before = os.umask(umask)
    try:
        if umask == 0o777 and os.getuid():
            pytest.skip("only root looks into folders that are nobody's")
        with staged_in(source, plan, link=False, outlived=False):
            pass
    finally:
        os.umask(before)
    assert names(plan.input) == {"note.txt", f"series/{PATIENT}.dcm"}
    assert modes(plan.input) == {(True, 0o700, *stage_user()), (False, 0o600, *stage_user())}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.usefixtures("tight_umask")
def test_the_stages_user_reads_what_root_has_copied(plan: Plan, source: Path) -> None:
    with staged_in(source, plan, link=False, outlived=False):
        pass
    user, group = stage_user()
    # As a container sees it: mounted, whatever lies above.
    for folder in plan.input.parents:
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    done = subprocess.run(
        ["cat", *map(str, sorted(path for path in plan.input.rglob("*") if path.is_file()))],
        user=user,
        group=group,
        extra_groups=[],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"notefirst"), done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root's stages run as another user")
@pytest.mark.usefixtures("tight_umask")
def test_the_stages_user_reads_test_data_that_root_has_made(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = plan.payload / "truth"
    for folder in (plan.input / "series", truth):
        folder.mkdir(parents=True)
        (folder / "a").touch()
    # A user's own input, which nobody but its owner opens.
    monkeypatch.setattr("clara_wf.phantom.job_input.truth_of", lambda *_: None)
    _let_stages_read(plan)
    assert modes(plan.input) == {(True, 0o700, 0, 0), (False, 0o600, 0, 0)}
    monkeypatch.setattr("clara_wf.phantom.job_input.truth_of", lambda *_: truth)
    _let_stages_read(plan)
    assert modes(plan.input) == {(True, 0o755, 0, 0), (False, 0o644, 0, 0)}
    assert modes(truth) == {(True, 0o700, 0, 0), (False, 0o600, 0, 0)}


def test_links_are_followed_once(plan: Plan, source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/far.txt").touch()
    (source / "here").symlink_to(".")
    (source / "series/up").symlink_to("..")
    (source / "a").symlink_to("series")
    (source / "far").symlink_to(tmp_path / "elsewhere")
    (source / "again").symlink_to(source / "note.txt")
    (tmp_path / "elsewhere/back").symlink_to(source)
    with staged_in(source, plan, link=False, outlived=False):
        pass
    assert names(plan.input) == {"note.txt", f"series/{PATIENT}.dcm", "far/far.txt", "again"}
    assert not any(path.is_symlink() for path in plan.input.rglob("*"))


def lost(folder: Path) -> None:
    (folder / f"{PATIENT}.lost").symlink_to("nowhere")
    (folder / "series/round").symlink_to("round")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / f"series/{PATIENT}.pipe")


def plug(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        before = Path.cwd()
        os.chdir(folder)  # such a path may not be long
        try:
            made.bind("plug")
        finally:
            os.chdir(before)


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (lost, "the input has 2 links leading nowhere. Remove or mend them"),
        (pipe, "the input has 1 pipe, socket or device. Name a folder of files by --input"),
        (plug, "the input has 1 pipe, socket or device. Name a folder of files by --input"),
    ],
)
def test_what_is_no_file_is_refused_in_one_line(
    plan: Plan, source: Path, add: Callable[[Path], None], says: str
) -> None:
    add(source)
    with pytest.raises(UsageError) as caught, staged_in(source, plan, link=False, outlived=False):
        pass
    assert str(caught.value) == says
    assert not plan.payload.exists()


def test_a_file_that_cannot_be_read_is_not_named(plan: Plan, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path, _target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(job_input.shutil, "copyfile", refuse)
    with pytest.raises(InputError) as caught, staged_in(source, plan, link=False, outlived=False):
        pass
    assert str(caught.value) == "a part of the input cannot be read: Permission denied. Check its permissions"
    assert not plan.payload.exists()


def test_a_full_disk_is_the_payload_s(plan: Plan, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(file: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(file), None, str(target))

    monkeypatch.setattr(job_input.shutil, "copyfile", fill)
    with pytest.raises(InputError) as caught, staged_in(source, plan, link=False, outlived=False):
        pass
    assert str(caught.value).startswith(f"the payload {plan.payload} cannot be written: No space left on device. ")
    assert PATIENT not in str(caught.value)
    assert not plan.payload.exists()


@pytest.mark.parametrize(("record", "outlived"), [(False, False), (False, True), (True, False), (True, True)])
def test_nothing_stays_but_of_a_job_that_may_go_on(plan: Plan, source: Path, *, record: bool, outlived: bool) -> None:
    def work() -> None:
        with staged_in(source, plan, link=False, outlived=outlived):
            if record:
                (plan.payload / "job.json").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert plan.payload.exists() == (record and outlived)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_input_is_copied(
    clara: Program, source: Path, tmp_path: Path, number: signal.Signals
) -> None:
    assert clara("cs", "copier", "--code").code == 0
    add_workflow(clara.workspace, "copy", ["copier"])
    script = (
        "import os, signal, sys, time\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from types import SimpleNamespace\n"
        "from clara_wf.cli import app, carry_out, job_input, run\n"
        "run.runner_for = lambda *_: SimpleNamespace(capabilities=SimpleNamespace(follows_links=False))\n"
        "def copyfile(_file, target):\n"
        "    target.touch()\n    os.kill(os.getpid(), " + str(int(number)) + ")\n    time.sleep(60)\n"
        "job_input.shutil.copyfile = copyfile\n"
        "sys.exit(app.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "run", "copy", "-i", source, "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        env=clara.environment(),
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "error: the job was canceled before it started\n"
    assert not list((clara.workspace / "payloads").iterdir())


def test_a_pipe_is_no_input(clara: Program, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ended = clara("run", "dicom-reader-writer", "-i", tmp_path / "pipe", "-o", tmp_path / "out")
    assert ended.code == 2
    assert ended.err == f"error: {tmp_path / 'pipe'} is neither a folder nor a file. Name one by --input\n"
