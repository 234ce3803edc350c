"""The server's metrics: Prometheus' text, of which only counters by model are read.

One of them is of our own model.py: Triton counts a request that a model answers with an error as a success.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

_LINE = re.compile(r"^(?P<name>nv_inference_\w+|clara_wf_request_failure)\{(?P<labels>[^}]*)\} (?P<value>\S+)")
_LABEL = re.compile(r'(?P<name>\w+)="(?P<value>(?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What the server counted of one version of a model since it was loaded."""

    requests: int  # that were answered
    failures: int  # that were answered with an error
    inferences: int  # windows
    latency_ms: float | None  # mean of a request, from its arrival to its answer; None: there was none yet
    queue_ms: float | None  # of that, waiting
    compute_ms: float | None  # of that, computing, with copying in and out


def parse(text: str) -> dict[tuple[str, str], Counters]:
    """Read the counters by model and version."""
    sums: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is not None:
            labels = {label["name"]: label["value"] for label in _LABEL.finditer(match["labels"])}
            # Failures are counted for each reason.
            sums[labels.get("model", ""), labels.get("version", "")][match["name"]] += float(match["value"])
    return {key: _counters(values) for key, values in sums.items()}


def _counters(values: dict[str, float]) -> Counters:
    answered, refused = values["nv_inference_request_success"], values["clara_wf_request_failure"]

    def mean(*names: str) -> float | None:
        return sum(values[f"nv_inference_{name}_us"] for name in names) / answered / 1000 if answered else None

    return Counters(
        # The server counts an answer later than the model its refusal.
        requests=max(0, int(answered - refused)),
        failures=int(values["nv_inference_request_failure"] + refused),
        inferences=int(values["nv_inference_count"]),
        latency_ms=mean("request_duration"),
        queue_ms=mean("queue_duration"),
        compute_ms=mean("compute_input_duration", "compute_infer_duration", "compute_output_duration"),
    )
