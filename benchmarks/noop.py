"""From `clara-wf run` to the end of a workflow of three stages that only hand on what they read.

The peer is the bare cost of the same processes: one Python that starts, and three that start at once and import what a
stage imports.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGES = ("one", "two", "three")
ROUNDS = 9
GOAL_SECONDS = 1.0


def main() -> None:
    """Print the medians and the ratio of one run."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        shutil.copytree(ROOT / "charts", workspace / "charts")
        environment = os.environ | {"CLARA_WF_WORKSPACE": str(workspace)}
        for stage in STAGES:
            subprocess.run([ROOT / "clara-wf", "cs", stage, "--code"], env=environment, check=True, capture_output=True)
        _add_workflow(workspace)
        (Path(folder) / "in").mkdir()
        (Path(folder) / "in/note.txt").write_text("hello")
        ours, bare = [], []
        for number in range(ROUNDS):
            output = Path(folder) / f"out{number}"
            command = [ROOT / "clara-wf", "run", "no-op", "-i", Path(folder) / "in", "-o", output]
            ours.append(_seconds([command], environment))
            assert (output / "note.txt").read_text() == "hello"
            imports = [sys.executable, "-c", "import clara_wf.stage, shutil"]
            bare.append(_seconds([[sys.executable, "-c", "pass"]], environment) + _seconds([imports] * 3, environment))
    median, peer = statistics.median(ours), statistics.median(bare)
    print(
        f"no-op workflow of three stages: median {median:.2f} s of {ROUNDS} (from {min(ours):.2f} to {max(ours):.2f})"
    )
    print(f"bare processes:                 median {peer:.2f} s")
    print(
        f"ratio {median / peer:.2f}; goal: at most {GOAL_SECONDS} s: {'held' if median <= GOAL_SECONDS else 'NOT held'}"
    )


def _seconds(commands: list[list[object]], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    running = [
        subprocess.Popen(
            [str(word) for word in command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for command in commands
    ]
    codes = [process.wait() for process in running]
    assert codes == [0] * len(commands), codes
    return time.perf_counter() - started


def _add_workflow(workspace: Path) -> None:
    values = workspace / "charts/clara-workflow/values.yaml"
    entry = {
        "id": "5b0a2f4e-8d0e-4d0a-9c0f-0b7f0f1a2b3c",
        "aliases": [],
        "stages": list(STAGES),
        "waitLocks": ["", "one.lock", "two.lock"],
        "args": [[], [], []],
        "ioFolders": ["one/input", "one/output", "two/output", "three/output"],
    }
    values.write_text(values.read_text().replace("\nworkflows:\n", f"\nworkflows:\n  no-op: {json.dumps(entry)}\n", 1))


if __name__ == "__main__":
    main()
