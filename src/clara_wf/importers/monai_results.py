"""What a MONAI bundle's inferer and its transforms after the network are, in the words of `model.yaml`.

The order counts. Scores that are activated before they come back onto the volume's grid are interpolated as
probabilities, those that are activated after it as they are. Where only the largest score counts, the latter need no
activation; where a threshold counts, the threshold is moved to the scores' own scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clara_wf.importers.monai_call import Call
from clara_wf.importers.monai_transforms import Before
from clara_wf.importers.translation import Notes, in_one_line, is_number, listed, plain_number

_NEIGHBOURS: Mapping[object, int] = {None: 26, 1: 6, 2: 18, 3: 26}
#: Voxels of the window of a network that is given the whole image: it grows as it must.
_ANY = [1, 1, 1]
#: Windows at once; no machine has the memory for more.
_MOST_WINDOWS = 1024


@dataclass(kw_only=True)
class After:
    """What the transforms after the network come to."""

    key: str  # of the network's answer
    notes: Notes
    before: Before
    foreground: tuple[int, ...]  # values of the labels
    single: bool  # whether the network has one channel
    activation: str = "none"
    activated_on: str = ""  # the grid it was done on: network or volume
    threshold: float | None = None
    discrete: str = ""  # the transform that made labels of scores
    back: str = ""  # how values come back onto the volume's grid; empty: they have not
    keep_largest: dict[str, Any] | None = None

    def became(self, call: Call, text: str) -> None:
        """Note what a transform is here."""
        self.notes.became.append((call.name, text))

    def finish(self) -> dict[str, Any]:
        """Return the fields of the description."""
        fields: dict[str, Any] = {"activation": self.activation}
        if not self.discrete:
            self.notes.fault("no AsDiscrete says how scores become labels")
        resample = self.before.resample
        if not self.back and self.before.moved:
            self.back = "nearest"
            self.notes.remarks.append(
                "The bundle leaves its labels on the network's grid (there is no Invert). Here they come back onto the"
                " volume's, each voxel from the nearest"
            )
        if resample is not None:
            resample["back"] = self.back
        if self.threshold is not None:
            fields["threshold"] = plain_number(self.threshold)
        if self.keep_largest is not None:
            fields["keep_largest"] = self.keep_largest
        return fields


def _activations(call: Call, after: After) -> None:
    softmax = call.for_key("softmax", after.key, default=False) is True
    sigmoid = call.for_key("sigmoid", after.key, default=False) is True
    call.only(other=None, dim=0)
    if softmax and sigmoid:
        call.fault("it asks for both softmax and sigmoid")
    if not softmax and not sigmoid:
        after.notes.ignore(call.name)
        return
    if after.discrete:
        call.fault(f"it stands after {after.discrete}")
    elif after.activated_on:
        call.fault("the second one")
    elif softmax and after.single:
        call.fault("softmax of one channel is always 1")
    after.activated_on = "volume" if after.back else "network"
    after.activation = "softmax" if softmax else "sigmoid"
    if not after.back:
        after.became(call, f"activation: {after.activation}")


def _as_discrete(call: Call, after: After) -> None:
    largest = call.for_key("argmax", after.key, default=False) is True
    threshold = call.for_key("threshold", after.key)
    call.only(to_onehot=None, rounding=None, dim=0, keepdim=True)
    call.any_number()
    if after.discrete:
        call.fault("the second one")
        return
    after.discrete = call.name
    if largest == (threshold is not None):
        call.fault("it takes neither just the largest score nor just a threshold")
    elif largest:
        _largest(call, after)
    elif not is_number(threshold):
        call.refuse("threshold", "it is no number, or a far too large one")
    elif not after.single:
        call.fault("a threshold of several channels lets labels overlap")
    else:
        _above(call, after, threshold)


def _largest(call: Call, after: After) -> None:
    if after.single:
        call.fault("the largest of one channel is always that one")
    if after.activated_on == "volume":
        # Neither softmax nor sigmoid changes which score is the largest.
        after.notes.ignore("Activations after Invert (the largest score stays the largest)")
        after.activation = "none"
    after.became(call, "the largest score")


def _above(call: Call, after: After, threshold: float) -> None:
    after.threshold = threshold
    if after.activated_on == "volume":
        after.activation = "none"
        if not 0 < threshold < 1:
            call.refuse("threshold", "no probability is beyond it, or all are")
            return
        after.threshold = math.log(threshold / (1 - threshold))
        after.notes.remarks.append(
            f"Its sigmoid stands after Invert: scores come back as they are, and count from {after.threshold:.4g},"
            f" where the sigmoid is {threshold:g}"
        )
    after.became(call, f"threshold: {plain_number(after.threshold)}")


def _invert(call: Call, after: After) -> None:
    nearest = call.for_key("nearest_interp", after.key, default=True) is True
    call.only(post_func=None)
    call.moot("orig_keys", "meta_keys", "orig_meta_keys", "meta_key_postfix", "to_tensor")
    transform = call.raw("transform")
    if not isinstance(transform, str) or transform.strip() not in {"@preprocessing", "$@preprocessing"}:
        call.refuse("transform", "it undoes something else than @preprocessing")
    if after.back:
        call.fault("the second one")
    resample = after.before.resample
    interpolation = "linear" if resample is None else str(resample["interpolation"])
    after.back = "nearest" if nearest else interpolation
    if after.back == "cubic":
        call.fault("scores cannot come back by a spline: nearest_interp must be true")
    if after.discrete and after.back != "nearest":
        call.fault(f"it stands after {after.discrete}: labels can only come back by the nearest voxel")
    after.became(call, f"resample: {{back: {after.back}}}" if resample else "the volume's grid")


def _keep_largest(call: Call, after: After) -> None:
    labels = call.value("applied_labels")
    values = list(after.foreground) if labels is None else labels if isinstance(labels, list) else [labels]
    together = call.value("independent", default=True) is False
    connectivity = call.value("connectivity")
    call.only(num_components=1)
    if call.value("is_onehot", default=False) is not False:
        call.refuse("is_onehot")
    if not 0 < len(values) <= len(after.foreground) or any(value not in after.foreground for value in values):
        call.refuse("applied_labels", f"the labels are {listed(after.foreground)}")
    neighbours = _NEIGHBOURS.get(connectivity) if connectivity is None or isinstance(connectivity, int) else None
    if neighbours is None:
        call.refuse("connectivity")
    if not after.discrete:
        call.fault("it stands before there are labels")
    elif after.before.resample is not None and not after.back:
        call.fault("it stands before Invert, on the network's grid: here it is done on the volume's")
    if after.keep_largest is not None:
        call.fault("the second one")
    content = {"labels": values, "neighbours": neighbours, "together": together}
    after.keep_largest = content
    after.became(call, in_one_line({"keep_largest": content}))


def _nothing(call: Call, after: After) -> None:
    """Read a transform that changes no value: containers, devices, writing."""
    call.moot(*call.arguments)
    after.notes.ignore(call.name)


def _typed(call: Call, after: After) -> None:
    """Read a transform that might change the type: labels are whole numbers, scores are not."""
    if after.discrete:
        call.any_number()
    else:
        call.floating()
    _nothing(call, after)


_Read = Callable[[Call, After], None]
_NOTHING = ("ToTensor", "ToNumpy", "ToDevice", "Identity", "SelectItems", "DeleteItems", "SaveImage", "Decollate")
#: What may stand after the network.
POSTPROCESSING: Mapping[str, _Read] = {
    "Activations": _activations,
    "AsDiscrete": _as_discrete,
    "Invert": _invert,
    "KeepLargestConnectedComponent": _keep_largest,
    "EnsureType": _typed,
    "CastToType": _typed,
    **dict.fromkeys(_NOTHING, _nothing),
}


def _whole(call: Call, notes: Notes) -> dict[str, Any]:
    window = {"size": _ANY, "step": _ANY, "tiling": False}
    notes.became.append((call.name, "window: the whole image"))
    return window


def _sliding(call: Call, notes: Notes) -> dict[str, Any]:
    size = call.whole_triple("roi_size", default=1)
    batch = call.value_if_known("sw_batch_size", default=1)
    if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= _MOST_WINDOWS:
        call.refuse("sw_batch_size", f"it is no whole number from 1 to {_MOST_WINDOWS}")
        batch = 1
    mode = call.value("mode", default="constant")
    overlap = _same(call, "overlap", 0.25)
    sigma = _same(call, "sigma_scale", 0.125)
    call.only(padding_mode="constant", with_coord=False)
    padding = call.number("cval", default=0) or 0
    call.moot("sw_device", "progress", "cache_roi_weight_map", "cpu_thresh", "buffer_steps", "buffer_dim")
    if mode not in ("constant", "gaussian"):
        call.refuse("mode")
    if not 0 <= overlap < 1:
        call.refuse("overlap", "it is not from 0 up to 1")
    if sigma <= 0:
        call.refuse("sigma_scale", "it is not positive")
    if max(size) <= 0:
        return _whole(call, notes)
    if min(size) <= 0:
        call.refuse("roi_size", "one axis is the image's own, another is not")
    window: dict[str, Any] = {"size": size, "tiling": True, "placement": "stride", "overlap": plain_number(overlap)}
    window |= {
        "blending": mode,
        "padding": plain_number(padding),
        "batch": batch,
    }
    if mode == "gaussian":
        window["sigma"] = plain_number(sigma)
    notes.became.append((call.name, in_one_line({"window": window})))
    return window


def _same(call: Call, argument: str, default: float) -> float:
    """Return a number that may be given for each axis, if it is the same for all."""
    found = call.value(argument, default=default)
    entries = found if isinstance(found, list) and found else [found]
    if not all(is_number(one) for one in entries):
        call.refuse(argument, "it is no number, or a far too large one")
        return default
    if any(one != entries[0] for one in entries):
        call.refuse(argument, "it is not one number for all axes")
        return default
    return float(entries[0])


#: How a network may be given an image.
INFERERS: Mapping[str, Callable[[Call, Notes], dict[str, Any]]] = {
    "SlidingWindowInferer": _sliding,
    "SlidingWindowInfererAdapt": _sliding,
    "SimpleInferer": _whole,
}
