"""Container images of the stages: build them, save them for a cluster, or write the folder that they are built from."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clara_wf.cli.build_plan import Target, image_names, plan
from clara_wf.cli.complete import workflow_names
from clara_wf.cli.terminal import Json, print_json, remark, results, show
from clara_wf.cli.workspace import home_folder, places
from clara_wf.model.errors import UsageError

if TYPE_CHECKING:  # loaded by the command that needs them
    from clara_wf.containers.engine import Engine
    from clara_wf.containers.images import Built, Image

#: What the images of the built-in stages build on, where no option names another.
BASE_IMAGE = "BASE_IMAGE"
_MEGABYTE = 1e6


def build(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STAGE]...", autocompletion=image_names, help="Stages; also: trtis, transfer."),
    ] = None,
    *,
    workflow: Annotated[
        str | None,
        typer.Option(metavar="NAME", autocompletion=workflow_names, help="The stages of this workflow."),
    ] = None,
    base_image: Annotated[
        str | None,
        typer.Option(envvar=BASE_IMAGE, metavar="IMAGE", help="With Python 3.11 (default: what the Dockerfile names)."),
    ] = None,
    engine: Annotated[
        Literal["docker", "podman"] | None, typer.Option(help="What builds (default: podman, else docker).")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write each image to DIR/STAGE.tar, for a cluster to load.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build also what is here unchanged.")] = False,
    context: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Build nothing: write the folder for `docker build DIR`, of one stage."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the container images of stages (default: of all in the chart)."""
    if base_image is not None and base_image.startswith("-"):
        raise UsageError(f"--base-image {base_image} is no image's name", remedy="Name one: --base-image IMAGE")
    where = places()
    targets = plan(where.workspace, names or (), workflow)
    if context is not None:
        _write_context(targets, context, base_image)
        return
    from clara_wf.containers.engine import find_engine

    found = find_engine(engine)
    built = _build_all(found, targets, base_image, force=force, save=save)
    if as_json:
        print_json([_as_json(target, each) for target, each in built])
    else:
        _print_table(built, save)


def cache_folder() -> Path:
    """Return where installed packages are kept between builds."""
    home = os.environ.get("XDG_CACHE_HOME") or home_folder() / ".cache"
    return Path(home) / "clara-wf" / "images"


def _build_all(
    engine: Engine, targets: list[Target], base_image: str | None, *, force: bool, save: Path | None
) -> list[tuple[Target, Built]]:
    from clara_wf.containers.archive import save_image
    from clara_wf.containers.images import build_image, get_base

    bases: dict[str, Image] = {}
    done: dict[str, Built] = {}
    for target in targets:
        say = _speaker(target)
        base = done[target.base].image if target.base in done else None
        if base is None:
            name = base_image or target.base
            base = bases[name] = bases.get(name) or get_base(engine, name, say=say)
        with _disk_named(cache_folder()):
            built = build_image(
                engine,
                target.recipe,
                target.image,
                base,
                cache_folder(),
                revision=_revision(target.recipe.folder),
                force=force and target.wanted,
                say=say,
            )
        done[target.image] = built
        say(f"{'built' if built.new else 'unchanged'} in {built.seconds:.1f} s")
        if save is not None and target.wanted:
            say(f"saving {save / target.archive}")
            with _disk_named(save):
                save_image(engine, built.image, target.image, save / target.archive)
    return [(target, done[target.image]) for target in targets if target.wanted]


@contextlib.contextmanager
def _disk_named(folder: Path) -> Iterator[None]:
    """Name the folder where a write fails: the system names no file where a disk is full."""
    try:
        yield
    except OSError as exc:
        if exc.filename is None:
            raise OSError(exc.errno, exc.strerror or str(exc), str(folder)) from exc
        raise


def _speaker(target: Target) -> Callable[[str], None]:
    return lambda text: remark(f"{target.name}: {text}")


def _write_context(targets: list[Target], folder: Path, base_image: str | None) -> None:
    wanted = [target for target in targets if target.wanted]
    if len(wanted) != 1:
        raise UsageError("--context is for one stage", remedy="Name it: clara-wf build STAGE --context DIR")
    from clara_wf.containers.context import write_context

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", remedy="Name a new folder")
    from clara_wf.model.files import folder_appearing

    (target,) = wanted
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_appearing(folder) as unfinished:
        write_context(target.recipe, unfinished, cache_folder(), say=_speaker(target))
    # A stage that builds on an image of ours has no other base.
    base = target.base if any(other.image == target.base for other in targets) else base_image or target.base
    show(f"Build it by: docker build --tag {target.image} --build-arg BASE_IMAGE={base} {folder}")


def _revision(folder: Path) -> str | None:
    """Return the commit of the checkout that a recipe lies in, unless code or recipes there differ from it."""
    git, root = shutil.which("git"), folder.parents[1]
    if git is None or not (root / ".git").exists():
        return None
    answers = [
        subprocess.run(
            [git, "-C", root, *command], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "src", "images"))
    ]
    if any(answer.returncode for answer in answers) or answers[1].stdout.strip():
        return None
    return answers[0].stdout.strip()


def _as_json(target: Target, built: Built) -> dict[str, object]:
    return {
        "stage": target.name,
        "image": built.name,
        "id": built.image.id,
        "bytes": built.image.size,
        "built": built.new,
        "seconds": round(built.seconds, 3),
    }


def _print_table(built: list[tuple[Target, Built]], save: Path | None) -> None:
    from rich.table import Table

    table = Table("Image", "Size", "", "Time", box=None, pad_edge=False)
    for _, each in built:
        state = "built" if each.new else "unchanged"
        table.add_row(each.name, f"{each.image.size / _MEGABYTE:.0f} MB", state, f"{each.seconds:.1f} s")
    results().print(table)
    if save is not None:
        show(f"Saved in: {save}")
