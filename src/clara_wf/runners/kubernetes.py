"""The Kubernetes runner: the chart is installed into a cluster, and what becomes of its Job is watched."""

from __future__ import annotations

from collections.abc import Callable

from clara_wf.model.plan import Plan
from clara_wf.runners.cluster import Cluster
from clara_wf.runners.cluster_patience import ClusterLimits
from clara_wf.runners.cluster_run import KubernetesRun
from clara_wf.runners.limits import Limits
from clara_wf.runners.release import Release, Store
from clara_wf.runners.runner import Capabilities

__all__ = ["Cluster", "ClusterLimits", "KubernetesRun", "KubernetesRunner", "Release", "Store"]


class KubernetesRunner:
    """Carries out plans in a cluster.

    Parameters
    ----------
    cluster : Cluster
        Where.
    release_of : callable
        Gives the release that carries out a plan.
    store_of : callable
        Gives what carries a plan's payload; None where the pods see the same folder as this program.
    keep : bool
        Leave the release in the cluster when the job has ended.
    say : callable
        Told in words what is waited for before the run starts.
    limits : Limits, optional
        How much of a stage's output is kept, and how patient the runner is with stages.
    cluster_limits : ClusterLimits, optional
        How patient it is with the cluster.
    """

    capabilities = Capabilities(ends_stages=True, follows_links=False)

    def __init__(
        self,
        cluster: Cluster,
        release_of: Callable[[Plan], Release],
        *,
        store_of: Callable[[Plan], Store | None] = lambda _: None,
        keep: bool = False,
        say: Callable[[str], None] = lambda _: None,
        limits: Limits | None = None,
        cluster_limits: ClusterLimits | None = None,
    ) -> None:
        self._cluster = cluster
        self._release_of = release_of
        self._store_of = store_of
        self._keep = keep
        self._say = say
        self._limits = limits or Limits()
        self._cluster_limits = cluster_limits or ClusterLimits()

    def run(self, plan: Plan) -> KubernetesRun:
        """Give the run of a plan, which has not started yet."""
        return KubernetesRun(
            plan,
            self._cluster,
            self._release_of(plan),
            self._store_of(plan),
            keep=self._keep,
            say=self._say,
            limits=self._limits,
            patience=self._cluster_limits,
        )
