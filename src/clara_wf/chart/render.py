"""A job request, rendered by Helm and read as a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clara_wf.chart.catalog import read_catalog
from clara_wf.chart.helm import Helm, Values, find_helm
from clara_wf.chart.manifest import Manifest, read_manifests
from clara_wf.chart.plan import read_plan
from clara_wf.chart.request import JobRequest, merge
from clara_wf.model.errors import UsageError
from clara_wf.model.plan import Plan


def render(
    chart: Path, release: str, values: Values, *, namespace: str = "default", helm: Helm | None = None
) -> list[Manifest]:
    """Render a chart to Kubernetes objects, without a cluster.

    Raises
    ------
    ChartError
        The chart or the values are wrong; the message names the file and the cause.
    HelmMissing
        There is no Helm.
    """
    return read_manifests((helm or find_helm()).render(chart, release, values, namespace=namespace), chart)


def job_values(chart: Path, request: JobRequest) -> dict[str, Any]:
    """Return the values of a job, the further options of its stages put behind the workflow's own arguments.

    The workflow's name takes the place of its alias or UUID.

    Raises
    ------
    UsageError
        There is no such workflow, or options are given to a stage that is not in it.
    ChartError
        `values.yaml` cannot be read.
    """
    workflow = read_catalog(chart).workflow(request.workflow)
    values = merge(request.values(), {"workflow": {"id": workflow.name}})
    strange = sorted(set(request.options) - set(workflow.stages))
    if strange:
        raise UsageError(
            f"workflow '{workflow.name}' has no stage '{strange[0]}'", remedy=f"It has {', '.join(workflow.stages)}."
        )
    if request.options:
        # Helm replaces lists as a whole: the workflow's own arguments have to be said again.
        pairs = zip(workflow.stages, workflow.args, strict=False)
        args = [[*own, *request.options.get(stage, ())] for stage, own in pairs]
        values = merge({"workflows": {workflow.name: {"args": args}}}, values)
    return values


def plan_job(chart: Path, request: JobRequest, *, helm: Helm | None = None) -> Plan:
    """Render a job and read its plan.

    Parameters
    ----------
    chart : Path
        Folder of the chart `clara-workflow`.
    request : JobRequest
        What to run, on which payload.
    helm : Helm, optional
        The backend; None finds one.

    Raises
    ------
    UsageError
        There is no such workflow or stage.
    ChartError
        The chart or the values are wrong, or the Job needs something that a plan cannot say.
    HelmMissing
        There is no Helm.
    """
    values = job_values(chart, request)
    return read_plan(render(chart, request.release, values, helm=helm), chart)
