"""Where a job runs: processes or containers of this machine, or a cluster."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clara_wf.chart.request import JobRequest, merge
from clara_wf.cli.terminal import remark
from clara_wf.kserve.address import Address
from clara_wf.model.errors import UsageError
from clara_wf.model.plan import Plan

if TYPE_CHECKING:
    from lightkube import Client

    from clara_wf.runners import Runner

Kind = Literal["process", "container", "kubernetes"]

RunnerOption = Annotated[
    Kind,
    typer.Option(
        "--runner",
        help="What runs the stages: processes of this machine, containers (podman or docker), or the cluster that "
        "KUBECONFIG names.",
    ),
]
NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace of the cluster (default: default).")
]

_NAMESPACE = "default"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job is to run, as the options say."""

    kind: Kind = "process"
    namespace: str = _NAMESPACE
    keep: bool = False  # leave the release in the cluster

    @staticmethod
    def of(kind: Kind, namespace: str | None, *, keep: bool = False) -> Place:
        """Read the options.

        Raises
        ------
        UsageError
            They do not go together.
        """
        if namespace is not None and kind != "kubernetes":
            raise UsageError("--namespace is for a cluster", remedy="Add --runner kubernetes, or leave it out")
        return Place(kind=kind, namespace=namespace or _NAMESPACE, keep=keep)

    @property
    def follows_links(self) -> bool:
        """Whether a stage sees what a link in the payload leads to."""
        return self.kind == "process"

    def values(self, trtis: str) -> Mapping[str, Any]:
        """Return the chart's values that follow from the place.

        Raises
        ------
        UsageError
            The inference server cannot be reached from there.
        """
        if self.kind != "kubernetes":
            return {}
        if trtis and Address.parse(trtis).host in {"localhost", "127.0.0.1", "::1"}:
            raise UsageError(
                f"--trtis {trtis} means, in a cluster, the pod itself",
                remedy="Name the server's Service, as `clara-wf install_trtis --runner kubernetes` prints it",
            )
        # The payload's folders belong to whoever starts the job.
        from clara_wf.runners.sharing import stage_user

        user, group = stage_user()
        return {"podSecurityContext": {"runAsUser": user, "runAsGroup": group}}


def runner_for(place: Place, chart: Path, request: JobRequest, code_folders: Mapping[str, Path]) -> Runner:
    """Return the runner for a place.

    Raises
    ------
    LackError
        There is no docker and no podman; or no cluster, or it does not answer.
    """
    match place.kind:
        case "process":
            from clara_wf.runners import ProcessRunner

            return ProcessRunner(code_folders=code_folders)
        case "container":
            from clara_wf.containers.engine import find_engine
            from clara_wf.runners.container import ContainerRunner

            return ContainerRunner(find_engine())
        case "kubernetes":
            return _cluster_runner(place, chart, request)


def _cluster_runner(place: Place, chart: Path, request: JobRequest) -> Runner:
    from clara_wf.chart.release import JobRelease
    from clara_wf.cli.cluster import reach
    from clara_wf.runners.kubernetes import Cluster, KubernetesRunner

    client = reach(place.namespace)
    release = JobRelease(chart=chart, request=request, namespace=place.namespace)

    def release_of(plan: Plan) -> JobRelease:
        if plan.storage == "hostPath":
            _warn_of_other_machines(client, plan)
        return release

    return KubernetesRunner(Cluster(client, place.namespace), release_of, store_of=_store_of, keep=place.keep)


def _store_of(plan: Plan) -> BucketStore | None:
    return BucketStore(plan) if plan.store else None


class BucketStore:
    """Carries a payload through a bucket."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def send(self) -> None:
        """Send the input."""
        from clara_wf.bucket import send

        folder = self._plan.input
        send(folder, f"{self._plan.store}/{folder.relative_to(self._plan.payload)}", self._plan.store_endpoint)

    def fetch(self) -> None:
        """Fetch what the stages left."""
        from clara_wf.bucket import fetch

        own_input = str(self._plan.input.relative_to(self._plan.payload))
        fetch(self._plan.store, self._plan.payload, self._plan.store_endpoint, skip=[own_input])

    def remove(self) -> None:
        """Remove the job's folder of the bucket."""
        from clara_wf.bucket import remove

        remove(self._plan.store, self._plan.store_endpoint)


def _warn_of_other_machines(client: Client, plan: Plan) -> None:
    """Say that a folder of this machine is what pods on other machines do not see, unless it is shared with them."""
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.core_v1 import Node

    try:
        nodes = list(client.list(Node))
    except ApiError:  # not everybody may list nodes
        return
    addresses = {
        address.address for node in nodes if node.status is not None for address in node.status.addresses or []
    }
    here = any(address in {socket.gethostname(), "127.0.0.1"} or _is_local(address) for address in addresses)
    if not here:
        remark(f"This machine is no node of the cluster: its nodes must share the folder {plan.payload.parent}")
    elif len(nodes) > 1:
        remark(f"The cluster has {len(nodes)} nodes: they must share the folder {plan.payload.parent}")


def _is_local(address: str) -> bool:
    """Whether an address is one of this machine's own: only those can be listened at."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def with_values(request_extra: Mapping[str, Any], place: Place, trtis: str) -> dict[str, Any]:
    """Lay what the user sets over what follows from the place."""
    return merge(place.values(trtis), request_extra)
