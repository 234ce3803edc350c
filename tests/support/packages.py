"""Packages as others make them, written by hand: a MONAI bundle and an nnU-Net export, each with a tiny network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

_IMAGE = {"keys": "image"}
_PRED = {"keys": "pred"}


def save_channels(
    path: Path, channels: int, *, size: Sequence[int | str] = ("x", "y", "z"), batch: int | str = "n"
) -> None:
    """Save a network that gives its input back in so many channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (batch, 1, *size))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, (batch, channels, *size))
    node = helper.make_node("Concat", ["image"] * channels, ["scores"], axis=1)
    graph = helper.make_graph([node], "tiny", [image], [scores])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def bundle_metadata(names: Sequence[str] = ("background", "liver", "tumour"), **changes: Any) -> dict[str, Any]:
    """Return a bundle's metadata; the names are its channels'."""
    return {
        "name": "Two things",
        "version": "0.2.1",
        "monai_version": "1.6.0",
        "copyright": "Somebody",
        "intended_use": "Research",
        "references": ["A paper."],
        "network_data_format": {
            "inputs": {
                "image": {"type": "image", "modality": "CT", "num_channels": 1, "spatial_shape": [96, 96, 96]},
            },
            "outputs": {
                "pred": {
                    "num_channels": len(names),
                    "channel_def": {str(index): name for index, name in enumerate(names)},
                }
            },
        },
        **changes,
    }


def bundle_config(
    before: Sequence[Any] | None = None,
    after: Sequence[Any] | None = None,
    inferer: Any = None,
    **changes: Any,
) -> dict[str, Any]:
    """Return a bundle's inference configuration."""
    usual_before = [
        {"_target_": "LoadImaged", **_IMAGE},
        {"_target_": "EnsureChannelFirstd", **_IMAGE},
        {"_target_": "Orientationd", **_IMAGE, "axcodes": "RAS"},
        {"_target_": "Spacingd", **_IMAGE, "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
        {
            "_target_": "ScaleIntensityRanged",
            **_IMAGE,
            "a_min": -57,
            "a_max": 164,
            "b_min": 0,
            "b_max": 1,
            "clip": True,
        },
        {"_target_": "EnsureTyped", **_IMAGE},
    ]
    usual_after = [
        {"_target_": "Activationsd", **_PRED, "softmax": True},
        {"_target_": "Invertd", **_PRED, "transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False},
        {"_target_": "AsDiscreted", **_PRED, "argmax": True},
        {"_target_": "SaveImaged", **_PRED, "output_dir": "$import os; os.getcwd()"},
    ]
    usual_inferer = {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "sw_batch_size": 4, "overlap": 0.5}
    return {
        "imports": ["$import glob"],
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "preprocessing": {"_target_": "Compose", "transforms": list(usual_before if before is None else before)},
        "inferer": usual_inferer if inferer is None else inferer,
        "postprocessing": {"_target_": "Compose", "transforms": list(usual_after if after is None else after)},
        **changes,
    }


def make_bundle(
    folder: Path,
    config: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    *,
    onnx_channels: int = 3,
) -> Path:
    """Write a bundle."""
    (folder / "configs").mkdir(parents=True)
    (folder / "configs/metadata.json").write_text(json.dumps(bundle_metadata() if metadata is None else metadata))
    (folder / "configs/inference.json").write_text(json.dumps(bundle_config() if config is None else config))
    if onnx_channels:
        save_channels(folder / "models/model.onnx", onnx_channels)
    return folder


def plans(settings: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return nnU-Net's plans; the settings are those of 3d_fullres."""
    function = "resample_data_or_seg_to_shape"
    full = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [16, 32, 48],
        "spacing": [2.5, 0.8, 0.75],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": function,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": function,
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
    }
    return {
        "dataset_name": "Dataset009_Spleen",
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": {"patch_size": [64, 64], "spacing": [0.8, 0.8]},
            "3d_fullres": {**full, **(settings or {})},
            "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [3, 1.6, 1.5], "patch_size": [24, 40, 40]},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 99.5, "std": 41.25, "percentile_00_5": -42.0, "percentile_99_5": 201}
        },
        **changes,
    }


def dataset(**changes: Any) -> dict[str, Any]:
    """Return nnU-Net's `dataset.json`."""
    return {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "spleen": 1, "kidney_left": 2},
        "file_ending": ".nii.gz",
        **changes,
    }


def make_export(
    folder: Path, plan: dict[str, Any] | None = None, data: dict[str, Any] | None = None, *, channels: int = 3
) -> Path:
    """Write an nnU-Net export."""
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans() if plan is None else plan))
    (folder / "dataset.json").write_text(json.dumps(dataset() if data is None else data))
    save_channels(folder / "fold_all/network.onnx", channels)
    return folder
