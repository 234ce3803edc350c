"""`run`: a workflow on a person's own data."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
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
from clara_wf.cli.outcome import SUMMARIES, gather, show
from clara_wf.cli.runner import RunnerChoice, runner_for
from clara_wf.cli.terminal import Json, remark, results
from clara_wf.cli.workflows import WorkflowArgument
from clara_wf.cli.workspace import places
from clara_wf.model.errors import JobCanceled, JobError, LackError, UsageError
from clara_wf.model.files import UNFINISHED, fsync
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
    _check_output(source, output, force=force)
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
        with staged_in(source.absolute(), job.plan, link=chosen.capabilities.follows_links):
            done = carry_out(job.plan, chosen, as_json=as_json)
    except KeyboardInterrupt as exc:  # once it runs, the runner takes Ctrl-C
        raise JobCanceled("the job was canceled before it started") from exc
    _deliver(done, job.plan, output, as_json=as_json, force=force, keep=keep)


def _check_input(source: Path) -> None:
    if not source.exists():
        raise UsageError(f"there is no {source}", remedy="Name a folder or a file by --input")
    if not os.access(source, os.R_OK):
        raise UsageError(f"{source} may not be read", remedy="Ask its owner, or copy it")
    if not (source.is_dir() or source.is_file()):
        raise UsageError(f"{source} is neither a folder nor a file", remedy="Name one by --input")


def _check_output(source: Path, output: Path, *, force: bool) -> None:
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file", remedy="Name a folder by --output")
    if output.is_mount():
        raise UsageError(f"{output} is a mount point", remedy="Name a folder in it: a result appears by one rename")
    if output.is_dir() and any(output.iterdir()):
        if not (output / "job.json").is_file():
            raise UsageError(f"{output} is not empty", remedy="Name a new folder by --output")
        if not force:
            raise UsageError(f"{output} holds an earlier result", remedy="Name a new folder, or replace it by --force")
    true_source = source.resolve()
    if source.is_dir() and output.is_relative_to(true_source):
        raise UsageError(
            f"{output} lies within the input", remedy="Put it beside: the next run would read its own result"
        )
    if true_source.is_relative_to(output):
        raise UsageError(f"{source} lies within the output", remedy="Put it beside: a result replaces the whole folder")
    above = next(folder for folder in output.parents if folder.exists())
    if not os.access(above, os.W_OK):
        raise UsageError(f"{above} may not be written to", remedy="Name another folder by --output")


def _deliver(done: Job, job: Plan, output: Path, *, as_json: bool, force: bool, keep: bool) -> None:
    try:
        raise_if_failed(done, Payload(root=job.payload).logs)
    except (JobError, LackError) as fault:
        if not keep:
            _remove_images(job)
        if as_json:
            print_end(done, None, fault, output=None)
        raise
    _stage_out(job, output, force=force)
    outcome = gather(job)
    if as_json:
        print_end(done, outcome, output=output)
    else:
        show(outcome)
        _show_files(output, done)
    if keep:
        remark(f"payload: {job.payload}")
    else:
        shutil.rmtree(job.payload)


def _remove_images(job: Plan) -> None:
    """Leave of a failed job what tells why (logs, locks, summaries), and nothing of a patient."""
    payload = Payload(root=job.payload)
    kept = {payload.logs, payload.locks}
    for folder in (path for path in job.payload.iterdir() if path.is_dir() and path not in kept):
        # Links lead to the user's own files: never followed, only removed.
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # something that is kept lies in it
                    path.rmdir()
            elif path.name not in SUMMARIES or path.is_relative_to(job.input):
                path.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()


def _stage_out(job: Plan, output: Path, *, force: bool) -> None:
    """Put the result and the job's record where the user wants them: all of it, or nothing."""
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.parent / f"{UNFINISHED}{uuid.uuid4().hex}"
    try:
        # The payload may lie on another disk, and it is still read below: a copy.
        _copy_tree(job.output, unfinished)
        shutil.copyfile(Payload(root=job.payload).job, unfinished / "job.json")
        for path in unfinished.rglob("*"):
            fsync(path)
        if force and output.exists():
            _replace(output, unfinished)
        else:
            unfinished.rename(output)  # an empty folder gives way
        fsync(output.parent)
    except BaseException as fault:
        shutil.rmtree(unfinished, ignore_errors=True)
        remark(f"the result stays in the payload: {job.output}")
        if isinstance(fault, OSError):  # which may name the file that was read, on a disk with nothing wrong
            raise OSError(fault.errno, fault.strerror, str(output)) from fault
        raise


def _replace(output: Path, new: Path) -> None:
    """Put a folder in the place of another, which is removed only when that is done."""
    old = output.rename(output.parent / f"{UNFINISHED}{uuid.uuid4().hex}")
    try:
        new.rename(output)
    except BaseException:
        old.rename(output)
        raise
    shutil.rmtree(old)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a folder and stop at the first error: `shutil.copytree` goes on, and then tells all of them in one list."""
    target.mkdir()
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            _copy_tree(entry, target / entry.name)
        else:
            shutil.copy2(entry, target / entry.name)


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
