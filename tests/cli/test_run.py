"""`run`: where a result goes, and what it must not touch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from program import Program, add_workflow

from clara_wf.phantom.dicom_series import write_ct_series
from clara_wf.phantom.patient import EVERYDAY, make_phantom


@pytest.fixture
def copying(clara: Program) -> Program:
    """The program with a workflow `copy`, which hands on what it reads."""
    assert clara("cs", "copier", "--code").code == 0
    add_workflow(clara.workspace, "copy", ["copier"])
    return clara


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """An input of one file."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "note.txt").write_text("new")
    return folder


def let(copying: Program, line: str) -> None:
    """Let the stage do something more at its end."""
    code = copying.workspace / "images/copier/stage_copier.py"
    text = code.read_text().replace("    context.log.info(", f"    {line}\n    context.log.info(")
    code.write_text(
        text.replace("from __future__ import annotations\n", "from __future__ import annotations\nimport os\n")
    )


def test_force_replaces_an_earlier_result_and_leaves_nothing_beside(
    copying: Program, note: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert copying("run", "copy", "-i", note, "-o", output).code == 0
    (output / "old.txt").write_text("of the earlier result")
    refused = copying("run", "copy", "-i", note, "-o", output)
    assert refused.code == 2
    assert "holds an earlier result" in refused.err
    assert (output / "old.txt").is_file()
    assert copying("run", "copy", "-i", note, "-o", output, "--force").code == 0
    assert {file.name for file in output.iterdir()} == {"note.txt", "job.json"}
    assert not list(tmp_path.glob(".unfinished-*"))


def test_an_input_within_the_result_to_be_replaced_is_not_lost(copying: Program, note: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert copying("run", "copy", "-i", note, "-o", output).code == 0
    ended = copying("run", "copy", "-i", output / "note.txt", "-o", output, "--force")
    assert ended.code == 2
    assert "lies within the output" in ended.err
    assert (output / "note.txt").read_text() == "new"


def test_a_result_goes_where_a_link_leads(copying: Program, note: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    ended = copying("run", "copy", "-i", note, "-o", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk/note.txt").read_text() == "new"


def test_files_that_are_not_named_are_counted(copying: Program, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(30):
        (tmp_path / f"in/{number:02}").touch()
    ended = copying("run", "copy", "-i", tmp_path / "in", "-o", tmp_path / "out")
    assert "and 11 more files" in ended.out  # job.json is one too


def test_a_result_that_cannot_be_copied_is_told_in_one_line_and_kept(
    copying: Program, note: Path, tmp_path: Path
) -> None:
    let(copying, 'os.mkfifo(context.outputs / "x")')
    ended = copying("run", "copy", "-i", note, "-o", tmp_path / "out")
    assert ended.code == 1
    *_, kept, error = ended.err.splitlines()
    assert error.startswith("error: ")
    assert error.endswith(f": {tmp_path / 'out'}")
    assert (Path(kept.partition(": ")[2]) / "note.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))) == []


def test_of_a_failed_job_only_what_tells_why_is_left(clara: Program, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    files = write_ct_series(study, make_phantom(EVERYDAY).image)
    assert clara("cs", "broken", "--code").code == 0
    (clara.workspace / "images/broken/stage_broken.py").write_text(
        "from clara_wf.model.errors import InputError\nfrom clara_wf.stage import StageContext, main\n\n"
        "def execute(context: StageContext, prepared: None) -> None:\n    raise InputError('no luck')\n\n"
        "main(execute=execute)\n"
    )
    add_workflow(clara.workspace, "read-and-break", ["dicom-reader", "broken"])
    ended = clara("run", "read-and-break", "-i", study, "-o", tmp_path / "out")
    assert ended.code == 1
    assert "no luck" in ended.err
    (payload,) = (clara.workspace / "payloads").iterdir()
    left = {path.name for path in payload.rglob("*") if path.is_file()}
    assert {"job.json", "series.json", "dicom-reader.log"} <= left
    assert not {name for name in left if name.endswith((".mhd", ".raw", ".dcm"))}
    assert "PHANTOM^ABDOMEN" not in "".join(path.read_text() for path in payload.rglob("*") if path.is_file())
    # The input is the user's own, and only linked to.
    assert all(file.is_file() for file in files)


def test_of_a_failed_job_no_input_is_left_whatever_it_is_called(copying: Program, tmp_path: Path) -> None:
    let(copying, "raise RuntimeError")
    (tmp_path / "series.json").write_text("as a reader names its summary")
    ended = copying("run", "copy", "-i", tmp_path / "series.json", "-o", tmp_path / "out")
    assert ended.code == 1
    (payload,) = (copying.workspace / "payloads").iterdir()
    assert not (payload / "copier/input").exists()
    assert (payload / "job.json").is_file()


def test_a_payload_that_is_there_is_left_alone(copying: Program, note: Path, tmp_path: Path) -> None:
    job = "12345678-1234-1234-1234-123456789012"
    assert copying("run", "copy", "-i", note, "-o", tmp_path / "out", "--job", job, "--keep").code == 0
    ended = copying("run", "copy", "-i", note, "-o", tmp_path / "more", "--job", job)
    assert (ended.code, ended.err) == (
        2,
        f"error: there is a payload of job {job} already. Give yours another id by --job\n",
    )
    assert (copying.workspace / "payloads" / job / "copier/output/note.txt").read_text() == "new"


def test_a_volume_brings_its_voxels_whatever_they_are_called(copying: Program, tmp_path: Path) -> None:
    header = "ObjectType = Image\nNDims = 3\nDimSize = 1 1 2\nElementType = MET_UCHAR\nElementDataFile = voxels.bin\n"
    (tmp_path / "a.mhd").write_text(header)
    (tmp_path / "voxels.bin").write_bytes(b"ab")
    ended = copying("run", "copy", "-i", tmp_path / "a.mhd", "-o", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a.mhd", "voxels.bin", "job.json"}


@pytest.mark.parametrize("fails", [False, True])
def test_the_users_own_files_stay_wherever_the_payload_links_to_them(
    clara: Program, tmp_path: Path, *, fails: bool
) -> None:
    """A workflow may have its input at the top of the payload, as it has behind a DICOM Adapter."""
    study = tmp_path / "study"
    (study / "more").mkdir(parents=True)
    if not fails:
        write_ct_series(study, make_phantom(EVERYDAY).image)
    (study / "more/notes.txt").write_text("kept")
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    top = ("--set", "dicomAdapter.input=dicom-server")
    ended = clara("run", "dicom-reader-only", "-i", study, "-o", tmp_path / "out", *top)
    assert ended.code == int(fails), ended.err
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before
    left = [path for path in (clara.workspace / "payloads").rglob("*") if path.is_symlink() or path.suffix == ".raw"]
    assert left == []


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_nothing_stays_of_a_job_whose_reader_has_gone(
    copying: Program, note: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = copying.command("run", "copy", "-i", note, "-o", tmp_path / "out", *options)
    done = subprocess.run(
        command, stdout=writes, stderr=subprocess.PIPE, text=True, check=False, env=copying.environment(), timeout=60
    )
    os.close(writes)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not list((copying.workspace / "payloads").iterdir())
    # Without --json there is something to say only at the end, when the result is where it belongs.
    assert (tmp_path / "out/note.txt").exists() == (not options)


def test_what_comes_while_the_job_runs_is_not_replaced(copying: Program, note: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    let(copying, f"os.mkdir({str(output)!r}); open({str(output / 'other')!r}, 'w').close()")
    ended = copying("run", "copy", "-i", note, "-o", output, "--force")
    assert ended.code == 2
    assert f"error: {output} is not empty" in ended.err
    assert [path.name for path in output.iterdir()] == ["other"]
    kept = next(line for line in ended.err.splitlines() if line.startswith("the result stays in the payload: "))
    assert (Path(kept.partition(": ")[2]) / "note.txt").read_text() == "new"


def test_a_payload_is_no_earlier_result(copying: Program, note: Path, tmp_path: Path) -> None:
    assert copying("run", "copy", "-i", note, "-o", tmp_path / "out", "--keep").code == 0
    (payload,) = (copying.workspace / "payloads").iterdir()
    ended = copying("run", "copy", "-i", note, "-o", payload, "--force")
    assert (ended.code, ended.err) == (
        2, f"error: {payload} lies among the payloads of jobs. Name another folder by --output\n"
    )  # fmt: skip
    moved = payload.rename(tmp_path / "moved")
    ended = copying("run", "copy", "-i", note, "-o", moved, "--force")
    assert (ended.code, ended.err) == (
        2, f"error: {moved} is the payload of a job. Name a new folder by --output\n"
    )  # fmt: skip


def test_a_result_that_would_be_overwritten_by_the_record_is_kept(copying: Program, note: Path, tmp_path: Path) -> None:
    let(copying, '(context.outputs / "job.json").write_text("a result")')
    ended = copying("run", "copy", "-i", note, "-o", tmp_path / "out")
    assert ended.code == 1
    assert "error: the result holds a file job.json" in ended.err
    assert not (tmp_path / "out").exists()
    (payload,) = (copying.workspace / "payloads").iterdir()
    assert (payload / "copier/output/job.json").read_text() == "a result"


@pytest.mark.parametrize("target", ["{secret}", "..", "nowhere"])
def test_a_link_in_a_result_is_never_followed_out_of_it(
    copying: Program, note: Path, tmp_path: Path, target: str
) -> None:
    """A stage in a container may make one, and it would be followed here, by who may read more."""
    (tmp_path / "secret").write_text("secret")
    let(copying, f"(context.outputs / 'link').symlink_to({target.format(secret=tmp_path / 'secret')!r})")
    ended = copying("run", "copy", "-i", note, "-o", tmp_path / "out")
    assert ended.code == 1
    assert "error: the result holds a link to a folder, to nowhere, or out of itself" in ended.err
    assert not (tmp_path / "out").exists()


def test_a_link_within_a_result_is_what_it_leads_to(copying: Program, note: Path, tmp_path: Path) -> None:
    let(copying, "(context.outputs / 'latest').symlink_to('note.txt')")
    assert copying("run", "copy", "-i", note, "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out/latest").read_text() == "new"
    assert not (tmp_path / "out/latest").is_symlink()


@pytest.mark.parametrize("name", ["series.json", "a.mhd"])
def test_a_pipe_in_place_of_a_summary_is_not_waited_for(
    copying: Program, note: Path, tmp_path: Path, name: str
) -> None:
    assert copying("cs", "second", "--code").code == 0
    add_workflow(copying.workspace, "copy-twice", ["copier", "second"])
    let(copying, f"os.mkfifo(context.outputs / {name!r})")
    code = copying.workspace / "images/second/stage_second.py"
    code.write_text(code.read_text().replace("context.inputs.iterdir()", "[context.inputs / 'note.txt']"))
    ended = copying("run", "copy-twice", "-i", note, "-o", tmp_path / "out")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("name", ["series.json", "segmentation.json"])
@pytest.mark.parametrize("text", ["[1]", "{", '{"series": [{}], "volumes": [{}]}'])
def test_a_file_that_only_has_the_name_of_a_summary_is_no_summary(
    copying: Program, note: Path, tmp_path: Path, name: str, text: str
) -> None:
    let(copying, f"(context.outputs / {name!r}).write_text({text!r})")
    ended = copying("run", "copy", "-i", note, "-o", tmp_path / "out")
    assert (ended.code, ended.err.count("Traceback")) == (0, 0), ended.err
    assert (tmp_path / "out" / name).read_text() == text
    assert not list((copying.workspace / "payloads").iterdir())
