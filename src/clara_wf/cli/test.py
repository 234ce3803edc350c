"""`test`: a workflow on a phantom, whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from clara_wf.chart.catalog import read_catalog
from clara_wf.cli.carry_out import (
    ArgOption,
    DeadlineOption,
    ModelOption,
    ResampleOption,
    SetOption,
    Wishes,
    carry_out,
    install_models,
    plan,
    print_end,
    raise_if_failed,
)
from clara_wf.cli.complete import workflow_names
from clara_wf.cli.outcome import Outcome, gather, show
from clara_wf.cli.terminal import Json, remark, results
from clara_wf.cli.workspace import Places, places
from clara_wf.model.errors import ClaraError, StageFailed
from clara_wf.model.payload import Payload, job_id
from clara_wf.model.plan import Plan

#: What a test job starts from when no other is named, as in the guide.
VOLUME_JOB = "00000000-0000-0000-0000-000000000000"
SERIES_JOB = "11111111-1111-1111-1111-111111111111"


def test_workflow(
    workflow: Annotated[
        str, typer.Argument(metavar="[WORKFLOW]", help="Name, alias or UUID.", autocompletion=workflow_names)
    ] = "ai-only",
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]", help=f"Folder of test-data (default: {VOLUME_JOB}, or 1111... where DICOM is read)."
        ),
    ] = None,
    *,
    model: ModelOption = None,
    resample: ResampleOption = False,
    arguments: ArgOption = None,
    values: SetOption = None,
    deadline: DeadlineOption = None,
    as_json: Json = False,
) -> None:
    """Test a workflow on a phantom: makes data, installs the network, compares with the truth."""
    wishes = Wishes(resample=resample, model=model, arguments=arguments or (), values=values or (), deadline=deadline)
    where = places()
    found = read_catalog(where.workspace.chart).workflow(workflow)
    first = found.stages[0]
    identity = job_id(job) if job else SERIES_JOB if first == "dicom-reader" else VOLUME_JOB
    planned = plan(where, found.name, found.stages, job_id=identity, root="test-data", wishes=wishes)
    install_models(planned, where)
    _make_input(where, identity, first)
    _carry_out(planned, where, as_json=as_json)


def _make_input(where: Places, identity: str, first: str) -> None:
    from clara_wf.phantom.job_input import ensure_test_data

    said: set[str] = set()

    def say(_share: float, message: str) -> None:
        if message not in said:
            said.add(message)
            remark(f"test data: {message}")

    ensure_test_data(where.test_data, identity, first, progress=say)


def _carry_out(job: Plan, where: Places, *, as_json: bool) -> None:
    done = carry_out(job, where, as_json=as_json)
    outcome = None
    try:
        raise_if_failed(done, str(Payload(root=job.payload).logs))
        outcome = _compared(gather(job), job)
        _check(outcome)
    except ClaraError as fault:
        if as_json:
            print_end(done, outcome, fault, output=None)
        elif outcome is not None:
            show(outcome)
        raise
    if as_json:
        print_end(done, outcome, output=job.output)
        return
    show(outcome)
    console = results()
    for preview in outcome.previews[:1]:
        console.print(f"preview: {preview}", markup=False)
    console.print(f"output:  {job.output}", markup=False)
    seconds = f" in {done.wall_s:.1f} s" if done.wall_s is not None else ""
    judged = "" if outcome.comparison or not outcome.labelled else " (there is no truth to compare with)"
    console.print(f"[bold green]passed[/]: {job.workflow}{seconds}{judged}. Not for clinical use.")


def _compared(outcome: Outcome, job: Plan) -> Outcome:
    """Compare with the truth, where a stage made labels and the input is a phantom of ours."""
    from clara_wf.phantom.job_input import truth_of

    truth = truth_of(job.payload.parent, job.job_id, job.stages[0].name)
    if not outcome.labelled or truth is None:
        return outcome
    from clara_wf.cli.truth import compare

    return replace(outcome, comparison=compare(outcome.labelled[0].volume, truth / "liver.mhd"))


def _check(outcome: Outcome) -> None:
    from clara_wf.cli.truth import LIVER_DICE_AT_LEAST

    liver = outcome.comparison.get("liver")
    if liver is not None and liver["dice"] < LIVER_DICE_AT_LEAST:
        raise StageFailed(
            f"the liver's Dice against the phantom's truth is {liver['dice']:.3f}, less than {LIVER_DICE_AT_LEAST}",
            remedy="See `clara-wf doctor` for this machine's engine and precision",
        )
