"""The whole workflow `liver-seg` on the 512x512x120 phantom, beside the bare networks in the bare engine.

The peer is OpenVINO alone: the same two networks on the same windows, already loaded and compiled, with nothing before
or after them. What the workflow adds (reading DICOM, resampling, judging, drawing, writing SEG and report) is the
ratio.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import openvino

from clara_wf.imaging.metaimage import read_volume
from clara_wf.inference.engine import OpenVinoNetwork
from clara_wf.inference.repository import find_model
from clara_wf.inference.segment import Segmenter

ROOT = Path(__file__).parents[1]
GOAL_RATIO = 1.3
GOAL_GB = 2.5
#: What `bare` prints before its figure.
MARK = "bare seconds:"


def main() -> None:
    """Print times, ratio and memory of one run."""
    with tempfile.TemporaryDirectory() as folder:
        made, output = Path(folder) / "made", Path(folder) / "out"
        _clara("phantom", made, "--grid", "clinical")
        for name in ("liver", "liver-lesion"):
            _clara("model", "install", name)
        started = time.perf_counter()
        events = _clara("run", "liver-seg", "-i", made / "dicom", "-o", output, "--keep", "--json")
        ours = time.perf_counter() - started
        job = json.loads(events.splitlines()[-1])["job"]
        (payload,) = (ROOT / "payloads").glob(job["id"])
        (volume,) = (payload / "dicom-reader/output").glob("*.mhd")
        asked = subprocess.run(
            [sys.executable, __file__, "bare", volume], check=True, capture_output=True, text=True
        ).stdout
        bare = float(asked.rsplit(MARK, 1)[1])
        subprocess.run(["rm", "-r", payload], check=True)
    peaks = {stage["name"]: stage["peak_bytes"] / 2**30 for stage in job["stages"]}
    for stage in job["stages"]:
        print(f"{stage['name']:14} {stage['work_s']:6.1f} s, peak {peaks[stage['name']]:.2f} GiB")
    print(f"whole workflow {ours:6.1f} s; bare networks {bare:.1f} s")
    print(f"ratio {ours / bare:.2f}; goal: at most {GOAL_RATIO}: {'held' if ours / bare <= GOAL_RATIO else 'NOT held'}")
    peak, total = max(peaks.values()), sum(peaks.values())
    print(f"peak memory {peak:.2f} GiB, at most {total:.2f} GiB with all stages at their peaks at once")
    print(f"goal: at most {GOAL_GB} GB a stage: {'held' if peak * 2**30 <= GOAL_GB * 1e9 else 'NOT held'}")


def _clara(*words: object) -> str:
    done = subprocess.run([ROOT / "clara-wf", *map(str, words)], check=True, capture_output=True, text=True)
    return done.stdout


def bare(volume_path: Path) -> None:
    """Ask the networks on the windows that the workflow asks them for; nothing else is counted."""
    windows: list[tuple[str, tuple[int, ...]]] = []
    infer = OpenVinoNetwork.infer

    def noting(self: OpenVinoNetwork, window: np.ndarray) -> np.ndarray:
        windows.append((self.identity + str(id(self)), window.shape))
        return infer(self, window)

    OpenVinoNetwork.infer = noting  # type: ignore[method-assign]
    volume = read_volume(volume_path)
    Segmenter(ROOT / "models", "liver-lesion").segment(volume, np.empty(volume.array.shape, np.uint8))
    # The liver network is asked first. Both compute in the precision that the workflow has here.
    first = windows[0][0]
    precision = "bf16" if "bf16" in first else "f32"
    core = openvino.Core()
    seconds = 0.0
    for model, shapes in (
        ("liver", [shape for name, shape in windows if name == first]),
        ("liver-lesion", [shape for name, shape in windows if name != first]),
    ):
        network = core.read_model(find_model(ROOT / "models", model).file)
        network.reshape(list(shapes[0]))
        hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        request = core.compile_model(network, "CPU", hints).create_infer_request()
        for shape in shapes:
            window = np.zeros(shape, np.float32)
            started = time.perf_counter()
            request.infer({0: window}, share_inputs=True)
            seconds += time.perf_counter() - started
    print(MARK, seconds)


if __name__ == "__main__":
    bare(Path(sys.argv[2])) if sys.argv[1:2] == ["bare"] else main()
