"""Which images to build, and in which order: what another builds on goes before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clara_wf import __version__
from clara_wf.chart.catalog import Catalog, read_catalog, read_values
from clara_wf.chart.workspace import Workspace, shipped_charts
from clara_wf.cli.complete import stage_names
from clara_wf.cli.terminal import remark
from clara_wf.containers.recipe import DOCKERFILE, Recipe, read_recipe
from clara_wf.model.errors import UsageError

#: What the stages of a workspace build on, where their Dockerfile names nothing: it has `clara_wf.stage` and DICOM.
DEFAULT_BASE_STAGE = "dicom-reader"
#: Images that are no stage's: the inference server, and what carries payloads from and to a bucket.
TRTIS, TRANSFER = "trtis", "transfer"
_TRTIS_LOCK = "requirements-trtis.lock"
_IMAGES, _PRUNE = "images", "prune.txt"


@dataclass(frozen=True, kw_only=True)
class Target:
    """An image to build."""

    name: str  # of the stage
    image: str  # repository:tag
    recipe: Recipe
    base: str  # repository:tag of what it builds on, unless an option names another
    wanted: bool = True  # False: another builds on it

    @property
    def archive(self) -> str:
        """The file that it is saved to."""
        return f"{self.name}.tar"


def image_names(incomplete: str) -> list[str]:
    """Offer what can be built, for Tab."""
    return [*stage_names(incomplete), *(name for name in (TRANSFER, TRTIS) if name.startswith(incomplete))]


def plan(workspace: Workspace, names: Sequence[str], workflow: str | None) -> list[Target]:
    """Return what to build, for names, for a workflow, or for all stages of the chart.

    A stage without a recipe has an image of its own, from elsewhere: it is left alone, and said to be.

    Raises
    ------
    UsageError
        There is no such stage or workflow, both are given, or a stage that is named has no recipe.
    RecipeFault
        A recipe is broken.
    """
    catalog = read_catalog(workspace.chart)
    if names and workflow is not None:
        raise UsageError("name stages or --workflow, not both")
    chosen = names or (catalog.workflow(workflow).stages if workflow is not None else [s.name for s in catalog.stages])
    targets: dict[str, Target] = {}
    for name in dict.fromkeys(chosen):
        image = _image(workspace, catalog, name)
        folder = _folder(workspace, name)
        if folder is None:
            if names:
                raise UsageError(
                    f"stage '{name}' has no {_IMAGES}/{name}/{DOCKERFILE}: its image {image} comes from elsewhere",
                    remedy="Write one to build it here",
                )
            remark(f"{name}: its image {image} comes from elsewhere; it is left alone")
            continue
        _add(targets, workspace, catalog, _target(workspace, catalog, name, image, folder))
    return list(targets.values())


def _add(targets: dict[str, Target], workspace: Workspace, catalog: Catalog, target: Target) -> None:
    """Add an image after the one of ours that it builds on; one that was not asked for stays so marked."""
    known = targets.get(target.image)
    if known is not None:
        targets[target.image] = replace(known, wanted=known.wanted or target.wanted)
        return
    below = _below(workspace, catalog, target)
    if below is not None:
        _add(targets, workspace, catalog, replace(below, wanted=False))
    targets[target.image] = target


def _below(workspace: Workspace, catalog: Catalog, target: Target) -> Target | None:
    """Return the image of ours that another builds on, where it does."""
    names = [stage.name for stage in catalog.stages if stage.image == target.base]
    # The chart may call it something else, or have no such stage any more.
    names += [folder.name for folder in _shipped_images().iterdir() if _usual_image(folder.name) == target.base]
    for name in names:
        folder = _folder(workspace, name)
        if folder is not None and name != target.name:
            return _target(workspace, catalog, name, target.base, folder)
    return None


def _target(workspace: Workspace, catalog: Catalog, name: str, image: str, folder: Path) -> Target:
    lock = shipped_charts().parent / _TRTIS_LOCK if name == TRTIS else None
    recipe = read_recipe(folder, common=_shipped_images() / _PRUNE, lock=lock)
    base = recipe.base or _image(workspace, catalog, DEFAULT_BASE_STAGE)
    return Target(name=name, image=image, recipe=recipe, base=base)


def _image(workspace: Workspace, catalog: Catalog, name: str) -> str:
    """Return an image's name: a stage's as the chart has it."""
    if name == TRTIS and not _is_stage(catalog, name):
        return _usual_image(TRTIS)
    if name == TRANSFER and not _is_stage(catalog, name):
        return _transfer_image(workspace)
    return catalog.stage(name).image


def _is_stage(catalog: Catalog, name: str) -> bool:
    return name in {stage.name for stage in catalog.stages}


def _transfer_image(workspace: Workspace) -> str:
    """Return the image as the chart has it; a chart that was copied earlier may know none."""
    found: object = read_values(workspace.chart)
    for key in ("workflow", "payloads", "bucket", "image"):
        found = found.get(key) if isinstance(found, dict) else None
    if isinstance(found, dict) and found.get("repository") and found.get("tag"):
        return f"{found['repository']}:{found['tag']}"
    return _usual_image(TRANSFER)


def _usual_image(name: str) -> str:
    """Return the name that an image has in the chart as it comes with the program."""
    return f"clara-wf/{name}:{__version__}"


def _folder(workspace: Workspace, name: str) -> Path | None:
    """Return the folder of a recipe: the workspace's own, or what came with the program."""
    candidates: Iterable[Path] = (workspace.images, _shipped_images())
    return next((images / name for images in candidates if (images / name / DOCKERFILE).is_file()), None)


def _shipped_images() -> Path:
    """Return the folder of the recipes that came with the program."""
    return shipped_charts().parent / _IMAGES
