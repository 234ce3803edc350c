"""What a stage leaves in the folders that it may write to leads its runner nowhere else, and holds it up nowhere."""

from __future__ import annotations

import os

import pytest

from clara_wf.model.events import StageLogged
from clara_wf.model.plan import Mount
from clara_wf.model.states import JobStatus
from clara_wf.runners import Limits, ProcessRunner
from clara_wf.runners.output import StageOutput
from clara_wf.runners.paths import output_folder
from clara_wf.runners.workspace import Workspace, is_filled

WRITE = "(context.outputs / 'result.txt').write_text(context.stage)"
LIMITS = Limits(tick=0.05, grace=2, patience=2, overtime=2)


@pytest.fixture
def precious(tmp_path):
    """Return a file of the host that no stage mounts."""
    file = tmp_path / "host" / "precious"
    file.parent.mkdir()
    file.write_text("of the host")
    return file


@pytest.fixture
def kept(tmp_path):
    """Feed a line to what keeps a stage's output; return what it told."""

    def feed(path):
        output = StageOutput("a", "j", path, Limits())
        events = list(output.feed("stdout", b"a line\n"))
        events += output.feed("stdout", b"another\n")
        output.close()
        return events

    return feed


def test_output_is_not_written_to_where_a_link_leads(tmp_path, precious, kept):
    path = tmp_path / "a.out"
    path.symlink_to(precious)
    assert kept(path) == []
    assert precious.read_text() == "of the host"
    assert not path.is_symlink()
    assert path.read_text() == "a line\nanother\n"


def test_output_is_not_written_to_a_file_of_two_names(tmp_path, precious, kept):
    os.link(precious, tmp_path / "a.out")
    assert kept(tmp_path / "a.out") == []
    assert precious.read_text() == "of the host"


def test_output_does_not_wait_for_the_reader_of_a_pipe(tmp_path, kept):
    os.mkfifo(tmp_path / "a.out")
    assert kept(tmp_path / "a.out") == []
    assert (tmp_path / "a.out").read_text() == "a line\nanother\n"


def test_output_that_cannot_be_kept_is_told_once(tmp_path, kept):
    (tmp_path / "a.out").mkdir()
    (event,) = kept(tmp_path / "a.out")
    assert isinstance(event, StageLogged)
    assert event.message.startswith("its output is not kept any more: ")


def test_a_stage_that_links_its_output_elsewhere_harms_nothing(make_plan, precious):
    body = f"os.symlink('{precious}', context.app_dir / 'logs/one.out')\n"
    plan = make_plan({"one": body + "print('a line', flush=True)\n" + WRITE})
    with ProcessRunner(limits=LIMITS).run(plan) as run:
        list(run)
    assert run.job.succeeded
    assert precious.read_text() == "of the host"
    assert (plan.payload / "logs/one.out").read_text() == "a line\n"


@pytest.mark.parametrize(
    "plant",
    [
        "os.mkfifo(lock)",
        "os.symlink('/proc/self/status', lock)",
        "os.symlink('x' * 300, lock)",
        "os.mkdir(lock)",
    ],
)
def test_what_is_planted_for_a_lock_fails_its_stage(make_plan, plant):
    plan = make_plan({"one": f"lock = context.app_dir / 'locks/one.lock'\n{plant}\n{WRITE}", "two": WRITE})
    with ProcessRunner(limits=LIMITS).run(plan) as run:
        list(run)
    assert run.job.status is JobStatus.FAULTED
    assert run.job.message == "stage one failed: what it left for a lock is no regular file"


def test_an_earlier_run_left_links_pipes_and_folders(make_plan, precious):
    plan = make_plan({"one": WRITE, "two": WRITE})
    for folder in ("locks", "logs", "one/output", "two/output"):
        (plan.payload / folder).mkdir(parents=True, exist_ok=True)
    (plan.payload / "locks/one.lock").mkdir()
    (plan.payload / "locks/one.lock/inside").touch()
    (plan.payload / "locks/two.lock").symlink_to(precious)
    (plan.payload / "locks/input.lock").symlink_to(precious)
    (plan.payload / "locks/.unfinished-1.lock").mkdir()
    (plan.payload / "logs/one.out").symlink_to(precious)
    os.mkfifo(plan.payload / "logs/two.out")
    (plan.payload / "logs/one.log").symlink_to(precious)
    (plan.payload / "one/output/file").symlink_to(precious)
    (plan.payload / "one/output/folder").symlink_to(precious.parent)
    (plan.payload / "one/output/loop").symlink_to("loop")
    (plan.payload / "two/output/deep").mkdir()
    (plan.payload / "two/output/deep/folder").symlink_to(precious.parent)
    with ProcessRunner(limits=LIMITS).run(plan) as run:
        list(run)
    assert run.job.succeeded
    assert precious.read_text() == "of the host"
    for name in ("one", "two"):
        assert [entry.name for entry in (plan.payload / name / "output").iterdir()] == ["result.txt"]


@pytest.mark.parametrize("outputs", ["output/sub", "output/sub.mhd", "output/sub/deeper"])
def test_a_link_inside_a_mounted_folder_is_no_output(make_plan, precious, outputs):
    plan = make_plan({"one": WRITE}, variables={"OUTPUTS": outputs})
    (stage,) = plan.stages
    folder = plan.payload / "one/output"
    folder.mkdir(parents=True)
    (folder / outputs.split("/")[1]).symlink_to(precious.parent)
    workspace = Workspace(plan)
    workspace.prepare(())
    workspace.close()
    assert not is_filled(stage)
    assert list(folder.iterdir()) == []
    assert precious.read_text() == "of the host"


def test_a_link_in_place_of_a_mounted_folder_is_its_owners(make_plan, tmp_path):
    plan = make_plan({"one": WRITE})
    (stage,) = plan.stages
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/result").touch()
    (plan.payload / "one/output").symlink_to(tmp_path / "elsewhere")
    assert Mount(path="/app/output", host=plan.payload / "one/output") in stage.mounts
    assert output_folder(stage) == plan.payload / "one/output"
    assert is_filled(stage)
