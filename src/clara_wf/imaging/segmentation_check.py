"""Read a segmentation object back and compare it with the volume that it was made of.

Nothing of highdicom is used here: a fault in how it writes must not hide behind the same fault in how it reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from clara_wf.imaging.derivation import Origin
from clara_wf.imaging.discretion import discreet
from clara_wf.imaging.geometry import SAME_GRID_MM, VolumeGeometry
from clara_wf.imaging.record import VolumeRecord
from clara_wf.imaging.source_check import check_reference
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import DicomError


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """A frame as the object describes it."""

    segment: int | None  # segment number; None where the pixels say it (LABELMAP)
    slice: int  # of the volume
    pixels: NDArray[np.uint8]  # or uint16: [row, column]


def check_segmentation(path: Path, volume: Volume, record: VolumeRecord, *, name: str | None = None) -> None:
    """Compare a segmentation object with the volume it was made of: voxels, positions, references, patient.

    Parameters
    ----------
    path : Path
        The object.
    volume : Volume
        Labels [slice, row, column].
    record : VolumeRecord
        The volume's, with the source.
    name : str, optional
        What messages call the file; its own name by default.

    Raises
    ------
    DicomError
        They differ; the message says where.
    """
    name = name or path.name
    with discreet():
        origin = Origin.of(record, volume, name)
        dataset = pydicom.dcmread(path)
        wrong = origin.mismatch(dataset)
        if wrong is not None:
            raise DicomError(f"{name}: {wrong} does not read back as the source has it")
        values = _values(dataset, record)
        seen = set()
        for frame in _frames(dataset, volume.geometry, origin, name):
            plane = volume.array[frame.slice]
            if frame.segment is None:
                same = np.array_equal(frame.pixels, plane)
            else:
                same = np.array_equal(frame.pixels.astype(bool), plane == values[frame.segment])
            if not same:
                raise DicomError(f"{name}: slice {frame.slice} does not read back as it was segmented")
            seen.add((frame.segment, frame.slice))
    expected = {
        (segment, index)
        for segment in (values if dataset.SegmentationType == "BINARY" else [None])
        for index in range(volume.array.shape[0])
    }
    if seen != expected:
        raise DicomError(f"{name}: {len(expected - seen)} of {len(expected)} frames are missing")


def _values(dataset: Dataset, record: VolumeRecord) -> dict[int, int]:
    """Return the label value of each segment number, matched by the segments' order."""
    numbers = sorted(int(item.SegmentNumber) for item in dataset.SegmentSequence if item.SegmentNumber)
    return dict(zip(numbers, sorted(label.value for label in record.labels), strict=True))


def _frames(dataset: Dataset, geometry: VolumeGeometry, origin: Origin, name: str) -> Iterator[_Frame]:
    """Give the frames one by one, each found in the volume by its position in mm."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    measures, orientation = shared.PixelMeasuresSequence[0], shared.PlaneOrientationSequence[0]
    if float(measures.SpacingBetweenSlices) <= 0:
        raise DicomError(f"{name}: Spacing Between Slices is not positive")
    along_columns, along_rows = np.array(orientation.ImageOrientationPatient, float).reshape(2, 3)
    row_mm, column_mm = (float(value) for value in measures.PixelSpacing)
    last_row, last_column = dataset.Rows - 1, dataset.Columns - 1
    far = along_rows * row_mm * last_row + along_columns * column_mm * last_column
    side = along_columns * column_mm * last_column
    for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        index = round(float(geometry.world_to_index(position)[0]))
        if not 0 <= index < geometry.shape[0] or (dataset.Rows, dataset.Columns) != geometry.shape[1:]:
            raise DicomError(f"{name}: frame {number + 1} lies outside the volume")
        wanted = geometry.index_to_world([(index, 0, 0), (index, last_row, last_column), (index, 0, last_column)])
        error = float(np.linalg.norm(np.array([position, position + far, position + side]) - wanted, axis=1).max())
        if error > SAME_GRID_MM:
            raise DicomError(f"{name}: frame {number + 1} lies {error:.3f} mm from its slice {index}")
        check_reference(_derivation(groups), geometry, origin, index, f"{name}: frame {number + 1}")
        yield _Frame(segment=_segment(groups, shared), slice=index, pixels=_pixels(dataset, number))


def _derivation(groups: Dataset) -> Dataset:
    """Return what holds a frame's Source Image Sequence; the macro's own sequence may be empty (type 2)."""
    return groups.DerivationImageSequence[0] if groups.DerivationImageSequence else Dataset()


def _segment(groups: Dataset, shared: Dataset) -> int | None:
    for item in (groups, shared):
        if "SegmentIdentificationSequence" in item:
            return int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    return None


def _pixels(dataset: Dataset, number: int) -> NDArray[Any]:
    """Decode a frame of native pixel data; bits run on from frame to frame without padding (PS3.5 8.1.1)."""
    size = int(dataset.Rows) * int(dataset.Columns)
    data = memoryview(dataset.PixelData)
    if dataset.BitsAllocated == 1:
        start = number * size
        packed = np.frombuffer(data[start // 8 : (start + size + 7) // 8], np.uint8)
        flat = np.unpackbits(packed, bitorder="little")[start % 8 : start % 8 + size]
    else:
        dtype = np.dtype(f"<u{dataset.BitsAllocated // 8}")
        flat = np.frombuffer(data, dtype, count=size, offset=number * size * dtype.itemsize)
    return flat.reshape(dataset.Rows, dataset.Columns)
