"""Carrying out one job: plan it, install what it needs, run it, show it. What `run` and `test` share."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clara_wf.chart.render import plan_job
from clara_wf.chart.request import JobRequest, merge
from clara_wf.cli.options import pair, set_values
from clara_wf.cli.outcome import Outcome
from clara_wf.cli.progress import display
from clara_wf.cli.runner import RunnerChoice, check_server
from clara_wf.cli.terminal import remark
from clara_wf.cli.workspace import Places
from clara_wf.kserve.address import Address
from clara_wf.model.errors import ClaraError, JobCanceled, LackError, StageFailed, UsageError
from clara_wf.model.job import Job
from clara_wf.model.plan import Plan
from clara_wf.model.states import JobStatus, StageState

if TYPE_CHECKING:
    from clara_wf.runners import Runner

#: The stages that `--model` is for.
_AI_STAGES = ("ai-vnet", "ai-livertumor")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the options of `run` and `test` ask for beside the workflow and the data."""

    resample: bool = False  # for dicom-reader
    model: str | None = None  # for the AI stages
    arguments: Sequence[str] = ()  # STAGE=ARGUMENT
    values: Sequence[str] = ()  # KEY=VALUE
    trtis: str = ""  # address of the inference server; empty: what the chart says
    deadline: float | None = None  # seconds
    runner: RunnerChoice = field(default_factory=RunnerChoice)  # what runs the job


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job that is to be carried out."""

    request: JobRequest  # what it asks of the chart
    plan: Plan  # what the chart makes of that


def order(where: Places, workflow: str, stages: Sequence[str], *, job_id: str, root: str, wishes: Wishes) -> Order:
    """Render the plan of a job whose payload lies below the data folder's `root`.

    Raises
    ------
    UsageError
        A wish is for a stage that the workflow does not have, is written wrongly, or cannot be had in a cluster.
    """
    if wishes.trtis:
        if not any(stage in _AI_STAGES for stage in stages):
            raise UsageError("--trtis is for workflows with an AI stage, and this one has none")
        Address.parse(wishes.trtis)  # a wrong one is told before anything is done
    request = JobRequest(
        workflow=workflow,
        job_id=job_id,
        job_name=f"{workflow}-{job_id[:8]}",
        payloads=where.data / root,
        models=where.models,
        trtis_uri=wishes.trtis,
        deadline=wishes.deadline,
        options=_stage_options(stages, wishes),
        extra=merge(wishes.runner.values(), set_values(wishes.values)),
    )
    plan = plan_job(where.workspace.chart, request)
    if wishes.runner.kind == "kubernetes":
        check_server(plan)
    return Order(request=request, plan=plan)


def _stage_options(stages: Sequence[str], wishes: Wishes) -> Mapping[str, Sequence[str]]:
    options: dict[str, list[str]] = {}
    if wishes.resample:
        options.setdefault("dicom-reader", []).append("--resample")
    if wishes.model is not None:
        found = [stage for stage in stages if stage in _AI_STAGES]
        if not found:
            raise UsageError("--model is for workflows with an AI stage, and this one has none")
        options.setdefault(found[0], []).extend(["--model", wishes.model])
    for argument in wishes.arguments:
        stage, text = pair(argument, "--arg", "STAGE=ARGUMENT")
        options.setdefault(stage, []).append(text)
    return options


def install_models(job: Plan, where: Places) -> None:
    """Install the networks that the plan's stages name and that can be fetched by name.

    Raises
    ------
    ModelMissing
        One is neither installed nor known.
    LackError
        They cannot be fetched here.
    """
    names = []
    for stage in job.stages:
        words = [*stage.command, *stage.args]
        # As argparse has it: the last one counts.
        names += [word for option, word in itertools.pairwise(words) if option == "--model"][-1:]
    if not names:
        return
    from clara_wf.inference.repository import find_model, list_models

    missing = [name for name in names if name not in list_models(where.models)]
    if missing:
        from clara_wf.inference.install import KNOWN, install

        for name in missing:
            if name in KNOWN:
                install(name, where.models, progress=remark)
            else:
                find_model(where.models, name)


def carry_out(plan: Plan, runner: Runner, *, as_json: bool) -> Job:
    """Run a plan, show how it goes, and return what became of it."""
    from clara_wf.runners import canceling_on_signals

    names = [stage.name for stage in plan.stages]
    with runner.run(plan) as run, display(names, as_json=as_json) as shown, canceling_on_signals(run):
        for event in run:
            shown.show(event)
    return run.job


def raise_if_failed(job: Job, logs: Path) -> None:
    """Turn a job without a result into the error that says why.

    Raises
    ------
    JobError or LackError
        The job was canceled, or a stage failed; the message names the folder of the logs.
    """
    if job.succeeded:
        return
    remedy = f"Logs: {logs}"
    if job.status is JobStatus.CANCELED:
        raise JobCanceled("the job was canceled", remedy=remedy)
    failed = next((stage for stage in job.stages if stage.state is StageState.FAILED), None)
    message = job.message or "the job failed"
    if failed is not None and failed.exit_code == LackError.exit_code:
        raise LackError(message, remedy=remedy)
    raise StageFailed(message, remedy=remedy)


def print_end(
    job: Job,
    outcome: Outcome | None,
    fault: ClaraError | None = None,
    *,
    output: Path | None,
    compared: bool | None = None,
) -> None:
    """Print the last line of a run for programs: the job, its result, and the folder that holds it.

    `compared` says whether the result was held against a truth; None where that is not asked, and then not said.
    """
    entry: dict[str, Any] = {
        "event": "JobEnded",
        "job": job.to_json(),
        "output": str(output) if output else None,
        "result": outcome.to_json() if outcome else None,
        "error": str(fault) if fault else None,
    }
    if compared is not None:
        entry["compared"] = compared
    print(json.dumps(entry, ensure_ascii=False), flush=True)


def new_job_id() -> str:
    """Return a UUID for a new job."""
    return str(uuid.uuid4())
