"""A picture of a result: slices through what was found, with its contours, for people to look at.

No patient data are drawn, and every picture says that it is not for clinical use.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clara_wf.imaging.record import Label, Verdict, VolumeRecord
from clara_wf.imaging.regions import eroded, largest_region, opened
from clara_wf.imaging.volume import Volume

#: HU window for soft tissue.
WINDOW, LEVEL = 400.0, 40.0
#: Of a sample of slices; what lies beyond is shown black or white, where units say nothing.
_WINDOW_PERCENTILES = (1.0, 99.5)
_PANEL_HEIGHT, _PANELS_WIDTH = 400, 1340
#: Around the body.
_AIR_MM = 12.0
_GAP, _MARGIN, _HEADER, _FOOTER = 12, 16, 74, 40
_INK, _DIM, _PAPER = (236, 238, 240), (150, 156, 164), (18, 20, 24)
_STATUS_COLORS = {"ok": (98, 196, 124), "review": (240, 180, 60), "none": (150, 156, 164)}
#: Drawn larger and reduced, so that contours and letters are smooth.
_OVERSAMPLING = 2
#: Patient axes (L, P, S) of a panel's right and down, and along which it is cut.
_PLANES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))
_NICE_MM = (200, 100, 50, 20, 10, 5)


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """An axis of the array, as the patient's axis that it is nearest to."""

    axis: int  # of the array
    turned: bool  # whether the index grows against L, P or S
    spacing: float  # mm


def draw_preview(
    volume: Volume,
    labels: Volume,
    names: Sequence[Label] = (),
    *,
    verdict: Verdict | None = None,
    title: str = "",
    window: float = WINDOW,
    level: float = LEVEL,
) -> bytes:
    """Draw axial, coronal and sagittal slices through the middle of the labels.

    Parameters
    ----------
    volume, labels : Volume
        The image and the label map on the same grid, in any orientation; may be memory-mapped. An oblique volume is
        shown along its own axes, with the letters of the patient's nearest.
    names : sequence of Label
        Names and colours; values that are not named are not drawn.
    verdict : Verdict, optional
        Drawn above the slices.
    title : str
        What made the labels; no patient data.
    window, level : float
        Of the grey values, in the volume's units.

    Returns
    -------
    bytes
        A PNG file.
    """
    axes = _axes(volume)
    centre = _centre(labels.array, [label.value for label in names])
    shown = _shown(volume.array, axes, centre, level - window / 2)
    scale = _scale([(stop - start) * axis.spacing for axis, (start, stop) in zip(axes, shown, strict=True)])
    panels = []
    for plane, (right, down, through) in _PLANES.items():
        part = tuple(slice(*shown[patient]) for patient in (down, right))
        cut = (axes[right], axes[down], axes[through].axis, centre[axes[through].axis])
        grey, found = _plane(volume.array, *cut)[part], _plane(labels.array, *cut)[part]
        if plane != "axial":
            # Superior is up.
            grey, found = grey[::-1], found[::-1]
        bright = np.clip((grey.astype(np.float32) - (level - window / 2)) / window * 255, 0, 255).astype(np.uint8)
        panel = _panel(bright, found, names, (axes[right].spacing * scale, axes[down].spacing * scale))
        _annotate(panel, plane, right, down, scale)
        panels.append(panel)
    return _sheet(panels, names, verdict, title)


def draw_volume(volume: Volume, record: VolumeRecord) -> bytes:
    """Draw a grey volume without labels; returns a PNG file.

    Hounsfield units are shown in the window of soft tissue, other values between those of the darkest and the brightest
    few of a sample of slices.
    """
    nothing = Volume(geometry=volume.geometry, array=np.broadcast_to(np.uint8(0), volume.array.shape))
    title = f"{record.modality} volume of {volume.array.shape[0]} slices"
    if record.units == "HU":
        return draw_preview(volume, nothing, title=title)
    low, high = np.percentile(volume.array[:: max(1, volume.array.shape[0] // 16)], _WINDOW_PERCENTILES)
    window = max(float(high - low), 1e-6)
    return draw_preview(volume, nothing, title=title, window=window, level=float(low + high) / 2)


def _axes(volume: Volume) -> list[_Axis]:
    """Return which array axis runs along the patient's L, P and S."""
    cosines = np.array(volume.geometry.axes)
    best = max(permutations(range(3)), key=lambda order: sum(abs(cosines[order[axis], axis]) for axis in range(3)))
    return [
        _Axis(axis=axis, turned=bool(cosines[axis, patient] < 0), spacing=volume.geometry.spacing[axis])
        for patient, axis in enumerate(best)
    ]


def _centre(labels: NDArray[np.uint8], values: Sequence[int]) -> tuple[int, int, int]:
    """Return the index where most is to be seen, or the middle.

    Per axis, that is the slice where the labels' areas, each as a share of its own largest, add up to most: a small
    label counts as much as the large one around it.
    """
    areas = [np.zeros((max(len(values), 1), length)) for length in labels.shape]
    for index, plane in enumerate(labels):
        if not plane.any():
            continue
        for row, value in enumerate(values):
            found = plane == value
            areas[0][row, index] = np.count_nonzero(found)
            areas[1][row] += np.count_nonzero(found, axis=1)
            areas[2][row] += np.count_nonzero(found, axis=0)
    shares = [(area / np.maximum(area.max(axis=1, keepdims=True), 1)).sum(axis=0) for area in areas]
    first, second, third = (int(share.argmax()) if share.any() else len(share) // 2 for share in shares)
    return first, second, third


def _plane(array: NDArray[Any], across: _Axis, along: _Axis, cut: int, index: int) -> NDArray[Any]:
    """Cut a slice: rows run along `along`, columns along `across`, both towards L, P or S."""
    plane = np.take(array, index, axis=cut)
    if along.axis > across.axis:
        plane = plane.T
    turned: NDArray[Any] = plane[:: -1 if along.turned else 1, :: -1 if across.turned else 1]
    return turned


def _shown(
    array: NDArray[Any], axes: Sequence[_Axis], centre: Sequence[int], threshold: float
) -> list[tuple[int, int]]:
    """Return what to show along L, P and S: the largest thing in the axial slice with some air around, and all of S."""
    across, along, through = axes
    bright = _plane(array, across, along, through.axis, centre[through.axis]) > threshold
    largest = largest_region(opened(bright))
    if largest is None:
        shown = [(0, array.shape[axis.axis]) for axis in (across, along)]
    else:
        rows, columns = largest
        shown = []
        for part, axis in ((columns, across), (rows, along)):
            air = round(_AIR_MM / axis.spacing)
            shown.append((max(part.start - air, 0), min(part.stop + air, array.shape[axis.axis])))
    return [*shown, (0, array.shape[through.axis])]


def _scale(sizes_mm: Sequence[float]) -> float:
    """Return the drawn pixels for a millimetre, the same in all panels."""
    left, posterior, superior = sizes_mm
    tallest, total = max(posterior, superior), 2 * left + posterior
    return min(_PANEL_HEIGHT / tallest, _PANELS_WIDTH / total) * _OVERSAMPLING


def _panel(
    grey: NDArray[np.uint8], labels: NDArray[Any], names: Sequence[Label], voxel: tuple[float, float]
) -> Image.Image:
    """Draw a slice with its contours, at its true proportions; `voxel` is a voxel's width and height as drawn."""
    size = (max(1, round(grey.shape[1] * voxel[0])), max(1, round(grey.shape[0] * voxel[1])))
    color = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC).convert("RGB")).copy()
    for label in names:
        mask = np.asarray(labels == label.value, np.uint8) * 255
        if mask.any():
            color[_contour(Image.fromarray(mask).resize(size, Image.Resampling.BICUBIC))] = label.color
    return Image.fromarray(color)


def _contour(mask: Image.Image) -> NDArray[np.bool_]:
    """Return the pixels on the border of a mask that was enlarged smoothly, two or three wide."""
    inside = np.asarray(mask) >= 128
    core = inside.copy()
    for _ in range(_OVERSAMPLING + 1):
        core = eroded(core)
    return inside & ~core


def _annotate(panel: Image.Image, plane: str, right: int, down: int, scale: float) -> None:
    """Write the plane's name, where the patient's sides are, and a ruler."""
    draw = ImageDraw.Draw(panel)
    width, height = panel.size
    inset = 8 * _OVERSAMPLING
    ruler = next((mm for mm in _NICE_MM if mm * scale <= width / 3), _NICE_MM[-1])
    draw.line([(inset, height - inset), (inset + ruler * scale, height - inset)], fill=_INK, width=2 * _OVERSAMPLING)
    _text(draw, (inset, height - inset - 4 * _OVERSAMPLING), f"{ruler} mm", 11, _INK, "ls")
    left_letter, right_letter = _LETTERS[right]
    top, bottom = _LETTERS[down] if plane == "axial" else _LETTERS[down][::-1]
    _text(draw, (inset, inset), plane, 12, _DIM, "la")
    _text(draw, (inset, height // 2), left_letter, 15, _INK, "lm")
    _text(draw, (width - inset, height // 2), right_letter, 15, _INK, "rm")
    _text(draw, (width // 2, inset), top, 15, _INK, "ma")
    _text(draw, (width // 2, height - inset), bottom, 15, _INK, "md")


def _sheet(panels: Sequence[Image.Image], names: Sequence[Label], verdict: Verdict | None, title: str) -> bytes:
    """Put the panels side by side between a header and a footer."""
    over = _OVERSAMPLING
    width = sum(panel.width for panel in panels) + (_GAP * (len(panels) - 1) + 2 * _MARGIN) * over
    height = max(panel.height for panel in panels) + (_HEADER + _FOOTER) * over
    sheet = Image.new("RGB", (width, height), _PAPER)
    left = _MARGIN * over
    for panel in panels:
        sheet.paste(panel, (left, _HEADER * over + (height - (_HEADER + _FOOTER) * over - panel.height) // 2))
        left += panel.width + _GAP * over
    draw = ImageDraw.Draw(sheet)
    edge = _MARGIN * over
    if verdict is not None:
        _text(draw, (edge, 16 * over), verdict.status, 18, _STATUS_COLORS[verdict.status], "la")
        reasons = _shortened("; ".join(verdict.reasons), width // over - 2 * _MARGIN, 12)
        _text(draw, (edge, 44 * over), reasons, 12, _INK, "la")
    _text(draw, (width - edge, 18 * over), title, 13, _DIM, "ra")
    position = edge
    for label in names:
        draw.rectangle(
            [position, height - 25 * over, position + 12 * over, height - 13 * over],
            outline=label.color,
            width=2 * over,
        )
        _text(draw, (position + 18 * over, height - 19 * over), label.name, 13, _INK, "lm")
        position += round((36 + _font(13).getlength(label.name) / over) * over)
    _text(draw, (width - edge, height - 19 * over), "Not for clinical use", 13, _STATUS_COLORS["review"], "rm")
    reduced = sheet.resize((width // over, height // over), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    reduced.save(buffer, "PNG")
    return buffer.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * _OVERSAMPLING)


def _shortened(text: str, width: int, size: int) -> str:
    """Cut a text to a width in pixels of the final picture."""
    font = _font(size)
    if font.getlength(text) <= width * _OVERSAMPLING:
        return text
    while text and font.getlength(text + "...") > width * _OVERSAMPLING:
        text = text[:-1]
    return text.rstrip() + "..."


def _text(  # noqa: PLR0917 - as Pillow's own
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    color: tuple[int, int, int],
    anchor: str,
) -> None:
    """Write with a dark rim, so that it reads on any grey."""
    draw.text(place, text, font=_font(size), fill=color, anchor=anchor, stroke_width=_OVERSAMPLING, stroke_fill=_PAPER)
