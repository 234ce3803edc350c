"""`doctor`: what this machine has and lacks, with the remedy for each."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import typer

from clara_wf.chart.helm import find_helm
from clara_wf.cli.kubeconfig import kubeconfig_files
from clara_wf.cli.terminal import Json, print_json, results
from clara_wf.cli.trtis import lock_file
from clara_wf.cli.workspace import Places, places
from clara_wf.model.errors import ClaraError, LackError

#: The liver network with its volume needs less than 3 GiB; the system wants some too.
_MEMORY_GIB = 4.0
#: Environment, models, test data and one payload.
_DISK_GIB = 4.0
_TRITON_PORTS = (8000, 8001, 8002)
#: What something works without.
_CAN_DO_WITHOUT = {"models", "containers", "cluster", "inference server", "ports"}
#: What a check may end with: our own errors, the system's, and those of a library that is not whole.
_FAULTS = (ClaraError, OSError, ImportError, RuntimeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    name: str  # what was looked at
    ok: bool
    detail: str  # what was found
    remedy: str = ""  # what to do where it is missing
    needed: bool = True  # False: something works without it


def doctor(*, as_json: Json = False) -> None:
    """Check this machine: Python, memory, disk, Helm, models, engine, containers, cluster, inference server."""
    where = places()
    findings = [finding for name in _CHECKS for finding in _guarded(name, where)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(LackError.exit_code)


def _guarded(name: str, where: Places) -> Iterator[Finding]:
    """Look at one thing; where even that fails, that is what was found, and the others are looked at."""
    try:
        yield from _CHECKS[name](where)
    except _FAULTS as fault:
        said = fault.message if isinstance(fault, ClaraError) else f"{type(fault).__name__}: {fault}"
        remedy = fault.remedy if isinstance(fault, ClaraError) else None
        yield Finding(
            name=name,
            ok=False,
            detail=f"cannot be looked at: {said}",
            remedy=remedy or "Mend that, and run clara-wf doctor again",
            needed=name not in _CAN_DO_WITHOUT,
        )


def _print(findings: list[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "", "", box=None, pad_edge=False, show_header=False)
    for finding in findings:
        sign = "[green]ok[/]" if finding.ok else "[red]missing[/]" if finding.needed else "[yellow]missing[/]"
        remedy = f"[dim]-> {escape(finding.remedy)}[/]" if finding.remedy and not finding.ok else ""
        table.add_row(sign, finding.name, f"{escape(finding.detail)} {remedy}".strip())
    results().print(table)


def _python(_: Places) -> Iterator[Finding]:
    yield Finding(
        name="Python",
        ok=sys.version_info >= (3, 11),
        detail=f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        remedy="Install Python 3.11 or newer",
    )


def _memory(_: Places) -> Iterator[Finding]:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    yield Finding(
        name="memory",
        ok=free >= _MEMORY_GIB,
        detail=f"{free:.1f} GiB available",
        remedy=f"The liver network wants {_MEMORY_GIB:.0f} GiB: close other programs",
    )


def _disk(where: Places) -> Iterator[Finding]:
    folder = next(path for path in (where.data, *where.data.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**30
    writable = os.access(folder, os.W_OK)
    yield Finding(
        name="disk",
        ok=free >= _DISK_GIB and writable,
        detail=f"{free:.1f} GiB free in {where.data}" + ("" if writable else ", not writable"),
        remedy="Make room, or work elsewhere: clara-wf init DIR",
    )


def _helm(_: Places) -> Iterator[Finding]:
    try:
        yield Finding(name="Helm", ok=True, detail=find_helm().name)
    except ClaraError as fault:
        yield Finding(name="Helm", ok=False, detail=fault.message, remedy=fault.remedy or "")


def _models(where: Places) -> Iterator[Finding]:
    from clara_wf.inference.install import KNOWN
    from clara_wf.inference.repository import find_model, verify

    for name in KNOWN:
        try:
            model = find_model(where.models, name)
            verify(model)
            yield Finding(
                name=f"model {name}", ok=True, detail=f"{model.description.version}, sha256 {model.sha256[:12]}"
            )
        except ClaraError as fault:
            yield Finding(name=f"model {name}", ok=False, detail=fault.message, remedy=fault.remedy or "", needed=False)


def _engine(_: Places) -> Iterator[Finding]:
    from clara_wf.inference.engine import describe

    yield Finding(name="engine", ok=True, detail=describe())


def _reconstruction(_: Places) -> Iterator[Finding]:
    """By its version alone: importing it takes ten seconds."""
    from importlib import metadata

    try:
        yield Finding(name="reconstruction", ok=True, detail=f"RTK {metadata.version('itk-rtk')}")
    except metadata.PackageNotFoundError:
        yield Finding(name="reconstruction", ok=False, detail="itk-rtk is not installed: projections stay projections")


def _decoders(_: Places) -> Iterator[Finding]:
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    syntaxes = (uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.HTJ2KLossless)
    lacking = [syntax.name for syntax in syntaxes if not get_decoder(syntax).is_available]
    yield Finding(
        name="DICOM decoders",
        ok=not lacking,
        detail="RLE, JPEG, JPEG-LS, JPEG 2000, HTJ2K" if not lacking else f"none for {', '.join(lacking)}",
        remedy="Install the locked packages again",
    )


def _containers(_: Places) -> Iterator[Finding]:
    """Ask docker or podman: one that is installed does not always work."""
    from clara_wf.containers.engine import find_engine

    try:
        engine = find_engine()
        yield Finding(name="containers", ok=True, detail=f"{engine.kind} {engine.version}", needed=False)
    except ClaraError as fault:
        yield Finding(name="containers", ok=False, detail=fault.message, remedy=fault.remedy or "", needed=False)


def _cluster(_: Places) -> Iterator[Finding]:
    try:
        files = kubeconfig_files()
    except ClaraError as fault:
        yield Finding(name="cluster", ok=False, detail=fault.message, remedy=fault.remedy or "", needed=False)
        return
    yield Finding(
        name="cluster",
        ok=bool(files),
        detail=f"configured by {', '.join(map(str, files))}" if files else "none is configured",
        remedy="Only needed for Kubernetes: name its kubeconfig by KUBECONFIG",
        needed=False,
    )


def _server(where: Places) -> Iterator[Finding]:
    """Look for what the inference server needs of the system."""
    from clara_wf.trtis.environment import find_interpreter, is_prepared

    try:
        interpreter = find_interpreter()
    except ClaraError as fault:
        yield Finding(name="inference server", ok=False, detail=fault.message, remedy=fault.remedy or "", needed=False)
        return
    installed = is_prepared(where.trtis / "environment", lock_file(), interpreter)
    yield Finding(
        name="inference server",
        ok=True,
        detail=f"bash and libpython{interpreter.version} are here, it is {'' if installed else 'not '}installed",
        needed=False,
    )


def _ports(where: Places) -> Iterator[Finding]:
    from clara_wf.trtis.state import find_server

    server = find_server(where.trtis)
    if server is not None:
        detail = f"our inference server runs on {server.port} to {server.port + 2}"
        yield Finding(name="ports", ok=True, detail=detail, needed=False)
        return
    taken = [port for port in _TRITON_PORTS if not _is_free(port)]
    yield Finding(
        name="ports",
        ok=not taken,
        detail="8000 to 8002 are free" if not taken else f"taken: {', '.join(map(str, taken))}",
        remedy="Only needed for an inference server on this machine: give it others by --port",
        needed=False,
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


_CHECKS: dict[str, Callable[[Places], Iterator[Finding]]] = {
    "Python": _python,
    "memory": _memory,
    "disk": _disk,
    "Helm": _helm,
    "models": _models,
    "engine": _engine,
    "reconstruction": _reconstruction,
    "DICOM decoders": _decoders,
    "containers": _containers,
    "cluster": _cluster,
    "inference server": _server,
    "ports": _ports,
}
