"""A question and its answer in tritonclient's words, which over HTTP and gRPC are the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from clara_wf.kserve.wire import Floats, Question


def asked(triton: Any, question: Question) -> dict[str, Any]:  # noqa: ANN401 - published without types
    """Return what a client's `infer` takes.

    Parameters
    ----------
    triton : module
        `tritonclient.http` or `tritonclient.grpc`.
    question : Question
        To be asked.
    """
    windows, source, target = question.windows, question.source, question.target
    given = triton.InferInput(question.input, list(windows.shape), "FP32")
    if source is None:
        given.set_data_from_numpy(windows)
    else:
        given.set_shared_memory(source.name, windows.nbytes)
    wanted = [triton.InferRequestedOutput(question.output)]
    if target is not None:
        wanted[0].set_shared_memory(target.name, target.size)
    if question.remark:
        wanted.append(triton.InferRequestedOutput(question.remark))
    return {
        "model_name": question.model,
        "model_version": question.version,
        "inputs": [given],
        "outputs": wanted,
    }


def scores_in(result: Any, name: str) -> Floats | None:  # noqa: ANN401 - see above
    """Return an output that was sent, as it lies in the answer; None if it is not as long as its shape says."""
    try:
        found: Floats = result.as_numpy(name)
    except ValueError:
        return None
    return found.ravel()


def text_in(result: Any, name: str) -> str:  # noqa: ANN401 - see above
    """Return the first text of an output in one line; nothing if there is none."""
    if not name or result.get_output(name) is None:
        return ""
    texts: list[bytes] = np.ravel(result.as_numpy(name)).tolist()
    return " ".join(texts[0].decode("utf-8", "replace").split()) if texts else ""
