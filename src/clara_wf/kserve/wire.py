"""What a stage says to an inference server and hears from it, over any protocol: KServe v2 with Triton's extensions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clara_wf.inference.engine import EngineError
from clara_wf.kserve.address import Address
from clara_wf.kserve.shared_memory import Region
from clara_wf.model.errors import LackError

Floats = NDArray[np.float32]
#: Bytes that a message may hold. Protobuf ends at 2 GiB; over HTTP, Triton 2.51 counts no further, and 4 GiB end it.
LIMIT = 2**31 - 2**20
#: Seconds for a question that needs no computing.
PATIENCE = 10.0
#: How a server says that it does not know what it knew: it has been started anew.
_FORGOTTEN = re.compile(
    r"unable to find shared memory region|unknown model|is not ready|no available versions", re.IGNORECASE
)
#: How it says that the process that computes a model was killed. It takes the model for ready all the same.
_DEAD = re.compile(r"stub process .* is not healthy", re.IGNORECASE)
#: What its words mean for who runs it.
_REMEDIES = (
    (
        re.compile(
            r"shm-size|shared memory pool|(initialize|increase|grow)\b.*shared memory|no space left", re.IGNORECASE
        ),
        "Make /dev/shm larger on the server's machine (in a container: --shm-size), and start the server again",
    ),
    (
        re.compile(r"failed to open directory|failed to poll from model repository", re.IGNORECASE),
        "Is the server's folder of models still there? Start it again: clara-wf install_trtis",
    ),
    (re.compile(r"failed to stat file", re.IGNORECASE), "Remove the link that leads nowhere from its folder of models"),
)
#: How it says that the memory for an answer does not hold it.
_TOO_SMALL = re.compile(r"bytes\) should be at least \d+ bytes", re.IGNORECASE)
#: A path on the server's machine, which is nobody's business here: its last part tells as much.
_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/'\":,;]+/)+(?=[^\s/])")


class ServerGone(LackError):
    """There is no connection to the server, or not any more."""

    retriable = True


class ServerSilent(LackError):
    """The server does not answer in time."""

    retriable = True


def silent(address: Address, seconds: float) -> ServerSilent:
    """Make the error for a server that does not answer."""
    return ServerSilent(
        f"the inference server {address} did not answer within {seconds:g} s",
        remedy="See whether it is at work; --trtis-timeout gives it longer",
    )


class ForeignServer(LackError):
    """Something else listens there."""


class ServerFault(EngineError):
    """The server answers that it cannot; the message ends in its words."""


class ServerForgot(ServerFault):
    """The server does not know a model or a region of memory, as after a restart."""


class ModelDied(ServerFault):
    """The process that computes a model has ended; the server starts one when it loads a model that it had given up."""


class TargetTooSmall(ServerFault):
    """The answer is larger than the memory that it was to go to."""


def words(reason: str) -> str:
    """Return what a server says in one line: without paths, and without a trace of Python's."""
    first = _PATH.sub("", reason.split("\n\nAt:", maxsplit=1)[0])
    return " ".join(first.split()).rstrip(".; ") or "no reason given"


def server_fault(reason: str) -> ServerFault:
    """Make the error for what a server answers."""
    text = words(reason)
    remedy = next((remedy for pattern, remedy in _REMEDIES if pattern.search(text)), None)
    kinds = ((_DEAD, ModelDied), (_FORGOTTEN, ServerForgot), (_TOO_SMALL, TargetTooSmall))
    kind = next((kind for pattern, kind in kinds if pattern.search(text)), ServerFault)
    return kind(f"the inference server answers: {text}", remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class TensorType:
    """An input or output of a model."""

    name: str
    datatype: str  # FP32, BYTES, ...
    shape: tuple[int, ...]  # with the batch first; -1: any length


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What a server says of a model."""

    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    max_batch_size: int  # 0: the shapes say it
    backend: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """A line of a server's list of models."""

    name: str
    version: str  # empty: none was ever loaded
    state: str  # READY, UNAVAILABLE, LOADING, UNLOADING; empty: never loaded
    reason: str  # for which it is unavailable


@dataclass(frozen=True, kw_only=True)
class Question:
    """A window for a model."""

    model: str
    version: str
    input: str  # its name
    windows: Floats  # contiguous
    source: Region | None  # where the windows lie already; None: they are sent
    output: str  # its name
    target: Region | None  # where the answer goes; None: it is sent
    remark: str  # a further output, of text; empty: none


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model says."""

    datatype: str
    shape: tuple[int, ...]
    scores: Floats | None  # flat; None: they are in the target
    remark: str  # empty: none


class Wire(Protocol):
    """A connection to a server; takes itself up again after `close`.

    Every method raises `ServerGone`, `ServerSilent`, `ForeignServer`, or `ServerFault` with the server's words.
    """

    name: str  # HTTP or gRPC

    def version(self, patience: float = PATIENCE) -> str:
        """Return the server's version."""

    def index(self) -> list[IndexEntry]:
        """Return all models of the server's repository."""

    def ready(self, name: str, version: str) -> bool:
        """Say whether a version of a model is ready, also where the server cannot list what it has."""

    def model(self, name: str, version: str) -> ServedModel:
        """Describe a model that is ready."""

    def load(self, name: str, patience: float) -> None:
        """Have a model loaded, or loaded again."""

    def unload(self, name: str) -> None:
        """Have a model given up; what it works on is done first."""

    def register(self, region: Region) -> None:
        """Tell the server of a region."""

    def unregister(self, name: str) -> None:
        """Let the server forget a region."""

    def regions(self) -> Mapping[str, str]:
        """Return the keys of the regions that the server knows, by name."""

    def infer(self, question: Question, patience: float) -> Answer:
        """Ask a model."""

    def close(self) -> None:
        """Let go of the connection."""
