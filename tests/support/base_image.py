"""What the tests' containers run on: Python 3.11 and nothing else."""

from __future__ import annotations

#: Made by ../shared/k8s/cluster image-base; see .ci/start-containers.
REPOSITORY, TAG = "local/python-base", "3.11"
BASE_IMAGE = f"{REPOSITORY}:{TAG}"
