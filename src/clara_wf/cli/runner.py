"""What runs a job: processes or containers of this machine, or a cluster."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clara_wf.chart.request import JobRequest
from clara_wf.chart.workspace import Workspace
from clara_wf.cli.options import DEFAULT_NAMESPACE, RunnerKind, namespace_for
from clara_wf.cli.terminal import remark
from clara_wf.kserve.address import Address
from clara_wf.model.errors import UsageError
from clara_wf.model.plan import Plan

if TYPE_CHECKING:  # loaded where a cluster is asked for
    from clara_wf.bucket.payload import PayloadStore
    from clara_wf.runners import Runner
    from clara_wf.runners.kubernetes import Cluster


@dataclass(frozen=True, kw_only=True)
class RunnerChoice:
    """Which runner the options ask for."""

    kind: RunnerKind = "process"
    namespace: str = DEFAULT_NAMESPACE  # of the cluster
    keep: bool = False  # leave the release in the cluster

    @staticmethod
    def of(kind: RunnerKind, namespace: str | None, *, keep: bool) -> RunnerChoice:
        """Read the options.

        Raises
        ------
        UsageError
            They do not go together.
        """
        if keep and kind != "kubernetes":
            raise UsageError("--keep is for a release in a cluster", remedy="Add --runner kubernetes, or leave it out")
        return RunnerChoice(kind=kind, namespace=namespace_for(kind, namespace), keep=keep)

    def values(self) -> Mapping[str, Any]:
        """Return the chart's values that follow from the choice."""
        if self.kind != "kubernetes":
            return {}
        # The payload's folders belong to whoever starts the job.
        from clara_wf.runners.sharing import stage_user

        user, group = stage_user()
        return {"podSecurityContext": {"runAsUser": user, "runAsGroup": group}}


def check_server(plan: Plan) -> None:
    """Check that pods can reach the inference server that a plan for a cluster names.

    Raises
    ------
    UsageError
        Its address is none, or means the pod itself.
    """
    for uri in {stage.variable("TRTISURI") for stage in plan.stages} - {""}:
        if _is_loopback(Address.parse(uri).host):
            raise UsageError(
                f"--trtis {uri} means, in a cluster, the pod itself",
                remedy="Name the server's Service, as `clara-wf install_trtis --runner kubernetes` prints it",
            )


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
    return address.is_loopback or address.is_unspecified


def runner_for(choice: RunnerChoice, workspace: Workspace, request: JobRequest) -> Runner:
    """Return the runner that was chosen.

    Raises
    ------
    LackError
        There is no docker and no podman; or no cluster, or it does not answer.
    """
    match choice.kind:
        case "process":
            from clara_wf.runners import ProcessRunner

            return ProcessRunner(code_folders=workspace.code_folders)
        case "container":
            from clara_wf.containers.engine import find_engine
            from clara_wf.runners.container import ContainerRunner

            return ContainerRunner(find_engine())
        case "kubernetes":
            return _cluster_runner(choice, workspace, request)


def _cluster_runner(choice: RunnerChoice, workspace: Workspace, request: JobRequest) -> Runner:
    from clara_wf.chart.release import JobRelease
    from clara_wf.cli.cluster import reach
    from clara_wf.runners.kubernetes import Cluster, KubernetesRunner

    cluster = Cluster(reach(choice.namespace), choice.namespace)
    release = JobRelease(chart=workspace.chart, request=request, namespace=choice.namespace)

    def release_of(plan: Plan) -> JobRelease:
        if plan.storage == "hostPath":
            _warn_of_other_machines(cluster, plan)
        return release

    return KubernetesRunner(cluster, release_of, store_of=_store_of, keep=choice.keep, say=remark)


def _store_of(plan: Plan) -> PayloadStore | None:
    if not plan.store:
        return None
    from clara_wf.bucket.payload import PayloadStore

    return PayloadStore(plan)


def _warn_of_other_machines(cluster: Cluster, plan: Plan) -> None:
    """Say that a folder of this machine is what pods on other machines do not see, unless it is shared with them."""
    addresses = cluster.node_addresses()
    if addresses is None:
        return
    numbers = {address for address in addresses if _is_number(address)}
    own = {address for address in numbers if _is_own(address)}
    if not own and socket.gethostname() not in addresses:
        remark(f"This machine is no node of the cluster: its nodes must share the folder {plan.payload.parent}")
    elif own and own != numbers:
        remark(f"The cluster has other nodes too: they must share the folder {plan.payload.parent}")


def _is_number(address: str) -> bool:
    """Whether an address is no name."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _is_own(address: str) -> bool:
    """Whether an address is one of this machine's own: only those can be listened at."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
