"""Container paths, where a stage is no container.

Below `<payload>/.app/<stage>/`, which stands for APPDIR, a symbolic link stands for every mount that the manifest puts
below APPDIR. Any other mount is named by its folder on the host. The variables, the command and the arguments of the
stage are translated accordingly, so that a stage is told only paths that are there.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path, PurePosixPath

from clara_wf.model.errors import ChartError
from clara_wf.model.plan import PREFIX, Plan, StagePlan

#: Holds the folder of every stage; hidden, since nothing in it is a result.
APP_FOLDERS = ".app"


def app_dir(stage: StagePlan) -> PurePosixPath:
    """Return APPDIR as the stage's container would see it."""
    return PurePosixPath(stage.variable("APPDIR") or "/app")


def contract_path(stage: StagePlan, *variables: str) -> Path:
    """Return the path on the host of a file or folder of the contract: the variables' values, joined below APPDIR.

    Raises
    ------
    ChartError
        A variable is not set, or no mount holds the path.
    """
    values = [stage.variable(name) for name in variables]
    if not values[-1]:
        raise ChartError(f"stage {stage.name} has no {PREFIX}{variables[-1]}")
    found = stage.host_path(str(app_dir(stage).joinpath(*values)))
    if found is None:
        raise ChartError(f"stage {stage.name}: no mount holds {PREFIX}{variables[-1]}={values[-1]}")
    return found


def lock_path(stage: StagePlan) -> Path:
    """Return the lock that the stage leaves."""
    return contract_path(stage, "LOCKDIR", "LOCKNAME")


def output_folder(stage: StagePlan) -> Path:
    """Return the folder of OUTPUTS, also where that names a file.

    A link inside a mounted folder may be a stage's own, and is no folder.
    """
    found = contract_path(stage, "OUTPUTS")
    is_folder = planted_link(stage, found) is None and os.path.isdir(found)  # noqa: PTH112 - never raises
    return found if is_folder or not found.suffix else found.parent


def planted_link(stage: StagePlan, path: Path) -> Path | None:
    """Return the first link on the way from a mounted folder to a path in it: a stage may have put it there.

    Links on the way to a mounted folder, and in its own place, are those of whoever laid out the payload.
    """
    hosts = [mount.host for mount in stage.mounts if path.is_relative_to(mount.host)]
    place = max(hosts, key=lambda host: len(host.parts), default=path)
    for part in path.relative_to(place).parts:
        place /= part
        if os.path.islink(place):  # noqa: PTH114 - never raises
            return place
    return None


class StagePaths:
    """One stage's paths on this machine.

    Raises
    ------
    ChartError
        The mounts cannot be laid out without a container.
    """

    def __init__(self, plan: Plan, stage: StagePlan) -> None:
        self.root = plan.payload / APP_FOLDERS / stage.name
        self.links: dict[Path, Path] = {}
        app = app_dir(stage)
        targets = {str(app): str(self.root)}
        for mount in sorted(stage.mounts, key=lambda mount: len(PurePosixPath(mount.path).parts)):
            path = PurePosixPath(mount.path)
            if not path.is_relative_to(app):
                targets[str(path)] = str(mount.host)
                continue
            link = self.root / path.relative_to(app)
            if link == self.root or any(parent in self.links for parent in link.parents):
                raise ChartError(
                    f"stage {stage.name} mounts {mount.path} over or inside another folder of its own",
                    remedy="Only a container can do that",
                )
            self.links[link] = mount.host
        self._targets = targets
        # The longest first, and whole names only: /app is neither in /application nor in http://host/app.
        names = "|".join(re.escape(name) for name in sorted(targets, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![\w./~-])({names})(?![\w.-])")

    def translate(self, text: str) -> str:
        """Replace every container path in a variable, a program or an argument by the path on this machine."""
        return self._pattern.sub(lambda match: self._targets[match[1]], text)

    def lay_out(self, payload: Path) -> None:
        """Create the links, and those mounted folders that lie in the payload.

        Raises
        ------
        OSError
            The payload cannot be written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for link, host in self.links.items():
            if host.is_relative_to(payload):
                host.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(host)
