"""How grey values are stored in 16 bits: exactly where they fit, else with a stated step and a bound of the error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.valuerep import format_number_as_ds

from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import VolumeError

_INT16 = np.iinfo(np.int16)
_UINT16 = np.iinfo(np.uint16)
#: Relative rounding of double arithmetic on values of 16 decimal characters.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class StoredValues:
    """The linear map between a volume's values and 16-bit pixels: value = pixel * slope + intercept."""

    dtype: np.dtype[Any]  # little-endian int16 or uint16
    slope: str  # Rescale Slope, a decimal string
    intercept: str  # Rescale Intercept, a decimal string
    error: float  # no value comes back further off than this, in the volume's units; 0 if exact
    lowest: float  # the smallest value
    highest: float  # the greatest value

    @property
    def is_identity(self) -> bool:
        """Say whether pixels are the values themselves."""
        return (float(self.slope), float(self.intercept)) == (1.0, 0.0)

    def encode(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Turn values into pixels."""
        if self.is_identity:
            return plane.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        pixels = np.rint((plane.astype(np.float64) - float(self.intercept)) / float(self.slope))
        encoded: NDArray[Any] = np.clip(pixels, limits.min, limits.max).astype(self.dtype)
        return encoded

    def decode(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """Turn pixels into values, as a viewer does."""
        values: NDArray[np.float64] = pixels * float(self.slope) + float(self.intercept)
        return values

    @staticmethod
    def of(volume: Volume, name: str) -> StoredValues:
        """Choose the map for all slices of a volume: one, since viewers window a series as a whole.

        Whole numbers that fit in 16 bits are kept as they are. Other values get the smallest step that is a power of
        two and spans them; float CT within [-1024, 3071] HU is then off by at most 1/32 HU.

        Raises
        ------
        VolumeError
            The volume holds no numbers, or some that are infinite or not a number.
        """
        if volume.array.dtype.kind not in "uif":
            raise VolumeError(f"{name}: values of type {volume.array.dtype} are no grey values")
        lowest, highest, whole = _survey(volume, name)
        if whole and lowest >= _INT16.min and highest <= _INT16.max:
            return _exact(np.dtype("<i2"), 0, lowest, highest)
        if whole and lowest >= 0 and highest <= _UINT16.max:
            return _exact(np.dtype("<u2"), 0, lowest, highest)
        if whole and highest - lowest <= _UINT16.max and abs(lowest) < 1e12:
            return _exact(np.dtype("<u2"), int(lowest), lowest, highest)
        return _scaled(lowest, highest)


def _survey(volume: Volume, name: str) -> tuple[float, float, bool]:
    """Return the smallest and the greatest value, and whether all are whole numbers."""
    lowest, highest, whole = math.inf, -math.inf, True
    for index, plane in enumerate(volume.array):
        low, high = float(plane.min()), float(plane.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise VolumeError(f"{name}: slice {index} holds values that are infinite or not a number")
        lowest, highest = min(lowest, low), max(highest, high)
        whole = whole and (plane.dtype.kind in "ui" or bool(np.all(plane == np.rint(plane))))
    return lowest, highest, whole


def _exact(dtype: np.dtype[Any], intercept: int, lowest: float, highest: float) -> StoredValues:
    return StoredValues(dtype=dtype, slope="1", intercept=str(intercept), error=0.0, lowest=lowest, highest=highest)


def _scaled(lowest: float, highest: float) -> StoredValues:
    # Two pixels are spared for the rounding of slope and intercept to 16 characters.
    span = (highest - lowest) / (_UINT16.max - 2)
    slope = format_number_as_ds(2.0 ** math.ceil(math.log2(span)) if span > 0 else 1.0)
    step = float(slope)
    fits = lowest / step >= _INT16.min + 1 and highest / step <= _INT16.max - 1
    intercept = "0" if fits and span > 0 else format_number_as_ds((lowest + highest) / 2)
    error = (step / 2 if span > 0 else 0.0) + _ROUNDING * max(abs(lowest), abs(highest))
    return StoredValues(
        dtype=np.dtype("<i2"), slope=slope, intercept=intercept, error=error, lowest=lowest, highest=highest
    )
