"""The parts of a runner that can be tried without a process."""

from __future__ import annotations

import json
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from clara_wf.model.events import StageLogged, StageProgress, StageWorking
from clara_wf.model.locks import Lock
from clara_wf.model.plan import Mount, Plan, StagePlan
from clara_wf.model.states import StageState
from clara_wf.runners import Limits
from clara_wf.runners.child import Usage
from clara_wf.runners.guardian import Removal
from clara_wf.runners.output import StageOutput
from clara_wf.runners.paths import StagePaths
from clara_wf.runners.supervision import Supervised
from clara_wf.runners.verdict import Ending, describe_exit, judge

COMPLETED = Lock(stage="a", state="completed")
FAILED = Lock(stage="a", state="failed", message="no luck")
GAVE_UP = Lock(stage="a", state="failed", message="upstream stage b failed: no luck")


@pytest.fixture
def paths(tmp_path: Path) -> StagePaths:
    stage = StagePlan(
        name="a",
        image="i",
        command=("x",),
        environment={"NVIDIA_CLARA_APPDIR": "/app"},
        mounts=(
            Mount(path="/app/input", host=tmp_path / "in"),
            Mount(path="/data", host=tmp_path / "shared"),
            Mount(path="/data/models/", host=tmp_path / "models"),
        ),
    )
    plan = Plan(workflow="w", workflow_id="", job_id="", job_name="", payload=tmp_path, stages=(stage,))
    return StagePaths(plan, stage)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/app", "{app}"),
        ("/app/input/a.mhd", "{app}/input/a.mhd"),
        ("--weights=/data/models/liver.onnx", "--weights={models}/liver.onnx"),
        ("/data/other", "{shared}/other"),
        ("/usr/bin:/app/bin:/data", "/usr/bin:{app}/bin:{shared}"),
        ("cp /app/input/x '/app/output'", "cp {app}/input/x '{app}/output'"),
        ("/application", "/application"),
        ("/app-2/x", "/app-2/x"),
        ("/srv/app/x", "/srv/app/x"),
        ("http://host/app/x", "http://host/app/x"),
        ("input/recon.mhd", "input/recon.mhd"),
    ],
)
def test_container_paths_are_translated_and_nothing_else(paths, tmp_path, text, expected):
    names = {"app": tmp_path / ".app" / "a", "models": tmp_path / "models", "shared": tmp_path / "shared"}
    assert paths.translate(text) == expected.format(**names)


def test_links_are_made_anew(paths, tmp_path):
    paths.lay_out(tmp_path)
    paths.lay_out(tmp_path)
    assert (tmp_path / ".app" / "a" / "input").readlink() == tmp_path / "in"


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        (Ending(exit_code=0, lock=COMPLETED, has_output=True), StageState.COMPLETED),
        (Ending(exit_code=0, lock=COMPLETED, has_output=False), StageState.FAILED),
        (Ending(exit_code=1, lock=COMPLETED, has_output=True), StageState.FAILED),
        (Ending(exit_code=0, lock=None, has_output=True), StageState.FAILED),
        (Ending(exit_code=0, lock=Lock(stage="a", state="failed"), has_output=True), StageState.FAILED),
        (Ending(exit_code=-9, lock=None, has_output=True, reason="no", canceled=True), StageState.CANCELED),
        (Ending(exit_code=-9, lock=None, has_output=True, reason="too much"), StageState.FAILED),
        # It had failed, or given up, before the word reached it.
        (Ending(exit_code=1, lock=FAILED, has_output=True, reason="no", canceled=True), StageState.FAILED),
        (Ending(exit_code=1, lock=GAVE_UP, has_output=True, reason="no", canceled=True), StageState.CANCELED),
        # It was done before the word reached it.
        (Ending(exit_code=0, lock=COMPLETED, has_output=True, reason="no", canceled=True), StageState.COMPLETED),
    ],
)
def test_a_stage_completed_with_lock_exit_code_and_result_alone(ending, state):
    found, message = judge(ending)
    assert found is state
    assert bool(message) == (state is not StageState.COMPLETED)


@pytest.mark.parametrize(
    ("lock", "code", "expected"),
    [
        (None, 137, "ran out of memory"),
        (COMPLETED, 137, "said completed, then ran out of memory"),
        (FAILED, 1, "no luck"),  # its own word, which was earlier
    ],
)
def test_a_known_fault_says_more_than_an_exit_code(lock, code, expected):
    ending = Ending(exit_code=code, lock=lock, has_output=True, fault="ran out of memory")
    assert judge(ending) == (StageState.FAILED, expected)


def test_a_removal_survives_a_command_line():
    removal = Removal(("podman", "ps", "-q"), ("podman", "rm"), late=0.5)
    read = Removal.of(tuple(removal.words()))
    assert (read.listing, read.removing, read.late) == (removal.listing, removal.removing, removal.late)
    assert Removal.of(()) is None


def test_exits_are_named():
    assert describe_exit(3) == "with exit code 3"
    assert describe_exit(-11) == "by SIGSEGV"
    assert describe_exit(137) == "by SIGKILL (perhaps out of memory)"
    assert describe_exit(255) == "with exit code 255"


class TestStageOutput:
    @pytest.fixture
    def output(self, tmp_path):
        output = StageOutput("a", "j", tmp_path / "a.out", Limits(output_bytes=1000, log_lines=2))
        yield output
        output.close()

    @staticmethod
    def line(**fields) -> bytes:
        return json.dumps({"stage": "a", "job": "j", "level": "INFO", "message": "m"} | fields).encode() + b"\n"

    def test_a_line_in_pieces_is_one_line(self, output):
        whole = self.line(message="Grüße")
        events = [event for byte in range(len(whole)) for event in output.feed("stderr", whole[byte : byte + 1])]
        assert events == [StageLogged(stage="a", level="INFO", message="Grüße")]

    def test_the_last_line_needs_no_newline(self, output):
        assert not list(output.feed("stderr", self.line()[:-1]))
        assert list(output.feed("stderr", b"")) == [StageLogged(stage="a", level="INFO", message="m")]

    def test_of_progress_only_the_last_is_told(self, output):
        data = self.line(progress=0.1) + self.line(state="working") + self.line(progress=0.2, message="now")
        assert list(output.feed("stderr", data)) == [
            StageWorking(stage="a"),
            StageProgress(stage="a", fraction=0.2, message="now"),
        ]

    @pytest.mark.parametrize(
        "line", [b'{"stage": "b", "job": "j", "message": "m"}', b"{", b"[" * 100_000, b"\xff\xfe", b'{"message": 1}']
    )
    def test_what_is_no_line_of_this_stage_is_kept_apart(self, output, tmp_path, line):
        assert [event for event in output.feed("stderr", line + b"\n") if "too much" not in event.message] == []
        assert (tmp_path / "a.out").read_bytes() == line + b"\n"

    def test_lines_for_people_are_bounded(self, output):
        events = list(output.feed("stderr", self.line() * 5))
        assert [event.level for event in events] == ["INFO", "INFO", "WARNING"]

    def test_a_line_without_end_does_not_pile_up(self, output, tmp_path):
        for _ in range(50):
            list(output.feed("stdout", b"x" * 65536))
        assert (tmp_path / "a.out").stat().st_size < 200_000


class LateChild:
    """The program of a stage, and its child: what it said before it ended is read when it has ended."""

    pid, streams = 0, {"stderr": 9}

    def __init__(self, stage: StagePlan) -> None:
        self.stage = stage
        self.started = time.monotonic()
        self._unread: list[bytes] = []

    def start(self, **_options: int) -> LateChild:
        return self

    def clear(self) -> None:
        time.sleep(0.01)  # so long it takes to look for what is left
        self._unread = [b"", TestStageOutput.line(state="working")]

    def read(self, _stream: str) -> bytes:
        return self._unread.pop()

    def collect(self) -> Usage:
        return Usage(exit_code=0, cpu_s=0.0, peak_bytes=0)

    def close(self) -> None:
        """Have nothing to close."""


def test_a_stage_worked_no_less_than_not_at_all(tmp_path):
    environment = {"APPDIR": "/app", "LOCKDIR": "locks", "LOCKNAME": "a.lock", "OUTPUTS": "out"}
    stage = StagePlan(
        name="a",
        image="i",
        command=("x",),
        environment={f"NVIDIA_CLARA_{name}": value for name, value in environment.items()},
        mounts=(Mount(path="/app", host=tmp_path),),
    )
    supervised = Supervised(LateChild(stage), None, "j", tmp_path, Limits())
    supervised.start(Mock(), keep_open=0, first_core=0)
    assert list(supervised.collect(Mock())) == [StageWorking(stage="a")]
    assert supervised.record.work_s == 0
    assert supervised.record.wall_s >= 0
