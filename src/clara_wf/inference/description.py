"""The description beside a model: what a network wants, what it gives, and what it must not be used for.

`model.yaml` lies beside the ONNX file, so that a network needs no code of its own. docs/models.md explains every field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import yaml

from clara_wf.imaging.record import Code, Label
from clara_wf.inference.reader import IntTriple, Reader, Triple, quoted
from clara_wf.inference.steps import Step, check_spacing, read_steps
from clara_wf.model.errors import InputError

SCHEMA = "clara-wf/model/1"
FILE_NAME = "model.yaml"
#: Of a Gaussian over a window: narrower, and the sums have no digits left; wider, and it is constant.
_SIGMAS = (0.01, 100.0)
#: A gibibyte of input; a network needs a hundred times that.
_MOST_IN_WINDOW = 2**28
_BLENDINGS = ("constant", "gaussian", "gaussian-nnunet")
#: Fields that `preprocess` stands in for.
_FIXED_WAY = ("spacing_mm", "median_at_mm", "intensity", "within", "field_of_view", "plausibility", "opening")


class DescriptionError(InputError):
    """A model's description is wrong; the message names every fault."""


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """From HU (or what the volume holds) to what the network is fed: ``clip(v, low, high) * scale + offset``."""

    low: float  # in the volume's units
    high: float  # in the volume's units
    scale: float
    offset: float


@dataclass(frozen=True, kw_only=True)
class Window:
    """What part of the grid the network is given at once. Triples follow the network's axes."""

    size: IntTriple  # voxels of the input
    margin: IntTriple  # voxels by which the output is shorter, on each side
    step: IntTriple  # a window that must hold more grows in these steps; 0: it cannot grow
    padding: float  # what stands beyond the image, after scaling
    overlap: float  # share of the output that neighbouring windows have in common, from 0
    tiling: bool  # whether several windows may stand for one; not where a norm sees the whole window
    blending: Literal["constant", "gaussian", "gaussian-nnunet"] = (
        "constant"  # what a score counts, see sliding.importance
    )
    sigma: float = 0.125  # of the Gaussian, as a share of the window's size
    placement: Literal["even", "stride"] = "even"  # even: equal steps; stride: fixed steps, the last window moved back
    batch: int = 1  # windows that the network is given at once


@dataclass(frozen=True, kw_only=True)
class KeepLargest:
    """Only the largest part of a label stays, on the volume's own grid."""

    labels: tuple[int, ...]  # their values
    neighbours: Literal[6, 18, 26]  # voxels that touch: across faces, edges too, corners too
    together: bool  # whether the labels count as one thing


@dataclass(frozen=True, kw_only=True)
class Within:
    """The network is to see the inside of an organ alone, which another model finds first."""

    model: str  # name of the other model in the same repository
    dilation: int  # voxels of this network's grid around the organ
    outside: float  # what stands beyond, after scaling


@dataclass(frozen=True, kw_only=True)
class FieldOfView:
    """What must be in view before the network is asked, and what it is shown of it.

    Chosen on 13 cases (see docs/models.md): a guard against nonsense, not a validation.
    """

    torso_mm: float  # at least so much of the volume's height must be torso
    body_cm2: float  # an axial slice of a torso is larger
    bone_share: float  # and holds less bone than this share of its area
    lung_ml: float  # an air-filled organ is larger; smaller ones are bowel
    lung_share: float  # of the largest axial lung area: the dome is the lowest slice with more
    above_dome_mm: float  # shown to the network, above the dome of the diaphragm
    below_dome_mm: float  # and below


@dataclass(frozen=True, kw_only=True)
class Plausibility:
    """Bounds on a result; beyond them the verdict is `review`, or `none`."""

    possible_mean: tuple[float, float]  # of the volume's values within the label; beyond, it is another thing: `none`
    mean: tuple[float, float]  # the same; beyond, `review`
    sd: float  # of the values within the eroded label, at most
    largest_share: float  # of the largest component in all that the network marked, at least
    right_share: tuple[float, float]  # where the centre lies between the body's left (0) and right (1) border
    volume_ml: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """All that is known of a model beside its weights."""

    name: str  # in the repository: liver
    version: str  # of the weights
    title: str  # for people
    modality: str  # of the images it takes, as DICOM says: CT; empty for any
    orientation: str  # of the network's three axes: RAS
    preprocess: tuple[Step, ...]  # in this order; empty: the fixed way, by the fields down to `intensity`
    spacing: Triple  # mm, of the network's grid, in the order of its axes
    median_at: Triple | None  # a median of 3x3x3 is taken at this spacing first; None: no median
    max_spacing: float  # mm; a volume with voxels further apart is refused
    intensity: Intensity
    window: Window
    activation: Literal["none", "softmax", "sigmoid"]  # of the scores, on the network's grid
    threshold: float  # of a single-channel output; with more channels the largest one wins
    background: bool  # whether the first of several channels is the background
    labels: tuple[Label, ...]  # one for each channel (but the background)
    opening: bool  # parts that hang on by less than two voxels are cut off
    largest_component: bool  # only the largest part stays, on the network's grid
    keep_largest: KeepLargest | None  # only with `preprocess`
    within: Within | None
    field_of_view: FieldOfView | None  # None: any
    plausibility: Plausibility | None  # of the first label; None: none known
    precision: Literal["auto", "f32", "bf16"]  # auto: bf16 where the processor computes it natively
    licence: str
    citation: str
    limits: str  # what it must not be used for

    @property
    def channels(self) -> int:
        """How many the network's output has."""
        return len(self.labels) + (1 if self.background else 0)

    @property
    def usual_window(self) -> IntTriple | None:
        """The window that the network will be asked for, as far as is known before there is an image."""
        return None if self.preprocess and not self.window.tiling else self.window.size


def is_orientation(text: str) -> bool:
    """Whether a text says where three axes grow to: one letter each of R/L, A/P and S/I, in any order."""
    return sorted("RAS".find(letter) if letter in "RAS" else "LPI".find(letter) for letter in text) == [0, 1, 2]


def load(path: Path) -> ModelDescription:
    """Read a description.

    Raises
    ------
    DescriptionError
        The file is missing, no YAML, or says something impossible; all faults in one message.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise DescriptionError(f"there is no {path.name} in {path.parent.name}") from exc
    except yaml.YAMLError as exc:
        # Without the line itself: the file may be anything.
        mark = getattr(exc, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        what = getattr(exc, "problem", None) or "it cannot be read"
        raise DescriptionError(f"{path.parent.name}/{path.name} is no YAML: {what}{place}") from exc
    except ValueError as exc:  # no UTF-8, or a date or a number that is none
        raise DescriptionError(f"{path.parent.name}/{path.name} is no YAML: {exc}") from exc
    except RecursionError as exc:
        raise DescriptionError(f"{path.parent.name}/{path.name} is nested beyond reading") from exc
    return parse(content, where=f"{path.parent.name}/{path.name}")


def parse(content: object, *, where: str) -> ModelDescription:
    """Check a description that was read from YAML; `where` names it in messages."""
    reader = Reader()
    top = reader.section("", content, _TOP)
    if top.get("schema") != SCHEMA:
        reader.fault("schema", f"is {top['schema']!r}, not {SCHEMA}" if "schema" in top else f"is missing: {SCHEMA}")
    description = _read(reader, top)
    if reader.faults:
        raise DescriptionError(f"{where}: {reader.message}")
    return description


#: Fields of the file that are named otherwise here, and those of the file's own.
_TOP = {"schema", "spacing_mm", "median_at_mm", "max_spacing_mm"} | (
    set(ModelDescription.__dataclass_fields__) - {"spacing", "median_at", "max_spacing"}
)


def _read(reader: Reader, top: Mapping[str, Any]) -> ModelDescription:
    """Read all fields; where the reader noted faults, what is returned stands for nothing."""
    orientation = reader.text("orientation", top.get("orientation"))
    if not is_orientation(orientation):
        reader.fault("orientation", f"is {quoted(orientation)}, not three of R/L, A/P and S/I")
    if top.get("field_of_view") is not None and orientation != "RAS":
        reader.fault("field_of_view", f"is only for orientation RAS, not {orientation}")
    preprocess = read_steps(reader, top["preprocess"]) if "preprocess" in top else ()
    if "preprocess" in top:
        for name in (*_FIXED_WAY, "largest_component"):
            if top.get(name):
                reader.fault(name, "does not go with preprocess")
    spacing = (1.0, 1.0, 1.0) if preprocess else reader.triple("spacing_mm", top.get("spacing_mm"))
    check_spacing(reader, "spacing_mm", spacing)
    labels = _labels(reader, top.get("labels"))
    precision = reader.choice("precision", top.get("precision", "auto"), ("auto", "f32", "bf16"))
    median_at = None if top.get("median_at_mm") is None else reader.triple("median_at_mm", top["median_at_mm"])
    if median_at is not None:
        check_spacing(reader, "median_at_mm", median_at)
    activation = reader.choice("activation", top.get("activation", "none"), ("none", "softmax", "sigmoid"))
    return ModelDescription(
        name=reader.text("name", top.get("name")),
        version=reader.text("version", top.get("version")),
        title=reader.text("title", top.get("title")),
        modality=reader.text("modality", top["modality"]) if top.get("modality") else "",
        orientation=orientation,
        preprocess=preprocess,
        spacing=spacing,
        median_at=median_at,
        max_spacing=reader.number("max_spacing_mm", top.get("max_spacing_mm", 1e9)),
        intensity=_UNTOUCHED if preprocess else _intensity(reader, top.get("intensity")),
        window=_window(reader, top.get("window")),
        activation=activation,  # type: ignore[arg-type]
        threshold=reader.number("threshold", top.get("threshold", 0.5)),
        background=reader.flag("background", top.get("background", False)),
        labels=labels,
        opening=reader.flag("opening", top.get("opening", False)),
        largest_component=reader.flag("largest_component", top.get("largest_component", False)),
        keep_largest=_keep_largest(reader, top, labels),
        within=_within(reader, top.get("within"), top.get("name")),
        field_of_view=_field_of_view(reader, top.get("field_of_view")),
        plausibility=_plausibility(reader, top.get("plausibility")),
        precision=precision,  # type: ignore[arg-type]
        licence=reader.text("licence", top.get("licence")),
        citation=reader.text("citation", top.get("citation")),
        limits=reader.text("limits", top.get("limits")),
    )


_UNTOUCHED = Intensity(low=float("-inf"), high=float("inf"), scale=1.0, offset=0.0)


def _intensity(reader: Reader, content: object) -> Intensity:
    entry = reader.section("intensity", content, {"clip", "scale", "offset"})
    clip = reader.numbers("intensity.clip", entry.get("clip"), 2)
    if clip[0] >= clip[1]:
        reader.fault("intensity.clip", f"{list(clip)} does not grow")
    scale = reader.number("intensity.scale", entry.get("scale", 1))
    if not scale:
        reader.fault("intensity.scale", "is 0")
    offset = reader.number("intensity.offset", entry.get("offset", 0))
    return Intensity(low=clip[0], high=clip[1], scale=scale, offset=offset)


def _window(reader: Reader, content: object) -> Window:
    entry = reader.section("window", content, set(Window.__dataclass_fields__))
    size = reader.whole("window.size", entry.get("size"))
    margin = reader.whole("window.margin", entry.get("margin", [0, 0, 0]))
    if any(length - 2 * edge < 1 for length, edge in zip(size, margin, strict=True)):
        reader.fault("window.size", f"{list(size)} leaves nothing between margins of {list(margin)}")
    if prod(size) > _MOST_IN_WINDOW:
        reader.fault("window.size", f"{list(size)} is more than {_MOST_IN_WINDOW:,} voxels")
    overlap = reader.number("window.overlap", entry.get("overlap", 0))
    if not 0 <= overlap < 1:
        reader.fault("window.overlap", f"{overlap:g} is not from 0 up to 1")
    sigma = reader.number("window.sigma", entry.get("sigma", 0.125))
    if not _SIGMAS[0] <= sigma <= _SIGMAS[1]:
        reader.fault("window.sigma", f"{sigma:g} is not from {_SIGMAS[0]:g} to {_SIGMAS[1]:g}")
    batch = reader.number("window.batch", entry.get("batch", 1))
    if batch < 1 or batch != int(batch):
        reader.fault("window.batch", f"{batch:g} is no whole number from 1")
    return Window(
        size=size,
        margin=margin,
        step=reader.whole("window.step", entry.get("step", [0, 0, 0])),
        padding=reader.number("window.padding", entry.get("padding", 0)),
        overlap=overlap,
        tiling=reader.flag("window.tiling", entry.get("tiling", False)),
        blending=reader.choice("window.blending", entry.get("blending", "constant"), _BLENDINGS),  # type: ignore[arg-type]
        sigma=sigma,
        placement=reader.choice("window.placement", entry.get("placement", "even"), ("even", "stride")),  # type: ignore[arg-type]
        batch=int(batch),
    )


def _keep_largest(reader: Reader, top: Mapping[str, Any], labels: tuple[Label, ...]) -> KeepLargest | None:
    if top.get("keep_largest") is None:
        return None
    if "preprocess" not in top:
        reader.fault("keep_largest", "is only for models with preprocess; without it there is largest_component")
    entry = reader.section("keep_largest", top["keep_largest"], set(KeepLargest.__dataclass_fields__))
    known = [label.value for label in labels]
    values = entry.get("labels", known)
    if not isinstance(values, list) or not values or any(value not in known for value in values):
        reader.fault("keep_largest.labels", f"is {quoted(values)}, no list of values that labels have")
        values = known
    neighbours = entry.get("neighbours", 26)
    if neighbours not in (6, 18, 26):
        reader.fault("keep_largest.neighbours", f"is {quoted(neighbours)}, none of 6, 18 and 26")
    together = reader.flag("keep_largest.together", entry.get("together", False))
    return KeepLargest(labels=tuple(values), neighbours=neighbours, together=together)


def _labels(reader: Reader, content: object) -> tuple[Label, ...]:
    if not isinstance(content, list) or not content:
        reader.fault("labels", "is missing" if content is None else "is no list of labels")
        return ()
    labels = []
    for index, item in enumerate(content):
        where = f"labels[{index}]"
        entry = reader.section(where, item, {"value", "name", "category", "type", "color"})
        color = reader.numbers(f"{where}.color", entry.get("color", [255, 0, 0]), 3)
        if any(not 0 <= part <= 255 or part != int(part) for part in color):
            reader.fault(f"{where}.color", f"{list(color)} is no list of whole numbers from 0 to 255")
            color = (255, 0, 0)
        value = reader.number(f"{where}.value", entry.get("value"))
        if not 1 <= value <= 255 or value != int(value):
            reader.fault(f"{where}.value", f"{value:g} is no whole number from 1 to 255")
        labels.append(
            Label(
                value=int(value),
                name=reader.text(f"{where}.name", entry.get("name")),
                category=_code(reader, f"{where}.category", entry.get("category")),
                type=_code(reader, f"{where}.type", entry.get("type")),
                color=(int(color[0]), int(color[1]), int(color[2])),
            )
        )
    if len({label.value for label in labels}) != len(labels):
        reader.fault("labels", "use a value twice")
    return tuple(labels)


def _code(reader: Reader, where: str, content: object) -> Code:
    entry = reader.section(where, content, {"value", "scheme", "meaning"})
    return Code(
        value=reader.text(f"{where}.value", entry.get("value")),
        scheme=reader.text(f"{where}.scheme", entry.get("scheme")),
        meaning=reader.text(f"{where}.meaning", entry.get("meaning")),
    )


def _within(reader: Reader, content: object, name: object) -> Within | None:
    if content is None:
        return None
    entry = reader.section("within", content, {"model", "dilation", "outside"})
    if entry.get("model") == name and name is not None:
        reader.fault("within.model", f"is {name}, the model itself: it must be one that finds the organ first")
    return Within(
        model=reader.text("within.model", entry.get("model")),
        dilation=int(reader.number("within.dilation", entry.get("dilation", 0))),
        outside=reader.number("within.outside", entry.get("outside", 0)),
    )


def _field_of_view(reader: Reader, content: object) -> FieldOfView | None:
    if content is None:
        return None
    names = list(FieldOfView.__dataclass_fields__)
    entry = reader.section("field_of_view", content, set(names))
    return FieldOfView(**{name: reader.number(f"field_of_view.{name}", entry.get(name)) for name in names})


def _plausibility(reader: Reader, content: object) -> Plausibility | None:
    if content is None:
        return None
    entry = reader.section("plausibility", content, set(Plausibility.__dataclass_fields__))

    def span(name: str) -> tuple[float, float]:
        low, high = reader.numbers(f"plausibility.{name}", entry.get(name), 2)
        return low, high

    return Plausibility(
        possible_mean=span("possible_mean"),
        mean=span("mean"),
        sd=reader.number("plausibility.sd", entry.get("sd")),
        largest_share=reader.number("plausibility.largest_share", entry.get("largest_share")),
        right_share=span("right_share"),
        volume_ml=span("volume_ml"),
    )
