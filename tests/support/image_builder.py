"""Building images of the checkout for tests, and running them as the strictest cluster would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara_wf.cli.build import cache_folder
from clara_wf.containers.engine import Engine
from clara_wf.containers.images import Built, Image, build_image
from clara_wf.containers.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[2]
#: Apart from a person's own images.
REPOSITORY = "clara-wf-test"


@dataclass(frozen=True, kw_only=True)
class Builder:
    """An engine, and what it builds on."""

    engine: Engine
    base: Image

    def build(self, stage: str) -> Built:
        """Build the image of a stage."""
        recipe = read_recipe(ROOT / "images" / stage, common=ROOT / "images/prune.txt")
        return self.build_recipe(recipe, f"{REPOSITORY}/{stage}:0.1.0")

    def build_recipe(self, recipe: Recipe, name: str, base: Image | None = None, **options: Any) -> Built:
        """Build a recipe."""
        return build_image(self.engine, recipe, name, base or self.base, cache_folder(), **options)

    def run(self, image: Image, *command: str, folders: dict[Path, str] | None = None, user: int = 54321) -> str:
        """Run a command in an image: no network, nothing for writing but the folders and /tmp, no rights."""
        arguments = ["run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=all"]
        arguments += ["--security-opt=no-new-privileges", f"--user={user}:{user}"]
        for folder, place in (folders or {}).items():
            arguments += ["--volume", f"{folder}:{place}"]
        return self.engine.call(*arguments, image.name, *command, timeout=120)
