"""Stage `recon`: projections -> a volume in Hounsfield units.

Reads what INPUTS holds: stacks (`<name>.mhd` with `<name>.geometry.json` or RTK's `<name>.xml`), series in DICOM-CT-PD,
or HDF5 in the Data Exchange layout. Writes `recon.mhd`, `.raw` and `.json`, and a picture; of several scans, the others
are `recon_2`, `recon_3`, ... Nothing is guessed: what a scan does not say and no option states is named, and refused.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.metaimage import open_slices, read_volume
from clara_wf.imaging.preview import draw_volume
from clara_wf.imaging.record import write_record
from clara_wf.model.errors import InputError
from clara_wf.model.files import write_atomically
from clara_wf.model.locks import now
from clara_wf.reconstruction.checks import RayCheck, check_views
from clara_wf.reconstruction.inputs import InputOptions, open_inputs
from clara_wf.reconstruction.options import Filter, Method, Options
from clara_wf.reconstruction.projections import Projections
from clara_wf.reconstruction.reconstruct import Planned, plan, reconstruct
from clara_wf.reconstruction.result import reconstruction_record
from clara_wf.reconstruction.rtk import toolkit
from clara_wf.stage import StageContext, main

_DEFAULTS = Options()
#: 1/mm, from a megavolt down to 25 keV. What a user states is taken as it is.
_WATER = (0.006, 0.055)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    method = parser.add_argument_group("method")
    method.add_argument(
        "--method",
        type=Method,
        choices=list(Method),
        default=_DEFAULTS.method,
        help="auto: FBP for parallel and fan beams, FDK for cones, rebinning for helices; iterative: for few views",
    )
    method.add_argument("--filter", type=Filter, choices=list(Filter), default=_DEFAULTS.filter, help="from sharp on")
    method.add_argument(
        "--cutoff", type=_part, default=_DEFAULTS.cutoff, help="of the filter, as a part of the Nyquist frequency"
    )
    method.add_argument("--iterations", type=_count, default=_DEFAULTS.iterations, help="of the iterative method")
    method.add_argument(
        "--regularization", type=_not_negative, default=_DEFAULTS.regularization, help="of the iterative method"
    )
    grid = parser.add_argument_group("volume")
    grid.add_argument("--fov", type=_positive, metavar="MM", help="field of view (what the scan sees)")
    grid.add_argument("--matrix", type=_count, metavar="N", help="rows and columns (as fine as the detector)")
    grid.add_argument("--slice-thickness", type=_positive, metavar="MM", help="and distance (as fine as the detector)")
    grid.add_argument(
        "--memory", type=_positive, default=_DEFAULTS.memory / 2**30, metavar="GIB", help="for views and volume"
    )
    scan = parser.add_argument_group("what a scan may not say")
    scan.add_argument("--patient-position", metavar="HFS", help="how the patient lay, as DICOM says it")
    scan.add_argument("--water-mu", type=_positive, metavar="PER_MM", help="attenuation of water in 1/mm")
    scan.add_argument("--centre", type=float, metavar="COLUMN", help="rotation centre of a parallel scan, from 0")
    scan.add_argument("--pixel-mm", type=_positive, metavar="MM", help="size of a detector element, Data Exchange")
    scan.add_argument(
        "--missing-projections",
        choices=("refuse", "reweight"),
        default="refuse",
        help="what to do with a scan whose views have gaps or stand twice: refuse it, or weigh those that are there",
    )


def _positive(text: str) -> float:
    value = float(text)
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _not_negative(text: str) -> float:
    return 0.0 if float(text) == 0 else _positive(text)


def _part(text: str) -> float:
    if (value := _positive(text)) > 1:
        raise argparse.ArgumentTypeError(f"{text} is above 1")
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def prepare(context: StageContext) -> None:
    """Load RTK, which takes two to three seconds, while the stages before still work."""
    context.log.debug("loading RTK")
    toolkit()


def execute(context: StageContext, prepared: None) -> None:  # noqa: ARG001
    """Reconstruct every scan of the input."""
    asked = context.options
    reweight = asked.missing_projections == "reweight"
    try:
        scans = open_inputs(
            context.inputs, InputOptions(centre=asked.centre, pixel_mm=asked.pixel_mm, reweight=reweight)
        )
        for index, scan in enumerate(scans):
            name = "recon" if index == 0 else f"recon_{index + 1}"
            _Scan(context=context, projections=scan, place=f"scan {index + 1} of {len(scans)}").reconstruct(
                context.output_folder / f"{name}.mhd", start=index / len(scans), share=1 / len(scans)
            )
    except InputError as fault:
        raise _nameless(fault, context.input_folder) from fault
    context.progress(1.0, "done")


def _nameless(fault: InputError, folder: Path) -> InputError:
    """Say which file is meant by its place in the input: it may be named after a patient."""
    message = fault.message
    files = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for number, name in sorted(enumerate(files, start=1), key=lambda one: -len(one[1])):
        suffix = name[name.index(".") :] if "." in name else ""
        place = f"file {number} ({suffix})" if suffix else f"file {number}"
        message = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", lambda _, place=place: place, message)  # type: ignore[misc]
    return InputError(message, remedy=fault.remedy)


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """A scan of the input, and what was asked for."""

    context: StageContext
    projections: Projections
    place: str  # for messages: scan 1 of 1

    def reconstruct(self, path: Path, *, start: float, share: float) -> None:
        """Write the volume, its record and its picture."""
        context, scan, started = self.context, self.projections, now()
        position, water = self._position(), self._water()
        options = self._options()
        reweight = context.options.missing_projections == "reweight"
        notes = check_views(scan.geometry, reweight=reweight, iterative=options.method is Method.ITERATIVE)
        planned = plan(scan.geometry, options)
        self._tell(planned)
        rays = RayCheck(scan.geometry, water, scan.incident_photons)
        patient = planned.grid.patient_geometry(position)
        digests = [b""] * planned.grid.slices
        with open_slices(path, patient, "<i2") as write:

            def write_slice(index: int, plane: NDArray[np.int16]) -> None:
                place, turned = planned.grid.patient_slice(position, index, plane)
                write(place, turned)
                digests[place] = hashlib.sha256(np.ascontiguousarray(turned).data).digest()

            reconstruct(
                planned,
                lambda first, stop: rays.mend(first, scan.read(first, stop)),
                water,
                write_slice,
                lambda done: context.progress(start + share * done, planned.method),
            )
            notes = (*notes, *rays.notes())
            record = reconstruction_record(
                scan,
                planned,
                digest=hashlib.sha256(repr(patient).encode() + b"".join(digests)).hexdigest(),
                patient_position=position,
                water_attenuation=water,
                stage=context.stage,
                started=started,
                notes=notes,
            )
            write_record(path, record)
        for note in notes:
            context.log.warning("%s: %s", self.place, note)
        write_atomically(path.with_suffix(".preview.png"), draw_volume(read_volume(path), record))

    def _tell(self, planned: Planned) -> None:
        """Say what is going to be done."""
        detector, grid = planned.geometry.detector, planned.grid
        self.context.log.info(
            "%s: %d views of %dx%d, %s; %d slices of %dx%d, %.4g mm apart, pixels of %.4g mm",
            *(self.place, planned.geometry.views, detector.columns, detector.rows, planned.method),
            *(grid.slices, grid.matrix, grid.matrix, grid.thickness, grid.pixel),
        )

    def _options(self) -> Options:
        asked = self.context.options
        return Options(
            method=asked.method,
            filter=asked.filter,
            cutoff=asked.cutoff,
            field_of_view=asked.fov,
            matrix=asked.matrix,
            slice_thickness=asked.slice_thickness,
            iterations=asked.iterations,
            regularization=asked.regularization,
            memory=round(asked.memory * 2**30),
        )

    def _position(self) -> str:
        position: str | None = self.context.options.patient_position or self.projections.patient_position
        if not position:
            raise InputError(
                f"{self.place} does not say how the patient lay, so left and right are unknown",
                remedy="State it, by --arg recon=--patient-position=HFS for example",
            )
        return position

    def _water(self) -> float:
        water: float | None = self.context.options.water_mu or self.projections.water_attenuation
        if not water:
            raise InputError(
                f"{self.place} does not say the attenuation of water, so there are no Hounsfield units",
                remedy="State it in 1/mm, by --arg recon=--water-mu=0.0192 for example",
            )
        if self.context.options.water_mu is None and not _WATER[0] < water < _WATER[1]:
            raise InputError(
                f"{self.place} has water attenuate {water:g} in each mm, which X-rays for patients do not; is it 1/cm?",
                remedy="State it in 1/mm, by --arg recon=--water-mu=0.0192 for example",
            )
        return water


if __name__ == "__main__":
    main(prepare=prepare, execute=execute, arguments=arguments)
