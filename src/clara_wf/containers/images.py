"""Building images by docker or podman, and looking at those that are here."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import clara_wf
from clara_wf.containers.context import write_context
from clara_wf.containers.engine import Engine, EngineFailed
from clara_wf.containers.packages import PYTHON, Say
from clara_wf.containers.recipe import DIGEST_LABEL, Recipe
from clara_wf.model.errors import LackError, UsageError

#: How podman stores the name of an image that was built here.
LOCAL = "localhost/"
_LOOK_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image on this machine."""

    name: str  # as its engine finds it without looking elsewhere
    id: str
    size: int  # bytes, uncompressed and with the image that it builds on
    labels: Mapping[str, str]
    tags: tuple[str, ...]  # all its names
    unrecorded: int  # layers that its history does not tell of
    layers: int


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image that is as its recipe wants it."""

    name: str  # repository:tag
    image: Image
    new: bool  # False: it was here already
    seconds: float


def find_image(engine: Engine, name: str) -> Image | None:
    """Look for an image by its name or id.

    Raises
    ------
    EngineFailed
        The engine does not answer.
    """
    try:
        found = json.loads(engine.call("image", "inspect", name, timeout=_LOOK_SECONDS))[0]
    except EngineFailed as fault:
        if fault.is_absent:
            return None
        raise
    tags = found.get("RepoTags") or ()
    # Docker's own answer has no history, and docker does without.
    layers = len((found.get("RootFS") or {}).get("Layers") or ())
    recorded = sum(not step.get("empty_layer") for step in found.get("History") or ()) if "History" in found else layers
    return Image(
        name=next((tag for tag in tags if tag.removeprefix(LOCAL) == name.removeprefix(LOCAL)), name),
        id=found["Id"].removeprefix("sha256:"),
        size=found["Size"],
        labels=found.get("Labels") or (found.get("Config") or {}).get("Labels") or {},
        tags=tuple(tags),
        unrecorded=max(layers - recorded, 0),
        layers=layers,
    )


def get_base(engine: Engine, name: str, *, say: Say = lambda _: None) -> Image:
    """Return the image that others build on; pull it where it is not here.

    Raises
    ------
    LackError
        It is not here and cannot be pulled.
    """
    found = find_image(engine, name)
    if found is None:
        say(f"pulling the base image {name}")
        try:
            engine.call("pull", "--quiet", name)
            found = find_image(engine, name)
        except EngineFailed:
            found = None
    if found is None:
        raise LackError(
            f"the base image {name} is not on this machine and cannot be pulled",
            remedy=f"Load it (`{engine.kind} load -i FILE`), or name one that is here: --base-image",
        )
    return found


def build_image(
    engine: Engine,
    recipe: Recipe,
    name: str,
    base: Image,
    cache: Path,
    *,
    revision: str | None = None,
    force: bool = False,
    say: Say = lambda _: None,
) -> Built:
    """Build an image, unless the one of this name was made of the same.

    Parameters
    ----------
    engine : Engine
        What builds it.
    recipe : Recipe
        What it is made of.
    name : str
        Repository and tag.
    base : Image
        What it builds on.
    cache : Path
        Where installed packages are kept.
    revision : str, optional
        The commit of our code.
    force : bool
        Build it in any case.
    say : callable
        Told in words what is being done.

    Raises
    ------
    LackError
        The packages could not be installed.
    UsageError
        The base image has no Python, or another than the packages are for.
    EngineFailed
        It could not be built.
    """
    started, digest = time.monotonic(), recipe.digest(base.id)
    found = find_image(engine, name)
    if force or found is None or found.labels.get(DIGEST_LABEL) != digest:
        if recipe.packages is not None:
            _check_python(engine, base)
        cache.mkdir(parents=True, exist_ok=True)
        # Beside the packages, which are linked and not copied.
        with tempfile.TemporaryDirectory(prefix=".context-", dir=cache) as folder:
            write_context(recipe, Path(folder), cache, linked=True, say=say)
            say("building")
            labels = {DIGEST_LABEL: digest, **_labels(base, revision)}
            engine.call("build", *(["--no-cache"] if force else []), *_arguments(engine, name, base, labels), folder)
        built = find_image(engine, name)
        if built is None:
            raise EngineFailed(f"{engine.kind} has built {name} but does not find it")
        if found is not None and found.id != built.id:
            _forget(engine, found)
        return Built(name=name, image=built, new=True, seconds=time.monotonic() - started)
    return Built(name=name, image=found, new=False, seconds=time.monotonic() - started)


def _check_python(engine: Engine, base: Image) -> None:
    """Refuse a base image on which the packages could not be loaded, where this machine can run a container to ask."""
    ask = ["run", "--rm", "--network=none", "--entrypoint=python", base.name, "-c", _VERSION]
    try:
        done = subprocess.run(
            [engine.program, *ask],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_LOOK_SECONDS,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    version = done.stdout.strip()
    if done.returncode == _NOT_FOUND and "python" in done.stderr:
        lack = "no Python"
    elif done.returncode >= _NOT_RUN:
        return  # a machine may build containers and not be able to run one
    elif done.returncode:
        lack = "a Python that does not work"
    elif version != PYTHON:
        lack = f"Python {version}"
    else:
        return
    raise UsageError(
        f"the base image {base.name.removeprefix(LOCAL)} has {lack}, and the packages are for {PYTHON}",
        remedy="Name another: --base-image",
    )


#: How docker and podman exit where the program did not run: from 125 on; 127 where it is not in the image.
_NOT_RUN, _NOT_FOUND = 125, 127
#: Prints a Python's version: 3.11.
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


def _labels(base: Image, revision: str | None) -> dict[str, str]:
    """Return what a Dockerfile cannot know of its image, by the names of the OCI's specification."""
    labels = {"version": clara_wf.__version__, "base.name": base.name.removeprefix(LOCAL)}
    if revision is not None:
        labels["revision"] = revision
    return {f"org.opencontainers.image.{key}": value for key, value in labels.items()}


def _forget(engine: Engine, replaced: Image) -> None:
    """Remove an image of ours that has lost its name, unless it has another or a container uses it."""
    left = find_image(engine, replaced.id)
    if left is not None and not left.tags and DIGEST_LABEL in left.labels:
        with contextlib.suppress(EngineFailed):
            engine.call("rmi", left.id)


def _arguments(engine: Engine, name: str, base: Image, labels: Mapping[str, str]) -> list[str]:
    arguments = ["--quiet", "--tag", name, "--build-arg", f"BASE_IMAGE={base.name}"]
    for key, value in labels.items():
        arguments += ["--label", f"{key}={value}"]
    if engine.kind == "podman" and base.unrecorded:
        # It refuses layers on an image whose own are not all in its history, as where an archive was written by hand.
        # It takes one on an image without any history, and does not look where all become one.
        arguments.append("--squash" if base.unrecorded == base.layers else "--squash-all")
    return arguments
