"""What Tab offers. A broken chart offers nothing: completion is no place for an error."""

from __future__ import annotations

from clara_wf.chart.catalog import Catalog, read_catalog
from clara_wf.cli.workspace import places
from clara_wf.model.errors import ClaraError


def workflow_names(incomplete: str) -> list[str]:
    """Offer workflows by name and alias."""
    found = [name for workflow in _catalog().workflows for name in (workflow.name, *workflow.aliases)]
    return [name for name in found if name.startswith(incomplete)]


def stage_names(incomplete: str) -> list[str]:
    """Offer stages."""
    return [stage.name for stage in _catalog().stages if stage.name.startswith(incomplete)]


def installed_models(incomplete: str) -> list[str]:
    """Offer the networks of the repository."""
    from clara_wf.inference.repository import list_models

    try:
        models = places().models
    except ClaraError:
        return []
    return [name for name in list_models(models) if name.startswith(incomplete)]


def _catalog() -> Catalog:
    try:
        return read_catalog(places().workspace.chart)
    except ClaraError:
        return Catalog(workflows=(), stages=())
