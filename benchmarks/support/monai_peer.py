"""MONAI's side of the benchmark `inference`; run by the interpreter of `.peers`.

monai_peer.py network FILE.onnx          save the UNet of MONAI's spleen bundle with random weights
monai_peer.py window FILE.onnx IN OUT    its sliding_window_inference on IN.npy, labels to OUT.npy
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

#: The network and the window of MONAI's published bundle for the spleen in CT.
CHANNELS = 2
ROI, OVERLAP = (96, 96, 96), 0.5


def network(path: Path) -> None:
    """Save the network: every spatial size that 16 divides, any batch."""
    import torch
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    unet = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=CHANNELS,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
        norm="batch",
    )
    axes = {0: "n", 2: "x", 3: "y", 4: "z"}
    torch.onnx.export(
        unet.eval(),
        (torch.zeros(1, 1, 32, 32, 32),),
        path,
        input_names=["image"],
        output_names=["score"],
        dynamic_axes={"image": axes, "score": axes},
        dynamo=False,
    )


def window(path: Path, source: Path, target: Path) -> None:
    """Ask OpenVINO, as our engine does, through MONAI's own window."""
    import openvino
    import torch
    from monai.inferers import sliding_window_inference

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([1, 1, *ROI])
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = core.compile_model(model, "CPU", hints).create_infer_request()

    def predictor(given: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(request.infer({0: given.numpy()}, share_inputs=True, share_outputs=True)[0])

    image = torch.from_numpy(np.load(source))[None, None]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    with torch.inference_mode():
        scores = sliding_window_inference(image, ROI, 1, predictor, overlap=OVERLAP, mode="gaussian")
        labels = scores[0].argmax(dim=0).to(torch.uint8).numpy()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.save(target, labels)
    print(json.dumps({"seconds": seconds, "peak": peak * 1024, "grown": (peak - before) * 1024}))


if __name__ == "__main__":
    if sys.argv[1] == "network":
        network(Path(sys.argv[2]))
    else:
        window(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
