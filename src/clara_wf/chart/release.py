"""One job as a Helm release: what the Kubernetes runner installs and removes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clara_wf.chart.helm import Helm, find_helm
from clara_wf.chart.render import job_values
from clara_wf.chart.request import JobRequest


@dataclass(frozen=True, kw_only=True)
class JobRelease:
    """A job, to be installed into a cluster from the very chart and values that its plan was read from."""

    chart: Path  # folder of the chart `clara-workflow`
    request: JobRequest  # what the job is
    namespace: str  # where
    helm: Helm | None = None  # the backend; None finds one

    def install(self) -> None:
        """Install the release; one of the same name is refused.

        Raises
        ------
        ChartError
            The chart or the values are wrong, the name is taken, or the cluster refuses or cannot be reached.
        HelmMissing
            There is no Helm.
        """
        values = job_values(self.chart, self.request)
        self._helm.install(self.request.release, self.chart, values, namespace=self.namespace, renew=False)

    def uninstall(self) -> bool:
        """Remove the release; False if there was none.

        Raises
        ------
        ChartError
            The cluster refuses or cannot be reached.
        """
        return self._helm.uninstall(self.request.release, namespace=self.namespace)

    @property
    def _helm(self) -> Helm:
        return self.helm or find_helm()
