"""Lets the disk refuse an edit from each of its steps on, and prints what came of it: run by test_journal.

Usage: break_while_editing.py CHARTS FOLDER full|broken

A full disk takes no new content, but moves and removes files; a broken one takes nothing.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

from kill_while_editing import STEPS, tree

from clara_wf.chart.edit import create_stage
from clara_wf.chart.journal import JOURNAL
from clara_wf.chart.workspace import Workspace, find_workspace
from clara_wf.model.errors import ChartError

CREATING = {"open", "os.mkdir"}
BY_HAND = "# by hand\n"


def refuse_from(step: int, steps: set[str]) -> None:
    """From its step of that number on, let nothing through that writes."""
    left = [step]

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event not in steps or ".py" in str(arguments[0]):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE):
            return
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        left[0] -= 1

    sys.addaudithook(refuse)


def edit(root: Path, step: int, steps: set[str]) -> str:
    """Make a stage in a child, whose hook ends with it; return what it was told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        refuse_from(step, steps)
        try:
            create_stage(Workspace(root=root), "extra", code=True)
            said = "made"
        except ChartError as fault:
            said = str(fault)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return said


def main() -> None:
    charts, folder, steps = Path(sys.argv[1]), Path(sys.argv[2]), CREATING if sys.argv[3] == "full" else STEPS
    root = folder / "work"
    values = root / "charts/clara-workflow/values.yaml"
    outcomes = []
    while True:
        outcome: dict[str, object] = {}
        # Once to see whether the edit is undone when there is room again, and once with an edit by hand before that.
        for by_hand in (False, True):
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(charts, root / "charts")
            before = tree(root)
            outcome["said"] = edit(root, len(outcomes), steps)
            left = tree(root)
            outcome["left"] = "before" if left == before else "other"
            if by_hand:
                values.write_text(values.read_text() + BY_HAND)
            written = values.read_text()
            remarks: list[str] = []
            try:
                find_workspace(root, {}, say=remarks.append)
            except ChartError as fault:
                outcome["fault"] = str(fault)
                kept = [file.read_text() for file in (root / JOURNAL).iterdir()]
                outcome["old content is kept"] = before[str(values.relative_to(root))] in kept
            if by_hand:
                outcome["edit by hand stays"] = values.read_text() == written
            else:
                outcome["recovered"] = "before" if tree(root) == before else "other"
                outcome["remarks"] = remarks
        outcomes.append(outcome)
        if outcome["said"] == "made":
            break
    print(json.dumps(outcomes))  # noqa: T201 - a program prints


if __name__ == "__main__":
    main()
