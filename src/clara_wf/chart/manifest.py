"""Rendered text as Kubernetes objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara_wf.chart.strict_yaml import YamlFault, documents
from clara_wf.model.errors import ChartError

# deployment.yaml writes this line before what each stage's file rendered to.
_ORIGIN = re.compile(r"^\s*# from (?P<file>templates/\S+)$")
_HOOK = "helm.sh/hook"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One Kubernetes object."""

    source: str  # the template that it was rendered from, below the chart: templates/volume.yaml
    body: Mapping[str, Any]  # the object

    @property
    def kind(self) -> str:
        """Its kind: Job."""
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.body["metadata"]["name"])

    @property
    def is_hook(self) -> bool:
        """Whether Helm starts it on an occasion (`helm test`) and not with the release."""
        return _HOOK in (self.body["metadata"].get("annotations") or {})


def read_manifests(rendered: Mapping[str, str], chart: Path) -> list[Manifest]:
    """Parse what Helm rendered.

    Parameters
    ----------
    rendered : mapping of str to str
        The text of each template by its path, as `Helm.render` returns it.
    chart : Path
        The chart's folder, for the file names in errors.

    Raises
    ------
    ChartError
        A text is no YAML, or no Kubernetes object.
    """
    manifests = []
    for path, text in sorted(rendered.items()):
        source = path.partition("/")[2]
        if not source.endswith((".yaml", ".yml")):
            continue
        try:
            bodies = documents(text)
        except YamlFault as exc:
            raise _yaml_error(text, exc, chart / source, chart) from exc
        for body in bodies:
            named = isinstance(body, dict) and isinstance(body.get("metadata"), dict) and body["metadata"].get("name")
            if not named or "kind" not in body:
                raise ChartError(f"{chart / source}: renders to something without kind and metadata.name")
            manifests.append(Manifest(source=source, body=body))
    return manifests


def _yaml_error(text: str, fault: YamlFault, source: Path, chart: Path) -> ChartError:
    """Name the stage's own file where the fault lies in what it rendered to."""
    lines = text.splitlines()
    for line in reversed(lines[: fault.line]):
        origin = _ORIGIN.match(line)
        if origin:
            source = chart / origin["file"]
            break
    shown = lines[fault.line - 1].strip() if 0 < fault.line <= len(lines) else ""
    return ChartError(f"{source}: renders to broken YAML: {fault.cause}, near '{shown}'")
