"""Make an nnU-Net export and what nnU-Net itself makes of a volume with it: make_nnunet.py ct|mr FOLDER.

Writes FOLDER/export, FOLDER/image.nii.gz and FOLDER/expected.npz. The weights are chance, but the same every time, and
the scores are centred, so that no label is rare.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from make_monai import export, settle
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from peers_volume import hand_over, make_volume

FULL = {
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
    "architecture": {"network_class_name": "PlainConvUNet", "arch_kwargs": {}, "_kw_requires_import": []},
}
#: ct: no axis is taken apart. mr: the slices are, the axes are transposed, and what is 0 around the body is left out.
KINDS: dict[str, dict[str, Any]] = {
    "ct": {
        "transpose": [0, 1, 2],
        "settings": {
            **FULL,
            "patch_size": [24, 32, 40],
            "spacing": [1.9, 1.31, 1.2],
            "normalization_schemes": ["CTNormalization"],
        },
        "channel": "CT",
    },
    "mr": {
        "transpose": [1, 0, 2],
        "settings": {
            **FULL,
            "use_mask_for_norm": [True],
            "patch_size": [32, 16, 32],
            "spacing": [1.31, 3.71, 1.2],
            "normalization_schemes": ["ZScoreNormalization"],
        },
        "channel": "MRI",
    },
}
LABELS = {"background": 0, "spleen": 1, "a tumour": 2}


def plans_of(kind: str) -> dict[str, Any]:
    """Return plans as nnU-Net writes them."""
    forward = KINDS[kind]["transpose"]
    return {
        "dataset_name": f"Dataset900_Peers{kind}",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": forward,
        "transpose_backward": [forward.index(axis) for axis in range(3)],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "configurations": {
            "base": KINDS[kind]["settings"],
            "3d_fullres": {"inherits_from": "base"},
        },
        "foreground_intensity_properties_per_channel": {
            "0": {"percentile_00_5": -120.0, "percentile_99_5": 260.5, "mean": 41.5, "std": 87.25}
        },
    }


def main(kind: str, folder: Path) -> None:
    """Write the export, the volume and what nnU-Net makes of it."""
    torch.manual_seed(5)
    # nnU-Net sums scores in half precision, which decides near ties by chance: it is to be compared, not to be fast.
    torch.half = torch.float32
    plans, dataset = plans_of(kind), {"channel_names": {"0": KINDS[kind]["channel"]}, "labels": LABELS}
    dataset |= {"file_ending": ".nii.gz", "numTraining": 1}
    root = folder / "export"
    (root / "fold_0").mkdir(parents=True)
    (root / "plans.json").write_text(json.dumps(plans, indent=2))
    (root / "dataset.json").write_text(json.dumps(dataset, indent=2))
    volume = folder / "image.nii.gz"
    make_volume(volume, seed=12, air=4)

    network = PlainConvUNet(
        input_channels=1,
        n_stages=3,
        features_per_stage=[8, 16, 32],
        conv_op=torch.nn.Conv3d,
        kernel_sizes=3,
        strides=[1, 2, 2],
        n_conv_per_stage=1,
        num_classes=len(LABELS),
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )
    manager = PlansManager(plans)
    configuration = manager.get_configuration("3d_fullres")
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    image, properties = manager.image_reader_writer_class().read_images([str(volume)])
    data, _, _ = configuration.preprocessor_class(verbose=False).run_case_npy(
        image, None, dict(properties), manager, configuration, dataset
    )
    patch = tuple(slice(0, size) for size in configuration.patch_size)
    settle(network, torch.from_numpy(data[(slice(None), *patch)])[None].float(), mean=0.0)
    predictor.manual_initialization(network, manager, configuration, [network.state_dict()], dataset, "peers", None)
    labels = predictor.predict_single_npy_array(image, properties)
    writer = manager.image_reader_writer_class()
    writer.write_seg(labels, str(folder / "labels.nii.gz"), properties)
    hand_over(folder / "expected.npz", volume, nibabel.load(folder / "labels.nii.gz").get_fdata().astype(int))
    export(network, root / "fold_0/model.onnx", list(configuration.patch_size))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
