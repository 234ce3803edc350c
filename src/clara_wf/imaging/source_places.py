"""Which source image each slice of a volume lies on: by where both are in the patient, not by their order.

Stages hand the record on as it is. One that turns, mirrors, crops or shifts the volume leaves the order of the record's
images behind, so that a reference by order would point at another slice, and a viewer that trusts Spatial Locations
Preserved (0028,135A) would draw a label on pixels that it was never made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import SourceInstance, SourceSeries, VolumeRecord
from clara_wf.imaging.volume import Volume

_Array = NDArray[np.float64]

#: A slice is on the plane of an image if it is off by no more than this part of the slices' distance. The reader lets
#: an image be a tenth off its place on the grid (`dicom_gate.PLACE_TOLERANCE_LIMIT`), and so the first, which is the
#: origin: together, twice that.
_OFF_PLANE: Final = 0.2
#: A voxel is at the place of a pixel if it is off by no more than this part of it: what the reader allows
#: (`dicom_gate.SHIFT_TOLERANCE_PIXELS`).
_IN_PLANE: Final = 0.1
#: Of two images at one place, that of the record's order is meant.
_SAME_PLACE_MM: Final = 1e-3
#: Allows for the rounding of floating-point numbers, mm or parts.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class SliceSource:
    """The source image that a slice of a volume lies on."""

    instance: SourceInstance | None  # None: it lies on none
    preserved: bool | None  # whether voxel (row, column) is where the image's pixel (row, column) is; None: not known


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """How the pixels of an image lie: all of a series lie alike."""

    row_step: _Array  # LPS mm (3,) from a row to the next
    column_step: _Array  # LPS mm (3,) from a column to the next
    rows: int | None  # None: the record does not say
    columns: int | None

    @property
    def normal(self) -> _Array:
        """Unit vector (3,)."""
        normal = np.cross(self.column_step, self.row_step)
        found: _Array = normal / np.linalg.norm(normal)
        return found

    def is_parallel(self, geometry: VolumeGeometry) -> bool:
        """Say whether a slice of a grid stays on the plane of an image from its first to its last voxel."""
        drift = _sides(geometry) @ self.normal
        return bool(np.abs(drift).sum() <= _OFF_PLANE * geometry.spacing[0])

    def has_pixels_of(self, geometry: VolumeGeometry) -> bool:
        """Say whether the voxels of a slice lie as the pixels of an image do, if their first ones are at one place."""
        sizes = zip((self.rows, self.columns), geometry.shape[1:], strict=True)
        if any(size not in {None, length} for size, length in sizes):
            return False
        ours = np.array([self.row_step, self.column_step]) * (np.array(geometry.shape[1:])[:, None] - 1)
        off = np.linalg.norm(ours - _sides(geometry), axis=1)
        return bool(off.sum() <= _IN_PLANE * min(geometry.spacing[1:]))

    def in_pixels(self, way: _Array) -> _Array:
        """Translate ways (..., 3) in LPS mm to rows and columns (..., 2)."""
        steps = np.array([self.row_step, self.column_step])
        found: _Array = way @ (steps / (steps**2).sum(axis=1, keepdims=True)).T
        return found


def is_resampled(record: VolumeRecord) -> bool:
    """Say whether a stage declares a resampling (``resampled`` in its detail): slices between the source's."""
    return any(step.detail.get("resampled") for step in record.provenance)


def find_sources(record: VolumeRecord, volume: Volume) -> tuple[SliceSource, ...]:
    """Find the source image of each slice of a volume.

    Where the record says where its images are, a slice belongs to the image nearest along the images' normal, if it
    lies in its plane and is no further than half the way to the next image. Where it does not, the images are taken in
    the record's order, and nothing is claimed of the places of pixels.

    Parameters
    ----------
    record : VolumeRecord
        With a source of as many images as the volume has slices.
    volume : Volume
        [slice, row, column].

    Returns
    -------
    tuple of SliceSource
        In the order of the slices.
    """
    source = record.source
    if source is None:
        return ()
    claim = False if is_resampled(record) else None
    found = [instance.position for instance in source.instances if instance.position is not None]
    plane = _plane(source)
    if len(found) < len(source.instances) or plane is None:
        return tuple(SliceSource(instance=instance, preserved=claim) for instance in source.instances)
    geometry = volume.geometry
    if not plane.is_parallel(geometry):
        return (SliceSource(instance=None, preserved=None),) * geometry.shape[0]
    images = np.array(found)
    slices = geometry.index_to_world([(index, 0, 0) for index in range(geometry.shape[0])])
    off = np.abs((slices @ plane.normal)[:, None] - images @ plane.normal)  # mm (slices, images)
    nearest = off.argmin(axis=1)
    own = np.arange(len(nearest))
    nearest = np.where(off[own, own] <= off.min(axis=1) + _SAME_PLACE_MM, own, nearest)
    off_plane = off[own, nearest]
    off_pixels = np.abs(plane.in_pixels(slices - images[nearest])).max(axis=1)
    preserved = (off_plane <= _OFF_PLANE * geometry.spacing[0] + _ROUNDING) & (off_pixels <= _IN_PLANE + _ROUNDING)
    preserved &= plane.has_pixels_of(geometry) and claim is None
    reached = off_plane <= _reach(images @ plane.normal, geometry)
    return tuple(
        SliceSource(instance=source.instances[image], preserved=bool(same))
        if near
        else SliceSource(instance=None, preserved=None)
        for image, same, near in zip(nearest, preserved, reached, strict=True)
    )


def tell_sources(record: VolumeRecord, slices: tuple[SliceSource, ...]) -> tuple[str, ...]:
    """Say, for people, what is otherwise than they would expect of references to source images."""
    notes = []
    if any(found.instance is not None and found.preserved is None for found in slices):
        notes.append(
            "the record does not say where the source images are: they are referred to in its order, and nothing is "
            "claimed of their pixels' places"
        )
    moved = sum(found.preserved is False for found in slices)
    if moved and not is_resampled(record):
        notes.append(
            f"in {moved} of {len(slices)} slices the voxels are not where the source's pixels are, though no stage "
            "declares that it resampled: Spatial Locations Preserved is NO"
        )
    alone = sum(found.instance is None for found in slices)
    if alone:
        notes.append(f"{alone} of {len(slices)} slices lie on no source image and refer to none")
    return tuple(notes)


def _sides(geometry: VolumeGeometry) -> _Array:
    """Return LPS mm (2, 3) from the first voxel of a slice to the last along the row index and the column index."""
    steps = np.array(geometry.axes[1:]) * np.array(geometry.spacing[1:])[:, None]
    sides: _Array = steps * (np.array(geometry.shape[1:])[:, None] - 1)
    return sides


def _reach(places: _Array, geometry: VolumeGeometry) -> float:
    """Return how far, in mm, a slice may be from an image to belong to it: half the way to the next."""
    gap = max(float(np.diff(np.sort(places)).max(initial=0.0)), geometry.spacing[0])
    return gap / 2 + _ROUNDING


def _plane(source: SourceSeries) -> _Plane | None:
    """Read how the pixels lie (PS3.3 C.7.6.2); None if the record does not say."""
    directions = np.array(_numbers(source, "00200037", 6))  # Image Orientation (Patient): of the rows, of the columns
    spacing = _numbers(source, "00280030", 2)  # Pixel Spacing: between rows, between columns
    if not directions.size or not spacing or min(spacing) <= 0:
        return None
    along_row, along_column = directions[:3], directions[3:]
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if min(lengths) == 0 or not np.cross(along_row, along_column).any():
        return None
    rows, columns = (_numbers(source, tag, 1) for tag in ("00280010", "00280011"))
    return _Plane(
        row_step=along_column / lengths[1] * spacing[0],
        column_step=along_row / lengths[0] * spacing[1],
        rows=int(rows[0]) if rows else None,
        columns=int(columns[0]) if columns else None,
    )


def _numbers(source: SourceSeries, tag: str, count: int) -> tuple[float, ...]:
    """Return the numbers of an attribute of the source; none if they are not as many, or no numbers."""
    try:
        numbers = tuple(float(value) for value in source.dataset[tag]["Value"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else ()
