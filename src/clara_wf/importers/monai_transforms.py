"""What each of MONAI's transforms before the network is, in the words of `preprocess`.

Arguments and their defaults are MONAI 1.6's. An argument that is not mapped is refused unless it has its default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clara_wf.importers.monai_call import Call
from clara_wf.importers.translation import Notes, in_one_line, is_number, plain_number, shown

#: Selectors of the foreground whose text says what they select; they are compared, never evaluated.
_SELECTORS = {"$lambdax:x>0": "positive", "$lambdax:x!=0": "nonzero"}
_INTERPOLATIONS: Mapping[object, str] = {
    "bilinear": "linear",
    "trilinear": "linear",
    "nearest": "nearest",
    0: "nearest",
    1: "linear",
    3: "cubic",
}
_AXES = [["L", "R"], ["P", "A"], ["I", "S"]]


@dataclass(kw_only=True)
class Before:
    """What the transforms before the network come to."""

    key: str  # of the image among what a bundle loads
    notes: Notes
    smaller_crop: bool  # MONAI's default of CropForeground's `allow_smaller` when the bundle was made
    orientation: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    moved: str = ""  # the first transform that changed the grid

    def add(self, call: Call, name: str, content: object) -> None:
        """Add a step, and note where it comes from."""
        step = {name: content}
        self.steps.append(step)
        self.notes.became.append((call.name, in_one_line(step)))

    def on_grid(self, call: Call) -> None:
        """Note that the grid changes here."""
        self.moved = self.moved or call.name

    @property
    def resample(self) -> dict[str, Any] | None:
        """The step that changes the spacing."""
        found: list[dict[str, Any]] = [step["resample"] for step in self.steps if "resample" in step]
        return found[0] if found else None


def _orientation(call: Call, before: Before) -> None:
    codes = call.value("axcodes")
    call.only(as_closest_canonical=False)
    if call.value("labels") not in (None, _AXES):
        call.refuse("labels")
    if before.orientation:
        call.fault("the second one")
    elif before.moved:
        call.fault(f"it stands after {before.moved}, which has changed the grid")
    elif not isinstance(codes, str) or len(codes) != 3:
        call.refuse("axcodes")
    else:
        before.orientation = codes.upper()
        before.notes.became.append((call.name, f"orientation: {before.orientation}"))


def _spacing(call: Call, before: Before) -> None:
    call.only(diagonal=False, scale_extent=False, recompute_affine=False, min_pixdim=None, max_pixdim=None)
    call.moot("ensure_same_shape")
    call.floating()
    wanted = call.value("pixdim")
    spacing = wanted if isinstance(wanted, list) else [wanted]
    if not spacing or not all(is_number(one) and one > 0 for one in spacing):
        call.refuse("pixdim", "it is not three positive spacings")
        spacing = [1]
    # MONAI repeats the last one.
    spacing = [plain_number(one) for one in [*spacing, *[spacing[-1]] * 2][:3]]
    mode = call.for_key("mode", before.key, default="bilinear")
    interpolation = _INTERPOLATIONS.get(mode) if isinstance(mode, str | int) else None
    if interpolation is None:
        call.refuse("mode", "only bilinear, nearest and splines of order 0, 1 and 3 are known")
    borders = ("border",) if isinstance(mode, str) else ("border", "nearest")
    if call.for_key("padding_mode", before.key, default="border") not in borders:
        call.refuse("padding_mode")
    # It changes nothing where torch interpolates, and shifts the image where SciPy does.
    if call.for_key("align_corners", before.key, default=False) and not isinstance(mode, str):
        call.refuse("align_corners", "with a spline it shifts the image")
    if before.resample is not None:
        call.fault("the second one")
    before.on_grid(call)
    before.add(call, "resample", {"spacing_mm": spacing, "interpolation": interpolation, "grid": "first-voxel"})


def _scale_range(call: Call, before: Before) -> None:
    low, high = call.number("a_min"), call.number("a_max")
    first, last = call.number("b_min"), call.number("b_max")
    clip = call.value("clip", default=False) is True
    call.floating()
    if low is None or high is None or low >= high:
        call.fault(f"it maps from {low} to {high}, which does not grow")
        return
    if (first is None) != (last is None) or (clip and (first is None or last is None or first >= last)):
        call.fault(f"it maps to {first} and {last}" + (" and clips" if clip else ""))
        return
    target = [0, 1] if first is None or last is None else [plain_number(first), plain_number(last)]
    before.add(call, "scale", {"from": [plain_number(low), plain_number(high)], "to": target, "clip": clip})


def _scale(call: Call, before: Before) -> None:
    low, high = call.value("minv", default=0.0), call.value("maxv", default=1.0)
    call.only(factor=None)
    call.moot("channel_wise")  # there is one channel
    call.floating()
    numbers = [one for one in (low, high) if is_number(one)]
    if len(numbers) != 2 or numbers[0] >= numbers[1]:
        call.fault(f"it maps to {shown(low)} and {shown(high)}, which does not grow")
        return
    before.add(call, "rescale", [plain_number(one) for one in numbers])


def _normalize(call: Call, before: Before) -> None:
    content: dict[str, Any] = {}
    for argument, name in (("subtrahend", "mean"), ("divisor", "sd")):
        number = call.number(argument)
        if number is not None:
            content[name] = plain_number(number)
    content["over"] = "nonzero" if call.value("nonzero", default=False) is True else "all"
    call.moot("channel_wise")
    call.floating()
    before.add(call, "normalize", content)


def _crop(call: Call, before: Before) -> None:
    if call.value("source_key", default=before.key) != before.key:
        call.refuse("source_key", "only the image itself can say where to cut")
    selector = call.raw("select_fn")
    keep = "positive" if selector is None else _SELECTORS.get("".join(str(selector).split()))
    if keep is None:
        call.refuse("select_fn", "a function is never evaluated")
    channels = call.value("channel_indices")
    if channels not in (None, 0, [0]):
        call.refuse("channel_indices")
    call.only(mode="constant", value=0, constant_values=0)
    call.moot("start_coord_key", "end_coord_key", "return_coords")
    margin = call.whole_triple("margin", default=0)
    if min(margin) < 0:
        call.refuse("margin")
    smaller = call.value("allow_smaller", default=before.smaller_crop)
    content: dict[str, Any] = {"keep": keep, "margin": margin, "divisible_by": _divisor(call, "k_divisible")}
    content["beyond"] = not smaller
    before.on_grid(call)
    before.add(call, "crop", content)


def _divisor(call: Call, argument: str) -> list[int]:
    # MONAI leaves an axis as it is where the divisor is not positive.
    return [max(one, 1) for one in call.whole_triple(argument, default=1)]


def _spatial_pad(call: Call, before: Before) -> None:
    size = [max(one, 0) for one in call.whole_triple("spatial_size", default=0)]
    _padded(call, before, {"size": size})


def _divisible_pad(call: Call, before: Before) -> None:
    _padded(call, before, {"divisible_by": _divisor(call, "k")})


def _padded(call: Call, before: Before, content: dict[str, Any]) -> None:
    if call.for_key("mode", before.key, default="constant") != "constant":
        call.refuse("mode")
    method = call.value("method", default="symmetric")
    if method not in ("symmetric", "end"):
        call.refuse("method")
    # The one is torch's name for it, the other NumPy's.
    value = call.number("value", default=call.number("constant_values", default=0)) or 0
    before.on_grid(call)
    before.add(call, "pad", {**content, "value": plain_number(value), "method": method})


def _nothing(call: Call, before: Before) -> None:
    """Read a transform that changes no value: loading, axes, containers, devices."""
    call.moot(*call.arguments)
    before.notes.ignore(call.name)


def _typed(call: Call, before: Before) -> None:
    """Read a transform that changes the container, and might change the type."""
    call.floating()
    _nothing(call, before)


_Read = Callable[[Call, Before], None]
_NOTHING = (
    "LoadImage",
    "EnsureChannelFirst",
    "AddChannel",
    "AsChannelFirst",
    "ToTensor",
    "ToNumpy",
    "ToDevice",
    "Identity",
    "SelectItems",
    "DeleteItems",
    "SaveImage",
    "FromMetaTensor",
    "ToMetaTensor",
)
#: What may stand before the network.
PREPROCESSING: Mapping[str, _Read] = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensity": _scale,
    "NormalizeIntensity": _normalize,
    "CropForeground": _crop,
    "SpatialPad": _spatial_pad,
    "DivisiblePad": _divisible_pad,
    "EnsureType": _typed,
    "CastToType": _typed,
    **dict.fromkeys(_NOTHING, _nothing),
}
