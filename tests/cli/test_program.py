"""The program as a whole: its help, its errors, its completion."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from program import Program, add_workflow
from rich.table import Table
from rich.text import Text

from clara_wf.cli import terminal


def test_without_arguments_the_help_shows_every_name_of_the_guide(clara: Program) -> None:
    ended = clara()
    for names in (
        "list_stages | list | ls",
        "create_stage | create | cs",
        "delete_stage | delete | ds",
        "test_workflow | test",
        "install_trtis",
        "uninstall_trtis",
        "set_ngc_api_key | setkey",
    ):
        assert names in ended.out
    assert ended.code == 0


def test_workflows_are_shown_whole(clara: Program) -> None:
    ended = clara("workflows")
    assert "fd3ee8bf-b9f3-4808-bd60-243f870ff9bd" in ended.out
    assert len(json.loads(clara("workflows", "--json").out)) == 10


def test_show_prints_the_plan_that_helm_renders(clara: Program) -> None:
    by_name = json.loads(clara("show", "liver-seg", "--json").out)
    by_id = json.loads(clara("show", "FD3EE8BF-b9f3-4808-bd60-243f870ff9bd", "--json").out)
    assert by_name == by_id
    assert [stage["name"] for stage in by_name["stages"]] == ["dicom-reader", "ai-livertumor", "dicom-writer"]


def test_an_edit_of_container_yaml_is_seen_in_the_plan(clara: Program) -> None:
    file = clara.workspace / "charts/clara-workflow/templates/stages/ai-vnet/container.yaml"
    text = file.read_text()
    place = "  # Your own variables follow here"
    assert place in text
    file.write_text(text.replace(place, f"  - name: MY_OWN\n    value: here\n{place}"))
    (stage,) = json.loads(clara("show", "ai-only", "--json").out)["stages"]
    assert stage["environment"]["MY_OWN"] == "here"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("show", "liver-segg"), 2, "Did you mean 'liver-seg'?"),
        (("test", "no-such-thing-at-all"), 2, "there is no workflow 'no-such-thing-at-all'"),
        (("test", "ai-only", "123"), 2, "the job id '123' is no UUID"),
        (("run", "ai-only", "--input", "/nowhere", "--output", "out"), 2, "there is no /nowhere"),
        (("model", "show", "lung"), 3, "the model lung is not installed"),
        (("model", "install", "lung"), 2, "there is no model lung"),
        (
            ("run", "ai-only", "-i", "charts", "-o", "out", "--arg", "nonsense"),
            2,
            "--arg nonsense is not STAGE=ARGUMENT",
        ),
        (("run", "ai-only", "-i", "charts", "-o", "charts/out"), 2, "lies within the input"),
        (
            ("run", "recon-only", "-i", "charts", "-o", "out", "--model", "x"),
            2,
            "--model is for workflows with an AI stage",
        ),
    ],
)
def test_wrong_use_gets_one_line(clara: Program, arguments: tuple[str, ...], code: int, says: str) -> None:
    ended = clara(*arguments)
    assert ended.code == code, ended.err
    assert says in ended.err
    assert len(ended.err.splitlines()) == 1
    assert "Traceback" not in ended.err


def test_a_missing_cluster_is_said(clara: Program, tmp_path: Path) -> None:
    kubernetes = ("--runner", "kubernetes")
    for command in (("install_trtis", *kubernetes), ("uninstall_trtis", *kubernetes), ("setkey",)):
        ended = clara(*command, KUBECONFIG=str(tmp_path / "none"), NGC_API_KEY="secret-key-of-nobody")
        assert ended.code == 3
        assert "no Kubernetes cluster is configured" in ended.err
        assert "secret-key-of-nobody" not in ended.out + ended.err


def test_debug_shows_the_trace(clara: Program) -> None:
    ended = clara("--debug", "show", "nothing-like-it")
    assert "Traceback" in ended.err


def test_an_output_that_is_not_ours_is_left_alone(clara: Program, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/diary.txt").write_text("mine")
    ended = clara("run", "dicom-reader-only", "-i", clara.workspace, "-o", tmp_path / "out", "--force")
    assert ended.code == 2
    assert "is not empty" in ended.err
    assert (tmp_path / "out/diary.txt").read_text() == "mine"


def test_an_empty_folder_fails_with_one_line(clara: Program, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ended = clara("run", "dicom-reader-only", "-i", tmp_path / "in", "-o", tmp_path / "out")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert "Logs: " in line
    assert not (tmp_path / "out").exists()


def test_doctor_names_a_remedy_for_what_is_missing(clara: Program) -> None:
    ended = clara("doctor", "--json", KUBECONFIG="/nowhere")
    findings = {finding["name"]: finding for finding in json.loads(ended.out)}
    assert {"Python", "memory", "disk", "Helm", "model liver", "engine", "containers", "cluster", "ports"} <= set(
        findings
    )
    assert not findings["model liver"]["ok"]
    assert "clara-wf model install liver" in findings["model liver"]["remedy"]
    assert not findings["cluster"]["ok"]
    assert all(finding["remedy"] for finding in findings.values() if not finding["ok"])
    needed = [finding for finding in findings.values() if finding["needed"] and not finding["ok"]]
    assert ended.code == (3 if needed else 0)


def test_tab_offers_workflows(clara: Program) -> None:
    ended = clara(
        _CLARA_WF_COMPLETE="complete_bash", COMP_WORDS="clara-wf show liv", COMP_CWORD="2", _TYPER_COMPLETE_ARGS=""
    )
    assert "liver-seg" in ended.out


def test_init_makes_a_workspace_to_edit(clara: Program, tmp_path: Path) -> None:
    made = clara("init", tmp_path / "mine")
    assert made.code == 0, made.err
    mine = Program(workspace=tmp_path / "mine")
    assert mine("cs", "own").code == 0
    assert "own" in mine("ls").out
    assert "own" not in clara("ls").out
    again = clara("init", tmp_path / "mine")
    assert again.code == 2
    assert "is not empty" in again.err


def test_a_folder_whose_name_is_no_utf_8_is_spelled_out(clara: Program, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    made = clara("init", folder, PYTHONIOENCODING="utf-8:strict")
    assert (made.code, made.err) == (0, "")
    assert made.out.splitlines()[0] == f"Workspace is created at: {tmp_path}/caf\\udce9"
    again = clara("init", folder, PYTHONIOENCODING="ascii:strict")
    assert again.code == 2
    assert again.err == f"error: {tmp_path}/caf\\udce9 is not empty. Give the name of a new folder.\n"


def test_ctrl_c_cancels_the_job_and_leaves_nobody(clara: Program, tmp_path: Path) -> None:
    assert clara("cs", "sleeper", "--code").code == 0
    module = clara.workspace / "images/sleeper/stage_sleeper.py"
    module.write_text(
        "import time\nfrom clara_wf.stage import StageContext, main\n\n"
        "def execute(context: StageContext, prepared: None) -> None:\n"
        "    (context.outputs / 'started').touch()\n    time.sleep(600)\n\nmain(execute=execute)\n"
    )
    add_workflow(clara.workspace, "sleepy", ["sleeper"])
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x").touch()
    process = subprocess.Popen(
        clara.command("run", "sleepy", "-i", tmp_path / "in", "-o", tmp_path / "out"),
        env=clara.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    payloads = clara.workspace / "payloads"
    deadline = time.monotonic() + 60
    while not list(payloads.glob("*/sleeper/output/started")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "canceled" in err
    (job,) = payloads.glob("*/job.json")
    assert json.loads(job.read_text())["status"] == "CANCELED"
    assert not (tmp_path / "out").exists()


def test_nothing_from_outside_commands_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "liver\x1b]0;owned\x07\x9b2J\u202e\x7f"
    shown = r"liver\x1b]0;owned\x07\x9b2J\u202e\x7f"
    assert terminal.visible(name) == shown
    assert terminal.visible("one\ttwo\nthree") == "one\ttwo\nthree"
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    terminal.remark(name)
    terminal.report_error(name)
    terminal.show(name)
    table = Table("Model")
    table.add_row(Text(name, style="green"))
    terminal._console(force_terminal=True, width=100, color_system="standard").print(table, f"[bold]{name}[/]")
    terminal.print_json({"name": name})
    written = out.getvalue() + err.getvalue()
    # rich itself drops a bell.
    assert "\x1b[32m" + shown.replace(r"\x07", "") in written, "the program's own colours stay"
    assert json.loads(out.getvalue()[out.getvalue().index("{") :]) == {"name": name}
    assert not set(re.sub(r"\x1b\[[0-9;]*m", "", written)) & set("\x1b\x07\x9b\u202e\x7f")
