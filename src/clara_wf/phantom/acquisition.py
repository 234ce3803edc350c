"""A scan of a phantom: what the detector counts, view by view."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from clara_wf.imaging.volume import Volume
from clara_wf.phantom.parts import Anatomy
from clara_wf.phantom.projector import WATER_ATTENUATION, attenuation, project
from clara_wf.phantom.render import Scanner, render
from clara_wf.phantom.scans import seen_grid
from clara_wf.phantom.shapes import FloatArray
from clara_wf.phantom.volume_input import generator_sha256
from clara_wf.reconstruction.geometry import ScanGeometry
from clara_wf.reconstruction.stack import Calibration, geometry_json

#: Slice, row and column of the grid that an anatomy is projected from, mm: finer than the one that is reconstructed.
FINE: Final = (2.4, 1.4, 1.4)
#: Photons of a ray without anything in its way. The thickest body leaves six hundred; its image scatters by about 8 HU.
PHOTONS: Final = 1e6
#: How a patient lies whose frame is the scanner's.
PATIENT_POSITION: Final = "HFS"


@dataclass(frozen=True, kw_only=True, eq=False)
class Acquisition:
    """A body, the path of source and detector, and the dose."""

    body: Volume  # attenuation in 1/mm, along the scanner's axes
    geometry: ScanGeometry
    anatomy: str = "abdomen"  # what it is of, for people
    photons: float = PHOTONS  # in each view, for each element, before the body
    noise: bool = True  # False: as many photons as are expected, with their fractions
    seed: int = 0  # of anatomy and noise

    @cached_property
    def name(self) -> str:
        """What identifiers are derived from: all that the values depend on."""
        calibration = Calibration(incident_counts=self.photons, water_attenuation=WATER_ATTENUATION)
        digest = hashlib.sha256(np.ascontiguousarray(self.body.array).data)
        facts = (
            geometry_json(self.geometry, patient_position=PATIENT_POSITION, calibration=calibration),
            self.body.geometry.affine.tolist(),
            self.body.geometry.shape,
            self.noise,
            generator_sha256(),
        )
        digest.update(json.dumps(facts).encode())
        return f"seed-{self.seed}/{digest.hexdigest()}"

    def counts(self) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
        """Yield each view's index and its photon counts, [row, column], in an order that suits the work."""
        for view, integrals in project(self.body, self.geometry):
            yield view, self.counted(self.photons * np.exp(-integrals.astype(np.float64)), view)

    def counted(self, expected: npt.NDArray[np.float64], view: int) -> npt.NDArray[np.float64]:
        """Return how many photons of those expected are counted: always the same for the same seed and view."""
        if not self.noise:
            return expected
        return np.random.default_rng([self.seed, 3, view]).poisson(expected).astype(np.float64)

    def line_integrals(self) -> Iterator[tuple[int, FloatArray]]:
        """Yield each view's index and its line integrals, [row, column]; infinite where no photon came through."""
        for view, counts in self.counts():
            with np.errstate(divide="ignore"):
                yield view, np.asarray(-np.log(counts / self.photons), dtype=np.float32)


def acquisition(
    anatomy: Anatomy,
    geometry: ScanGeometry,
    *,
    name: str = "abdomen",
    photons: float = PHOTONS,
    noise: bool = True,
    seed: int = 0,
    spacing: tuple[float, float, float] = FINE,
) -> Acquisition:
    """Prepare the scan of an anatomy, which is sampled by `spacing` (slice, row, column, mm) without blur."""
    grid = seen_grid(geometry, spacing)
    densities, _ = render(anatomy, grid, seed=seed, scanner=Scanner(noise=0, blur=0))
    body = attenuation(Volume(geometry=grid, array=densities))
    return Acquisition(body=body, geometry=geometry, anatomy=name, photons=photons, noise=noise, seed=seed)
