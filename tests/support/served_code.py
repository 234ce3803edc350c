"""Models for Triton's Python backend that behave as a test wants, over an installed one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from triton_server import LOCK, free_port

from clara_wf.trtis.environment import prepare
from clara_wf.trtis.server import start, stop
from clara_wf.trtis.state import Server, is_running

_CODE = """
import os, time
import numpy as np
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        return [self.answer(triton.get_input_tensor_by_name(request, "image").as_numpy()) for request in requests]

    def answer(self, image):
        {answer}
        return triton.InferenceResponse([triton.Tensor("score", image)])
"""


def behave(models: Path, name: str, *, answer: str = "pass", initialize: str = "pass") -> None:
    """Replace what computes a model: lines of code that may change `image`, which is the answer."""
    answer, initialize = (text.replace("\n", "\n" + 8 * " ") for text in (answer, initialize))
    code = _CODE.format(answer=answer, initialize=initialize)
    (models / name / "1/model.py").write_text(code)


class Stand:
    """A server that a test starts, kills and starts again, over the repository as the test has made it."""

    def __init__(self, environment: Path, models: Path, folder: Path) -> None:
        self._environment = prepare(environment, LOCK)
        self._models = models
        self._folder = folder
        self.port = free_port()
        self.server: Server | None = None

    def start(self) -> Server:
        """Start it, on the port that it had."""
        self.server = start(self._folder, self._environment, self._models, port=self.port)
        return self.server

    def kill(self) -> None:
        """End it as a lack of memory would, and wait until it is gone and its ports are free."""
        os.kill(self.server.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(self.server) and self._is_free())

    def _is_free(self) -> bool:
        try:
            for port in range(self.port, self.port + 3):
                with socket.socket() as one:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it, if it runs."""
        stop(self._folder)


@contextlib.contextmanager
def standing(environment: Path, models: Path, folder: Path) -> Iterator[Stand]:
    """Run a server for the time of the block."""
    stand = Stand(environment, models, folder)
    try:
        stand.start()
        yield stand
    finally:
        stand.stop()


def wait_until(true, seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.05)
