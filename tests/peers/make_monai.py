"""Make a MONAI bundle and what MONAI itself makes of a volume with it: make_monai.py unet|segresnet FOLDER.

Writes FOLDER/bundle, FOLDER/image.nii.gz and FOLDER/expected.npz. The weights are chance, but the same every time, and
the scores are centred, so that no label is rare.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from peers_volume import hand_over, make_volume

KEYS = {"keys": "image"}
THRESHOLD = 0.4
UNET: dict[str, Any] = {
    "spacing": [1.5, 1.5, 1.9],
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 4,
        "channels": [8, 16, 32],
        "strides": [2, 2],
        "num_res_units": 2,
        "norm": "batch",
    },
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", **KEYS},
            {"_target_": "EnsureChannelFirstd", **KEYS},
            {"_target_": "Orientationd", **KEYS, "axcodes": "RAS"},
            {"_target_": "Spacingd", **KEYS, "pixdim": "@spacing", "mode": "bilinear"},
            {
                "_target_": "ScaleIntensityRanged",
                **KEYS,
                "a_min": -200,
                "a_max": 400,
                "b_min": 0.0,
                "b_max": 1.0,
                "clip": True,
            },
            {"_target_": "EnsureTyped", **KEYS},
        ],
    },
    "inferer": {
        "_target_": "SlidingWindowInferer",
        "roi_size": [32, 32, 24],
        "sw_batch_size": 2,
        "overlap": 0.4,
        "mode": "gaussian",
    },
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
                "to_tensor": True,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "$@bundle_root + '/eval'", "_disabled_": True},
        ],
    },
}
SEGRESNET: dict[str, Any] = {
    "network_def": {
        "_target_": "SegResNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 1,
        "init_filters": 8,
        "blocks_down": [1, 1],
        "blocks_up": [1],
    },
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", **KEYS, "ensure_channel_first": True},
            {"_target_": "Orientationd", **KEYS, "axcodes": "PLS"},
            {"_target_": "Spacingd", **KEYS, "pixdim": [1.21, 1.4, 2.9], "mode": 3, "padding_mode": "nearest"},
            {"_target_": "CropForegroundd", **KEYS, "source_key": "image", "margin": [2, 0, 1], "k_divisible": 1},
            {"_target_": "NormalizeIntensityd", **KEYS, "nonzero": True, "channel_wise": True},
            {"_target_": "DivisiblePadd", **KEYS, "k": 8},
        ],
    },
    "inferer": {"_target_": "SimpleInferer"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": THRESHOLD},
            {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "connectivity": 1},
        ],
    },
}
NAMES = {"unet": ["background", "liver", "left kidney", "thing of a kind"], "segresnet": ["spleen"]}


def metadata(kind: str) -> dict[str, Any]:
    """Return a bundle's metadata."""
    names = NAMES[kind]
    return {
        "version": "0.1.0",
        "monai_version": "1.6.1",
        "name": f"Peers {kind}",
        "copyright": "none",
        "network_data_format": {
            "inputs": {"image": {"type": "image", "modality": "CT", "num_channels": 1, "spatial_shape": [1, 1, 1]}},
            "outputs": {
                "pred": {
                    "type": "image",
                    "num_channels": len(names),
                    "channel_def": {str(index): name for index, name in enumerate(names)},
                }
            },
        },
    }


def settle(network: torch.nn.Module, image: torch.Tensor, *, mean: float) -> None:
    """Give the norms the image's statistics, and the scores of each channel this mean."""
    network.train()
    with torch.no_grad():
        for _ in range(30):
            network(image)
        network.eval()
        scores = network(image)
    last = [module for module in network.modules() if getattr(module, "bias", None) is not None][-1]
    with torch.no_grad():
        last.bias -= scores.mean(dim=(0, 2, 3, 4)) - mean


def export(network: torch.nn.Module, path: Path, size: list[int]) -> None:
    """Write ONNX that takes any number of windows of any size."""
    axes = {0: "batch", 2: "x", 3: "y", 4: "z"}
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, *size),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": axes, "scores": axes},
    )


def main(kind: str, folder: Path) -> None:
    """Write the bundle, the volume and what MONAI makes of it."""
    torch.manual_seed(3)
    config = {"bundle_root": ".", **(UNET if kind == "unet" else SEGRESNET)}
    bundle = folder / "bundle"
    for name in ("configs", "models"):
        (bundle / name).mkdir(parents=True)
    (bundle / "configs/inference.json").write_text(json.dumps(config, indent=2))
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata(kind), indent=2))
    volume = folder / "image.nii.gz"
    make_volume(volume, seed=11, air=0 if kind == "unet" else 6)

    parser = ConfigParser(config)
    parser.parse()
    prepare, after = parser.get_parsed_content("preprocessing"), parser.get_parsed_content("postprocessing")
    inferer, network = parser.get_parsed_content("inferer"), parser.get_parsed_content("network_def")
    data = prepare({"image": str(volume)})
    image = data["image"][None]
    # The threshold is in the middle of the scores.
    mean = 0.0 if kind == "unet" else math.log(THRESHOLD / (1 - THRESHOLD))
    settle(network, image.as_tensor()[..., :48, :48, :32], mean=mean)
    with torch.no_grad():
        data["pred"] = inferer(image, network)[0]
    labels = after(data)["pred"]
    hand_over(folder / "expected.npz", volume, labels[0].numpy().astype(int))
    size = [32, 32, 24]
    export(network, bundle / "models/model.onnx", size)
    if kind == "segresnet":
        torch.jit.trace(network, torch.zeros(1, 1, *size)).save(str(bundle / "models/model.ts"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
