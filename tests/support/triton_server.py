"""A real inference server for a test: on free ports, in the environment that all tests share."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clara_wf.inference.serving import ensure_served
from clara_wf.trtis.environment import prepare
from clara_wf.trtis.server import start, stop
from clara_wf.trtis.state import Server

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements-trtis.lock"


def free_port() -> int:
    """Return the first of three neighbouring ports that nobody listens on; below those that systems give out."""
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.ExitStack() as stack:
            try:
                for number in range(port, port + 3):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            return port


@contextlib.contextmanager
def running(environment: Path, models: Path, folder: Path, *, port: int | None = None) -> Iterator[Server]:
    """Run a server over a repository for the time of the block.

    Parameters
    ----------
    environment : Path
        What the fixture `trtis_environment` gives.
    models : Path
        The repository; models that an earlier version installed are brought up to date.
    folder : Path
        An empty one, for the server's state and log.
    port : int, optional
        Of HTTP; gRPC has the next, the metrics the one after.
    """
    ensure_served(models)
    try:
        yield start(folder, prepare(environment, LOCK), models, port=port or free_port())
    finally:
        stop(folder)


def handmade(root: Path, name: str, code: str) -> Path:
    """Write a model of the Python backend with code of its own into a repository; it gives its input back."""
    folder = root / name
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.py").write_text(code)
    (folder / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 0\n'
        'input [ { name: "image" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
        'output [ { name: "score" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
    )
    return folder


#: The code of a model that gives its input back.
ECHO = """
import triton_python_backend_utils as triton
class TritonPythonModel:
    def execute(self, requests):
        given = [triton.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        return [triton.InferenceResponse([triton.Tensor("score", each)]) for each in given]
"""


def infer(
    server: Server, model: str, windows: NDArray[np.float32], *, outputs: tuple[str, ...] = (), datatype: str = "FP32"
) -> dict[str, Any]:
    """Ask a model, without our client; the answer by the names of its outputs, or `{"error": why}`."""
    inputs = [{"name": "image", "shape": windows.shape, "datatype": datatype, "data": windows.ravel().tolist()}]
    body: dict[str, Any] = {"inputs": inputs}
    if outputs:
        body["outputs"] = [{"name": name} for name in outputs]
    connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
    with contextlib.closing(connection):
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body))
        answer = json.loads(connection.getresponse().read())
    if "error" in answer:
        return {"error": answer["error"]}
    return {each["name"]: np.reshape(each["data"], each["shape"]) for each in answer["outputs"]}
