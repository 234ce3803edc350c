"""Networks beside the bare engine, beside themselves in Triton, and beside MONAI, in one run: `inference [TURNS]`.

1. The embedded engine beside the bare engine's loop: OpenVINO alone on the same windows, nothing around it. For the
   liver network (one large window) and for the UNet of MONAI's spleen bundle in windows of 96.
2. The whole way through the liver network with Triton instead of the embedded engine: through shared memory, and with
   the windows in the bodies of HTTP and gRPC.
3. Our windows beside MONAI's `sliding_window_inference`: the same ONNX, the same engine, the same image. It needs the
   environment that `.ci/make-peers` makes.

Every figure is the median over turns; in each turn all compete one after the other, each in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import yaml
from support.monai_peer import CHANNELS, OVERLAP, ROI

from clara_wf.imaging.metaimage import read_volume, write_volume
from clara_wf.inference.engine import Network, OpenVinoNetwork
from clara_wf.inference.install import install
from clara_wf.inference.postprocess import winners
from clara_wf.inference.preprocess import scaled, values_on_grid
from clara_wf.inference.repository import InstalledModel, find_model
from clara_wf.inference.resample import canonical_grid
from clara_wf.inference.segment import Segmenter, embedded
from clara_wf.inference.sliding import Sliding, starts
from clara_wf.phantom.patient import EVERYDAY, make_phantom

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".peers/bin/python"
GOAL_BARE, GOAL_SHARED = 1.05, 1.10
UNET = "benchmark-unet"
HINTS = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
Result = dict[str, Any]


def main(turns: int) -> None:
    """Run all parts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = folder / "models"
        install("liver", models)
        write_volume(folder / "volume.mhd", make_phantom(EVERYDAY, seed=0).image)
        competitors = {
            "bare liver": child("bare", models, folder),
            "embedded": child("whole", models, folder, ""),
        }
        peers = PEERS.exists()
        if peers:
            install_unet(models, folder)
            competitors["unet"] = child("windows", models, folder, folder / "ours.npy")
            monai = [PEERS, ROOT / "benchmarks/support/monai_peer.py", "window", folder / "unet.onnx"]
            competitors["monai"] = [*monai, folder / "image.npy", folder / "theirs.npy"]
        else:
            print("MONAI is not installed, its part is left out. Get it by .ci/make-peers")
        with server(models, folder) as port:
            for title, address in (
                ("shared memory", f"localhost:{port}"),
                ("HTTP", f"http://localhost:{port}"),
                ("gRPC", f"grpc://localhost:{port + 1}"),
            ):
                competitors[title] = child(
                    "whole", models, folder, address, "" if title == "shared memory" else "bodies"
                )
            found = compete(competitors, turns)
        report(found)
        if peers:
            report_monai(found, np.load(folder / "ours.npy"), np.load(folder / "theirs.npy"))


def compete(competitors: dict[str, list[object]], turns: int) -> dict[str, list[Result]]:
    """Run all in turn, and again."""
    found: dict[str, list[Result]] = {title: [] for title in competitors}
    for turn in range(turns):
        for title, command in competitors.items():
            print(f"turn {turn + 1} of {turns}: {title} ...", file=sys.stderr, flush=True)
            done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
            found[title].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def child(*words: object) -> list[object]:
    """Return the command of a competitor that is ours."""
    return [sys.executable, __file__, *words]


def middle(found: dict[str, list[Result]], title: str, pick: Callable[[Result], float]) -> float:
    return statistics.median(pick(result) for result in found[title])


def report(found: dict[str, list[Result]]) -> None:
    """Print the parts about engines."""

    def network(result: Result) -> float:
        return float(result["seconds"]["network"])

    bare, ours = middle(found, "bare liver", network), middle(found, "embedded", network)
    judge("liver, embedded engine", ours, "OpenVINO alone", bare, GOAL_BARE)
    if "unet" in found:
        bare, unet = (middle(found, "unet", lambda result, key=key: float(result[key])) for key in ("bare", "seconds"))
        judge("UNet in windows, blended and decided", unet, "OpenVINO alone", bare, GOAL_BARE)
    whole = middle(found, "embedded", lambda result: float(result["all"]))
    for title in ("shared memory", "HTTP", "gRPC"):
        served = middle(found, title, lambda result: float(result["all"]))
        goal = GOAL_SHARED if title == "shared memory" else None
        judge(f"whole way, Triton, {title}", served, "embedded", whole, goal)
        print(f"    {found[title][0]['transport']}")
    parts = found["embedded"][0]["seconds"]
    middles = {
        part: middle(found, "embedded", lambda result, part=part: float(result["seconds"][part])) for part in parts
    }
    print("around the network: " + ", ".join(f"{part} {seconds:.2f} s" for part, seconds in middles.items()))
    hashes = {
        title: result["labels"] for title in ("embedded", "shared memory", "HTTP", "gRPC") for result in found[title]
    }
    print(f"labels: {'bit-identical by every way' if len(set(hashes.values())) == 1 else f'DIFFERENT: {hashes}'}")


def report_monai(found: dict[str, list[Result]], ours: np.ndarray, theirs: np.ndarray) -> None:
    """Print the part about MONAI."""
    units = {"seconds": ("s", 1.0), "grown": ("GiB beside what was loaded", 2**30), "peak": ("GiB in all", 2**30)}
    for key, (unit, scale) in units.items():
        mine, other = (statistics.median(result[key] / scale for result in found[title]) for title in ("unet", "monai"))
        held = "held" if mine < other else "NOT held"
        print(f"windows, {unit}: ours {mine:.2f}, MONAI {other:.2f}, ratio {mine / other:.2f}; goal: below 1: {held}")
    shares = np.bincount(theirs.ravel(), minlength=CHANNELS) / theirs.size
    print(f"the same label in {(ours == theirs).mean():.6%} of voxels; shares of the labels: {np.round(shares, 3)}")


def judge(what: str, ours: float, peer: str, theirs: float, goal: float | None) -> None:
    held = "" if goal is None else f"; goal: at most {goal}: {'held' if ours / theirs <= goal else 'NOT held'}"
    print(f"{what}: {ours:.2f} s, {peer} {theirs:.2f} s, ratio {ours / theirs:.3f}{held}")


def install_unet(models: Path, folder: Path) -> None:
    """Install the peer's network, and save what it is to be fed."""
    own = folder / "own"
    own.mkdir()
    peer = ROOT / "benchmarks/support/monai_peer.py"
    subprocess.run([PEERS, peer, "network", folder / "unet.onnx"], check=True, capture_output=True)
    (own / "unet.onnx").write_bytes((folder / "unet.onnx").read_bytes())
    code = {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"}
    labels = [
        {"value": value, "name": f"label {value}", "category": code, "type": code} for value in range(1, CHANNELS)
    ]
    content = {
        "schema": "clara-wf/model/1",
        "name": UNET,
        "version": "1",
        "title": "MONAI's UNet with random weights",
        "orientation": "RAS",
        "preprocess": [{"clip": [-1000, 1000]}],
        "window": {
            "size": list(ROI),
            "tiling": True,
            "overlap": OVERLAP,
            "blending": "gaussian",
            "placement": "stride",
        },
        "background": True,
        "labels": labels,
        "precision": "f32",
        "licence": "Apache-2.0",
        "citation": "none",
        "limits": "Random weights.",
    }
    (own / "model.yaml").write_text(yaml.safe_dump(content))
    install(UNET, models, source=own)
    volume = read_volume(folder / "volume.mhd")
    liver = find_model(models, "liver").description
    grid = canonical_grid(volume.geometry, "RAS", (1.5, 1.5, 1.5))
    np.save(folder / "image.npy", scaled(values_on_grid(volume, grid, liver), liver.intensity))


@contextmanager
def server(models: Path, folder: Path) -> Iterator[int]:
    """Run Triton on the models."""
    from clara_wf.inference.serving import ensure_served
    from clara_wf.trtis.environment import prepare
    from clara_wf.trtis.server import start, stop

    ensure_served(models)
    state = folder / "trtis"
    state.mkdir()
    environment = prepare(ROOT / "trtis/environment", ROOT / "requirements-trtis.lock", say=print)
    try:
        yield start(state, environment, models, port=18000).port
    finally:
        stop(state)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def whole(models: Path, folder: Path, address: str, bodies: str) -> None:
    """The liver network on the volume, all that a stage does between reading and writing."""
    volume = read_volume(folder / "volume.mhd")
    network: Network | None = None

    def served(model: InstalledModel) -> Network:
        nonlocal network
        if not address:
            network = embedded(model)
        else:
            from clara_wf.kserve.network import TritonNetwork

            network = TritonNetwork(address, model, shared=not bodies)
        return network

    labels = np.empty(volume.array.shape, np.uint8)
    segmenter = Segmenter(models, "liver", served)
    started = time.perf_counter()
    found = segmenter.segment(volume, labels)
    seconds = time.perf_counter() - started
    transport = getattr(network, "transport", "in the process")
    segmenter.close()
    digest = hashlib.sha256(labels.tobytes()).hexdigest()
    print(
        json.dumps(
            {"seconds": dict(found.seconds), "all": seconds, "labels": digest, "peak": peak(), "transport": transport}
        )
    )


def bare(models: Path, folder: Path) -> None:
    """OpenVINO alone on the windows that the liver network is asked, already cut and compiled."""
    model = find_model(models, "liver")
    volume = read_volume(folder / "volume.mhd")
    asked: list[tuple[int, ...]] = []

    class Noting(OpenVinoNetwork):
        def infer(self, windows: np.ndarray) -> np.ndarray:
            asked.append(windows.shape)
            return super().infer(windows)

    noting = Noting(model.file)
    Segmenter(models, "liver", lambda _: noting).segment(volume, np.empty(volume.array.shape, np.uint8))
    seconds = bare_loop(model.file, asked[0], len(asked), noting.identity.split()[-1])
    print(json.dumps({"seconds": {"network": seconds}}))


def bare_loop(file: Path, shape: tuple[int, ...], count: int, precision: str) -> float:
    """Return how long OpenVINO takes for so many windows, and nothing around them."""
    core = openvino.Core()
    network = core.read_model(file)
    network.reshape(list(shape))
    compiled = core.compile_model(network, "CPU", {**HINTS, "INFERENCE_PRECISION_HINT": precision})
    request = compiled.create_infer_request()
    given = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    started = time.perf_counter()
    for _ in range(count):
        request.infer({0: given}, share_inputs=True, share_outputs=True)
    return time.perf_counter() - started


def windows(models: Path, folder: Path, target: Path) -> None:
    """Our windows over an image, to labels, as MONAI has them; then the bare engine's loop, in the same process."""
    model = find_model(models, UNET)
    network = embedded(model)
    window = model.description.window
    image = np.load(folder / "image.npy")
    network.prepare(window.size)
    labels = np.empty(image.shape, np.uint8)
    before = peak()
    started = time.perf_counter()
    sliding = Sliding(network, window, image, channels=CHANNELS)
    turned = labels.transpose(sliding.order)
    for band in sliding.bands():
        for block in sliding.blocks(band):
            place = tuple(slice(a, a + b) for a, b in zip(block.start, block.scores.shape[1:], strict=True))
            turned[place] = winners(block.scores, model.description)
    seconds = time.perf_counter() - started
    result = {"seconds": seconds, "peak": peak(), "grown": peak() - before}
    np.save(target, labels)
    along = [
        len(starts(length, size, overlap=window.overlap, placement=window.placement))
        for length, size in zip(image.shape, window.size, strict=True)
    ]
    alone = bare_loop(model.file, (1, 1, *window.size), int(np.prod(along)), "f32")
    print(json.dumps({**result, "bare": alone}))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT / "src"))
    match sys.argv[1:]:
        case ["whole", models, folder, address, *bodies]:
            whole(Path(models), Path(folder), address, "".join(bodies))
        case ["bare", models, folder]:
            bare(Path(models), Path(folder))
        case ["windows", models, folder, target]:
            windows(Path(models), Path(folder), Path(target))
        case [turns]:
            main(int(turns))
        case _:
            main(3)
