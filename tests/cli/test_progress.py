"""What a run shows while it works: bars in a terminal, lines elsewhere, JSON for programs."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from program import Program, add_workflow

STAGE = """
from clara_wf.stage import StageContext, main

def execute(context: StageContext, prepared: None) -> None:
    context.progress(0.5, "half [of] it")
    context.log.warning("mind [this]")
    (context.outputs / "result").touch()

if __name__ == "__main__":
    main(execute=execute)
"""


@pytest.fixture
def command(clara: Program, tmp_path: Path) -> list[str]:
    """A run of one stage that tells its progress and warns."""
    assert clara("cs", "teller", "--code").code == 0
    (clara.workspace / "images/teller/stage_teller.py").write_text(STAGE)
    add_workflow(clara.workspace, "tell", ["teller"])
    (tmp_path / "in").mkdir()
    return ["run", "tell", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]


def test_lines_where_there_is_no_terminal(clara: Program, command: list[str]) -> None:
    ended = clara(*command)
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    assert "teller: working" in lines
    assert "teller:  50% half [of] it" in lines
    assert "teller: warning: mind [this]" in lines
    assert lines[-1].startswith("teller: completed (")


def test_events_for_programs(clara: Program, command: list[str]) -> None:
    ended = clara(*command, "--json")
    by_name = {event["event"]: event for event in ended.events}
    assert list(by_name)[:2] == ["StageWaiting", "StageWorking"]
    assert list(by_name)[-2:] == ["StageEnded", "JobEnded"]
    assert by_name["StageProgress"]["fraction"] == 0.5
    assert by_name["StageLogged"]["message"] == "mind [this]"
    assert ended.events[-1]["result"]["files"] == ["result"]


def test_bars_in_a_terminal(clara: Program, command: list[str]) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        clara.command(*command),
        env=clara.environment({"TERM": "xterm"}),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        cwd=clara.workspace,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "teller: mind [this]" in text
    assert "100 %" in text
    assert "done" in text
