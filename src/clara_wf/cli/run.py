"""`run`: a workflow on a person's own data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from clara_wf.chart.catalog import read_catalog
from clara_wf.cli.carry_out import (
    Wishes,
    carry_out,
    install_models,
    new_job_id,
    order,
    print_end,
    raise_if_failed,
)
from clara_wf.cli.delivery import (
    check_output,
    deliver,
    remove_images,
    remove_payload,
)
from clara_wf.cli.job_input import staged_in
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
from clara_wf.cli.outcome import gather, show
from clara_wf.cli.runner import RunnerChoice, runner_for
from clara_wf.cli.terminal import Json, remark, results
from clara_wf.cli.workflows import WorkflowArgument
from clara_wf.cli.workspace import places
from clara_wf.model.errors import JobCanceled, JobError, LackError, UsageError
from clara_wf.model.job import Job
from clara_wf.model.payload import Payload, job_id
from clara_wf.model.plan import Plan

#: A derived series has an image a slice: the first of them are named.
_SHOWN_FILES = 20


def run(
    workflow: WorkflowArgument,
    *,
    source: Annotated[
        Path, typer.Option("--input", "-i", metavar="PATH", help="Folder (of any depth) or file to work on.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="New or empty folder for the result.")],
    model: ModelOption = None,
    resample: ResampleOption = False,
    arguments: ArgOption = None,
    values: SetOption = None,
    trtis: TrtisOption = "",
    deadline: DeadlineOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result in the output folder.")] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep the payload (what every stage read and wrote), and a cluster's release."),
    ] = False,
    runner: RunnerOption = "process",
    namespace: NamespaceOption = None,
    identity: Annotated[
        str | None,
        typer.Option(
            "--job",
            metavar="ID",
            help="UUID of the job (default: a new one). In a cluster, the same command with it finds the job again.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a workflow on your own data: DICOM in, DICOM SEG, report and preview out."""
    wishes = Wishes(
        resample=resample,
        model=model,
        arguments=arguments or (),
        values=values or (),
        trtis=trtis,
        deadline=deadline,
        runner=RunnerChoice.of(runner, namespace, keep=keep and runner == "kubernetes"),
    )
    where = places()
    found = read_catalog(where.workspace.chart).workflow(workflow)
    # Where a link leads to: what is replaced is the folder, not the link.
    output = output.resolve()
    _check_input(source)
    if any(output.is_relative_to(folder.resolve()) for folder in (where.payloads, where.test_data)):
        raise UsageError(f"{output} lies among the payloads of jobs", remedy="Name another folder by --output")
    check_output(source, output, force=force)
    wanted = job_id(identity) if identity else new_job_id()
    job = order(where, found.name, found.stages, job_id=wanted, root="payloads", wishes=wishes)
    if job.plan.payload.exists() and runner != "kubernetes":
        raise UsageError(f"there is a payload of job {wanted} already", remedy="Give yours another id by --job")
    chosen = runner_for(wishes.runner, where.workspace, job.request)
    install_models(job.plan, where)
    if runner == "kubernetes":
        found_by = f"the same command with --job {wanted} finds it again"
        remark(f"job {wanted} in namespace {wishes.runner.namespace}: {found_by}")
    try:
        with staged_in(
            source.absolute(), job.plan, link=chosen.capabilities.follows_links, outlived=runner == "kubernetes"
        ):
            done = carry_out(job.plan, chosen, as_json=as_json)
    except KeyboardInterrupt as exc:  # once it runs, the runner takes Ctrl-C
        raise JobCanceled("the job was canceled before it started") from exc
    _end(done, job.plan, output, as_json=as_json, force=force, keep=keep)


def _check_input(source: Path) -> None:
    if not source.exists():
        raise UsageError(f"there is no {source}", remedy="Name a folder or a file by --input")
    if not os.access(source, os.R_OK):
        raise UsageError(f"{source} may not be read", remedy="Ask its owner, or copy it")
    if not (source.is_dir() or source.is_file()):
        raise UsageError(f"{source} is neither a folder nor a file", remedy="Name one by --input")


def _end(done: Job, job: Plan, output: Path, *, as_json: bool, force: bool, keep: bool) -> None:
    try:
        raise_if_failed(done, Payload(root=job.payload).logs)
    except (JobError, LackError) as fault:
        if not keep:
            remove_images(job)
        if as_json:
            print_end(done, None, fault, output=None)
        raise
    deliver(job, output, force=force)
    try:
        outcome = gather(job)
    finally:
        # Before anything is printed: whoever reads it may have gone.
        if not keep:
            remove_payload(job)
    if as_json:
        print_end(done, outcome, output=output)
    else:
        show(outcome)
        _show_files(output, done)
    if keep:
        remark(f"payload: {job.payload}")


def _show_files(output: Path, job: Job) -> None:
    console = results()
    console.print(f"result: {output}", markup=False)
    files = sorted(path for path in output.rglob("*") if path.is_file())
    for file in files[:_SHOWN_FILES]:
        console.print(f"  {file.relative_to(output)}  {_size(file.stat().st_size)}", markup=False)
    if len(files) > _SHOWN_FILES:
        console.print(f"  and {len(files) - _SHOWN_FILES} more files", markup=False)
    if job.wall_s is not None:
        console.print(f"{job.wall_s:.1f} s. Not for clinical use.")


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"
