"""How a model is served: `model configure`, and telling a server that runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clara_wf.cli.complete import installed_models
from clara_wf.cli.terminal import Json, print_json, remark, show
from clara_wf.cli.workspace import places

if TYPE_CHECKING:  # networks and their libraries are loaded by the commands that need them
    from clara_wf.inference.triton_config import Serving


def configure(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An installed model.", autocompletion=installed_models)],
    *,
    backend: Annotated[
        Literal["python", "onnxruntime", "tensorrt"] | None,
        typer.Option("--backend", help="python: OpenVINO on the processor. The others are for a GPU in a cluster."),
    ] = None,
    instances: Annotated[
        int | None, typer.Option("--instances", min=1, help="Requests worked on at once; each takes memory.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", min=1, help="Windows in a request, if the network takes several.")
    ] = None,
    queue_delay: Annotated[
        int | None,
        typer.Option("--queue-delay", min=0, metavar="MICROSECONDS", help="Let requests wait for others to batch."),
    ] = None,
    precision: Annotated[
        Literal["auto", "f32", "bf16", "f16"] | None,
        typer.Option("--precision", help="What it computes in, in place of what its description says."),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Begin with the defaults.")] = False,
    as_json: Json = False,
) -> None:
    """Set how the inference server serves a model; without options, show it."""
    from clara_wf.inference.repository import find_model
    from clara_wf.inference.serving import configure as write
    from clara_wf.inference.serving import read_serving
    from clara_wf.inference.triton_config import Serving

    model = find_model(places().models, name)
    serving = Serving() if reset else read_serving(model.folder)
    given = {
        "backend": backend,
        "instances": instances,
        "max_batch": max_batch,
        "queue_delay_us": queue_delay,
        "precision": precision,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if changes or reset:
        serving = dataclasses.replace(serving, **changes)  # type: ignore[arg-type]  # each option has its field's type
        written = write(model, serving)
        remark(f"Written in {model.folder}: {', '.join(written)}")
        if serving.backend == "tensorrt":
            remark("It is served from 1/model.plan. Make it on the cluster's GPU by: trtexec --onnx --saveEngine")
        if load_into_server(name):
            remark(f"The server that runs has loaded {name} again")
    if as_json:
        print_json(dataclasses.asdict(serving))
    else:
        show(f"Model '{name}' is served by: {_in_words(serving, model.description.precision)}")


def _in_words(serving: Serving, described: str) -> str:
    windows = "one window" if serving.max_batch == 1 else f"up to {serving.max_batch} windows"
    delay = "" if serving.queue_delay_us is None else f", waiting {serving.queue_delay_us} us for others"
    return (
        f"{serving.backend} in {serving.precision or described}, instances: {serving.instances}, "
        f"{windows} a request{delay}"
    )


def load_into_server(name: str) -> bool:
    """Have the server on this machine load a model, new or changed, if one runs over these models. Say whether it did.

    Raises
    ------
    ServerSilent
        It does not answer.
    ServerRefused
        It cannot serve it; why is in the message.
    """
    from clara_wf.trtis.state import find_server
    from clara_wf.trtis.status import load_model

    where = places()
    server = find_server(where.trtis)
    if server is None or server.models != where.models.resolve():
        return False
    load_model(server, name)
    return True
