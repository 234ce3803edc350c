"""What a scanner adds to an anatomy: blur and noise."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

FloatArray = npt.NDArray[np.float32]

# A body filter's noise has no slow part (the ramp) and little beyond the modulation transfer (the roll-off).
_ROLL_OFF = 0.42  # cycles per mm
_PER_FWHM = 1 / (2 * math.sqrt(2 * math.log(2)))


def blur(slices: FloatArray, spacing: tuple[float, float], fwhm: float) -> FloatArray:
    """Blur each slice by a Gaussian point spread function.

    Parameters
    ----------
    slices
        Densities, [slice, row, column].
    spacing
        Of rows and columns in mm.
    fwhm
        Full width at half maximum in mm; 0 leaves the slices as they are.
    """
    if fwhm == 0:
        return slices
    sigmas = [0.0, *(fwhm * _PER_FWHM / step for step in spacing)]
    return np.asarray(scipy.ndimage.gaussian_filter(slices, sigmas, mode="nearest"), dtype=np.float32)


class NoiseSource:
    """Band-passed Gaussian noise, one slice at a time, each from a seed of its own.

    A slice's noise depends on seed and slice index alone, so slabs may be made in any order and by any thread.

    Parameters
    ----------
    seed
        Same seed, same noise.
    shape, spacing
        Rows and columns of a slice, and mm between them.
    deviation
        Standard deviation in HU.
    """

    def __init__(self, seed: int, shape: tuple[int, int], spacing: tuple[float, float], deviation: float) -> None:
        self._seed = seed
        self._shape = shape
        rows, columns = scipy.fft.fftfreq(shape[0], spacing[0]), scipy.fft.fftfreq(shape[1], spacing[1])
        frequency = np.hypot(rows[:, None], columns[None, :])
        response = np.sqrt(frequency + 0.01) * np.exp(-((frequency / _ROLL_OFF) ** 2))
        # Parseval: white noise of variance 1 comes out with the mean square of the response.
        response *= deviation / math.sqrt(float(np.mean(response**2)))
        self._response = response[:, : shape[1] // 2 + 1].astype(np.float32)

    def slice(self, index: int) -> FloatArray:
        """Return the noise of one slice in HU, [row, column]."""
        rng = np.random.default_rng([self._seed, 2, index])
        white = rng.standard_normal(self._shape, dtype=np.float32)
        return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(white) * self._response, s=self._shape), dtype=np.float32)
