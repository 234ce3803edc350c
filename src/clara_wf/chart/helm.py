"""Helm behind one small protocol: the SDK in this process, or the program `helm`.

Neither uses ``--set``: values go over as JSON, where ``"007"`` is a string and stays one.

The SDK brings Go's runtime into the process. Starting programs by `subprocess` stays safe, since nothing of ours runs
between fork and exec as long as ``preexec_fn`` is not used; `os.fork` and `multiprocessing`'s "fork" are not, because
Go's threads do not survive into the child. docs/decisions/0002 has the measurements.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from clara_wf.chart.faults import explain
from clara_wf.model.errors import ChartError, HelmMissing

if TYPE_CHECKING:
    import types

Values: TypeAlias = Mapping[str, Any]

#: Which backend: "sdk", "program", or a path of the program. Unset: the SDK, else the program.
CHOICE = "CLARA_WF_HELM"

_SOURCE = re.compile(r"^---\n# Source: (?P<path>.+)\n", re.MULTILINE)


class Helm(Protocol):
    """What the product needs of Helm."""

    @property
    def name(self) -> str:
        """What `clara-wf doctor` calls it, with its version."""
        ...

    def render(self, chart: Path, release: str, values: Values, *, namespace: str = "default") -> dict[str, str]:
        """Render a chart without a cluster.

        Parameters
        ----------
        chart : Path
            Folder of the chart.
        release : str
            Name of the release, a DNS label of at most 53 characters.
        values : Mapping
            Nested values that override the chart's own.
        namespace : str
            What the templates see as the release's namespace.

        Returns
        -------
        dict of str to str
            The text of each template that renders to something, by its path, which begins with the chart's name.

        Raises
        ------
        ChartError
            The chart or the values are wrong; the message names the file and the cause.
        """
        ...

    def lint(self, chart: Path, values: Values) -> list[str]:
        """Return what Helm's own linter calls a warning or an error, one line each; empty if all is well."""
        ...

    def install(
        self,
        release: str,
        chart: Path,
        values: Values,
        *,
        namespace: str = "default",
        timeout: float | None = None,
        renew: bool = True,
    ) -> None:
        """Install a release into the cluster, or bring an installed one up to date.

        The namespace has to be there: who may use one may not always make one.
        With a `timeout` in seconds it waits until Deployments are available. Jobs are never waited for. Without `renew`
        an installed one is refused: a Job cannot be brought up to date.

        Raises
        ------
        ChartError
            The chart or the values are wrong, or the cluster refused them or cannot be reached.
        """
        ...

    def uninstall(self, release: str, *, namespace: str = "default") -> bool:
        """Remove a release from the cluster; False if there was none."""
        ...


class SdkHelm:
    """Helm's Go SDK as a shared library in this process, by the wheel `helm-python-sdk`."""

    def __init__(self) -> None:
        try:
            # 0.17 s, which only commands that render should pay for.
            import helm_python
        except ImportError as exc:
            raise HelmMissing(
                f"the package helm-python-sdk is not usable: {exc}",
                remedy="Install it by `pip install helm-python-sdk`, or put the program `helm` on the PATH.",
            ) from exc
        self._sdk: types.ModuleType = helm_python

    @property
    def name(self) -> str:
        """The SDK's version."""
        return f"helm-python-sdk {self._sdk.__version__} (Helm {self._sdk.helm_sdk_version()})"

    def render(self, chart: Path, release: str, values: Values, *, namespace: str = "default") -> dict[str, str]:
        """Render a chart: see `Helm.render`."""
        try:
            self._sdk.validate_release_name(release)
            with self._sdk.Chart.load(chart) as loaded:
                rendered: dict[str, str] = loaded.render(dict(values), name=release, namespace=namespace)
        except self._sdk.HelmError as exc:
            raise explain(str(exc), chart) from exc
        return {path: text for path, text in rendered.items() if text.strip()}

    def lint(self, chart: Path, values: Values) -> list[str]:
        """Lint a chart: see `Helm.lint`."""
        try:
            report = self._sdk.lint(chart, dict(values), strict=True)
        except self._sdk.HelmError as exc:
            raise explain(str(exc), chart) from exc
        # 1 is a hint, such as that an icon is recommended.
        said = [f"{found['path']}: {found['error']}" for found in report["messages"] if found["severity"] > 1]
        return said or [str(error) for error in report["errors"]]

    def install(
        self,
        release: str,
        chart: Path,
        values: Values,
        *,
        namespace: str = "default",
        timeout: float | None = None,
        renew: bool = True,
    ) -> None:
        """Install or upgrade a release: see `Helm.install`."""
        options: dict[str, Any] = {"namespace": namespace}
        if timeout is not None:
            options |= {"wait": "watcher", "timeout": max(1, round(timeout))}
        try:
            with self._cluster(namespace) as cluster, self._sdk.Chart.load(chart) as loaded:
                known = {found["name"] for found in cluster.list(all_states=True)} if renew else set()
                if release in known:
                    # The values given now are all: Helm would else take up those of a failed attempt again.
                    cluster.upgrade(loaded, release, dict(values), reset_values=True, **options)
                else:
                    cluster.install(loaded, release, dict(values), **options)
        except self._sdk.HelmError as exc:
            raise explain(str(exc), chart) from exc

    def uninstall(self, release: str, *, namespace: str = "default") -> bool:
        """Remove a release: see `Helm.uninstall`."""
        try:
            with self._cluster(namespace) as cluster:
                cluster.uninstall(release)
        except self._sdk.HelmNotFoundError:
            return False
        except self._sdk.HelmError as exc:
            raise ChartError(f"release '{release}' cannot be removed: {exc}") from exc
        return True

    def _cluster(self, namespace: str) -> Any:  # noqa: ANN401 - the SDK's Config
        """Return a connection; Go has copied the environment when it was loaded, so KUBECONFIG is handed over."""
        config = os.environ.get("KUBECONFIG") or None
        # A list of files is for Go to merge.
        path = None if config is None or os.pathsep in config else config
        return self._sdk.Config(namespace=namespace, kubeconfig_path=path)


class ProgramHelm:
    """The program `helm`, version 3 or 4."""

    def __init__(self, program: str = "helm") -> None:
        found = shutil.which(program)
        if found is None:
            raise HelmMissing(f"the program '{program}' is not on the PATH", remedy="Install Helm 3 or 4.")
        self._program = found

    @property
    def name(self) -> str:
        """The program's path and version."""
        return f"{self._program} {self._run(['version', '--short'], Path()).strip()}"

    def render(self, chart: Path, release: str, values: Values, *, namespace: str = "default") -> dict[str, str]:
        """Render a chart: see `Helm.render`."""
        # --debug prints what was rendered even where it is no YAML; our own reading names the stage at fault better.
        command = ["template", release, str(chart), "--namespace", namespace, "--debug"]
        stream = self._run(command, chart, values=values, accept="YAML parse error")
        rendered: dict[str, str] = {}
        pieces = _SOURCE.split("\n" + stream)[1:]
        for path, text in zip(pieces[::2], pieces[1::2], strict=True):
            rendered[path] = f"{rendered[path]}---\n{text}" if path in rendered else text
        return rendered

    def lint(self, chart: Path, values: Values) -> list[str]:
        """Lint a chart: see `Helm.lint`."""
        said = self._run(["lint", str(chart), "--strict"], chart, values=values, accept="chart(s) failed")
        return [line for line in said.splitlines() if line.startswith(("[WARNING]", "[ERROR]"))]

    def install(
        self,
        release: str,
        chart: Path,
        values: Values,
        *,
        namespace: str = "default",
        timeout: float | None = None,
        renew: bool = True,
    ) -> None:
        """Install or upgrade a release: see `Helm.install`."""
        command = ["upgrade", "--install", "--reset-values"] if renew else ["install"]
        command += [release, str(chart)]
        command += ["--namespace", namespace]
        if timeout is not None:
            command += ["--wait", "--timeout", f"{max(1, round(timeout))}s"]
        self._run(command, chart, values=values)

    def uninstall(self, release: str, *, namespace: str = "default") -> bool:
        """Remove a release: see `Helm.uninstall`."""
        said = self._run(["uninstall", release, "--namespace", namespace], Path(), accept="not found")
        return "not found" not in said

    def _run(self, arguments: list[str], chart: Path, *, values: Values | None = None, accept: str = "") -> str:
        """Return standard output; a failure that says `accept` is answered with all that was said."""
        with tempfile.TemporaryDirectory(prefix="clara-wf-") as folder:
            command = [self._program, *arguments]
            if values is not None:
                file = Path(folder) / "values.json"  # JSON is YAML
                file.write_text(json.dumps(values))
                command += ["--values", str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        if accept and accept in done.stdout + done.stderr:
            return done.stdout + done.stderr
        errors = [line for line in done.stderr.splitlines() if line.strip() and not _is_noise(line)]
        raise explain("\n".join(errors) or f"`helm {arguments[0]}` exited {done.returncode}", chart)


def _is_noise(line: str) -> bool:
    """Tell debug lines and hints from the error itself."""
    return line.startswith(("WARNING:", "Use --debug")) or "[debug]" in line or "level=DEBUG" in line


def find_helm(choice: str | None = None) -> Helm:
    """Return the backend that `choice`, or else the variable CLARA_WF_HELM, names.

    Parameters
    ----------
    choice : str, optional
        "sdk", "program" or a path of the program. None and unset: the SDK if it loads, else the program.

    Raises
    ------
    HelmMissing
        The backend asked for is not there; or neither is.
    """
    wanted = choice or os.environ.get(CHOICE, "")
    if wanted == "sdk":
        return SdkHelm()
    if wanted:
        return ProgramHelm("helm" if wanted == "program" else wanted)
    try:
        return SdkHelm()
    except HelmMissing as exc:
        try:
            return ProgramHelm()
        except HelmMissing:
            raise exc from None
