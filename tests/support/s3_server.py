"""A real S3 server on this machine, and its one bucket as another client sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

KEY_ID = "id-of-the-key"
SECRET = "secret-of-the-key"
BUCKET = "payloads"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """The bucket `payloads`."""

    endpoint: str  # http://127.0.0.1:port

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}"

    @property
    def objects(self) -> dict[str, bytes]:
        """All that lies in it, by key."""
        return {key: self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in self._keys()}

    def put(self, key: str, content: bytes = b"x") -> None:
        self._client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def delete(self) -> None:
        for key in self._keys():
            self._client.delete_object(Bucket=BUCKET, Key=key)
        self._client.delete_bucket(Bucket=BUCKET)

    def _keys(self) -> list[str]:
        return [found["Key"] for found in self._client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    @property
    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
        )


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """Run a server; give its endpoint."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def empty_bucket(endpoint: str) -> Iterator[Bucket]:
    """Make the bucket, and remove it afterwards with all that it holds."""
    bucket = Bucket(endpoint=endpoint)
    bucket._client.create_bucket(Bucket=BUCKET)
    yield bucket
    bucket.delete()
