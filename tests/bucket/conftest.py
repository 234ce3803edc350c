"""A bucket on a real S3 server, and its keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from s3_server import KEY_ID, SECRET, Bucket, empty_bucket, running_server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Its endpoint."""
    with running_server() as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys in the environment, and no others."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bucket(s3_server: str) -> Iterator[Bucket]:
    """A bucket, empty."""
    with empty_bucket(s3_server) as made:
        yield made
