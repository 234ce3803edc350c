"""`test`: a workflow on a phantom, whose truth is known."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import Annotated

import typer

from clara_wf.chart.catalog import read_catalog
from clara_wf.cli.carry_out import Wishes, carry_out, install_models, order, print_end, raise_if_failed
from clara_wf.cli.complete import workflow_names
from clara_wf.cli.options import (
    ArgOption,
    DeadlineOption,
    ModelOption,
    NamespaceOption,
    ResampleOption,
    RunnerOption,
    SetOption,
    TrtisOption,
)
from clara_wf.cli.outcome import Outcome, gather, show
from clara_wf.cli.runner import RunnerChoice, runner_for
from clara_wf.cli.terminal import Json, remark, results
from clara_wf.cli.workspace import Places, places
from clara_wf.model.errors import ClaraError, StageFailed
from clara_wf.model.job import Job
from clara_wf.model.payload import Payload, job_id
from clara_wf.model.plan import Plan

#: What a test job starts from when no other is named, as in the guide.
VOLUME_JOB = "00000000-0000-0000-0000-000000000000"
SERIES_JOB = "11111111-1111-1111-1111-111111111111"
#: Where the reader reads a scanner's projections.
PROJECTIONS_JOB = "22222222-2222-2222-2222-222222222222"
#: The voxels that a phantom's projections are reconstructed to: about those of its truth.
_VOXELS = ("--fov=400", "--matrix=256", "--slice-thickness=3")


def test_workflow(
    workflow: Annotated[
        str, typer.Argument(metavar="[WORKFLOW]", help="Name, alias or UUID.", autocompletion=workflow_names)
    ] = "ai-only",
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help=f"Folder of test-data (default: {VOLUME_JOB}; 1111... for DICOM images, 2222... for projections).",
        ),
    ] = None,
    *,
    model: ModelOption = None,
    resample: ResampleOption = False,
    arguments: ArgOption = None,
    values: SetOption = None,
    trtis: TrtisOption = "",
    deadline: DeadlineOption = None,
    runner: RunnerOption = "process",
    namespace: NamespaceOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the release in the cluster, to look at.")] = False,
    as_json: Json = False,
) -> None:
    """Test a workflow on a phantom: makes data, installs the network, compares with the truth."""
    where = places()
    found = read_catalog(where.workspace.chart).workflow(workflow)
    first, projections = found.stages[0], "recon" in found.stages
    # What the user asks for comes last, and counts.
    voxels = [f"recon={option}" for option in _VOXELS] if projections else []
    asked = [*voxels, *(arguments or ())]
    wishes = Wishes(
        resample=resample,
        model=model,
        arguments=asked,
        values=values or (),
        trtis=trtis,
        deadline=deadline,
        runner=RunnerChoice.of(runner, namespace, keep=keep),
    )
    identity = job_id(job) if job else _usual_job(first, projections=projections)
    planned = order(where, found.name, found.stages, job_id=identity, root="test-data", wishes=wishes)
    chosen = runner_for(wishes.runner, where.workspace, planned.request)
    install_models(planned.plan, where)
    _make_input(where, identity, first, projections=projections)
    if not chosen.capabilities.follows_links:
        _let_stages_read(planned.plan)
    _judge(carry_out(planned.plan, chosen, as_json=as_json), planned.plan, as_json=as_json)


def _usual_job(first: str, *, projections: bool) -> str:
    if first != "dicom-reader":
        return VOLUME_JOB
    return PROJECTIONS_JOB if projections else SERIES_JOB


def _make_input(where: Places, identity: str, first: str, *, projections: bool) -> None:
    from clara_wf.phantom.job_input import ensure_test_data

    said: set[str] = set()

    def say(_share: float, message: str) -> None:
        if message not in said:
            said.add(message)
            remark(f"test data: {message}")

    ensure_test_data(where.test_data, identity, first, projections=projections, progress=say)


def _let_stages_read(job: Plan) -> None:
    """Let the stages' user read an input that root has made, whatever the umask; nothing of its truth."""
    from clara_wf.phantom.job_input import truth_of

    if os.getuid() or truth_of(job.payload.parent, job.job_id, job.stages[0].name) is None:
        return
    for path in (job.input, *job.input.rglob("*")):
        mode = path.stat().st_mode
        wanted = mode | (0o555 if path.is_dir() else 0o444)
        if mode != wanted:
            path.chmod(stat.S_IMODE(wanted))


def _judge(done: Job, job: Plan, *, as_json: bool) -> None:
    from clara_wf.phantom.job_input import Origin, origin_of

    outcome = None
    origin = origin_of(job.payload.parent, job.job_id, job.stages[0].name)
    if origin is Origin.CHANGED:
        remark(
            f"The input was changed since it was made: nothing was compared. To have it made again, remove {job.input}"
        )
    try:
        raise_if_failed(done, Payload(root=job.payload).logs)
        outcome = gather(job)
        if origin is Origin.OURS:
            outcome = _compared(outcome, job)
        _check(outcome, job)
    except ClaraError as fault:
        if as_json:
            compared = outcome is not None and bool(outcome.comparison)
            print_end(done, outcome, fault, output=None, compared=compared)
        elif outcome is not None:
            show(outcome)
        raise
    if as_json:
        print_end(done, outcome, output=job.output, compared=bool(outcome.comparison))
        return
    show(outcome)
    console = results()
    for preview in outcome.previews[:1]:
        console.print(f"preview: {preview}", markup=False)
    console.print(f"output:  {job.output}", markup=False)
    seconds = f" in {done.wall_s:.1f} s" if done.wall_s is not None else ""
    lack = "nothing was compared" if origin is Origin.CHANGED else "there is no truth to compare with"
    judged = "" if outcome.comparison or not outcome.labelled else f" ({lack})"
    console.print(f"[bold green]passed[/]: {job.workflow}{seconds}{judged}. Not for clinical use.")


def _compared(outcome: Outcome, job: Plan) -> Outcome:
    """Compare what a stage has labelled in a phantom of ours with the truth."""
    if not outcome.labelled:
        return outcome
    from clara_wf.cli.truth import compare

    truth = job.payload / "truth"
    same_grid = all(stage.name != "recon" for stage in job.stages)
    return replace(outcome, comparison=compare(outcome.labelled[0].volume, truth / "liver.mhd", same_grid=same_grid))


def _check(outcome: Outcome, job: Plan) -> None:
    from clara_wf.cli.truth import LIVER_DICE_AT_LEAST, RECONSTRUCTED_DICE_AT_LEAST

    liver = outcome.comparison.get("liver")
    reconstructed = any(stage.name == "recon" for stage in job.stages)
    least = RECONSTRUCTED_DICE_AT_LEAST if reconstructed else LIVER_DICE_AT_LEAST
    if liver is not None and liver["dice"] < least:
        raise StageFailed(
            f"the liver's Dice against the phantom's truth is {liver['dice']:.3f}, less than {least}",
            remedy="See `clara-wf doctor` for this machine's engine and precision",
        )
