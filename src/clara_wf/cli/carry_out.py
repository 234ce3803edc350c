"""Carrying out one job: plan it, install what it needs, run it, show it. What `run` and `test` share."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from clara_wf.chart.render import plan_job
from clara_wf.chart.request import JobRequest, nested
from clara_wf.cli.outcome import Outcome
from clara_wf.cli.progress import display
from clara_wf.cli.runner import Place, runner_for, with_values
from clara_wf.cli.terminal import remark
from clara_wf.cli.workspace import Places
from clara_wf.kserve.address import Address
from clara_wf.model.errors import ClaraError, JobCanceled, LackError, StageFailed, UsageError
from clara_wf.model.job import Job
from clara_wf.model.plan import Plan
from clara_wf.model.states import JobStatus, StageState

ResampleOption = Annotated[
    bool,
    typer.Option("--resample", help="Resample series with gantry tilt or missing slices instead of refusing them."),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Another installed network for the AI stage.")
]
ArgOption = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="STAGE=ARGUMENT", help="A further argument of a stage; may be repeated."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A value of the chart, as a string; may be repeated."),
]
TrtisOption = Annotated[
    str,
    typer.Option(
        "--trtis", metavar="HOST:PORT", help="Let this inference server run the networks (the same as --set trtisUri=)."
    ),
]
DeadlineOption = Annotated[
    float | None, typer.Option("--deadline", min=1, metavar="SECONDS", help="End the job if it takes longer.")
]

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
    place: Place = field(default_factory=Place)  # where the job runs


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job that is to be carried out."""

    request: JobRequest  # what it asks of the chart
    plan: Plan  # what the chart makes of that
    place: Place  # where it runs


def order(where: Places, workflow: str, stages: Sequence[str], *, job_id: str, root: str, wishes: Wishes) -> Order:
    """Render the plan of a job whose payload lies below the data folder's `root`.

    Raises
    ------
    UsageError
        A wish is for a stage that the workflow does not have, or is written wrongly.
    """
    if wishes.trtis:
        if not any(stage in _AI_STAGES for stage in stages):
            raise UsageError("--trtis is for workflows with an AI stage, and this one has none")
        Address.parse(wishes.trtis)  # a wrong one is told before anything is done
    extra = nested(dict(_pair(value, "--set", "KEY=VALUE") for value in wishes.values))
    request = JobRequest(
        workflow=workflow,
        job_id=job_id,
        job_name=f"{workflow}-{job_id[:8]}",
        payloads=where.data / root,
        models=where.models,
        trtis_uri=wishes.trtis,
        deadline=wishes.deadline,
        options=_stage_options(stages, wishes),
        extra=with_values(extra, wishes.place, wishes.trtis),
    )
    return Order(request=request, plan=plan_job(where.workspace.chart, request), place=wishes.place)


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
        stage, text = _pair(argument, "--arg", "STAGE=ARGUMENT")
        options.setdefault(stage, []).append(text)
    return options


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"{option} {text} is not {form}")
    return key, value


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


def carry_out(job: Order, where: Places, *, as_json: bool) -> Job:
    """Run a plan, show how it goes, and return what became of it."""
    from clara_wf.runners import canceling_on_signals

    runner = runner_for(job.place, where.workspace.chart, job.request, where.workspace.code_folders)
    names = [stage.name for stage in job.plan.stages]
    with runner.run(job.plan) as run, display(names, as_json=as_json) as shown, canceling_on_signals(run):
        for event in run:
            shown.show(event)
    return run.job


def raise_if_failed(job: Job, place: str) -> None:
    """Turn a job without a result into the error that says why.

    Raises
    ------
    JobError or LackError
        The job was canceled, or a stage failed; `place` tells where the logs are.
    """
    if job.succeeded:
        return
    remedy = f"Logs: {place}"
    if job.status is JobStatus.CANCELED:
        raise JobCanceled("the job was canceled", remedy=remedy)
    failed = next((stage for stage in job.stages if stage.state is StageState.FAILED), None)
    message = job.message or "the job failed"
    if failed is not None and failed.exit_code == LackError.exit_code:
        raise LackError(message, remedy=remedy)
    raise StageFailed(message, remedy=remedy)


def print_end(job: Job, outcome: Outcome | None, fault: ClaraError | None = None, *, output: Path | None) -> None:
    """Print the last line of a run for programs: the job, its result, and the folder that holds it."""
    entry = {
        "event": "JobEnded",
        "job": job.to_json(),
        "output": str(output) if output else None,
        "result": outcome.to_json() if outcome else None,
        "error": str(fault) if fault else None,
    }
    print(json.dumps(entry, ensure_ascii=False), flush=True)


def new_job_id() -> str:
    """Return a UUID for a new job."""
    return str(uuid.uuid4())
