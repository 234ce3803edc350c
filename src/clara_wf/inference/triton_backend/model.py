"""A model for Triton's Python backend: the network that lies beside it, in OpenVINO on the processor.

This file is copied into the model repository, as `<name>/1/model.py`, with `openvino_network.py` beside it. It runs in
the server's environment, where nothing else of ours is. What it has to know stands in `config.pbtxt`, which
`clara_wf.inference.triton_config` writes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from numpy.typing import NDArray
from openvino_network import Computation, identity

#: What OpenVINO and NumPy raise where a window does not fit the network, or the memory.
_FAULTS = (RuntimeError, ValueError, TypeError, MemoryError)


class TritonPythonModel:
    """What Triton makes one of for each instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the network and compile it for its usual window, so that the first request finds it warm.

        Raises
        ------
        TritonModelException
            It cannot be served; Triton reports the message as the model's state.
        """
        config = json.loads(args["model_config"])
        parameters = {name: entry["string_value"] for name, entry in config["parameters"].items()}
        self._batches = config["max_batch_size"] > 0
        self._input = config["input"][0]["name"]
        self._score, *further = [output["name"] for output in config["output"]]
        self._engine = further[0] if further else None
        self._identity = identity(parameters["precision"])
        file = Path(args["model_repository"], args["model_version"], "model.onnx")
        window = tuple(int(length) for length in parameters["window"].split("x") if length)
        try:
            # A client records the hash as that of what computed: it has to be true.
            if hashlib.sha256(file.read_bytes()).hexdigest() != parameters["sha256"]:
                raise triton.TritonModelException(f"{file.name} is not the file that was installed")
            self._computation = Computation(file, parameters["precision"])
            if window:
                self._computation.compile(window)
        except (OSError, *_FAULTS) as fault:
            raise triton.TritonModelException(f"the network cannot be loaded: {_last_line(fault)}") from fault
        # Triton counts a request that is answered with an error of its own as a success. Made last: `finalize`, which
        # gives it back, is called for models that are served, and for no others.
        self._family = triton.MetricFamily(  # gone with its last reference
            name="clara_wf_request_failure",
            description="Number of requests answered with an error, which Triton counts as answered",
            kind=triton.MetricFamily.COUNTER,
        )
        self._failures = self._family.Metric(labels={"model": args["model_name"], "version": args["model_version"]})

    def finalize(self) -> None:
        """Give the counter back while the server still takes it: later, the process would end by SIGSEGV."""
        del self._failures, self._family

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests one after the other; the fault of one is its own."""
        return [self._answer(request, alone=len(requests) == 1) for request in requests]

    def _answer(self, request: Any, *, alone: bool) -> Any:  # noqa: ANN401 - Triton's types are known to Triton alone
        windows = triton.get_input_tensor_by_name(request, self._input).as_numpy()
        try:
            score = self._compute(windows)
        except _FAULTS as fault:
            self._failures.increment(1)
            text = f"the network failed on windows of {list(windows.shape)}: {_last_line(fault)}"
            return triton.InferenceResponse(error=triton.TritonError(text))
        wanted = request.requested_output_names()
        outputs = []
        if self._score in wanted:
            # The next request's answer is written where this one's is; Triton reads them when all are there.
            outputs.append(triton.Tensor(self._score, score if alone else score.copy()))
        if self._engine in wanted:
            shape = (len(windows), 1) if self._batches else (1,)
            outputs.append(triton.Tensor(self._engine, np.full(shape, self._identity.encode(), np.object_)))
        return triton.InferenceResponse(outputs)

    def _compute(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute one window after the other: a processor gains nothing from a batch, and each size compiles anew."""
        if len(windows) == 1:
            score: NDArray[np.float32] = self._computation.run(windows)
            return score
        return np.concatenate([self._computation.run(window[None]).copy() for window in windows])


def _last_line(fault: BaseException) -> str:
    """Return what a fault says in the end: OpenVINO begins with where in its code it happened."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return lines[-1] if lines else type(fault).__name__
