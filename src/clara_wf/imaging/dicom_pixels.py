"""Stored values of frames -> real values in an array, by all cores and never more than a plane a core in memory.

Real values are ``stored * slope + intercept`` of each frame. They are int16 where that is exact for every voxel of the
volume, else float32. MONOCHROME1 asks a screen to show low values bright; the values themselves are the same, so
nothing is inverted.

Padding (PixelPaddingValue) in CT means "outside the field of view" and becomes air, -1024 HU: scanners write anything
from -3024 to +64512 there, which no network has seen. In other modalities there is no value for nothing, and it stays.

Source: DICOM PS3.3 section C.7.6.3 (Image Pixel), C.7.5.1.1.2 (Pixel Padding), C.11.1 (Modality LUT).
"""

from __future__ import annotations

import functools
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from clara_wf.imaging.dicom_frame import Frame, PixelFormat, Pixels
from clara_wf.imaging.dicom_header import DEFLATED, EXPLICIT_BIG
from clara_wf.imaging.dicom_states import FileFault, FileState

#: Takes a slice's index and its values [row, column].
Writer = Callable[[int, NDArray[Any]], None]
#: What padding becomes in CT.
AIR_HU: Final = -1024
_INT16 = np.iinfo(np.int16)
#: Transfer syntaxes that keep the bits where the header says; image codecs move them down to bit 0.
_RLE: Final = "1.2.840.10008.1.2.5"
_BITS_STAY: Final = frozenset({_RLE, EXPLICIT_BIG, DEFLATED})
#: What decoders raise on broken data: pydicom lets the exceptions of its plug-ins through.
_DECODER_FAULTS: Final = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    OSError,
    struct.error,
    MemoryError,
)


class FrameFault(FileFault):
    """The pixels of one frame cannot be read."""

    def __init__(self, frame: Pixels, state: FileState, reason: str) -> None:
        super().__init__(state, reason)
        self.frame = frame


class DoesNotFitError(Exception):
    """A voxel's real value is no int16: the volume needs float32."""


def integers_only(frames: Iterable[Frame]) -> bool:
    """Say whether real values are whole numbers, so that int16 may be exact."""
    return all(
        frame.slope.is_integer()
        and frame.intercept.is_integer()
        and max(abs(frame.slope), abs(frame.intercept)) < 2**31
        for frame in frames
    )


def read_slices(
    frames: Sequence[Frame],
    write: Writer,
    dtype: DTypeLike,
    *,
    pad_with_air: bool,
    done: Callable[[int], None],
) -> None:
    """Read frames into a volume.

    Parameters
    ----------
    frames : sequence of Frame
        One for each slice, all of the size of a slice.
    write : callable
        Given a slice's index and its real values [row, column], by several threads.
    dtype : dtype
        int16 or float32: of the values.
    pad_with_air : bool
        Padding becomes `AIR_HU`: for CT.
    done : callable
        Told how many slices there are so far, in the calling thread.

    Raises
    ------
    FrameFault
        A frame's pixels are cut off or cannot be decoded.
    DoesNotFitError
        `dtype` is int16, and a value is not.
    """
    workers = max(1, len(os.sched_getaffinity(0)))
    tasks = list(_tasks(frames, workers))
    to_real = functools.partial(_to_real, dtype=np.dtype(dtype), pad_with_air=pad_with_air)
    count = 0
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")  # decoders quote values, which may be a patient's
        futures = [pool.submit(_read_task, frames, task, write, to_real) for task in tasks]
        try:
            for future in as_completed(futures):
                count += future.result()
                done(count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _tasks(frames: Sequence[Frame], workers: int) -> Iterator[list[int]]:
    """Cut the work in lists of slices; a list of frames that need decoding is of one file, which is opened once."""
    by_file: dict[Any, list[int]] = {}
    for index, frame in enumerate(frames):
        by_file.setdefault(frame.path if frame.offset is None else None, []).append(index)
    for path, indices in by_file.items():
        # Small enough for steady progress, large enough that handing them out costs nothing.
        size = 16 if path is None else max(1, -(-len(indices) // workers))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def _read_task(
    frames: Sequence[Frame], task: list[int], write: Writer, to_real: Callable[[Frame, NDArray[Any]], NDArray[Any]]
) -> int:
    stored: NDArray[Any]
    if frames[task[0]].offset is None:
        for index, stored in zip(task, _decoded([frames[index] for index in task]), strict=True):
            write(index, to_real(frames[index], stored))
        return len(task)
    buffer: NDArray[Any] | None = None
    for index in task:
        frame = frames[index]
        if buffer is None or buffer.dtype != _dtype(frame.format):
            buffer = np.empty((frame.format.rows, frame.format.columns), _dtype(frame.format))
        _load(frame, buffer)
        write(index, to_real(frame, buffer))
    return len(task)


def _dtype(pixel_format: PixelFormat) -> np.dtype[Any]:
    return np.dtype(f"<{'i' if pixel_format.signed else 'u'}{pixel_format.bits_allocated // 8}")


def _load(frame: Pixels, buffer: NDArray[Any]) -> None:
    """Read the pixels of a frame that is not compressed."""
    try:
        handle = os.open(frame.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            got = os.preadv(handle, [buffer.data], frame.offset or 0)
        finally:
            os.close(handle)
    except OSError as exc:
        raise FrameFault(frame, FileState.UNREADABLE, exc.strerror or "the system refuses to read it") from exc
    if got != buffer.nbytes:
        raise FrameFault(frame, FileState.TRUNCATED, f"it has {got} of the {buffer.nbytes} bytes of its pixels")
    _drop_unused_bits(frame.format, buffer, frame.format.high_bit)


def _decoded(frames: Sequence[Pixels]) -> Iterator[NDArray[Any]]:
    """Decode frames of one file."""
    from pydicom import dcmread  # here, since most series do not need it
    from pydicom.pixels.utils import iter_pixels

    indices = [(frame.number or 1) - 1 for frame in frames]
    # Given a path, pydicom reads frame by frame, but does not inflate.
    # A file without preamble got here by its contents, so no mark is asked for.
    source = dcmread(frames[0].path, force=True) if frames[0].format.syntax == DEFLATED else frames[0].path
    arrays = iter_pixels(source, indices=indices, raw=True, decoding_plugin=_plugin(frames[0].format.syntax))
    for frame in frames:
        pixel_format = frame.format
        try:
            array = np.array(next(arrays))
        except BaseException as exc:
            # A decoder written in Rust ends in a "PanicException" on broken data, which is no Exception.
            if not isinstance(exc, (*_DECODER_FAULTS, StopIteration)) and type(exc).__module__ != "pyo3_runtime":
                raise
            reason = f"its pixels cannot be decoded (transfer syntax {pixel_format.syntax})"
            raise FrameFault(frame, FileState.REFUSED, reason) from exc
        if array.shape != (pixel_format.rows, pixel_format.columns):
            reason = (
                f"its pixels decode to {array.shape} where its header says {pixel_format.rows, pixel_format.columns}"
            )
            raise FrameFault(frame, FileState.REFUSED, reason)
        array = array.astype(_dtype(pixel_format), copy=False)
        stays = pixel_format.syntax in _BITS_STAY
        _drop_unused_bits(pixel_format, array, pixel_format.high_bit if stays else pixel_format.bits_stored - 1)
        yield array


@functools.cache
def _plugin(syntax: str) -> str:
    """Choose a decoder; an empty name leaves it to pydicom.

    GDCM ends the whole process on some broken data, so it is asked only where there is no other decoder.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    try:
        plugins = get_decoder(UID(syntax)).available_plugins
    except NotImplementedError:  # a transfer syntax of a vendor's own; asked to decode, pydicom says so again
        plugins = ()
    return next((name for name in plugins if name != "gdcm"), "")


def stored_values(frame: Pixels) -> NDArray[Any]:
    """Return a plane's stored values [row, column], without the bits that mean nothing.

    Raises
    ------
    FrameFault
        They are cut off or cannot be decoded.
    """
    if frame.offset is None:
        return next(_decoded([frame]))
    buffer = np.empty((frame.format.rows, frame.format.columns), _dtype(frame.format))
    _load(frame, buffer)
    return buffer


def _drop_unused_bits(pixel_format: PixelFormat, stored: NDArray[Any], high_bit: int) -> None:
    """Shift the stored bits up to the word's end, so that dirt falls out, and down again with their sign."""
    up = pixel_format.bits_allocated - 1 - high_bit
    down = pixel_format.bits_allocated - pixel_format.bits_stored
    if down and not up and not pixel_format.signed:
        stored >>= stored.dtype.type(down)
    elif down and not pixel_format.signed and up == down:
        stored &= stored.dtype.type((1 << pixel_format.bits_stored) - 1)
    elif down:
        stored <<= stored.dtype.type(up)
        stored >>= stored.dtype.type(down)


def _to_real(frame: Frame, stored: NDArray[Any], *, dtype: np.dtype[Any], pad_with_air: bool) -> NDArray[Any]:
    """Return real values; `stored` may be overwritten."""
    padded = _padded(frame, stored) if pad_with_air else None
    if padded is None and dtype == np.int16 and stored.itemsize == 2 and frame.slope == 1:
        return _shifted(frame, stored)
    if dtype == np.int16:
        whole = stored.astype(np.int64) * int(frame.slope) + int(frame.intercept)
        if padded is not None:
            whole[padded] = AIR_HU
        if whole.min() < _INT16.min or whole.max() > _INT16.max:
            raise DoesNotFitError
        return whole.astype(np.int16)
    real = stored * np.float64(frame.slope) + frame.intercept
    if padded is not None:
        real[padded] = AIR_HU
    return real.astype(dtype)


def _shifted(frame: Frame, stored: NDArray[Any]) -> NDArray[np.int16]:
    """Add the intercept in place: the usual CT. Sixteen-bit words wrap around: exact where the result fits."""
    intercept = int(frame.intercept)
    bits = frame.format.bits_stored
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if frame.format.signed else (0, (1 << bits) - 1)
    if low + intercept < _INT16.min or high + intercept > _INT16.max:
        low, high = int(stored.min()), int(stored.max())
        if low + intercept < _INT16.min or high + intercept > _INT16.max:
            raise DoesNotFitError
    plane = stored.view("<i2")
    if intercept:
        plane += np.uint16(intercept % 65536).astype(np.int16)
    return plane


def _padded(frame: Frame, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where a CT frame is padding; None if nowhere, or if it is air already."""
    if frame.padding is None:
        return None
    low, high = frame.padding
    if low == high and low * frame.slope + frame.intercept == AIR_HU:
        return None
    where: NDArray[np.bool_] = stored == low if low == high else (stored >= low) & (stored <= high)
    return where if where.any() else None
