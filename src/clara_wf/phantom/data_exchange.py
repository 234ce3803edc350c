"""Projections as Data Exchange, the HDF5 of synchrotrons: counts, flat fields, dark fields and angles.

Source: De Carlo et al., J. Synchrotron Rad. 21 (2014) 1224, "Scientific data exchange".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import numpy.typing as npt

from clara_wf.model.errors import UsageError
from clara_wf.model.files import replacing
from clara_wf.phantom.acquisition import Acquisition
from clara_wf.reconstruction.geometry import Beam

#: What the detector reads without a beam, and how much that varies.
DARK: Final = 120.0
DARK_NOISE: Final = 3.0
#: What it reads more in the full beam.
WHITE: Final = 60000.0
_FIELDS: Final = 10  # flat and dark fields


def write_data_exchange(
    path: Path, acquisition: Acquisition, *, progress: Callable[[float], None] | None = None
) -> None:
    """Write a scan as a file `<name>.h5`. Rows and columns are in our order: rows grow along z.

    The rotation centre is not told, as in most such files: it is the geometry's central column.

    Parameters
    ----------
    path
        The file.
    acquisition
        A parallel beam; without noise the dark current is even, too.
    progress
        Told the share done after every view.

    Raises
    ------
    UsageError
        The beam is not parallel.
    """
    geometry = acquisition.geometry
    if geometry.beam is not Beam.PARALLEL:
        raise UsageError(
            f"Data Exchange is written of a parallel beam, not of a {geometry.beam} beam",
            remedy="Take --projections parallel or another format",
        )
    detector = geometry.detector
    shape = (detector.rows, detector.columns)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["implements"] = "exchange:measurement"
        exchange = file.create_group("exchange")
        exchange["data_white"] = _fields(acquisition, shape, acquisition.photons)
        exchange["data_dark"] = _fields(acquisition, shape, 0.0)
        exchange["theta"] = np.rad2deg(geometry.angles)
        exchange["theta"].attrs["units"] = "deg"
        data = exchange.create_dataset("data", (geometry.views, *shape), dtype="<u2")
        for done, (view, counts) in enumerate(acquisition.counts(), start=1):
            data[view] = _read_out(acquisition, counts, view)
            if progress is not None:
                progress(done / geometry.views)
        camera = file.create_group("measurement/instrument/detector")
        for name, spacing in (("x_pixel_size", detector.column_spacing), ("y_pixel_size", detector.row_spacing)):
            camera[name] = spacing
            camera[name].attrs["units"] = "mm"


def _fields(acquisition: Acquisition, shape: tuple[int, int], photons: float) -> npt.NDArray[np.uint16]:
    """Return fields that see as many photons everywhere."""
    first = acquisition.geometry.views + (_FIELDS if photons else 0)  # each field has a seed of its own, as views have
    return np.stack(
        [
            _read_out(acquisition, acquisition.counted(np.full(shape, photons), index), index)
            for index in range(first, first + _FIELDS)
        ]
    )


def _read_out(acquisition: Acquisition, counts: npt.NDArray[np.float64], index: int) -> npt.NDArray[np.uint16]:
    """Return what the detector says when it has counted photons."""
    current = np.full(counts.shape, DARK)
    if acquisition.noise:
        current += DARK_NOISE * np.random.default_rng([acquisition.seed, 4, index]).standard_normal(counts.shape)
    values = np.rint(counts * (WHITE / acquisition.photons) + current)
    return np.asarray(np.clip(values, 0, np.iinfo(np.uint16).max), dtype=np.uint16)
