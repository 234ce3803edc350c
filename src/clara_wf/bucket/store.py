"""A folder of a bucket, its errors as ours, and patience with a server that is busy."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import botocore.exceptions  # type: ignore[import-untyped]
import fsspec  # type: ignore[import-untyped]
from fsspec.exceptions import FSTimeoutError  # type: ignore[import-untyped]

from clara_wf.model.errors import InputError, LackError, UsageError

Result = TypeVar("Result")

#: Pauses before the second try and so on: a server that is started anew is waited for, a wrong address is told soon.
PAUSES = (0.5, 2.0, 5.0, 15.0)
#: Part of a large object. With all that moves at once this bounds the memory: see `transfer.AT_ONCE`.
PART_BYTES = 16 * 2**20
#: Parts of one object that move at once.
_PARTS_AT_ONCE = 4

_S3 = {"s3", "s3a"}
# The disk's own faults, which have no file name either where a write fails.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}
# What s3fs makes of InternalError, SlowDown and ServiceUnavailable; and a connection that was cut.
_PASSING = {errno.EREMOTEIO, errno.EBUSY, errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT}
_ANSWERS_LATE = (
    ConnectionError,
    TimeoutError,
    FSTimeoutError,
    botocore.exceptions.ConnectionError,
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.IncompleteReadError,
    aiohttp.ClientError,  # a connection that breaks within an object
)
_NO_KEYS = (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError)


@dataclass(frozen=True, kw_only=True)
class Store:
    """A folder of a bucket, opened."""

    url: str  # s3://bucket/prefix, without a slash at its end; it holds no keys
    files: Any  # fsspec's file system
    root: str  # the folder's path in it

    @property
    def is_s3(self) -> bool:
        """Whether options of s3fs are understood."""
        return self.url.partition(":")[0] in _S3

    @property
    def is_folder_here(self) -> bool:
        """Whether it is a folder of this machine, where a file does not appear whole by itself."""
        return "file" in self.files.protocol

    def path(self, relative: str) -> str:
        """Return the path of an object below the folder."""
        return f"{self.root}/{relative}"

    def ask(self, what: Callable[[], Result]) -> Result:
        """Do something with the store, again after a pause where that can help.

        Raises
        ------
        LackError
            The store does not answer, or refuses these keys.
        InputError
            There is no such bucket or object, or the store refuses the request.
        OSError
            The disk of this machine is at fault.
        """
        for pause in (*PAUSES, None):
            try:
                return what()
            except (OSError, botocore.exceptions.BotoCoreError, aiohttp.ClientError) as exc:
                if pause is None or not _is_passing(exc):
                    raise self._explained(exc) from exc
                time.sleep(pause)
        raise AssertionError  # the last round returns or raises

    def _explained(self, fault: Exception) -> Exception:
        """Say what the store said, without the object's name, which many of its messages quote."""
        match fault:
            case FileNotFoundError() if fault.filename is None:
                return InputError(f"{self.url}: there is no such bucket or object")
            case OSError() if fault.filename is not None or fault.errno in _OF_THE_DISK:
                return fault
            case PermissionError():
                return LackError(
                    f"{self.url}: the store refuses these keys", remedy="Check the keys, and what they may do there."
                )
            case _ if isinstance(fault, _NO_KEYS):
                return LackError(
                    f"{self.url}: there are no keys for the store",
                    remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; in the chart: bucket.secretName.",
                )
            case _ if _is_passing(fault):
                return LackError(f"{self.url}: the store does not answer", remedy="Is the endpoint right, and up?")
            case _:
                return InputError(f"{self.url}: the store refuses the request ({type(fault).__name__})")


def _is_passing(fault: Exception) -> bool:
    return isinstance(fault, _ANSWERS_LATE) or (isinstance(fault, OSError) and fault.errno in _PASSING)


def open_store(url: str, endpoint: str = "") -> Store:
    """Open a folder of a bucket. Nothing is asked yet.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``, or any other kind that fsspec knows.
    endpoint : str, optional
        ``http://host:port`` of an S3 server that is not AWS.

    Raises
    ------
    UsageError
        The URL or the endpoint is wrong. Neither is repeated where it may hold keys.
    LackError
        The package that speaks to this kind of store is not installed.
    """
    kind = _checked(url, endpoint)
    # A store may be written by others: what was seen once is not taken for granted.
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if kind in _S3:
        options |= _s3_options(endpoint)
    try:
        files, root = fsspec.url_to_fs(url, **options)
    except ImportError as exc:
        raise LackError(f"nothing here speaks to {kind}://", remedy=f"Install fsspec's package for {kind}.") from exc
    except ValueError as exc:
        raise UsageError(f"the store's URL begins with {kind}://, which is no kind of store") from exc
    return Store(url=url.rstrip("/"), files=files, root=root.rstrip("/"))


def _checked(url: str, endpoint: str) -> str:
    """Return the kind of the store, s3."""
    kind, separator, rest = url.partition("://")
    if not separator or not kind or not rest:
        raise UsageError("the store's URL is not of the form s3://bucket/prefix")
    if any("@" in text or "?" in text for text in (rest.partition("/")[0], endpoint)):
        raise UsageError("keys do not belong into a URL", remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    if endpoint:
        if kind not in _S3:
            raise UsageError(f"an endpoint is for s3://, not for {kind}://")
        if urlsplit(endpoint).scheme not in {"http", "https"}:
            raise UsageError("the store's endpoint is not of the form http://host:port")
    return kind


def _s3_options(endpoint: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "connect_timeout": 10,
        "read_timeout": 60,
        "retries": {"total_max_attempts": 2, "mode": "standard"},  # of one part; see PAUSES
    }
    options: dict[str, Any] = {"default_block_size": PART_BYTES, "max_concurrency": _PARTS_AT_ONCE}
    if endpoint:
        # The checksums that AWS added in 2025 are an error to many a server that speaks S3.
        config |= {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
        options["endpoint_url"] = endpoint
    return options | {"config_kwargs": config}
