"""The inference server (Triton): on this machine, or in a cluster by its chart."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_wf.chart.helm import find_helm
from clara_wf.chart.workspace import shipped_charts
from clara_wf.cli.cluster import answered, reach
from clara_wf.cli.interrupts import ended_by_signals
from clara_wf.cli.names import Commands
from clara_wf.cli.options import NamespaceOption, ServerRunnerOption, namespace_for
from clara_wf.cli.terminal import Json, print_json, remark, results, show
from clara_wf.cli.workspace import Places, places
from clara_wf.model.errors import LackError, UsageError

if TYPE_CHECKING:  # loaded by the commands that need them
    from lightkube import Client

    from clara_wf.trtis.state import Server
    from clara_wf.trtis.status import ModelRow

RELEASE = "trtis"
LOCK_FILE = "requirements-trtis.lock"
#: Seconds that a cluster may take to pull the image and load the models.
_READY_S = 600.0

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Look at the inference server on this machine.")


def lock_file() -> Path:
    """Return the packages of the server's environment: they lie beside the charts that came with the program."""
    return shipped_charts().parent / LOCK_FILE


def install_trtis(
    *,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65533, help="Of HTTP; gRPC and metrics have the next two (default: 8000)."),
    ] = None,
    runner: ServerRunnerOption = "process",
    namespace: NamespaceOption = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs for the server in the cluster.")] = 0,
    image: Annotated[
        str | None,
        typer.Option(metavar="REPOSITORY:TAG", help="The server's image in the cluster (default: the chart's)."),
    ] = None,
) -> None:
    """Install the inference server (Triton) and start it: on this machine, or in a cluster."""
    where = places()
    namespace = namespace_for(runner, namespace)
    if runner == "kubernetes":
        if port is not None:
            raise UsageError("--port is for a server on this machine", remedy="Set service.httpPort in charts/trtis")
        _install_into_cluster(where, namespace, gpus, image)
        return
    if image is not None:
        raise UsageError("--image is for a cluster", remedy="Add --runner kubernetes, or leave it out")
    if gpus:
        raise UsageError("the server on this machine computes on the processor", remedy="Leave --gpus out")
    server = _start(where, port)
    show(f"TRTIS runs at: {server.http} (HTTP), {server.grpc} (gRPC), {server.metrics}")
    show(f"Use it:        clara-wf test organ-seg --trtis {server.http}")


def _start(where: Places, port: int | None) -> Server:
    from clara_wf.trtis.environment import prepare
    from clara_wf.trtis.server import DEFAULT_PORT, attend, start

    # Before its environment is touched: that of a server that runs is left alone.
    running = attend(where.trtis, port, say=remark)
    if running is not None:
        return running
    environment = prepare(where.trtis / "environment", lock_file(), say=remark)
    from clara_wf.inference.repository import list_models
    from clara_wf.inference.serving import ensure_served

    where.models.mkdir(parents=True, exist_ok=True)
    ensure_served(where.models, say=remark)
    if not list_models(where.models):
        remark("No model is installed yet. Get the liver network by: clara-wf model install liver")
    return start(where.trtis, environment, where.models, port=DEFAULT_PORT if port is None else port, say=remark)


def uninstall_trtis(*, runner: ServerRunnerOption = "process", namespace: NamespaceOption = None) -> None:
    """Stop the inference server on this machine, or uninstall it from the cluster."""
    namespace = namespace_for(runner, namespace)
    if runner == "kubernetes":
        _uninstall_from_cluster(namespace)
        return
    from clara_wf.trtis.server import stop

    folder = places().trtis
    stopped = stop(folder, say=remark)
    if stopped is None:
        remark("TRTIS does not run on this machine")
    else:
        show(f"TRTIS is stopped: it ran at {stopped.http}, pid {stopped.pid}")


@app.command("status")
def status(*, as_json: Json = False) -> None:
    """Show which models the server serves, and how their requests went."""
    from clara_wf.trtis.state import check_here, find_server, read_state
    from clara_wf.trtis.status import model_rows

    folder = places().trtis
    check_here(folder)
    server = find_server(folder)
    if server is None:
        gone = read_state(folder)
        since = f": the one of {gone.started} (pid {gone.pid}) is gone" if gone is not None else ""
        raise LackError(f"no inference server runs on this machine{since}", remedy="Run: clara-wf install_trtis")
    rows = model_rows(server)
    if as_json:
        about = {"http": server.http, "grpc": server.grpc, "metrics": server.metrics}
        print_json({"server": {**_as_json(server), **about}, "models": [_row_as_json(row) for row in rows]})
        return
    show(f"Triton {server.version} at {server.http}, pid {server.pid}, since {server.started}\n")
    if not rows:
        remark("It serves no model. Get the liver network by: clara-wf model install liver")
        return
    _print_rows(rows)


def _as_json(server: Server) -> dict[str, Any]:
    return {"pid": server.pid, "version": server.version, "started": server.started, "models": str(server.models)}


def _row_as_json(row: ModelRow) -> dict[str, Any]:
    figures = None if row.counters is None else asdict(row.counters)
    return {**asdict(row.model), "backend": row.backend, "figures": figures}


def _print_rows(rows: list[ModelRow]) -> None:
    from rich.table import Table
    from rich.text import Text

    figures = ("Requests", "Failed", "Windows", "Mean ms", "waiting", "computing")
    table = Table("Model", "Version", "State", "Backend", box=None, pad_edge=False)
    for title in figures:
        table.add_column(title, justify="right")
    for row in rows:
        counters = row.counters
        state = Text(row.model.state.lower(), style="green" if row.model.is_ready else "red")
        counts = ("", "", "") if counters is None else (counters.requests, counters.failures, counters.inferences)
        means = (None,) * 3 if counters is None else (counters.latency_ms, counters.queue_ms, counters.compute_ms)
        times = ("" if mean is None else f"{mean:.1f}" for mean in means)
        table.add_row(row.model.name, row.model.version, state, row.backend, *map(str, counts), *times)
    results().print(table)
    for row in rows:
        if row.model.reason:
            remark(f"{row.model.name}: {row.model.reason}")


@app.command("log")
def log(
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of its last lines.")] = 50,
) -> None:
    """Print the last lines of the server's log, and where it lies."""
    from clara_wf.trtis.log import tail
    from clara_wf.trtis.state import LOG_FILE

    path = places().trtis / LOG_FILE
    if not path.is_file():
        raise LackError("there is no log: no inference server ran here", remedy="Run: clara-wf install_trtis")
    remark(f"The log lies at: {path}")
    for line in tail(path, lines):
        show(line)


def _install_into_cluster(where: Places, namespace: str, gpus: int, image: str | None) -> None:
    from clara_wf.inference.repository import list_models
    from clara_wf.inference.serving import ensure_served, read_serving

    client = reach(namespace)
    where.models.mkdir(parents=True, exist_ok=True)
    ensure_served(where.models, say=remark)
    by_python = [name for name in list_models(where.models) if read_serving(where.models / name).backend == "python"]
    if by_python and image is not None:
        remark(f"{', '.join(by_python)} need OpenVINO in {image}; see docs/inference-server.md")
    values: dict[str, Any] = {"models": {"hostPath": str(where.models.absolute())}, "gpus": gpus}
    if image is not None:
        repository, _, tag = image.rpartition(":")
        if not repository or "/" in tag:
            raise UsageError(f"--image {image} is not REPOSITORY:TAG")
        values["image"] = {"repository": repository, "tag": tag}
    remark(f"waiting until TRTIS is ready, {_READY_S / 60:.0f} min at most")
    with ended_by_signals():
        find_helm().install(RELEASE, where.workspace.trtis, values, namespace=namespace, timeout=_READY_S)
    show(f"TRTIS is installed as release '{RELEASE}' in namespace {namespace}")
    where_it_is = f"{RELEASE}.{namespace}:8000 (HTTP), :8001 (gRPC), :8002 (metrics)"
    show(f"TRTIS runs at: {where_it_is}; {_address(client, namespace)}")
    show(f"Use it:        clara-wf test organ-seg --runner kubernetes --trtis {RELEASE}.{namespace}:8000")


def _address(client: Client, namespace: str) -> str:
    """Say at which address the Service answers, for where names of the cluster mean nothing."""
    from lightkube.resources.core_v1 import Service

    with answered():
        service = client.get(Service, RELEASE, namespace=namespace)
    address = service.spec.clusterIP if service.spec is not None else None
    return f"its address is {address}" if address else "it has no address yet"


def _uninstall_from_cluster(namespace: str) -> None:
    reach(namespace)
    if find_helm().uninstall(RELEASE, namespace=namespace):
        show(f"TRTIS is uninstalled: release '{RELEASE}'")
    else:
        remark(f"TRTIS is not installed: there is no release '{RELEASE}' in namespace {namespace}")
