"""An engine and a base image to build with; where one is missing, the tests that need it are skipped."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest
from base_image import BASE_IMAGE as TEST_BASE
from base_image import start_one
from image_builder import Builder

from clara_wf.cli.build import BASE_IMAGE
from clara_wf.containers.engine import Engine, EngineFailed, find_engine
from clara_wf.containers.images import Built, find_image
from clara_wf.model.errors import LackError


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Docker or podman."""
    try:
        return find_engine()
    except LackError as fault:
        pytest.skip(str(fault))


@pytest.fixture(scope="session")
def builder(engine: Engine) -> Builder:
    """What builds on the base image of the tests, or on the one that BASE_IMAGE names."""
    name = os.environ.get(BASE_IMAGE) or TEST_BASE
    base = find_image(engine, name)
    if base is None:
        pytest.skip(f'the base image {name} is not on this machine: eval "$(sh .ci/start-containers)"')
    try:
        start_one(engine, name)
    except EngineFailed as fault:
        pytest.skip(f"no containers: {fault}")
    return Builder(engine=engine, base=base)


@pytest.fixture
def forget(engine: Engine) -> Iterator[Callable[[str], None]]:
    """Name images that are removed after the test."""
    names: list[str] = []
    yield names.append
    for name in names:
        with contextlib.suppress(EngineFailed):
            engine.call("rmi", "--force", name)


@pytest.fixture(scope="session")
def reader(builder: Builder) -> Built:
    """The image of dicom-reader."""
    return builder.build("dicom-reader")


@pytest.fixture(scope="session")
def writer(builder: Builder) -> Built:
    """The image of dicom-writer."""
    return builder.build("dicom-writer")
