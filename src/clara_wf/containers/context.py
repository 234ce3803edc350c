"""The folder that docker or podman builds an image from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from clara_wf.containers.packages import SOURCE, Say, compile_modules, prepare_packages, settle
from clara_wf.containers.recipe import DOCKERFILE, PACKAGES_PART, SOURCE_PART, Recipe


def write_context(
    recipe: Recipe, folder: Path, cache: Path, *, linked: bool = False, say: Say = lambda _: None
) -> None:
    """Write a recipe's Dockerfile and all that it copies into an empty folder.

    Parameters
    ----------
    recipe : Recipe
        What is to be built.
    folder : Path
        Where; it is there, and empty.
    cache : Path
        Where installed packages are kept.
    linked : bool
        The packages are the cache's own files: nobody may change them. For a folder that is gone again at once.
    say : callable
        Told in words what is being done.

    Raises
    ------
    LackError
        The packages could not be installed.
    OSError
        The folder cannot be written, or the disk is full.
    """
    if recipe.packages is not None:
        packages = prepare_packages(recipe.packages, cache, say=say)
        copy = _link_or_copy if linked else shutil.copy2
        shutil.copytree(packages, folder / PACKAGES_PART, symlinks=True, copy_function=copy)
    if recipe.source:
        _copy(recipe.source, folder / SOURCE_PART)
        compile_modules(folder / SOURCE_PART, SOURCE)
    _copy(recipe.own, folder)
    (folder / DOCKERFILE).write_text(recipe.dockerfile, encoding="utf-8")
    for entry in folder.iterdir():
        if entry.name != PACKAGES_PART:  # they are settled in the cache, and may be its own files
            settle(entry)


def _copy(files: Mapping[str, Path], folder: Path) -> None:
    for place, file in files.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)  # with the right to run it


def _link_or_copy(source: str, target: str) -> str:
    """Give a file a second name, or copy it where the file system cannot."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
    return target
