"""The steps from a volume's values to a network's input, as data: what `preprocess` in `model.yaml` lists.

Each is what widely used training code does, under a name of its own, so that a network which was trained with MONAI or
nnU-Net is fed what it was trained on. `preparation` carries them out. Triples follow the network's axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clara_wf.inference.reader import IntTriple, Reader, Triple, quoted


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Cut values to a range: ``clip: [low, high]``."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Map a range onto another, linearly: ``scale: {from: [a, b], to: [c, d], clip: true}``."""

    source: tuple[float, float]
    target: tuple[float, float]
    clip: bool  # whether what lies beyond is cut


@dataclass(frozen=True, kw_only=True)
class Rescale:
    """Map the image's own smallest and largest value onto a range: ``rescale: [low, high]``."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """Subtract a mean and divide by a standard deviation: ``normalize: {mean: m, sd: s, over: all}``."""

    mean: float | None  # None: the image's own
    sd: float | None  # None: the image's own (of the population); 0 counts as 1
    #: Which voxels count and change: all; nonzero, those that are not 0; filled, those and the holes among them.
    over: Literal["all", "nonzero", "filled"]


@dataclass(frozen=True, kw_only=True)
class Resample:
    """Put the image onto another spacing.

    ``resample: {spacing_mm: [1, 1, 1], interpolation: linear, grid: first-voxel, back: linear, anisotropy: 3}``
    """

    spacing: Triple  # mm
    interpolation: Literal["linear", "cubic", "nearest"]
    #: Where the new voxels lie. first-voxel: the first one's centre stays (MONAI). extent: the outer borders stay, and
    #: the spacing gives way by less than half a voxel in all (nnU-Net).
    grid: Literal["first-voxel", "extent"]
    back: Literal["linear", "nearest"]  # how scores come back onto the volume's grid
    #: Where the largest of the volume's spacings is more than this times its smallest (or of the new ones), its axis is
    #: taken from the nearest voxel; None: never.
    anisotropy: float | None


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Cut to the box of what is in the image.

    ``crop: {keep: positive, margin: [0, 0, 0], divisible_by: [1, 1, 1], beyond: false}``
    """

    keep: Literal["positive", "nonzero"]
    margin: IntTriple  # voxels around the box
    divisible_by: IntTriple  # the box grows, by as much on both sides, until its sides are multiples
    beyond: bool  # whether the box may reach beyond the image, where 0 stands; otherwise it ends there


@dataclass(frozen=True, kw_only=True)
class Pad:
    """Grow the image: ``pad: {size: [96, 96, 96], divisible_by: [1, 1, 1], value: 0, method: symmetric}``."""

    size: IntTriple  # at least; 0: as it is
    divisible_by: IntTriple
    value: float
    method: Literal["symmetric", "end"]  # where the voxels are added


Step = Clip | Scale | Rescale | Normalize | Resample | Crop | Pad
_ONES = [1, 1, 1]
#: From microscopy to whole bodies.
_SPACINGS_MM = (0.001, 1000.0)


def read_steps(reader: Reader, content: object) -> tuple[Step, ...]:
    """Read `preprocess`: a list of mappings of one step each; where the reader noted faults, it stands for nothing."""
    if not isinstance(content, list) or not content:
        reader.fault("preprocess", "is no list of steps")
        return ()
    steps: list[Step] = []
    for index, item in enumerate(content):
        where = f"preprocess[{index}]"
        if not isinstance(item, Mapping) or len(item) != 1:
            reader.fault(where, "is no mapping of one step")
            continue
        ((name, entry),) = item.items()
        read = _READERS.get(str(name))
        if read is None:
            reader.fault(where, f"is the unknown step {quoted(name)}, none of {', '.join(_READERS)}")
            continue
        steps.append(read(reader, f"{where}.{name}", entry))
    if sum(isinstance(step, Resample) for step in steps) > 1:
        reader.fault("preprocess", "resamples twice")
    return tuple(steps)


def _clip(reader: Reader, where: str, content: object) -> Step:
    low, high = _span(reader, where, content)
    return Clip(low=low, high=high)


def _scale(reader: Reader, where: str, content: object) -> Step:
    entry = reader.section(where, content, {"from", "to", "clip"})
    first, last = reader.numbers(f"{where}.to", entry.get("to"), 2)
    source = _span(reader, f"{where}.from", entry.get("from"))
    return Scale(source=source, target=(first, last), clip=reader.flag(f"{where}.clip", entry.get("clip", False)))


def _rescale(reader: Reader, where: str, content: object) -> Step:
    low, high = _span(reader, where, content)
    return Rescale(low=low, high=high)


def _normalize(reader: Reader, where: str, content: object) -> Step:
    entry = reader.section(where, content, {"mean", "sd", "over"})

    def maybe(name: str) -> float | None:
        return reader.number(f"{where}.{name}", entry[name]) if entry.get(name) is not None else None

    return Normalize(
        mean=maybe("mean"),
        sd=maybe("sd"),
        over=reader.choice(f"{where}.over", entry.get("over", "all"), ("all", "nonzero", "filled")),  # type: ignore[arg-type]
    )


def _resample(reader: Reader, where: str, content: object) -> Step:
    entry = reader.section(where, content, {"spacing_mm", "interpolation", "grid", "back", "anisotropy"})
    spacing = reader.triple(f"{where}.spacing_mm", entry.get("spacing_mm"))
    check_spacing(reader, f"{where}.spacing_mm", spacing)
    anisotropy = entry.get("anisotropy")
    interpolation = ("linear", "cubic", "nearest")
    return Resample(
        spacing=spacing,
        interpolation=reader.choice(f"{where}.interpolation", entry.get("interpolation", "linear"), interpolation),  # type: ignore[arg-type]
        grid=reader.choice(f"{where}.grid", entry.get("grid", "first-voxel"), ("first-voxel", "extent")),  # type: ignore[arg-type]
        back=reader.choice(f"{where}.back", entry.get("back", "linear"), ("linear", "nearest")),  # type: ignore[arg-type]
        anisotropy=None if anisotropy is None else reader.number(f"{where}.anisotropy", anisotropy),
    )


def _crop(reader: Reader, where: str, content: object) -> Step:
    entry = reader.section(where, content, {"keep", "margin", "divisible_by", "beyond"})
    return Crop(
        keep=reader.choice(f"{where}.keep", entry.get("keep", "positive"), ("positive", "nonzero")),  # type: ignore[arg-type]
        margin=reader.whole(f"{where}.margin", entry.get("margin", [0, 0, 0])),
        divisible_by=_divisor(reader, where, entry),
        beyond=reader.flag(f"{where}.beyond", entry.get("beyond", False)),
    )


def _pad(reader: Reader, where: str, content: object) -> Step:
    entry = reader.section(where, content, {"size", "divisible_by", "value", "method"})
    return Pad(
        size=reader.whole(f"{where}.size", entry.get("size", [0, 0, 0])),
        divisible_by=_divisor(reader, where, entry),
        value=reader.number(f"{where}.value", entry.get("value", 0)),
        method=reader.choice(f"{where}.method", entry.get("method", "symmetric"), ("symmetric", "end")),  # type: ignore[arg-type]
    )


def check_spacing(reader: Reader, where: str, spacing: Triple) -> None:
    """Note a fault where voxels are of no size that an image has."""
    if min(spacing) <= 0:
        reader.fault(where, f"{list(spacing)} is not positive")
    elif min(spacing) < _SPACINGS_MM[0] or max(spacing) > _SPACINGS_MM[1]:
        reader.fault(where, f"{list(spacing)} is not from {_SPACINGS_MM[0]:g} to {_SPACINGS_MM[1]:g} mm")


def _divisor(reader: Reader, where: str, entry: Mapping[str, object]) -> IntTriple:
    divisor = reader.whole(f"{where}.divisible_by", entry.get("divisible_by", _ONES))
    if min(divisor) < 1:
        reader.fault(f"{where}.divisible_by", f"{list(divisor)} is not positive")
    return divisor


def _span(reader: Reader, where: str, content: object) -> tuple[float, float]:
    low, high = reader.numbers(where, content, 2)
    # In the numbers that are computed with, which know less digits.
    if not np.float32(low) < np.float32(high):
        reader.fault(where, f"{[low, high]} does not grow")
    return low, high


_READERS: Mapping[str, Callable[[Reader, str, object], Step]] = {
    "clip": _clip,
    "scale": _scale,
    "rescale": _rescale,
    "normalize": _normalize,
    "resample": _resample,
    "crop": _crop,
    "pad": _pad,
}
