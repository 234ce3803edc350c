"""Plans whose stages are small programs written by the test."""

from __future__ import annotations

import dataclasses
import functools
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from base_image import BASE_IMAGE as BASE
from base_image import start_one

from clara_wf.containers.engine import KINDS, Engine, EngineFailed, find_engine
from clara_wf.model.errors import LackError
from clara_wf.model.plan import Mount, Plan, Resources, StagePlan
from clara_wf.runners import Limits
from clara_wf.runners.container_program import PAYLOAD_LABEL, payload_key

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


#: Where the sources and the test's own lie in a stage's container.
SOURCE = "/source"
#: Every program for containers that may be on this machine.
_MARKS = [pytest.mark.containers, pytest.mark.xdist_group("containers")]
ENGINES = [pytest.param(kind, marks=_MARKS) for kind in KINDS]
#: For what does not depend on the program: the first that is there will do.
any_engine = pytest.mark.parametrize("engine", [pytest.param(None, marks=_MARKS, id="any")], indirect=True)


@functools.cache
def _look_for(kind: str | None) -> Engine | LackError | EngineFailed:
    try:
        engine = find_engine(kind)
        start_one(engine)
    except (LackError, EngineFailed) as fault:
        return fault
    return engine


def engine_of(kind: str | None) -> Engine:
    found = _look_for(kind)
    if not isinstance(found, Engine):
        pytest.skip(f"no containers: {found}")
    return found


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Docker, and podman; either with `any_engine`."""
    return engine_of(request.param)


def containers_of(engine: Engine, plan: Plan) -> list[str]:
    """Every container of a plan's payload, in whatever state."""
    label = f"label={PAYLOAD_LABEL}={payload_key(plan.payload)}"
    return engine.call("ps", "--all", "--quiet", "--filter", label).split()


@pytest.fixture
def in_containers(root: Path) -> Callable[[Plan], Plan]:
    """Let the stages of a plan run in containers; the programs that the test wrote are seen there where they lie."""

    def contain(plan: Plan) -> Plan:
        return dataclasses.replace(plan, stages=tuple(_contained(stage, root) for stage in plan.stages))

    return contain


def _contained(stage: StagePlan, root: Path) -> StagePlan:
    files = [Path(word) for word in stage.command if word.endswith("_stage.py")]
    mounts = (Mount(path=SOURCE, host=root / "src"), *(Mount(path=str(file), host=file) for file in files))
    return dataclasses.replace(
        stage,
        image=BASE,
        command=tuple("python3" if word == "python" else word for word in stage.command),
        environment={**stage.environment, "PYTHONPATH": SOURCE},
        mounts=(*stage.mounts, *(dataclasses.replace(mount, read_only=True) for mount in mounts)),
    )


@pytest.fixture
def make_contained(
    make_plan: Callable[..., Plan], in_containers: Callable[[Plan], Plan], engine: Engine
) -> Iterator[Callable[..., Plan]]:
    """Make a plan as `make_plan` does, of containers. When the test is over there are none."""
    plans: list[Plan] = []

    def make(*arguments: Any, **options: Any) -> Plan:
        plans.append(in_containers(make_plan(*arguments, **options)))
        return plans[-1]

    yield make
    for plan in plans:
        assert containers_of(engine, plan) == []


@pytest.fixture(autouse=True)
def _source_for_stages(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Let the stages find the checkout, as this process does."""
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    assert sys.executable


@pytest.fixture
def quick() -> Limits:
    """Limits for tests: little patience."""
    return Limits(tick=0.05, grace=0.6, patience=0.4, overtime=0.4, output_bytes=100_000, log_bytes=300_000)
