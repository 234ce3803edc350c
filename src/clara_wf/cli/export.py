"""`export`: a job as a file for other programs: `kubectl`, or Argo Workflows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from clara_wf import __version__
from clara_wf.chart.argo import SERVICE_ACCOUNT, argo_workflow, token_secret
from clara_wf.chart.catalog import read_catalog, read_values
from clara_wf.chart.manifest import Manifest
from clara_wf.chart.plan import read_plan
from clara_wf.chart.render import job_values, render
from clara_wf.chart.request import JobRequest, merge
from clara_wf.chart.text import to_yaml
from clara_wf.cli.carry_out import new_job_id
from clara_wf.cli.options import DEFAULT_NAMESPACE, NamespaceOption, SetOption, TrtisOption, set_values
from clara_wf.cli.runner import check_server
from clara_wf.cli.terminal import remark, visible
from clara_wf.cli.workflows import WorkflowArgument
from clara_wf.cli.workspace import places
from clara_wf.model.errors import ChartError, UsageError
from clara_wf.model.files import write_atomically
from clara_wf.model.payload import job_id as checked_job_id
from clara_wf.model.plan import Plan

app = typer.Typer(no_args_is_help=True, help="Write a job as a file for kubectl or for Argo Workflows.")

JobIdOption = Annotated[
    str | None, typer.Option("--job-id", metavar="UUID", help="The job's id (default: a new one). Never use one twice.")
]
PayloadsOption = Annotated[
    str | None,
    typer.Option(
        "--payloads", metavar="DIR", help="Folder on the node that holds one folder a job (default: the chart's)."
    ),
]
ModelsOption = Annotated[
    str | None, typer.Option("--models", metavar="DIR", help="Model repository on the node (default: the chart's).")
]
KubernetesOption = Annotated[
    str,
    typer.Option("--kubernetes", metavar="VERSION", help="The cluster's version, such as 1.20.2 (default: a new one)."),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write (default: standard output).")
]

#: No object of an export was made by Helm, nor is Helm to look after it.
_MANAGER = "app.kubernetes.io/managed-by"
#: The oldest that knows every field which the chart renders by default.
_NEW_KUBERNETES = "1.29"


@dataclass(frozen=True, kw_only=True)
class _Wishes:
    """What the options of both commands ask for."""

    workflow: str  # name, alias or UUID
    job_id: str | None  # UUID; None: a new one
    payloads: str | None  # folder of the node; None: the chart's
    models: str | None  # folder of the node; None: the chart's
    trtis: str  # address of the inference server; empty: what the chart says
    values: Sequence[str]  # KEY=VALUE
    namespace: str  # where the objects go
    kubernetes: str  # version; empty: a new one


@dataclass(frozen=True, kw_only=True)
class _Export:
    """A job, rendered."""

    plan: Plan  # the same as text for a runner
    objects: tuple[Manifest, ...]  # in the order in which they are to be applied, without those of `helm test`
    namespace: str  # where they go
    user: tuple[Any, Any]  # of the pod: user and group
    kubernetes: str  # the version that it was rendered for; empty: a new one


@app.command("manifests")
def manifests(
    workflow: WorkflowArgument,
    *,
    job_id: JobIdOption = None,
    payloads: PayloadsOption = None,
    models: ModelsOption = None,
    trtis: TrtisOption = "",
    values: SetOption = None,
    namespace: NamespaceOption = None,
    kubernetes: KubernetesOption = "",
    output: OutputOption = None,
) -> None:
    """Write a job as plain objects of Kubernetes, for `kubectl apply`."""
    wishes = _Wishes(
        workflow=workflow,
        job_id=job_id,
        payloads=payloads,
        models=models,
        trtis=trtis,
        values=values or (),
        namespace=namespace or DEFAULT_NAMESPACE,
        kubernetes=kubernetes,
    )
    export = _export(wishes)
    name = next(found.name for found in export.objects if found.kind == "Job")
    heading = [
        f"Workflow '{export.plan.workflow}' as a Job of Kubernetes, by clara-wf {__version__}. Not for clinical use.",
        _about_kubernetes(export),
        *_about_payload(export),
        f"Apply it:    kubectl apply -f {_quoted(output)}",
        f"Follow it:   kubectl --namespace {export.namespace} get job {name} --watch",
    ]
    _write(to_yaml([found.body for found in export.objects], heading=heading), output)


@app.command("argo")
def argo(
    workflow: WorkflowArgument,
    *,
    job_id: JobIdOption = None,
    payloads: PayloadsOption = None,
    models: ModelsOption = None,
    trtis: TrtisOption = "",
    values: SetOption = None,
    namespace: NamespaceOption = None,
    kubernetes: KubernetesOption = "",
    service_account: Annotated[
        str, typer.Option("--service-account", metavar="NAME", help="Of Argo's own container in each pod.")
    ] = SERVICE_ACCOUNT,
    output: OutputOption = None,
) -> None:
    """Write a job as an Argo Workflow, a pod a stage."""
    wishes = _Wishes(
        workflow=workflow,
        job_id=job_id,
        payloads=payloads,
        models=models,
        trtis=trtis,
        values=values or (),
        namespace=namespace or DEFAULT_NAMESPACE,
        kubernetes=kubernetes,
    )
    export = _export(wishes)
    found = argo_workflow(export.objects, service_account=service_account)
    token = token_secret(service_account, export.namespace)
    heading = [
        f"Workflow '{export.plan.workflow}' for Argo Workflows, by clara-wf {__version__}. Not for clinical use.",
        _about_kubernetes(export),
        *_about_payload(export),
        "Each stage is a pod: all must reach the payload. A folder of a node is reached on that node alone.",
        f"Service account '{service_account}' must be there, and be allowed to create and patch workflowtaskresults.",
        f"Argo mounts its token from the Secret {token['metadata']['name']}, which Kubernetes makes by itself",
        "before 1.24 only: it is part of this file. Jobs with that account share it: leave it when you remove one.",
        f"Apply it:    kubectl apply -f {_quoted(output)}",
        f"Follow it:   argo --namespace {export.namespace} watch {found['metadata']['name']}",
    ]
    others = [manifest.body for manifest in export.objects if manifest.kind != "Job"]
    _write(to_yaml([*others, token, found], heading=heading), output)


def _export(wishes: _Wishes) -> _Export:
    """Render a job, and see to it that it is one."""
    chart = places().workspace.chart
    name = read_catalog(chart).workflow(wishes.workflow).name
    own = read_values(chart)
    identity = new_job_id() if wishes.job_id is None else checked_job_id(wishes.job_id)
    request = JobRequest(
        workflow=name,
        job_id=identity,
        job_name=f"{name}-{identity[:8]}",
        payloads=_folder("--payloads", wishes.payloads or own["workflow"]["payloads"]["hostPath"]),
        models=_folder("--models", wishes.models or own["models"]["hostPath"]),
        trtis_uri=wishes.trtis,
        extra=merge({"kubeVersion": wishes.kubernetes} if wishes.kubernetes else {}, set_values(wishes.values)),
    )
    rendered = render(chart, request.release, job_values(chart, request), namespace=wishes.namespace)
    plan = read_plan(rendered, chart)
    check_server(plan)
    objects = [
        replace(manifest, body=_owned(manifest.body, f"{chart / manifest.source}: {manifest.kind} {manifest.name}"))
        for manifest in rendered
        if not manifest.is_hook
    ]
    # What is claimed is made before who claims it.
    objects.sort(key=lambda manifest: (manifest.kind == "Job", manifest.kind != "PersistentVolume", manifest.kind))
    job = objects[-1]
    template = _owned(job.body["spec"]["template"], f"{chart / job.source}: spec.template")
    objects[-1] = replace(job, body={**job.body, "spec": {**job.body["spec"], "template": template}})
    context = template["spec"].get("securityContext") or {}
    return _Export(
        plan=plan,
        objects=tuple(objects),
        namespace=wishes.namespace,
        user=(context.get("runAsUser"), context.get("runAsGroup")),
        kubernetes=str(request.extra.get("kubeVersion") or own["kubeVersion"]),
    )


def _owned(body: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return an object whose labels say who looks after it; one of a chart of one's own may have none before."""
    metadata = body.get("metadata") or {}
    labels = (metadata.get("labels") or {}) if isinstance(metadata, dict) else None
    if not isinstance(labels, dict):
        raise ChartError(f"{where}: metadata.labels is no mapping")
    return {**body, "metadata": {**metadata, "labels": {**labels, _MANAGER: "clara-wf"}}}


def _folder(option: str, text: str) -> Path:
    if not PurePosixPath(text).is_absolute():
        raise UsageError(f"{option} {text} is a folder of the cluster's node, and not absolute")
    return Path(text)


def _about_kubernetes(export: _Export) -> str:
    """Say which clusters take it: an older one refuses or forgets fields that it does not know."""
    if export.kubernetes:
        return f"For Kubernetes {export.kubernetes} or newer."
    return f"For Kubernetes {_NEW_KUBERNETES} or newer: --kubernetes VERSION makes it for an older one."


def _quoted(output: Path | None) -> str:
    """Return the file as a shell takes it, in one line."""
    return "-" if output is None else shlex.quote(visible(str(output)).replace("\n", "\\n"))


def _about_payload(export: _Export) -> list[str]:
    """Say where the input has to be before the job starts, and whose the folders have to be."""
    plan = export.plan
    folder = plan.input.relative_to(plan.payload)
    claim = next((found.name for found in export.objects if found.kind == "PersistentVolumeClaim"), "")
    first = plan.stages[0]
    input_lock = "" if first.variable("RUNSIMPLE") == "TRUE" else first.variable("INPUTLOCK").rpartition("/")[2]
    match plan.storage:
        case "bucket":
            lines = [f"Its input must lie in {plan.store}/{folder} before."]
        case "storageClass":
            lines = [f"Its input must be put into {folder} of the claim {claim}."]
        case "existingClaim":
            lines = [f"Its input must lie in {plan.job_id}/{folder} of the claim before."]
        case _:
            lines = [f"Its input must lie in {plan.payload}/{folder} of the node before."]
    if plan.storage in {"hostPath", "existingClaim"}:
        folders = {mount.host for stage in plan.stages for mount in stage.mounts}
        inside = sorted(str(path.relative_to(plan.payload)) for path in folders if path.is_relative_to(plan.payload))
        lines += [f"These folders beside it must be there, and user {export.user[0]} must be able to write to them:"]
        lines += [f"  {path}" for path in inside if path != str(folder)]
    if input_lock:
        lines.append(f"The first stage starts when locks/{input_lock} is there too.")
    return lines


def _write(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, text)
    remark(f"written: {output}")
