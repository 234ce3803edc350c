"""An inference server's network: one more `Network`, whose windows are computed elsewhere.

Repeating is safe, so a server that goes away in mid-inference is waited for, told again what it should know, and asked
once more; so is a model whose process at the server was killed. Any other answer is never asked for again.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clara_wf.inference.engine import EngineError
from clara_wf.inference.reader import IntTriple
from clara_wf.inference.repository import InstalledModel
from clara_wf.kserve.address import Address
from clara_wf.kserve.served_memory import ServedMemory
from clara_wf.kserve.served_model import Served, settle
from clara_wf.kserve.wire import (
    LIMIT,
    PATIENCE,
    Answer,
    ForeignServer,
    ModelDied,
    Question,
    ServerFault,
    ServerForgot,
    ServerGone,
    ServerSilent,
    TargetTooSmall,
    Wire,
)
from clara_wf.model.errors import LackError

Floats = NDArray[np.float32]
#: Seconds between two looks at a server that is not there.
_INTERVAL = 1.0
#: Seconds for the first look: whoever waits is told soon what for.
_FIRST_LOOK = 2.0
#: So often in a row must something else answer, to be taken for what is there.
_STRANGERS = 3
#: Seconds that a server has to come back, at least.
_COMING_BACK = 60.0


def wait_for_server(address: Address, seconds: float, say: Callable[[str], None]) -> Wire:
    """Wait until an inference server answers.

    Parameters
    ----------
    address : Address
        Where it is, or will be; without a protocol, HTTP is tried, then gRPC.
    seconds : float
        How long to wait; 0: it is asked once.
    say : callable
        Told how long that takes.

    Raises
    ------
    LackError
        None answers in time, or something else does.
    """
    started = time.monotonic()
    strangers = 0
    patience, hint = _FIRST_LOOK, ". If there is none, start it: clara-wf install_trtis"
    while True:
        waited = time.monotonic() - started
        try:
            return _connect(address, min(patience, max(1.0, seconds - waited)))
        except ForeignServer as fault:
            strangers += 1
            if strangers == _STRANGERS or waited >= seconds:
                raise _stranger(fault) from fault
        except (ServerGone, ServerSilent) as fault:
            strangers = 0
            if waited >= seconds:
                raise LackError(
                    f"the inference server {address} does not answer after {seconds:g} s ({fault.message})",
                    remedy="Start it: clara-wf install_trtis. Or leave trtisUri empty for the embedded engine",
                ) from fault
        say(f"waiting for the inference server {address} ({waited:.0f} of {seconds:g} s){hint}")
        patience, hint = PATIENCE, ""
        time.sleep(min(_INTERVAL, max(0.1, seconds - waited)))


def _connect(address: Address, patience: float) -> Wire:
    """Return the first protocol that a server speaks."""
    # tritonclient is imported by who speaks with a server, gRPC by who needs it.
    if address.protocol != "grpc":
        from clara_wf.kserve.http_wire import HttpWire

        http = HttpWire(address)
        try:
            http.version(patience)
        except ForeignServer:
            if address.protocol == "http":
                raise
        else:
            return http
    from clara_wf.kserve.grpc_wire import GrpcWire

    grpc = GrpcWire(address)
    try:
        grpc.version(patience)
    except ServerGone as fault:
        grpc.close()
        if address.protocol is None:  # something answered, as the question over HTTP has shown
            raise ForeignServer(f"what listens at {address} is no inference server") from fault
        raise
    except BaseException:
        grpc.close()
        raise
    return grpc


def _stranger(fault: ForeignServer) -> ForeignServer:
    return ForeignServer(
        fault.message, remedy="Is the port right? Triton has HTTP on 8000, gRPC on 8001 and metrics on 8002"
    )


class TritonNetwork:
    """A network at an inference server.

    Parameters
    ----------
    address : str
        ``host:port``, ``http://host:port`` or ``grpc://host:port``.
    model : InstalledModel
        What the server is to have: under this name, of this version, from this file.
    wait : float
        Seconds for the server, and then the model, to be ready.
    timeout : float
        Seconds that a window may take.
    shared : bool
        Whether windows go through shared memory, as far as there is any; else they are sent.
    say : callable, optional
        Told what is waited for; without it, the log is.
    log : logging.Logger, optional
        Of the stage; without it, this program's.

    Raises
    ------
    UsageError
        The address is none.
    LackError
        The server or the model is not there, see `wait_for_server` and `settle`.
    EngineError
        The model is not what its description says.
    """

    def __init__(
        self,
        address: str,
        model: InstalledModel,
        *,
        wait: float = 120.0,
        timeout: float = 600.0,
        shared: bool = True,
        say: Callable[[str], None] | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        self._address = Address.parse(address)
        self._model = model
        self._wait = wait
        self._timeout = timeout
        self._shared = shared
        self._log = log or logging.getLogger("clara_wf")
        self._say = say or self._log.info
        self._engine = ""  # as the model names it; empty: not known yet
        self._told = False  # whether the log knows who computes
        self._sizes: dict[tuple[int, ...], int] = {}  # bytes of the answer, by the shape of what was asked
        self._wire = wait_for_server(self._address, wait, self._say)
        self._version = self._wire.version()
        self._served = self._settle(wait)
        self._memory = ServedMemory(self._wire, self._log, refused=not shared)

    @property
    def identity(self) -> str:
        """What computes, for the record: ``OpenVINO 2026.4.1 f32 in Triton 2.51.0``."""
        return f"{self._engine or self._served.backend or 'an unknown engine'} in Triton {self._version}"

    @property
    def transport(self) -> str:
        """How windows get there, for the log: ``HTTP, shared memory``."""
        return self._wire.name if self._memory.refused else f"{self._wire.name}, shared memory"

    @property
    def batch(self) -> int:
        """The most windows that it takes at once."""
        return self._served.batch or sys.maxsize

    def prepare(self, shape: IntTriple, *, batch: int = 1) -> None:
        """Reserve the memory for windows, and have the server know it."""
        self._memory.region("input", 4 * batch * self._served.channels * int(np.prod(shape)))

    def infer(self, windows: Floats) -> Floats:
        """Run ``[n, channel, x, y, z]``.

        Raises
        ------
        LackError
            The server went away and did not come back, or takes too long.
        EngineError
            It answers that it cannot, or with something of another shape.
        """
        given = np.ascontiguousarray(windows, np.float32)
        try:
            return self._ask(given)
        except ServerGone as fault:
            self._log.warning("%s. It is waited for, and asked once more", fault.message)
        except ModelDied as fault:
            self._log.warning("%s. The model is loaded anew, and asked once more", fault.message)
            self._load_anew(fault)
        except ServerForgot as fault:
            self._log.info("%s. It is told again", fault.message)
        self._take_up()
        try:
            return self._ask(given)
        except ServerGone as fault:
            raise ServerGone(
                f"the inference server {self._address} went away twice at the same window",
                remedy="See its log: it may lack memory for this network",
            ) from fault
        except ModelDied as fault:
            raise ModelDied(fault.message, remedy="See its log: it may lack memory for this network") from fault

    def release(self) -> None:
        """Give shared memory and connection back; the next `prepare` or `infer` takes them again."""
        self._memory.close()
        self._wire.close()

    def _take_up(self) -> None:
        """Wait for a server that went away, and tell it again what it should know."""
        self._memory.close()
        self._wire.close()
        seconds = max(_COMING_BACK, self._wait)
        self._wire = wait_for_server(self._address, seconds, self._say)
        self._version, self._engine = self._wire.version(), ""
        self._served = self._settle(seconds)
        self._memory = ServedMemory(self._wire, self._log, refused=not self._shared)

    def _load_anew(self, died: ModelDied) -> None:
        """Have the server start the process again that computes the model: it takes it for ready as it is."""
        try:
            # Triton 2.51 does nothing about a model that it is to load and whose files are as they were.
            self._wire.unload(self._model.name)
            self._wire.load(self._model.name, max(_COMING_BACK, self._wait))
        except ServerGone:
            pass  # it is waited for anyhow
        except ServerFault as fault:
            raise ModelDied(died.message, remedy="The server has to be started again") from fault

    def _settle(self, seconds: float) -> Served:
        return settle(
            self._wire,
            self._address,
            self._model,
            deadline=time.monotonic() + seconds,
            say=self._say,
            log=self._log,
        )

    def _ask(self, windows: Floats) -> Floats:
        """Ask once, through shared memory as far as there is any."""
        served = self._served
        expected = self._expected(windows)
        target = self._memory.region("output", expected) if expected else None
        # The last to be asked for: where there is no memory for it, the other is gone too.
        source = self._memory.region("input", windows.nbytes)
        if source is None and windows.nbytes > LIMIT:
            raise EngineError(
                f"a window of {windows.nbytes / 2**30:.1f} GiB is more than {self._wire.name} carries",
                remedy="On the machine of the server, and as its user, it would go through shared memory",
            )
        if source is not None:
            np.copyto(source.array(windows.shape), windows)
        question = Question(
            model=self._model.name,
            version=served.version,
            input=served.input,
            windows=windows,
            source=source,
            output=served.output,
            target=target if source is not None else None,
            remark="" if self._engine else served.remark,
        )
        try:
            answer = self._wire.infer(question, self._timeout)
        except TargetTooSmall:
            # The description is wrong: whoever looks at the answer will say how.
            question = replace(question, target=None)
            answer = self._wire.infer(question, self._timeout)
        self._check(answer, windows)
        self._sizes[windows.shape] = 4 * int(np.prod(answer.shape))
        self._engine = answer.remark or self._engine
        self._tell()
        scores = question.target.array(answer.shape) if question.target is not None else answer.scores
        if scores is None or scores.size != np.prod(answer.shape):
            raise EngineError(f"{self._model.name} at the inference server gave an answer without its scores")
        return scores.reshape(answer.shape)

    def _expected(self, windows: Floats) -> int:
        """Return the bytes of an answer: as the last one had, or as the description has it."""
        description = self._model.description
        output = np.array(windows.shape[2:]) - 2 * np.array(description.window.margin)
        count = len(windows) * description.channels * int(np.prod(np.maximum(output, 0)))
        return self._sizes.get(windows.shape, 4 * count)

    def _check(self, answer: Answer, windows: Floats) -> None:
        """Check that there is an answer for each window; what it says is for others to judge."""
        name = f"{self._model.name} at the inference server"
        if answer.datatype != "FP32":
            raise EngineError(f"{name} answers in {answer.datatype}, FP32 is wanted")
        if len(answer.shape) != 5:
            raise EngineError(
                f"{name} gave {len(answer.shape)} dimensions {list(answer.shape)}, [n, channels, x, y, z] is wanted"
            )
        if answer.shape[0] != len(windows):
            raise EngineError(f"{name} gave {answer.shape[0]} answers for {len(windows)} windows")

    def _tell(self) -> None:
        """Let the log know who computes, once there is an answer."""
        if not self._told:
            self._told = True
            self._log.info(
                "the inference server %s: Triton %s (%s), %s",
                self._address,
                self._version,
                self.transport,
                self._engine or self._served.backend,
            )
