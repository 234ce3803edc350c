"""An nnU-Net v2 export, translated into a description: `plans.json` and `dataset.json` beside an ONNX file.

The order is nnU-Net's own: transpose, crop to what is not zero, normalise, resample; then even windows under a
Gaussian, and scores that are resampled before the largest one wins. Spacing and patch size in the plans are those after
the transposing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from clara_wf.importers.bundle_config import read_config
from clara_wf.importers.label_codes import label_entries
from clara_wf.importers.translation import (
    NOT_STATED,
    Notes,
    Translation,
    in_one_line,
    is_number,
    known_modality,
    listed,
    model_name,
    plain_number,
    shown,
    twice,
)
from clara_wf.inference.description import SCHEMA

PLANS = "plans.json"
DATASET = "dataset.json"
_DEFAULT = "3d_fullres"
#: Readers that turn an image to RAS and hand it on as [z, y, x].
_REORIENTING = {"NibabelIOWithReorient", "SimpleITKIOWithReorient"}
_REORIENTED = "SAR"
_ORIENTATION_REMEDY = (
    "Say how the arrays [z, y, x] of the training images lay, where each axis grows to: --orientation SPL for axial"
    " DICOM as it is (slices to Superior, rows to Posterior, columns to Left)"
)
#: nnU-Net takes an axis apart whose spacing is more than this times the smallest.
_ANISOTROPY = 3
_RESAMPLING = "resample_data_or_seg_to_shape"


def translate_export(
    root: Path, *, name: str | None = None, orientation: str | None = None, configuration: str | None = None
) -> Translation:
    """Translate an export.

    Parameters
    ----------
    root : Path
        The folder with the plans.
    name : str, optional
        Of the model here; otherwise the dataset's.
    orientation : str, optional
        Of the arrays [z, y, x] as nnU-Net's reader gives them, where the plans do not say it.
    configuration : str, optional
        Which of the plans' configurations the network was trained in.

    Raises
    ------
    Untranslatable
        It asks for something that is not done here.
    InputError
        Its files cannot be read.
    """
    plans, dataset = read_config(root / PLANS), read_config(root / DATASET)
    notes = Notes()
    modality = _channel(dataset, notes)
    labels = _labels(dataset, notes)
    chosen = configuration or _configuration_of(root, plans, notes)
    settings = _configuration(plans, chosen, notes)
    lies = _orientation(plans, orientation, notes)
    description = {
        **_about(root, plans, chosen, name),
        "modality": modality,
        "orientation": _transposed(plans, lies, notes),
        "preprocess": _steps(plans, settings, notes),
        "window": _window(settings, notes),
        "activation": "none",
        "background": True,
        "labels": labels,
        **_texts(dataset),
    }
    if not modality:
        del description["modality"]
    return notes.finish(
        f"the nnU-Net export {shown(root.name)}", description, remedy=None if lies else _ORIENTATION_REMEDY
    )


def _configuration_of(root: Path, plans: Mapping[str, Any], notes: Notes) -> str:
    """Return the configuration that the folder is named after, as nnU-Net names them; otherwise the usual one."""
    named = root.name.rsplit("__", 1)[-1]
    known = plans.get("configurations")
    if "__" in root.name and isinstance(known, Mapping) and named in known:
        return named
    notes.remarks.append(f"The configuration is taken to be {_DEFAULT}; another: --configuration NAME")
    return _DEFAULT


def _configuration(plans: Mapping[str, Any], name: str, notes: Notes) -> Mapping[str, Any]:
    """Return a configuration with what it inherits."""
    known = plans.get("configurations")
    known = known if isinstance(known, Mapping) else {}
    settings: dict[str, Any] = {}
    chain: list[str] = []
    parent: object = name
    while parent is not None:
        if parent in chain:
            notes.fault(f"the configuration {name} inherits from itself: {shown(' from '.join(chain))}")
            break
        entry = known.get(parent) if isinstance(parent, str) else None
        if not isinstance(entry, Mapping):
            notes.fault(f"plans.json has no configuration {shown(parent)} (there are: {listed(known) or 'none'})")
            break
        chain.append(str(parent))
        settings = {**entry, **settings}
        parent = entry.get("inherits_from")
    if settings.get("previous_stage"):
        notes.fault(
            f"the configuration {name} is a cascade: it needs the labels of {shown(settings['previous_stage'])} first"
        )
    patch = settings.get("patch_size")
    if isinstance(patch, list) and len(patch) == 2:
        notes.fault(f"the configuration {name} is 2-D: it looks at slices")
    return settings


def _channel(dataset: Mapping[str, Any], notes: Notes) -> str:
    """Check that the network takes one channel; return its modality, empty for any."""
    names = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(names, Mapping) or not names:
        notes.fault("dataset.json: channel_names is missing")
        return ""
    if len(names) != 1:
        notes.fault(f"dataset.json: the network takes {len(names)} channels ({listed(names.values())})")
        return ""
    (stated,) = map(shown, names.values())
    modality = known_modality(stated)
    if not modality:
        notes.remarks.append(f"Its channel is called {stated}: a volume of any modality will be taken")
    return modality


def _labels(dataset: Mapping[str, Any], notes: Notes) -> list[dict[str, Any]]:
    stated = dataset.get("labels")
    if not isinstance(stated, Mapping) or stated.get("background") != 0:
        notes.fault("dataset.json: labels is missing, or has no background of 0")
        return []
    regions = [name for name, value in stated.items() if isinstance(value, list)]
    if regions:
        notes.fault(f"dataset.json: {listed(regions)} are regions, which overlap")
    if "ignore" in stated:
        notes.fault("dataset.json: the label ignore is not known here")
    if regions or "ignore" in stated:
        return []
    values = {str(name): value for name, value in stated.items() if name != "background"}
    if sorted(values.values(), key=str) != sorted(range(1, len(values) + 1), key=str) or len(values) > 255:
        notes.fault("dataset.json: the labels are not numbered from 1 on, without a gap")
        return []
    names = [(value, " ".join(name.split())) for name, value in sorted(values.items(), key=lambda item: item[1])]
    nameless = [value for value, name in names if not name]
    if nameless:
        notes.fault(f"dataset.json: the labels {listed(nameless)} have no name")
    doubles = twice(name for _, name in names if name)
    if doubles:
        notes.fault(f"dataset.json: labels uses a name twice: {listed(doubles)}")
    return label_entries(names, notes)


def _orientation(plans: Mapping[str, Any], orientation: str | None, notes: Notes) -> str:
    """Return where the axes of an image grow to, as nnU-Net's reader gives it; empty if nothing says it."""
    reader = shown(plans.get("image_reader_writer", ""))
    if reader in _REORIENTING:
        if orientation not in {None, _REORIENTED}:
            notes.fault(f"{reader} turns every image to {_REORIENTED}, --orientation says {orientation}")
        notes.became.append((reader, f"orientation: {_REORIENTED}"))
        return _REORIENTED
    if orientation is None:
        notes.fault(
            f"{reader or 'its reader'} takes images as they lie, and nothing says how those of the training lay"
        )
        return ""
    notes.became.append((reader or "--orientation", f"orientation: {orientation}"))
    return orientation


def _transposed(plans: Mapping[str, Any], letters: str, notes: Notes) -> str:
    """Return where the network's own axes grow to."""
    order = plans.get("transpose_forward", [0, 1, 2])
    if not isinstance(order, list) or sorted(order, key=str) != [0, 1, 2]:
        notes.fault(f"plans.json: transpose_forward is {shown(order)}")
        return letters
    if len(letters) != 3 or order == [0, 1, 2]:
        return letters
    turned = "".join(letters[axis] for axis in order)
    notes.became.append((f"transpose_forward {order}", f"orientation: {turned}"))
    return turned


def _steps(plans: Mapping[str, Any], settings: Mapping[str, Any], notes: Notes) -> list[dict[str, Any]]:
    crop = {"crop": {"keep": "nonzero"}}
    notes.became.append(("crop to nonzero", in_one_line(crop)))
    steps = [crop, *_normalization(plans, settings, notes)]
    if settings.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        notes.fault(f"the preprocessor {shown(settings['preprocessor_name'])} is unknown")
    _check_resampling(settings, notes)
    spacing = settings.get("spacing")
    if not isinstance(spacing, list) or len(spacing) != 3 or not all(_positive(one) for one in spacing):
        notes.fault(f"plans.json: the spacing is {shown(spacing)}")
        return steps
    resample = {
        "resample": {
            "spacing_mm": [plain_number(one) for one in spacing],
            "interpolation": "cubic",
            "grid": "extent",
            "back": "linear",
            "anisotropy": _ANISOTROPY,
        }
    }
    notes.became.append((_RESAMPLING, in_one_line(resample)))
    return [*steps, resample]


def _check_resampling(settings: Mapping[str, Any], notes: Notes) -> None:
    """Check that images and scores are resampled as nnU-Net plans it by default."""
    for field, order in (("resampling_fn_data", 3), ("resampling_fn_probabilities", 1)):
        if field not in settings:
            continue
        options = settings.get(f"{field}_kwargs")
        # What the function takes where the plans are silent: splines of order 3, and no axis apart.
        given = {"order": 3, "force_separate_z": False, **(options if isinstance(options, Mapping) else {})}
        usual = {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}
        odd = [f"{key}={shown(value)}" for key, value in given.items() if key not in usual or usual[key] != value]
        if settings[field] != _RESAMPLING or odd:
            notes.fault(f"{field} is {shown(settings[field])}({listed(odd)})")


def _normalization(plans: Mapping[str, Any], settings: Mapping[str, Any], notes: Notes) -> list[dict[str, Any]]:
    schemes, masked = settings.get("normalization_schemes"), settings.get("use_mask_for_norm", [False])
    scheme = schemes[0] if isinstance(schemes, list) and len(schemes) == 1 else schemes
    steps: list[dict[str, Any]] = []
    if scheme == "CTNormalization":
        steps = _ct_normalization(plans, notes)
    elif scheme == "ZScoreNormalization":
        steps = [{"normalize": {"over": "filled" if masked == [True] else "all"}}]
    elif scheme == "RescaleTo01Normalization":
        steps = [{"rescale": [0, 1]}]
    elif scheme != "NoNormalization":
        notes.fault(f"the normalization {shown(scheme)} is unknown")
    notes.became.append((shown(scheme), "; ".join(in_one_line(step) for step in steps) or "nothing"))
    return steps


def _ct_normalization(plans: Mapping[str, Any], notes: Notes) -> list[dict[str, Any]]:
    found = plans.get(
        "foreground_intensity_properties_per_channel", plans.get("foreground_intensity_properties_by_modality")
    )
    channel = found.get("0") if isinstance(found, Mapping) else None
    names = ("percentile_00_5", "percentile_99_5", "mean", "std")
    values = [channel.get(name) if isinstance(channel, Mapping) else None for name in names]
    low, high, mean, sd = [value if is_number(value) else None for value in values]
    if low is None or high is None or mean is None or sd is None or low >= high or sd <= 0:
        notes.fault(f"plans.json: {', '.join(names)} of the training's intensities are not all there, or impossible")
        return []
    return [
        {"clip": [plain_number(low), plain_number(high)]},
        {"normalize": {"mean": plain_number(mean), "sd": plain_number(sd)}},
    ]


def _window(settings: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    patch = settings.get("patch_size")
    if not isinstance(patch, list) or len(patch) != 3 or not all(_positive(one) for one in patch):
        notes.fault(f"plans.json: the patch size is {shown(patch)}")
        return {}
    window = {
        "size": [int(one) for one in patch],
        "tiling": True,
        "placement": "even",
        "overlap": 0.5,
        "blending": "gaussian-nnunet",
        "sigma": 0.125,
    }
    notes.became.append(("sliding window", in_one_line({"window": window})))
    return window


def _about(root: Path, plans: Mapping[str, Any], configuration: str, name: str | None) -> dict[str, Any]:
    stated = plans.get("dataset_name")
    called = " ".join(stated.split()) if isinstance(stated, str) and stated.strip() else shown(root.name)
    return {
        "schema": SCHEMA,
        "name": name or model_name(called) or "model",
        "version": NOT_STATED.format(kind="export"),
        "title": f"{called} (nnU-Net, {configuration})",
    }


def _texts(dataset: Mapping[str, Any]) -> dict[str, str]:
    missing = NOT_STATED.format(kind="export")
    stated = [
        " ".join(str(dataset[field]).split()) if isinstance(dataset.get(field), str) and dataset[field].strip() else ""
        for field in ("licence", "reference")
    ]
    return {
        "licence": stated[0] or missing,
        "citation": stated[1] or missing,
        "limits": (
            "Intended use: not stated by the export. nnU-Net mirrors images when it predicts, clara-wf does not:"
            " results differ a little. Not checked by clara-wf; not for clinical use."
        ),
    }


def _positive(value: object) -> TypeGuard[float]:
    return is_number(value) and value > 0
