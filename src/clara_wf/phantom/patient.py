"""The phantom: a made patient whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import UsageError
from clara_wf.phantom.abdomen import abdomen
from clara_wf.phantom.parts import Anatomy, Marker, Tissue
from clara_wf.phantom.pelvis import pelvis
from clara_wf.phantom.render import Scanner, render

Region = Literal["abdomen", "pelvis"]

#: The everyday grid: 384 x 384 mm of 1.5 mm by 312 mm of 3 mm. No axis is centred, so that no flip goes unnoticed.
EVERYDAY = VolumeGeometry(shape=(104, 256, 256), spacing=(3.0, 1.5, 1.5), origin=(-196.0, -184.0, -150.0))
#: The same field of view as a clinical series of 512 x 512.
CLINICAL = VolumeGeometry(shape=(120, 512, 512), spacing=(2.6, 0.75, 0.75), origin=(-196.375, -184.375, -150.0))

#: Beads held a centimetre off the skin, so that air is all around them. Their triangle has no symmetry:
#: every flip, swap of axes or wrong spacing moves one of them.
MARKERS = (
    Marker(name="front left", centre=(72.0, -128.0, 56.0), radius=5.0, hu=2400.0),
    Marker(name="right flank", centre=(-184.0, -22.0, -41.0), radius=5.0, hu=2400.0),
    Marker(name="front right, low", centre=(-34.0, -134.0, -94.0), radius=5.0, hu=2400.0),
)


@dataclass(frozen=True, kw_only=True)
class Region3D:
    """What is true of one label."""

    volume_ml: float
    centroid_mm: tuple[float, float, float]  # LPS
    mean_hu: float  # of the image, noise and vessels included


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a perfect segmentation of a phantom would measure."""

    seed: int
    region: Region
    labels: Mapping[str, Region3D]  # liver (with its tumours), liver tumour, and every other tissue in view
    markers: tuple[Marker, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the truth as JSON types."""
        return {"schema": "clara-wf/truth/1", **asdict(self)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Phantom:
    """A phantom on a grid. All volumes share one geometry."""

    image: Volume  # int16, HU
    labels: Volume  # uint8: 0 background, 1 liver, 2 tumour
    tissues: Volume  # uint8: `Tissue`
    truth: Truth


@lru_cache(maxsize=4)  # half a second each, and one patient is often seen on several grids
def make_anatomy(
    seed: int = 0, *, region: Region = "abdomen", organs: bool = True, lesions: int = 3, markers: bool = True
) -> Anatomy:
    """Return the phantom's anatomy as data, of infinite resolution.

    Parameters
    ----------
    seed
        Same seed, same patient.
    region
        "abdomen": from the base of the lungs to below the liver. "pelvis": no liver at all.
    organs
        False leaves the cavity full of fat: a torso without a liver.
    lesions
        Number of liver lesions.
    markers
        Whether beads stick to the skin.

    Raises
    ------
    UsageError
        The region is unknown, or a number is negative.
    """
    if region not in get_args(Region):
        raise UsageError(
            f"there is no phantom of the region {region!r}", remedy=f"Take {' or '.join(get_args(Region))}"
        )
    if seed < 0 or lesions < 0:
        raise UsageError(f"seed {seed} and number of lesions {lesions} must not be negative")
    parts = abdomen(seed, organs=organs, lesions=lesions) if region == "abdomen" else pelvis(seed, organs=organs)
    return Anatomy(parts=tuple(parts), markers=MARKERS if markers else ())


def make_phantom(
    geometry: VolumeGeometry = EVERYDAY,
    *,
    seed: int = 0,
    region: Region = "abdomen",
    organs: bool = True,
    lesions: int = 3,
    markers: bool = True,
    scanner: Scanner | None = None,
) -> Phantom:
    """Make a CT of a phantom and its truth.

    Parameters
    ----------
    geometry
        Any regular grid in LPS mm; the liver's gate is near the origin of the world.
    seed
        Of anatomy and noise. The same arguments give the same bytes.
    region, organs, lesions, markers
        As in `make_anatomy`.
    scanner
        Noise and blur; a typical scanner where None.

    Returns
    -------
    Phantom
        Image, labels, tissue map and the truth in numbers, measured on the grid.

    Raises
    ------
    UsageError
        As in `make_anatomy`.
    """
    anatomy = make_anatomy(seed, region=region, organs=organs, lesions=lesions, markers=markers)
    image, tissues = render(anatomy, geometry, seed=seed, scanner=scanner or Scanner())
    labels = np.where(tissues <= Tissue.LIVER_TUMOUR, tissues, np.uint8(0))
    truth = Truth(seed=seed, region=region, labels=_measure(image, tissues, geometry), markers=anatomy.markers)
    return Phantom(
        image=Volume(geometry=geometry, array=image),
        labels=Volume(geometry=geometry, array=labels),
        tissues=Volume(geometry=geometry, array=tissues),
        truth=truth,
    )


def _measure(
    image: npt.NDArray[np.int16], tissues: npt.NDArray[np.uint8], geometry: VolumeGeometry
) -> dict[str, Region3D]:
    """Measure all tissues in one pass over the slices."""
    count = len(Tissue)
    sums = np.zeros((count, 5))  # voxels, HU, slice, row, column
    rows, columns = np.indices(tissues.shape[1:], dtype=np.float64).reshape(2, -1)
    for index, (values, densities) in enumerate(zip(tissues, image, strict=True)):
        flat = values.ravel()
        voxels = np.bincount(flat, minlength=count)
        sums[:, 0] += voxels
        sums[:, 1] += np.bincount(flat, weights=densities.ravel(), minlength=count)
        sums[:, 2] += voxels * index
        sums[:, 3] += np.bincount(flat, weights=rows, minlength=count)
        sums[:, 4] += np.bincount(flat, weights=columns, minlength=count)
    measured = {"liver": sums[Tissue.LIVER] + sums[Tissue.LIVER_TUMOUR]}
    measured |= {tissue.name.lower().replace("_", " "): sums[tissue] for tissue in Tissue if tissue > Tissue.LIVER}
    return {name: _region(row, geometry) for name, row in measured.items() if row[0]}


def _region(sums: npt.NDArray[np.float64], geometry: VolumeGeometry) -> Region3D:
    x, y, z = geometry.index_to_world(sums[2:] / sums[0])
    return Region3D(
        volume_ml=float(sums[0]) * geometry.voxel_ml,
        centroid_mm=(float(x), float(y), float(z)),
        mean_hu=float(sums[1] / sums[0]),
    )
