"""A model at an inference server: whether it is there, whether it is the installed one, and how it is asked."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from clara_wf.inference.engine import EngineError
from clara_wf.inference.repository import InstalledModel
from clara_wf.kserve.address import Address
from clara_wf.kserve.wire import IndexEntry, ServedModel, ServerFault, Wire, words
from clara_wf.model.errors import LackError

#: An output of text that names the engine: ``OpenVINO 2026.4.1 f32``.
ENGINE_OUTPUT = "engine"
#: How a server answers that it loads models by itself only.
_NOT_EXPLICIT = "explicit model load / unload is not allowed"
#: Seconds that a server has to load a model, however little is left of the wait for it.
_LOADING = 60.0


class ModelNotServed(LackError):
    """A server does not have a model as it is installed here."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """How a model is asked."""

    version: str
    input: str  # its name
    output: str  # its name
    remark: str  # the output that names the engine; empty: the model has none
    channels: int  # of the input
    batch: int | None  # windows that it takes at once; None: any number
    backend: str  # python, onnxruntime, ...


def settle(
    wire: Wire,
    address: Address,
    model: InstalledModel,
    *,
    deadline: float,
    say: Callable[[str], None],
    log: logging.Logger,
) -> Served:
    """Have a server ready to be asked for a model.

    Parameters
    ----------
    wire, address
        To the server, and where it is.
    model : InstalledModel
        The one that is wanted.
    deadline : float
        Until when to wait for a server that loads its models by itself, as `time.monotonic` has it.
    say : callable
        Told what is waited for.
    log : logging.Logger
        Warned if it cannot be known whether the server has the same file.

    Raises
    ------
    ModelNotServed
        The server does not have it, or not this version or file of it, or cannot load it; the message says why.
    EngineError
        It is no model of one image and one score, or has other channels than its description says.
    """
    version = model.file.parent.name
    _await(wire, address, model.name, version, deadline=deadline, say=say)
    served = wire.model(model.name, version)
    if served.parameters.get("sha256", model.sha256) != model.sha256:
        # It was installed anew after the server had loaded it.
        say(f"{model.name} is loaded anew")
        try:
            wire.load(model.name, _patience(deadline))
        except ServerFault as fault:
            raise _other_file(address, model.name) from fault
        served = wire.model(model.name, version)
        if served.parameters.get("sha256") != model.sha256:
            raise _other_file(address, model.name)
    if "sha256" not in served.parameters:
        log.warning("whether the inference server has the installed file of %s is not known", model.name)
    return _checked(served, model, version)


def _await(
    wire: Wire, address: Address, name: str, version: str, *, deadline: float, say: Callable[[str], None]
) -> None:
    """Wait until a version of a model is ready, and ask for it where that is possible."""
    asked = False
    while True:
        if wire.ready(name, version):
            return
        refused: ServerFault | None = None
        try:
            index = wire.index()
        except ServerFault as fault:  # one link that leads nowhere is enough; it serves its models all the same
            index, refused = [], fault
        found = [entry for entry in index if entry.name == name]
        if not asked:
            asked = True
            say(f"{name} is loaded at the inference server")
            try:
                wire.load(name, _patience(deadline))
            except ServerFault as fault:
                if _NOT_EXPLICIT not in fault.message and (found or refused):
                    raise ModelNotServed(
                        f"the inference server {address} cannot load the model {name}: {_reason(fault)}",
                        remedy=fault.remedy or "See the server's log",
                    ) from fault
            continue
        if refused is not None:
            raise ModelNotServed(
                f"the inference server {address} does not say which models it has: {_reason(refused)}",
                remedy=refused.remedy or "See the server's log",
            ) from refused
        _check_there(index, found, address, name, version)
        if time.monotonic() > deadline:
            raise ModelNotServed(
                f"the model {name} is not ready at the inference server {address} "
                f"({', '.join(sorted({entry.state.lower() or 'not loaded' for entry in found}))})",
                remedy="See the server's log",
            )
        say(f"waiting for {name} at the inference server")
        time.sleep(1.0)


def _check_there(index: list[IndexEntry], found: list[IndexEntry], address: Address, name: str, version: str) -> None:
    """Check whether waiting for a model makes sense."""
    if not found:
        others = ", ".join(sorted({entry.name for entry in index}))
        raise ModelNotServed(
            f"the inference server {address} has no model {name} (it has: {others or 'none'})",
            remedy="Let it serve the repository that the model is installed in",
        )
    ready = sorted(entry.version for entry in found if entry.state == "READY")
    if ready:
        raise ModelNotServed(
            f"the inference server {address} has version {', '.join(ready)} of the model {name}, not {version}",
            remedy="Let it serve the repository that the model is installed in",
        )
    for entry in found:
        if entry.state == "UNAVAILABLE" and entry.reason:
            raise ModelNotServed(
                f"the inference server {address} cannot load the model {name}: {words(entry.reason)}",
                remedy="See the server's log",
            )


def _checked(served: ServedModel, model: InstalledModel, version: str) -> Served:
    """Check that there is one image and one score, in numbers that we know, with the description's channels."""
    name, description = model.name, model.description
    texts = [output for output in served.outputs if output.name == ENGINE_OUTPUT and output.datatype == "BYTES"]
    scores = [output for output in served.outputs if output not in texts]
    if len(served.inputs) != 1 or len(scores) != 1:
        raise EngineError(f"{name} at the inference server does not have one input and one output")
    image, score = served.inputs[0], scores[0]
    for tensor in (image, score):
        if tensor.datatype != "FP32":
            raise EngineError(f"{name} at the inference server has {tensor.name} as {tensor.datatype}, FP32 is wanted")
        if len(tensor.shape) != 5:
            raise EngineError(
                f"{name} at the inference server has {tensor.name} with {len(tensor.shape)} dimensions, "
                "[n, channels, x, y, z] is wanted"
            )
    if score.shape[1] not in {-1, description.channels}:
        raise EngineError(
            f"{name} at the inference server gives {score.shape[1]} channels, its description names "
            f"{description.channels}"
        )
    batch = served.max_batch_size or image.shape[0]
    return Served(
        version=version,
        input=image.name,
        output=score.name,
        remark=texts[0].name if texts else "",
        channels=max(image.shape[1], 1),
        batch=batch if batch > 0 else None,
        backend=served.backend,
    )


def _other_file(address: Address, name: str) -> ModelNotServed:
    return ModelNotServed(
        f"the inference server {address} has another file of the model {name} than is installed here",
        remedy="Let it serve the repository that the model is installed in, and start it again",
    )


def _reason(fault: ServerFault) -> str:
    """Take a server's words without what is said around them: the model and the version are known."""
    text = re.sub(r"^the inference server answers: ", "", fault.message)
    return re.sub(r"^load failed for model '[^']*': (version \S+ is at \w+ state: )?", "", text)


def _patience(deadline: float) -> float:
    return max(_LOADING, deadline - time.monotonic())
