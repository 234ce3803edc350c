"""Where an inference server is: ``host:port``, ``http://host:port`` or ``grpc://host:port``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from clara_wf.model.errors import UsageError

Protocol = Literal["http", "grpc"]
#: As DNS has it: no empty part, none longer than 63, 253 in all; a cluster's names may end in a dot.
_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
#: How much of what is no address is repeated.
_SHOWN = 80
_FORM = re.compile(
    r"(?:(?P<protocol>http|grpc)://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})/?"
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """A server's address, as a user wrote it."""

    host: str  # a name, or a number without brackets
    port: int
    protocol: Protocol | None = None  # None: found out by trying

    @staticmethod
    def parse(text: str) -> Address:
        """Read an address.

        Raises
        ------
        UsageError
            It is none.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None or not 0 < int(found["port"]) < 65536 or not _is_host(found["host"]):
            raise UsageError(
                f"{_repeated(text)!r} is no address of an inference server",
                remedy="Write host:port, http://host:port or grpc://host:port",
            )
        protocol: Protocol | None = None
        if found["protocol"]:
            protocol = "grpc" if found["protocol"] == "grpc" else "http"
        return Address(host=found["host"].strip("[]"), port=int(found["port"]), protocol=protocol)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_host(text: str) -> bool:
    """Say whether it can be a host's name or number."""
    if not text.startswith("["):
        return _NAME.fullmatch(text) is not None
    try:
        ipaddress.IPv6Address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _repeated(text: str) -> str:
    """Return what a user wrote: not all of what is too long, and no name and password."""
    shown = re.sub(r"^(\w+://)?.*@", r"\1...@", text.strip(), flags=re.DOTALL)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
