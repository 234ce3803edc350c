"""What the tests' containers run on: Python 3.11 and nothing else."""

from __future__ import annotations

import functools

from clara_wf.containers.engine import Engine

#: Made by ../shared/k8s/cluster image-base; see .ci/start-containers.
REPOSITORY, TAG = "local/python-base", "3.11"
BASE_IMAGE = f"{REPOSITORY}:{TAG}"


@functools.cache
def start_one(engine: Engine, image: str = BASE_IMAGE) -> None:
    """Start a container: a program that answers may lack what that takes, such as cgroups that it can write to.

    Raises
    ------
    EngineFailed
        It cannot, or there is no such image.
    """
    engine.call("run", "--rm", "--pull", "never", "--network", "none", image, "true", timeout=60)
