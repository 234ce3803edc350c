"""`model test`: a network on the phantom, with what an author wants to know: shapes, time, memory, a picture."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_wf.cli.complete import installed_models
from clara_wf.cli.terminal import Json, print_json, remark, results
from clara_wf.cli.workspace import places
from clara_wf.model.files import write_atomically

if TYPE_CHECKING:  # networks and their libraries are loaded by the commands that need them
    import numpy as np
    from numpy.typing import NDArray

    from clara_wf.imaging.volume import Volume
    from clara_wf.inference.engine import Network
    from clara_wf.inference.repository import InstalledModel
    from clara_wf.inference.segment import Segmentation

#: `ru_maxrss` is in KiB, on macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(kw_only=True)
class _Calls:
    """What a network was asked."""

    model: str  # its name
    windows: int = 0
    given: list[int] = field(default_factory=list)  # shape of the last input [n, channel, x, y, z]
    gave: list[int] = field(default_factory=list)  # shape of the last output
    engine: str = ""  # its identity


class _Observed:
    """A network that is looked at while it works."""

    def __init__(self, network: Network, calls: _Calls) -> None:
        self._network, self._calls = network, calls
        self.batch = network.batch
        self.release = network.release
        self.prepare = network.prepare

    @property
    def identity(self) -> str:
        """Of the network itself."""
        return self._network.identity

    def infer(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run, and note the shapes."""
        answers = self._network.infer(windows)
        self._calls.windows += len(windows)
        self._calls.given, self._calls.gave = list(windows.shape), list(answers.shape)
        self._calls.engine = self._network.identity
        return answers


def test_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An installed model.", autocompletion=installed_models)],
    *,
    source: Annotated[
        Path | None, typer.Option("--input", "-i", metavar="FILE", help="A volume (.mhd) in place of the phantom.")
    ] = None,
    trtis: Annotated[
        str, typer.Option("--trtis", metavar="HOST:PORT", help="Ask an inference server in place of this process.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Run a network on the phantom: shapes, time, memory, labels, and a picture."""
    from clara_wf.inference.repository import find_model

    if trtis:
        from clara_wf.kserve.address import Address

        Address.parse(trtis)
    where = places()
    find_model(where.models, name)  # before the phantom is made
    volume = _volume(source)
    found, calls, seconds, labels = _run(where.models, name, volume, trtis)
    picture = where.data / "model-tests" / f"{name}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    _draw(picture, volume, found, labels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
    report: dict[str, Any] = {
        "model": name,
        "verdict": found.verdict.status,
        "reasons": list(found.verdict.reasons),
        "volume": list(volume.geometry.shape),
        "networks": [vars(call) for call in calls],
        "seconds": {**found.seconds, "all": round(seconds, 3)},
        "peak_bytes": peak,
        "measurements": {key: dict(value) for key, value in found.measurements.items()},
        "preview": str(picture),
    }
    if as_json:
        print_json(report)
    else:
        _show(report)


def _volume(source: Path | None) -> Volume:
    if source is not None:
        from clara_wf.imaging.metaimage import read_volume

        return read_volume(source)
    from clara_wf.phantom.patient import EVERYDAY, make_phantom

    remark("making the phantom ...")
    return make_phantom(EVERYDAY, seed=0).image


def _run(
    root: Path, name: str, volume: Volume, trtis: str
) -> tuple[Segmentation, list[_Calls], float, NDArray[np.uint8]]:
    import numpy as np

    from clara_wf.inference.segment import Segmenter, embedded

    calls: list[_Calls] = []

    def observed(model: InstalledModel) -> Network:
        calls.append(_Calls(model=model.name))
        return _Observed(_served(model, trtis) if trtis else embedded(model), calls[-1])

    said: set[str] = set()

    def say(_share: float, text: str) -> None:
        if text not in said:
            said.add(text)
            remark(f"{text} ...")

    segmenter = Segmenter(root, name, observed)
    labels = np.empty(volume.geometry.shape, np.uint8)
    started = time.perf_counter()
    try:
        found = segmenter.segment(volume, labels, progress=say)
    finally:
        segmenter.close()
    return found, calls, time.perf_counter() - started, labels


def _served(model: InstalledModel, address: str) -> Network:
    import logging

    from clara_wf.kserve.network import TritonNetwork

    return TritonNetwork(address, model, wait=10.0, say=remark, log=logging.getLogger("clara_wf"))


def _draw(picture: Path, volume: Volume, found: Segmentation, labels: NDArray[np.uint8]) -> None:
    from clara_wf.imaging.preview import draw_preview
    from clara_wf.imaging.volume import Volume as Labels

    title = f"{found.algorithm.model} {found.algorithm.version}"
    drawn = draw_preview(
        volume, Labels(geometry=volume.geometry, array=labels), found.labels, verdict=found.verdict, title=title
    )
    write_atomically(picture, drawn)


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    console = results()
    reasons = f" ({'; '.join(report['reasons'])})" if report["reasons"] else ""
    console.print(f"verdict: {report['verdict']}{reasons}", markup=False)
    table = Table("Network", "Windows", "Input", "Output", "Engine", box=None, pad_edge=False)
    for call in report["networks"]:
        table.add_row(
            call["model"],
            str(call["windows"]),
            _shape(call["given"]),
            _shape(call["gave"]),
            call["engine"] or "not asked",
        )
    console.print(table)
    for label, measured in report["measurements"].items():
        console.print(f"{label}: {measured['volume_ml']:.0f} ml", markup=False)
    parts = ", ".join(f"{key} {value:.1f} s" for key, value in report["seconds"].items())
    console.print(f"time:    {parts}", markup=False)
    console.print(f"memory:  {report['peak_bytes'] / 2**30:.2f} GiB at most, with Python and the phantom", markup=False)
    console.print(f"preview: {report['preview']}", markup=False)
    console.print("Not for clinical use.")


def _shape(shape: list[int]) -> str:
    return " x ".join(map(str, shape)) or "-"
