"""MetaImage (`.mhd` and `.raw`): how volumes travel from stage to stage.

Uncompressed and little-endian, so that a reader maps the file instead of reading it. The format's world is LPS mm, as
ours. Its triples run column, row, slice: the reverse of an array's axes.

Source: the MetaIO documentation of the Insight Toolkit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import VolumeError
from clara_wf.model.files import replacing, write_atomically

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "<i2",
    "MET_USHORT": "<u2",
    "MET_INT": "<i4",
    "MET_UINT": "<u4",
    "MET_FLOAT": "<f4",
    "MET_DOUBLE": "<f8",
}
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}
#: How far the rows of TransformMatrix may be from a rotation; files written with six decimals stay below.
_ROTATION_TOLERANCE = 1e-4


def read_volume(path: Path) -> Volume:
    """Read a volume; its voxels stay on the disk and are mapped, read-only.

    Raises
    ------
    VolumeError
        The header is no MetaImage that we take (three dimensions, one channel, uncompressed, little-endian, a file of
        its own for the voxels beside the header), or the voxels' file is short or missing.
    """
    header = _read_header(path)
    sizes = _numbers(path, header, "DimSize", 3)
    columns, rows, slices = (int(size) for size in sizes)
    if min(columns, rows, slices) < 1:
        raise VolumeError(f"{path.name}: DimSize {columns} {rows} {slices} is no volume")
    kind = header.get("ElementType", "")
    if kind not in _TYPES:
        raise VolumeError(f"{path.name}: ElementType {kind or '(missing)'} is none of {', '.join(_TYPES)}")
    dtype = np.dtype(_TYPES[kind])
    raw = _raw_path(path, header)
    expected = columns * rows * slices * dtype.itemsize
    actual = raw.stat().st_size
    if actual != expected:
        raise VolumeError(
            f"{raw.name} has {actual} bytes where {path.name} says {expected}",
            remedy="The file is cut off or belongs to another header: make it again",
        )
    array = np.memmap(raw, dtype=dtype, mode="r", shape=(slices, rows, columns))
    return Volume(geometry=_read_geometry(path, header, (slices, rows, columns)), array=array)


def files_of(path: Path) -> list[Path]:
    """Return all files of a volume or a stack: its header, its voxels, and what lies beside it under its name.

    Raises
    ------
    VolumeError
        The header is no MetaImage, or its voxels are missing.
    """
    beside = (path.with_suffix(suffix) for suffix in (".json", ".geometry.json", ".xml"))
    return [path, _raw_path(path, _read_header(path)), *(file for file in beside if file.is_file())]


def write_volume(path: Path, volume: Volume) -> None:
    """Write `<name>.mhd` and `<name>.raw`; the header appears last, so that who sees it finds the voxels."""
    with open_writer(path, volume.geometry, volume.array.dtype) as array:
        array[...] = volume.array


@contextlib.contextmanager
def open_writer(path: Path, geometry: VolumeGeometry, dtype: DTypeLike) -> Iterator[NDArray[Any]]:
    """Give a writable array on the disk that becomes the volume `path` when the block ends well.

    Parameters
    ----------
    path : Path
        The header, `<name>.mhd`.
    geometry : VolumeGeometry
        Its shape is that of the array.
    dtype : dtype
        One of MetaImage's: 8, 16 or 32 bit integers, 32 or 64 bit floats.

    Raises
    ------
    VolumeError
        The type is none of MetaImage's.
    OSError
        The disk is full: found before the block runs, since the space is reserved first.
    """
    with _new_raw(path, geometry, dtype) as (temporary, kind):
        array = np.memmap(temporary, dtype=kind, mode="r+", shape=geometry.shape)
        yield array
        array.flush()


@contextlib.contextmanager
def open_slices(
    path: Path, geometry: VolumeGeometry, dtype: DTypeLike
) -> Iterator[Callable[[int, NDArray[Any]], None]]:
    """Give a function that writes a slice of what becomes the volume `path` when the block ends well.

    As `open_writer`, for who makes a volume slice by slice: nothing is mapped, so memory holds one slice at a time, and
    the system has no page to fault in. Several threads may write at once.

    Yields
    ------
    callable
        Takes a slice's index and its array [row, column].
    """
    with _new_raw(path, geometry, dtype) as (temporary, kind), temporary.open("r+b", buffering=0) as file:
        handle = file.fileno()

        def write(index: int, plane: NDArray[Any]) -> None:
            if plane.shape != geometry.shape[1:]:
                raise VolumeError(f"a slice of shape {plane.shape} does not fit a grid of {geometry.shape}")
            data = np.ascontiguousarray(plane, kind)
            at = index * data.nbytes
            left = data.reshape(-1).view(np.uint8).data
            while left:
                written = os.pwrite(handle, left, at)
                at, left = at + written, left[written:]

        yield write


@contextlib.contextmanager
def _new_raw(path: Path, geometry: VolumeGeometry, dtype: DTypeLike) -> Iterator[tuple[Path, np.dtype[Any]]]:
    """Give a file for the voxels; when the block ends well, put it in place and the header after it."""
    kind = np.dtype(dtype).newbyteorder("<")
    if kind not in _NAMES:
        raise VolumeError(f"{path.name}: voxels of type {kind} cannot be written as MetaImage")
    raw = path.with_suffix(".raw")
    with replacing(raw) as temporary:
        _reserve(temporary, int(np.prod(geometry.shape, dtype=np.int64)) * kind.itemsize)
        yield temporary, kind
        # A header of an earlier run must not describe these voxels.
        path.unlink(missing_ok=True)
    write_atomically(path, _header(geometry, kind, raw.name))


def _reserve(path: Path, size: int) -> None:
    """Give a file its blocks now: writing to a mapped hole on a full disk would end the process by a signal."""
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _header(geometry: VolumeGeometry, dtype: np.dtype[Any], raw_name: str) -> str:
    def join(values: Iterable[float]) -> str:
        return " ".join(repr(value) for value in values)

    return (
        "ObjectType = Image\n"
        "NDims = 3\n"
        "BinaryData = True\n"
        "BinaryDataByteOrderMSB = False\n"
        "CompressedData = False\n"
        f"TransformMatrix = {join(value for axis in reversed(geometry.axes) for value in axis)}\n"
        f"Offset = {join(geometry.origin)}\n"
        "CenterOfRotation = 0 0 0\n"
        "AnatomicalOrientation = RAI\n"
        f"ElementSpacing = {join(reversed(geometry.spacing))}\n"
        f"DimSize = {join(reversed(geometry.shape))}\n"
        f"ElementType = {_NAMES[dtype]}\n"
        f"ElementDataFile = {raw_name}\n"
    )


def _read_header(path: Path) -> dict[str, str]:
    try:
        # A header is some hundred bytes; a limit keeps a wrong file from being read whole.
        with path.open("rb") as file:
            text = file.read(65536).decode("ascii")
    except FileNotFoundError as exc:
        raise VolumeError(f"there is no {path.name}") from exc
    except UnicodeDecodeError as exc:
        raise VolumeError(f"{path.name} is no MetaImage header: it is not text") from exc
    header = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            header[key.strip()] = value.strip()
    if header.get("NDims") != "3":
        raise VolumeError(f"{path.name} is no MetaImage header of three dimensions")
    for key, wanted in (("CompressedData", "FALSE"), ("BinaryDataByteOrderMSB", "FALSE"), ("BinaryData", "TRUE")):
        if header.get(key, wanted).upper() != wanted:
            raise VolumeError(f"{path.name}: {key} = {header[key]} is not supported", remedy=f"Write it with {wanted}")
    if header.get("ElementNumberOfChannels", "1") != "1":
        raise VolumeError(f"{path.name} has more than one channel")
    return header


def _numbers(path: Path, header: dict[str, str], key: str, count: int, default: str = "") -> list[float]:
    try:
        numbers = [float(word) for word in header.get(key, default).split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.all(np.isfinite(numbers)):
        raise VolumeError(f"{path.name}: {key} = {header.get(key, '(missing)')} are not {count} numbers")
    return numbers


def _raw_path(path: Path, header: dict[str, str]) -> Path:
    name = header.get("ElementDataFile", "")
    # Only a file beside the header: a path in a header that came from elsewhere could name any file of the machine.
    if not name or name in {"LOCAL", "LIST"} or Path(name).name != name:
        raise VolumeError(f"{path.name}: ElementDataFile = {name or '(missing)'} is no file beside it")
    raw = path.with_name(name)
    if not raw.is_file():
        raise VolumeError(f"{path.name}: its voxels, {name}, are missing")
    return raw


def _read_geometry(path: Path, header: dict[str, str], shape: tuple[int, int, int]) -> VolumeGeometry:
    spacing = _numbers(path, header, "ElementSpacing", 3, "1 1 1")
    if min(spacing) <= 0:
        raise VolumeError(f"{path.name}: ElementSpacing {spacing} is not positive")
    offset_key = next((key for key in ("Offset", "Position", "Origin") if key in header), "Offset")
    offset = _numbers(path, header, offset_key, 3, "0 0 0")
    matrix_key = next(
        (key for key in ("TransformMatrix", "Rotation", "Orientation") if key in header), "TransformMatrix"
    )
    matrix = np.array(_numbers(path, header, matrix_key, 9, "1 0 0 0 1 0 0 0 1")).reshape(3, 3)
    if np.abs(matrix @ matrix.T - np.eye(3)).max() > _ROTATION_TOLERANCE:
        raise VolumeError(f"{path.name}: {matrix_key} is no rotation")
    column, row, slice_ = (tuple(float(value) for value in axis) for axis in matrix)
    return VolumeGeometry(
        shape=shape,
        spacing=(spacing[2], spacing[1], spacing[0]),
        origin=(offset[0], offset[1], offset[2]),
        axes=(slice_, row, column),  # type: ignore[arg-type]
    )
