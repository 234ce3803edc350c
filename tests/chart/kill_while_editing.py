"""Kills an edit before each of its steps on the disk, recovers, and prints what is left: run by test_edit.

Usage: kill_while_editing.py CHARTS FOLDER create|delete
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from clara_wf.chart.edit import create_stage, delete_stage
from clara_wf.chart.workspace import Workspace, find_workspace

# Each is raised by Python before the step itself.
STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() if path.is_file() else "folder"
        for path in sorted(root.rglob("*"))
    }


def kill_at(step: int, edit: Callable[[], object]) -> bool:
    """Run `edit` in a child that dies by SIGKILL before its step of that number; return whether it died."""
    child = os.fork()
    if child == 0:
        left = [step]

        def count(event: str, arguments: tuple[object, ...]) -> None:
            if event in STEPS and ".py" not in str(arguments[0]):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

        sys.addaudithook(count)
        edit()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert status == 0
    return False


def main() -> None:
    charts, folder, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    root = folder / "work"

    start = Workspace(root=folder / "start")
    shutil.copytree(charts, start.root / "charts")
    if what == "delete":
        create_stage(start, "extra")

    def fresh() -> Workspace:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(start.root, root)
        return Workspace(root=root)

    def edit(workspace: Workspace) -> object:
        return create_stage(workspace, "extra", code=True) if what == "create" else delete_stage(workspace, "extra")

    before = tree(fresh().root)
    workspace = fresh()
    edit(workspace)
    after = tree(root)
    outcomes = []
    while True:
        workspace = fresh()
        died = kill_at(len(outcomes), lambda: edit(workspace))  # noqa: B023 - called at once
        torn = tree(root) not in (before, after)
        find_workspace(root, {})
        left = tree(root)
        names = [name for name, wanted in (("before", before), ("after", after)) if left == wanted]
        outcomes.append({"torn": torn, "left": names[0] if names else "torn"})
        if not died:
            break
    print(json.dumps(outcomes))  # noqa: T201 - a program prints


if __name__ == "__main__":
    main()
