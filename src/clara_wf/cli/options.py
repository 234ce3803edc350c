"""The options that several commands have, and what is read from them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import typer

from clara_wf.chart.request import nested
from clara_wf.model.errors import UsageError

RunnerKind = Literal["process", "container", "kubernetes"]

#: Where objects of a cluster go, unless an option says otherwise.
DEFAULT_NAMESPACE = "default"
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _checked_namespace(name: str | None) -> str | None:
    if name is not None and not _DNS_LABEL.fullmatch(name):
        raise UsageError(
            f"--namespace {name!r} cannot be a namespace's name",
            remedy="Use lower-case letters, digits, and - between them: 63 at most",
        )
    return name


ResampleOption = Annotated[
    bool,
    typer.Option("--resample", help="Resample series with gantry tilt or missing slices instead of refusing them."),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Another installed network for the AI stage.")
]
ArgOption = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="STAGE=ARGUMENT", help="A further argument of a stage; may be repeated."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A value of the chart, as a string; may be repeated."),
]
TrtisOption = Annotated[
    str,
    typer.Option(
        "--trtis", metavar="HOST:PORT", help="Let this inference server run the networks (the same as --set trtisUri=)."
    ),
]
DeadlineOption = Annotated[
    float | None, typer.Option("--deadline", min=1, metavar="SECONDS", help="End the job if it takes longer.")
]
RunnerOption = Annotated[
    RunnerKind,
    typer.Option(
        "--runner",
        help="What runs the stages: processes of this machine, containers (podman or docker), or the cluster that "
        "KUBECONFIG names.",
    ),
]
ServerRunnerOption = Annotated[
    Literal["process", "kubernetes"],
    typer.Option("--runner", help="A process of this machine, or the cluster that KUBECONFIG names."),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        callback=_checked_namespace,
        help=f"Namespace of the cluster (default: {DEFAULT_NAMESPACE}).",
    ),
]


def namespace_for(runner: RunnerKind, namespace: str | None) -> str:
    """Return the namespace that `--namespace` and its absence mean.

    Raises
    ------
    UsageError
        One is named, and the runner is no cluster.
    """
    if namespace is not None and runner != "kubernetes":
        raise UsageError("--namespace is for a cluster", remedy="Add --runner kubernetes, or leave it out")
    return namespace or DEFAULT_NAMESPACE


def pair(text: str, option: str, form: str) -> tuple[str, str]:
    """Split what an option of two parts was given, of the form `KEY=VALUE`.

    Raises
    ------
    UsageError
        It is not of that form.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"{option} {text} is not {form}")
    return key, value


def set_values(texts: Iterable[str]) -> dict[str, Any]:
    """Return the chart's values that `--set` was given, nested.

    Raises
    ------
    UsageError
        One is not of the form `KEY=VALUE`.
    """
    return nested(dict(pair(text, "--set", "KEY=VALUE") for text in texts))
