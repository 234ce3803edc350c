"""Read a derived object's references to source images back, and hold them against where the images are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from clara_wf.imaging.derivation import Origin
from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.record import SourceInstance, SourceSeries
from clara_wf.model.errors import DicomError

#: How far, in slices, rows and columns, a pixel may be from the voxel that is said to be at its place: what the reader
#: allows of an image, for its first and its last pixel (see `source_places`), and rounding to decimal strings.
_OFF: Final = np.array([0.21, 0.21, 0.21])


def check_reference(holder: Dataset, geometry: VolumeGeometry, origin: Origin, index: int, what: str) -> None:
    """Check what a frame or an image says of its source image.

    Parameters
    ----------
    holder : Dataset
        Read back, with the Source Image Sequence, if there is one.
    geometry : VolumeGeometry
        Of the volume; that the frame is where its slice is was checked before.
    origin : Origin
        Of the volume.
    index : int
        The slice.
    what : str
        What messages call the frame or image.

    Raises
    ------
    DicomError
        It refers to another image than that of its slice, or says of one that is elsewhere that its pixels are at the
        places of the slice's voxels.
    """
    items: Sequence[Dataset] = holder.get("SourceImageSequence") or ()
    wanted = origin.slices[index].instance
    found = [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, item.get("ReferencedFrameNumber")) for item in items
    ]
    if found != ([] if wanted is None else [(wanted.sop_class_uid, wanted.sop_instance_uid, wanted.frame)]):
        raise DicomError(f"{what} does not refer to the source image of its slice")
    if wanted is None or items[0].get("SpatialLocationsPreserved") != "YES":
        return
    rows, columns = geometry.shape[1:]
    corners = np.array([(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)])
    pixels = _pixels(origin.source, wanted, corners)
    if pixels is None or (np.abs(geometry.world_to_index(pixels) - np.insert(corners, 0, index, axis=1)) > _OFF).any():
        raise DicomError(f"{what} says that the pixels of its source image are where its own are, but they are not")


def _pixels(source: SourceSeries, image: SourceInstance, corners: NDArray[np.int_]) -> NDArray[np.float64] | None:
    """Return LPS mm (n, 3) of pixels (n, 2) by row and column of an image (PS3.3 equation C.7.6.2.1-1)."""
    if image.position is None:
        return None
    along_row, along_column = np.array(source.dataset["00200037"]["Value"], float).reshape(2, 3)
    row_mm, column_mm = source.dataset["00280030"]["Value"]
    found: NDArray[np.float64] = (
        np.array(image.position) + corners[:, :1] * along_column * row_mm + corners[:, 1:] * along_row * column_mm
    )
    return found
