"""The command line as a program of its own, and how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A program that has ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[Any]:
        """What `--json` printed, a line each."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True, kw_only=True)
class Program:
    """The command line, started as a program of its own in a workspace."""

    workspace: Path

    def __call__(self, *arguments: str | Path, cwd: Path | None = None, **variables: str) -> Ended:
        """Run it to its end."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd or self.workspace,
            env=self.environment(variables),
            timeout=600,
        )
        return Ended(code=done.returncode, out=done.stdout, err=done.stderr)

    def command(self, *arguments: str | Path) -> list[str]:
        """Return its command line."""
        return [sys.executable, "-m", "clara_wf", *map(str, arguments)]

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return its environment."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("CLARA_", "NVIDIA_CLARA_"))}
        clean |= {"CLARA_WF_WORKSPACE": str(self.workspace), "COLUMNS": "120", "TERM": "dumb"}
        return clean | dict(variables or {})


def add_workflow(workspace: Path, name: str, stages: list[str]) -> None:
    """Write a workflow of these stages into a workspace's chart."""
    values = workspace / "charts/clara-workflow/values.yaml"
    locks = ["", *(f"{stage}.lock" for stage in stages[:-1])]
    folders = [f"{stages[0]}/input", *(f"{stage}/output" for stage in stages)]
    entry = (
        f'workflows:\n  {name}:\n    id: "5b0a2f4e-8d0e-4d0a-9c0f-0b7f0f1a2b3c"\n    aliases: []\n'
        f"    stages: {json.dumps(stages)}\n    waitLocks: {json.dumps(locks)}\n"
        f"    args: {json.dumps([[] for _ in stages])}\n    ioFolders: {json.dumps(folders)}\n"
    )
    text = values.read_text()
    assert text.count("\nworkflows:\n") == 1
    values.write_text(text.replace("\nworkflows:\n", f"\n{entry}", 1))
