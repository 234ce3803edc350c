"""What every format of projections is read as."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.record import VolumeRecord
from clara_wf.reconstruction.geometry import ScanGeometry


class Projections(Protocol):
    """Projections that are read piece by piece: they need not fit into memory."""

    @property
    def name(self) -> str:
        """What messages call them: a file's name or a Series Instance UID; nothing of a patient."""
        ...

    @property
    def geometry(self) -> ScanGeometry:
        """Where source and detector are, in the order of the views."""
        ...

    @property
    def patient_position(self) -> str | None:
        """How the patient lay (HFS, ...); None if the data do not say."""
        ...

    @property
    def water_attenuation(self) -> float | None:
        """Linear attenuation coefficient of water in 1/mm that the data are calibrated to; None if they do not say."""
        ...

    @property
    def incident_photons(self) -> float | None:
        """Photons that an element counts of a ray in air; None if the data do not say."""
        ...

    @property
    def record(self) -> VolumeRecord | None:
        """The DICOM series that they come from and what was done so far; None where there is none."""
        ...

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the line integrals of views `start` to `stop` (not included), [view, row, column].

        A ray without a measurement (no photon at all) is infinite, a broken one is not a number.

        Raises
        ------
        InputError
            They cannot be read.
        """
        ...


def rescaled(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float32]:
    """Turn stored values into line integrals.

    The largest number that an unsigned type of 16 bits holds is what a scanner stores where no photon came: infinity.
    """
    values = stored * np.float32(slope) + np.float32(intercept)
    if stored.dtype == np.uint16:
        values[stored == np.iinfo(np.uint16).max] = np.inf
    return np.asarray(values, dtype=np.float32)
