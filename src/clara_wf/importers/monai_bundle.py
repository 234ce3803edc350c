"""A MONAI bundle's metadata and inference configuration, translated into a description.

Nothing of the bundle is imported, evaluated or unpickled. All that cannot be translated is named at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clara_wf.importers.bundle_config import BundleConfig, Unresolved, read_config
from clara_wf.importers.label_codes import label_entries
from clara_wf.importers.monai_call import Call
from clara_wf.importers.monai_results import INFERERS, POSTPROCESSING, After
from clara_wf.importers.monai_transforms import PREPROCESSING, Before
from clara_wf.importers.translation import (
    NOT_STATED,
    Notes,
    Translation,
    known_modality,
    listed,
    model_name,
    shown,
    twice,
)
from clara_wf.inference.description import SCHEMA
from clara_wf.inference.reader import quoted

#: Where a bundle's configurations lie, in the order in which they are looked for.
METADATA = "configs/metadata.json"
INFERENCE = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
#: Entries of a configuration's lists of transforms; real ones have twenty.
_MOST_TRANSFORMS = 200
_ORIENTATION_REMEDY = "Say how its training images lay, where the axes grow to: --orientation RAS"


def translate_bundle(
    root: Path, inference: Path, *, name: str | None = None, orientation: str | None = None
) -> Translation:
    """Translate a bundle.

    Parameters
    ----------
    root : Path
        The bundle's folder.
    inference : Path
        Its configuration for inference.
    name : str, optional
        Of the model here; otherwise what the bundle calls itself.
    orientation : str, optional
        Of the network's axes, for a bundle that does not say it.

    Raises
    ------
    Untranslatable
        It asks for something that is not done here.
    InputError
        Its files cannot be read.
    """
    metadata = read_config(root / METADATA)
    config = BundleConfig(read_config(inference), metadata)
    notes = Notes()
    modality = _check_input(metadata, notes)
    names = _channels(metadata, notes)
    background = len(names) > 1
    labels = label_entries(_foreground(names, notes), notes)
    before = _before(config, metadata, orientation, notes)
    window = _window(config, notes)
    after = After(
        key=_only_key(metadata, "outputs", "pred"),
        notes=notes,
        before=before,
        foreground=tuple(label["value"] for label in labels),
        single=len(names) == 1,
    )
    for call in _calls(config, "postprocessing", POSTPROCESSING, notes):
        if _concerns(call, after.key, notes) and call.kind:
            POSTPROCESSING[call.kind](call, after)
            call.finish()
    description = {
        **_about(root, metadata, name),
        "modality": modality,
        "orientation": before.orientation,
        "preprocess": before.steps,
        "window": window,
        **after.finish(),
        "background": background,
        "labels": labels,
        **_texts(root, metadata),
    }
    if not modality:
        del description["modality"]
    lacks_orientation = not before.orientation
    return notes.finish(
        f"the MONAI bundle {shown(root.name)}", description, remedy=_ORIENTATION_REMEDY if lacks_orientation else None
    )


def _before(config: BundleConfig, metadata: Mapping[str, Any], orientation: str | None, notes: Notes) -> Before:
    calls = _calls(config, "preprocessing", PREPROCESSING, notes)
    # The image is what is loaded first; the metadata's name for it is a convention.
    loads = [call.keys[0] for call in calls if call.kind == "LoadImage" and call.keys]
    before = Before(
        key=loads[0] if loads else _only_key(metadata, "inputs", "image"),
        notes=notes,
        smaller_crop=_made_before_1_5(metadata),
    )
    for call in calls:
        if _concerns(call, before.key, notes) and call.kind:
            PREPROCESSING[call.kind](call, before)
            call.finish()
    if orientation is not None and before.orientation not in {"", orientation}:
        notes.fault(f"its Orientation says {before.orientation}, --orientation says {orientation}")
    before.orientation = before.orientation or orientation or ""
    if not before.orientation:
        notes.fault("no Orientation says how the network's axes lie")
    if not before.steps:
        notes.fault("no transform prepares the image: nothing is known of the values that the network takes")
    return before


def _calls(config: BundleConfig, name: str, known: Mapping[str, object], notes: Notes) -> list[Call]:
    """Read a list of transforms; those that are unknown are faults."""
    gathering = _Gathering(config=config, known=known, notes=notes)
    gathering.add(config.top(name), name)
    return gathering.calls


@dataclass(kw_only=True)
class _Gathering:
    """Transforms, one after the other, however they are nested in the configuration."""

    config: BundleConfig
    known: Mapping[str, object]
    notes: Notes
    calls: list[Call] = field(default_factory=list)
    visits: int = 0  # lists may hold references to themselves

    def add(self, entry: object, where: str) -> None:
        """Add a transform, or all of a list."""
        self.visits += 1
        if self.visits > _MOST_TRANSFORMS:
            self.notes.fault("it has more transforms than any bundle needs, or they hold themselves")
        elif isinstance(entry, Unresolved):
            self.notes.fault(f"{where}: {entry}")
        elif isinstance(entry, list):
            for index, inner in enumerate(entry[:_MOST_TRANSFORMS]):
                self.add(self.config.shallow(inner), f"{where}[{index}]")
        elif isinstance(entry, Mapping) and "_target_" in entry:
            self._add_call(entry, where)
        else:
            self.notes.fault(f"{where} is missing" if entry is None else f"{where} is no transform")

    def _add_call(self, entry: Mapping[str, Any], where: str) -> None:
        call = Call(entry, self.config, self.notes, known=[*self.known, "Compose"])
        if self.config.shallow(entry.get("_mode_", "default")) != "default":
            call.fault("_mode_ is not default")
        if call.disabled(entry):
            self.notes.ignore(f"{call.name} (disabled)")
        elif call.kind == "Compose":
            call.moot("transforms", "map_items", "unpack_items", "log_stats", "overrides")
            call.finish()
            self.add(self.config.shallow(entry.get("transforms")), f"{where}.transforms")
        else:
            if not call.kind:
                self.notes.fault(f"the transform {call.path} is unknown")
            self.calls.append(call)


def _concerns(call: Call, key: str, notes: Notes) -> bool:
    """Whether a transform works on the image or the answer; what works on others changes nothing here."""
    if call.kind and not call.concerns(key):
        notes.ignore(f"{call.name} ({listed(call.keys)})")
        return False
    return True


def _window(config: BundleConfig, notes: Notes) -> dict[str, Any]:
    entry = config.top("inferer")
    if not isinstance(entry, Mapping) or "_target_" not in entry:
        notes.fault(f"inferer: {entry}" if isinstance(entry, Unresolved) else "inferer is missing")
        return {}
    call = Call(entry, config, notes, known=INFERERS)
    if not call.kind:
        notes.fault(f"the inferer {call.path} is unknown (known: {', '.join(INFERERS)})")
        return {}
    window = INFERERS[call.kind](call, notes)
    call.finish()
    return window


def _format(metadata: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    """Return what the network's inputs or outputs are, by name."""
    data = metadata.get("network_data_format")
    ends = data.get(side) if isinstance(data, Mapping) else None
    return ends if isinstance(ends, Mapping) else {}


def _only_key(metadata: Mapping[str, Any], side: str, default: str) -> str:
    ends = list(_format(metadata, side))
    return str(ends[0]) if len(ends) == 1 else default


def _check_input(metadata: Mapping[str, Any], notes: Notes) -> str:
    """Check that the network takes one volume of one channel; return the modality, empty for any."""
    inputs = _format(metadata, "inputs")
    if len(inputs) != 1:
        notes.fault(f"metadata.json: the network takes {len(inputs) or 'no known'} inputs, not one")
        return ""
    (entry,) = inputs.values()
    if not isinstance(entry, Mapping):
        notes.fault("metadata.json: the network's input is no mapping")
        return ""
    channels = entry.get("num_channels", 1)
    if channels != 1:
        notes.fault(f"metadata.json: the network takes {shown(channels)} channels, not one")
    shape = entry.get("spatial_shape")
    if isinstance(shape, list) and len(shape) != 3:
        notes.fault(f"metadata.json: the network takes {len(shape)} spatial dimensions, not three")
    stated = _text(entry.get("modality"))
    modality = known_modality(stated)
    if not modality:
        notes.remarks.append(f"Its modality is {shown(stated) or 'not stated'}: a volume of any modality will be taken")
    return modality


def _channels(metadata: Mapping[str, Any], notes: Notes) -> list[str]:
    """Return the names of the network's channels; empty names are faults already."""
    outputs = _format(metadata, "outputs")
    if len(outputs) != 1:
        notes.fault(f"metadata.json: the network gives {len(outputs) or 'no known'} outputs, not one")
        return []
    (entry,) = outputs.values()
    stated = entry.get("channel_def") if isinstance(entry, Mapping) else None
    count = entry.get("num_channels") if isinstance(entry, Mapping) else None
    names = {str(key): value for key, value in stated.items()} if isinstance(stated, Mapping) else {}
    # A network of one channel is often described by both values of its mask.
    pair = count == 1 and len(names) == 2 and str(names.get("0", "")).strip().lower() == "background"
    if pair:
        return [str(names.get("1", "")).strip() or "?"]
    total = count if isinstance(count, int) and not isinstance(count, bool) and 0 < count < 256 else len(names)
    found = [names.get(str(index)) for index in range(total)]
    nameless = [str(index) for index, text in enumerate(found) if not isinstance(text, str) or not text.strip()]
    if not total or nameless:
        which = listed(nameless) or "all"
        notes.fault(f"metadata.json: outputs.channel_def gives no name to the channels {which}")
    if len(names) > total:
        notes.fault(f"metadata.json: outputs.channel_def names {len(names)} channels of {total}")
    return [" ".join(text.split()) if isinstance(text, str) else "" for text in found]


def _foreground(names: list[str], notes: Notes) -> list[tuple[int, str]]:
    """Return value and name of each label. Of several channels, the first is the background."""
    if len(names) == 1:
        return [(1, names[0])]
    if names and names[0].lower() != "background":
        notes.fault(f"metadata.json: channel 0 is {quoted(names[0])}, not the background")
    labels = list(enumerate(names))[1:]
    doubles = twice(text for _, text in labels if text)
    if doubles:
        notes.fault(f"metadata.json: outputs.channel_def uses a name twice: {listed(doubles)}")
    return labels


def _about(root: Path, metadata: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    called = _text(metadata.get("name")) or shown(root.name)
    return {
        "schema": SCHEMA,
        "name": name or model_name(called) or "model",
        "version": _text(metadata.get("version")) or NOT_STATED.format(kind="bundle"),
        "title": called,
    }


def _texts(root: Path, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return what a reader of a result should know, or that the bundle does not say it."""
    missing = NOT_STATED.format(kind="bundle")
    file = next((entry.name for entry in sorted(root.iterdir()) if entry.name.upper().startswith("LICENSE")), "")
    licence = _text(metadata.get("license")) or _text(metadata.get("licence"))
    licence = licence or (f"in the bundle's file {shown(file)}" if file else missing)
    rights = _text(metadata.get("copyright"))
    references = _text(metadata.get("references")) or _text(metadata.get("authors"))
    intended = _text(metadata.get("intended_use")) or missing
    return {
        "licence": f"{licence}. {rights}" if rights else licence,
        "citation": references or missing,
        "limits": f"Intended use: {intended}. Not checked by clara-wf; not for clinical use.".replace("..", "."),
    }


def _text(value: object) -> str:
    """Return any of JSON's values as one line of text; empty for nothing."""
    if isinstance(value, list):
        return "; ".join(text for entry in value if (text := _text(entry)))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return shown(value)
    if isinstance(value, str):
        return " ".join(value.split())
    return ""


def _made_before_1_5(metadata: Mapping[str, Any]) -> bool:
    """Whether the bundle was made when CropForeground ended at the image by default."""
    found = re.match(r"(\d{1,9})\.(\d{1,9})", _text(metadata.get("monai_version")))
    return found is not None and (int(found[1]), int(found[2])) < (1, 5)
