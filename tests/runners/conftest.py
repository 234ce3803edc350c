"""Plans whose stages are small programs written by the test."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from clara_wf.model.plan import Mount, Plan, Resources, StagePlan
from clara_wf.runners import Limits

JOB_ID = "00000000-0000-0000-0000-000000000000"
#: A stage that follows the contract: what stands before and after the test's own code.
BEFORE = """
import os, pathlib, signal, subprocess, sys, threading, time
from clara_wf.model.errors import InputError
from clara_wf.stage import main
def execute(context, prepared):
"""
AFTER = """
if __name__ == "__main__":
    main(execute=execute)
"""
WRITE = "(context.outputs / 'result.txt').write_text(context.stage)"


def stage_plan(
    payload: Path,
    name: str,
    command: Sequence[str],
    *,
    before: str = "",
    inputs: str,
    timeout: float = 30,
    resources: Resources = Resources(),  # noqa: B008 - frozen
    variables: Mapping[str, str] | None = None,
) -> StagePlan:
    environment = {
        "STAGENAME": name,
        "JOBID": JOB_ID,
        "JOBNAME": "test",
        "APPDIR": "/app",
        "INPUTS": "input",
        "OUTPUTS": "output",
        "LOCKDIR": "/app/locks",
        "LOCKNAME": f"{name}.lock",
        "WAITNAME": f"{before}.lock" if before else "",
        "INPUTLOCK": "/app/locks/input.lock",
        "TIMEOUT": f"{timeout:g}",
        "LOGNAME": f"logs/{name}.log",
        "RUNSIMPLE": "FALSE",
        "TRTISURI": "",
        "IMAGE": f"clara/{name}:0",
    } | dict(variables or {})
    mounts = {"input": inputs, "output": f"{name}/output", "locks": "locks", "logs": "logs"}
    return StagePlan(
        name=name,
        image=f"clara/{name}:0",
        command=tuple(command),
        environment={f"NVIDIA_CLARA_{key}": value for key, value in environment.items()},
        mounts=tuple(Mount(path=f"/app/{path}", host=payload / host) for path, host in mounts.items()),
        resources=resources,
    )


@pytest.fixture
def make_plan(tmp_path: Path) -> Callable[..., Plan]:
    """Make a plan of stages: a text is the body of `execute`, a list a command."""

    def make(stages: Mapping[str, str | Sequence[str]], *, deadline: float | None = None, **options: Any) -> Plan:
        payload = tmp_path / "payloads" / JOB_ID
        first = next(iter(stages))
        (payload / first / "input").mkdir(parents=True, exist_ok=True)
        (payload / first / "input" / "in.txt").write_text("x")
        plans: list[StagePlan] = []
        for name, code in stages.items():
            command: Sequence[str] = code
            if isinstance(code, str):
                file = tmp_path / f"{name}_stage.py"
                file.write_text(BEFORE + textwrap.indent(textwrap.dedent(code), "    ") + AFTER)
                command = ("python", str(file))
            before = plans[-1].name if plans else ""
            inputs = f"{before}/output" if before else f"{name}/input"
            plans.append(stage_plan(payload, name, command, before=before, inputs=inputs, **options))
        return Plan(
            workflow="test",
            workflow_id=JOB_ID,
            job_id=JOB_ID,
            job_name="test",
            payload=payload,
            stages=tuple(plans),
            deadline=deadline,
        )

    return make


@pytest.fixture(autouse=True)
def _source_for_stages(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Let the stages find the checkout, as this process does."""
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    assert sys.executable


@pytest.fixture
def quick() -> Limits:
    """Limits for tests: little patience."""
    return Limits(tick=0.05, grace=0.6, patience=0.4, overtime=0.4, output_bytes=100_000, log_bytes=300_000)
