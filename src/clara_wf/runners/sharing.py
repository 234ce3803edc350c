"""Folders of the payload for stages that run as another user than whoever starts them."""

from __future__ import annotations

import os

from clara_wf.model.plan import Plan
from clara_wf.runners.workspace import is_ours

#: Who a stage is in a container where root starts it: no stage runs as that.
NOBODY = 10001


def stage_user() -> tuple[int, int]:
    """Return the user and the group that stages run as: the caller's own, and in place of root's `NOBODY`."""
    return (os.getuid(), os.getgid()) if os.getuid() else (NOBODY, NOBODY)


def share_folders(plan: Plan) -> None:
    """Create what the stages mount of the payload, and give them what they write to; never the job's own input.

    Raises
    ------
    OSError
        The payload cannot be written.
    """
    user, group = stage_user()
    for stage in plan.stages:
        for mount in stage.mounts:
            if mount.host.is_relative_to(plan.payload):
                mount.host.mkdir(parents=True, exist_ok=True)
                if os.getuid() == 0 and not mount.read_only and is_ours(plan, mount.host):
                    os.chown(mount.host, user, group)
