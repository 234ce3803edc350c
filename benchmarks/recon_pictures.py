"""Pictures of what every kind of scan is reconstructed to, beside the truth: `recon_pictures [SCAN...]`.

A made patient is scanned with the noise of its photons and reconstructed with the default options; the truth is the
same patient painted on the grid of the reconstruction. Prints how far the two are apart inside the body.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.preview import LEVEL, WINDOW
from clara_wf.phantom.acquisition import PATIENT_POSITION, acquisition
from clara_wf.phantom.patient import make_anatomy
from clara_wf.phantom.projector import WATER_ATTENUATION
from clara_wf.phantom.render import AIR, Scanner, render
from clara_wf.phantom.scans import SCANS
from clara_wf.reconstruction.geometry import ScanGeometry
from clara_wf.reconstruction.options import Method, Options
from clara_wf.reconstruction.reconstruct import Planned, plan, reconstruct

#: HU that are black and white in a picture of differences.
DIFFERENCE = 100.0
FEW_VIEWS = 60
#: What is shown, mm: the body, the table and some air. A coronal picture is cut through kidneys and liver.
WIDTH, DEPTH, CORONAL_Y = (-222.0, 222.0), (-160.0, 166.0), 12.0
#: Of the axial slices: through the liver, and the middle of a vertebra.
AXIAL_Z = 15.0

PANEL = 384  # pixels wide
GAP, MARGIN, HEADER, LINE, FOOTER = 8, 14, 38, 20, 32
INK, PAPER = 236, 22
#: Letters are drawn larger and reduced, so that they are smooth.
OVERSAMPLING = 2
#: Fewer grey values make smaller files; noise hides the steps.
GREY_STEP = 4

TITLES = {
    "parallel": "Parallel beam, half a turn",
    "fan": "Fan beam, full turn, curved detector",
    "fan-short": "Fan beam, short scan, curved detector",
    "cone": "Cone beam, circle, flat panel",
    "helical": "Helix, curved detector of 24 rows",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """A reconstruction and the truth on its grid."""

    planned: Planned
    geometry: VolumeGeometry  # in the patient
    image: NDArray[np.int16]  # HU
    truth: NDArray[np.int16]
    rms: float  # HU, inside the body


def main() -> None:
    """Draw all pictures."""
    names = [*SCANS, "few-views"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("scans", nargs="*", metavar="SCAN", help=f"all, or some of {', '.join(names)}")
    asked = parser.parse_args()
    if unknown := [name for name in asked.scans if name not in names]:
        parser.error(f"{', '.join(unknown)} is none of {', '.join(names)}")
    asked.output.mkdir(parents=True, exist_ok=True)
    for name in asked.scans or names:
        rows: list[tuple[str, Image.Image]] = []
        if name == "few-views":
            scan = _lifted(SCANS["fan"](FEW_VIEWS))
            title = f"Fan beam, full turn of {FEW_VIEWS} views"
            for method in Method:
                found = _compare(name, scan, Options(method=method))
                rows.append((_caption(found), _row(_axial(found), found)))
        else:
            scan = _lifted(SCANS[name](None))
            found = _compare(name, scan, Options())
            title = f"{TITLES[name]}, {scan.views} views"
            rows.append((_caption(found), _row(_axial(found), found)))
            if name in {"cone", "helical"}:
                rows.append(("", _row(_coronal(found), found, plane="coronal")))
        path = asked.output / f"recon-{name}.png"
        _sheet(title, rows).save(path, optimize=True)
        print(f"  {path}: {path.stat().st_size / 2**10:.0f} KiB")


def _lifted(scan: ScanGeometry) -> ScanGeometry:
    """Return a circular scan at the height of the picture."""
    return scan if scan.is_helical else replace(scan, axial=np.full(scan.views, AXIAL_Z))


def _compare(name: str, scan: ScanGeometry, options: Options) -> Compared:
    """Scan the patient, reconstruct, and paint the truth."""
    anatomy = make_anatomy()
    views = np.empty((scan.views, scan.detector.rows, scan.detector.columns), np.float32)
    for index, view in acquisition(anatomy, scan).line_integrals():
        views[index] = view
    planned = plan(scan, options)
    geometry = planned.grid.patient_geometry(PATIENT_POSITION)
    image = np.empty(geometry.shape, np.int16)

    def write(index: int, plane: NDArray[np.int16]) -> None:
        place, turned = planned.grid.patient_slice(PATIENT_POSITION, index, plane)
        image[place] = turned

    started = time.perf_counter()
    reconstruct(planned, lambda first, stop: views[first:stop], WATER_ATTENUATION, write, lambda _: None)
    seconds = time.perf_counter() - started
    truth, tissues = render(anatomy, geometry, seed=0, scanner=Scanner(noise=0, blur=0))
    inside = tissues > 0
    place = planned.grid.edge + np.arange(planned.grid.matrix) * planned.grid.pixel
    # No scan sees the corners.
    image[:, np.hypot(place[:, None], place[None, :]) > max(scan.field_of_view, -2 * place[0]) / 2] = AIR
    difference = image[inside].astype(np.float32) - truth[inside]
    rms = float(np.sqrt(np.mean(difference**2)))
    print(
        f"{name}: {planned.method}: {geometry.shape[0]} slices of {planned.grid.matrix}x{planned.grid.matrix} in"
        f" {seconds:.1f} s, {rms:.1f} HU rms inside the body, mean {difference.mean():+.1f},"
        f" median of the distance {np.median(np.abs(difference)):.1f}"
    )
    return Compared(planned=planned, geometry=geometry, image=image, truth=truth, rms=rms)


def _caption(found: Compared) -> str:
    method = found.planned.method
    return f"{method[0].upper()}{method[1:]}: {found.rms:.0f} HU rms from the truth inside the body"


def _axial(found: Compared) -> tuple[int, slice, slice]:
    """Return what of the array is the picture: a slice through the liver, without the air."""
    across = [_indices(found.geometry, axis, limits) for axis, limits in ((1, DEPTH), (2, WIDTH))]
    return _index(found.geometry, 0, AXIAL_Z), across[0], across[1]


def _coronal(found: Compared) -> tuple[slice, int, slice]:
    """Likewise, with the head up."""
    return slice(None, None, -1), _index(found.geometry, 1, CORONAL_Y), _indices(found.geometry, 2, WIDTH)


def _index(geometry: VolumeGeometry, axis: int, place: float) -> int:
    nearest = round((place - geometry.origin[2 - axis]) / geometry.spacing[axis])
    return min(max(nearest, 0), geometry.shape[axis] - 1)


def _indices(geometry: VolumeGeometry, axis: int, limits: tuple[float, float]) -> slice:
    return slice(_index(geometry, axis, limits[0]), _index(geometry, axis, limits[1]) + 1)


def _row(part: tuple[int | slice, ...], found: Compared, *, plane: str = "axial") -> Image.Image:
    """Draw reconstruction, truth and difference side by side."""
    image, truth = (array[part].astype(np.float32) for array in (found.image, found.truth))
    spacing = [step for step, cut in zip(found.geometry.spacing, part, strict=True) if isinstance(cut, slice)]
    scale = PANEL / (image.shape[1] * spacing[1])
    size = (PANEL, round(image.shape[0] * spacing[0] * scale))
    row = Image.new("L", (3 * PANEL + 2 * GAP, size[1]), PAPER)
    for index, (values, low, high) in enumerate(
        (
            (image, LEVEL - WINDOW / 2, LEVEL + WINDOW / 2),
            (truth, LEVEL - WINDOW / 2, LEVEL + WINDOW / 2),
            (image - truth, -DIFFERENCE, DIFFERENCE),
        )
    ):
        grey = np.clip((values - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        panel = Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS)
        row.paste(panel.point([value // GREY_STEP * GREY_STEP for value in range(256)]), (index * (PANEL + GAP), 0))
    return _lettered(row, plane)


def _lettered(row: Image.Image, plane: str) -> Image.Image:
    """Write the plane and the patient's sides into the first panel."""
    middle, bottom, inset = row.height // 2, row.height - 6, 6
    top, foot = ("A", "P") if plane == "axial" else ("S", "I")
    return _written(
        row,
        [
            ((inset, inset), plane, 12, "la"),
            ((inset, middle), "R", 13, "lm"),
            ((PANEL - inset, middle), "L", 13, "rm"),
            ((PANEL // 2, inset), top, 13, "ma"),
            ((PANEL // 2, bottom), foot, 13, "md"),
        ],
    )


def _sheet(title: str, rows: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Put rows of panels, each with its caption, between a header and a footer."""
    width = rows[0][1].width + 2 * MARGIN
    height = HEADER + LINE + sum(row.height + (LINE if caption else 0) + GAP for caption, row in rows) + FOOTER
    sheet = Image.new("L", (width, height), PAPER)
    window = f"A made patient. Window of {WINDOW:.0f} HU about {LEVEL:.0f} HU"
    texts = [
        ((MARGIN, HEADER // 2 + 2), title, 16, "lm"),
        ((MARGIN, height - FOOTER // 2), window, 12, "lm"),
        ((width - MARGIN, height - FOOTER // 2), "Not for clinical use", 13, "rm"),
    ]
    heads = ("reconstruction", "truth", f"difference: black -{DIFFERENCE:.0f}, white +{DIFFERENCE:.0f} HU")
    top = HEADER
    for index, (caption, row) in enumerate(rows):
        if caption:
            texts.append(((MARGIN, top + LINE // 2), caption, 12, "lm"))
            top += LINE
        if index == 0:
            places = [MARGIN + panel * (PANEL + GAP) + PANEL // 2 for panel in range(len(heads))]
            texts += [((place, top + LINE // 2), head, 12, "mm") for place, head in zip(places, heads, strict=True)]
            top += LINE
        sheet.paste(row, (MARGIN, top))
        top += row.height + GAP
    return _written(sheet, texts)


def _written(picture: Image.Image, texts: Sequence[tuple[tuple[int, int], str, int, str]]) -> Image.Image:
    """Write texts (place, text, size, anchor) with a dark rim, smoothly; the rest stays as it is."""
    large = (picture.width * OVERSAMPLING, picture.height * OVERSAMPLING)
    ink, rim = Image.new("L", large), Image.new("L", large)
    for (x, y), text, size, anchor in texts:
        place, font = (x * OVERSAMPLING, y * OVERSAMPLING), ImageFont.load_default(size * OVERSAMPLING)
        ImageDraw.Draw(ink).text(place, text, 255, font, anchor)
        ImageDraw.Draw(rim).text(place, text, 255, font, anchor, stroke_width=OVERSAMPLING + 1, stroke_fill=255)
    written = picture.copy()
    for mask, grey in ((rim, PAPER), (ink, INK)):
        written.paste(grey, (0, 0), mask.resize(picture.size, Image.Resampling.LANCZOS))
    return written


if __name__ == "__main__":
    main()
