"""Data Exchange, the HDF5 format of synchrotrons: raw counts in a parallel beam, with white and dark fields.

`/exchange/data`, `data_white` and `data_dark` are [view, row, column], `/exchange/theta` has an angle in degrees for
each view. A line integral is -ln((data - dark) / (white - dark)), with the means of the dark and the white fields.

Source: F. De Carlo et al., "Scientific data exchange: a schema for HDF5-based storage of raw and analyzed data",
J. Synchrotron Rad. 21 (2014) 1224.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.record import VolumeRecord
from clara_wf.model.errors import GeometryError, InputError
from clara_wf.reconstruction.geometry import Array, Beam, Detector, ScanGeometry
from clara_wf.reconstruction.rotation_centre import check_centre, find_centre

SUFFIXES: Final = (".h5", ".hdf5", ".hdf")
_DATA, _WHITE, _DARK, _THETA = (f"/exchange/{name}" for name in ("data", "data_white", "data_dark", "theta"))
#: Where the size of a pixel may stand: horizontal first.
_PIXEL_SIZES: Final = (
    ("/measurement/instrument/detector/x_pixel_size", "/measurement/instrument/detector/y_pixel_size"),
    ("/exchange/x_pixel_size", "/exchange/y_pixel_size"),
    ("/exchange/pixel_size", "/exchange/pixel_size"),
)
_MM: Final = {
    **dict.fromkeys(("m", "meter", "metre", "meters", "metres"), 1e3),
    **dict.fromkeys(("mm", "millimeter", "millimetre", "millimeters", "millimetres"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre", "micrometers"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers"), 1e-6),
}
#: More radians than a turn, or fewer degrees, over many views: the unit is another.
_TURN: Final = 2 * math.pi + 0.1
_MANY_VIEWS: Final = 30
#: The centre is the median of those of so many rows.
_CENTRE_ROWS: Final = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class DataExchange:
    """A file that is read piece by piece."""

    name: str  # of the file
    path: Path
    geometry: ScanGeometry
    white: NDArray[np.float32]  # [row, column] mean white field less the dark one
    dark: NDArray[np.float32]  # [row, column] mean dark field
    patient_position: str | None = None
    water_attenuation: float | None = None  # 1/mm; the format does not say it
    incident_photons: float | None = None  # neither does it say how many photons a count is
    record: VolumeRecord | None = None

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the line integrals of a range of views, [view, row, column]; where no photon came, infinity.

        Raises
        ------
        InputError
            The file cannot be read.
        """
        with _open(self.path) as file:
            counts = np.asarray(file[_DATA][start:stop], dtype=np.float32)
        return line_integrals(counts, self.white, self.dark)


def line_integrals(
    counts: NDArray[np.float32], white: NDArray[np.float32], dark: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Turn counts into line integrals; an element that sees no light in the white field measures nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        part = (counts - dark) / white
        values = -np.log(part)
    values[~(part > 0) | (white <= 0)] = np.inf
    return np.asarray(values, dtype=np.float32)


def open_data_exchange(path: Path, *, pixel_mm: float | None = None, centre: float | None = None) -> DataExchange:
    """Open a Data Exchange file.

    Parameters
    ----------
    path : Path
        HDF5.
    pixel_mm : float, optional
        Size of the detector's pixels in mm, in place of what the file says.
    centre : float, optional
        Column, from 0 and with fractions, that the axis of rotation is seen at; without it, it is looked for.

    Raises
    ------
    InputError
        It is no such file, or lacks a part.
    GeometryError
        Its angles, its pixel size or the centre cannot be used.
    """
    with _open(path) as file:
        _check_parts(file, path.name)
        views, rows, columns = file[_DATA].shape
        angles = _angles(file[_THETA], views, path.name)
        width, height = (pixel_mm, pixel_mm) if pixel_mm is not None else _pixel_size(file, path.name)
        dark = _mean(file[_DARK])
        white = _mean(file[_WHITE]) - dark
        if centre is None:
            centre = _find_centre(file, angles, white, dark)
    check_centre(centre, columns)
    return DataExchange(
        name=path.name,
        path=path,
        geometry=ScanGeometry(
            beam=Beam.PARALLEL,
            detector=Detector(
                rows=rows,
                columns=columns,
                row_spacing=height,
                column_spacing=width,
                central_row=(rows - 1) / 2,
                central_column=centre,
            ),
            angles=angles,
            axial=np.zeros(views),
        ),
        white=white,
        dark=dark,
    )


def _mean(fields: Any) -> NDArray[np.float32]:  # noqa: ANN401 - HDF5 is without types
    return np.asarray(np.mean(fields, axis=0, dtype=np.float64), dtype=np.float32)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open an HDF5 file; its errors, also those of what is read of it, are ours."""
    import h5py  # here, since no other format needs it

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as exc:
        raise InputError(
            f"{path.name} cannot be read as HDF5 ({type(exc).__name__})", remedy="The file is cut off or no HDF5"
        ) from exc


def _check_parts(file: Any, name: str) -> None:  # noqa: ANN401 - HDF5 is without types
    import h5py

    _refuse_links(file, name)
    missing = [part for part in (_DATA, _WHITE, _DARK, _THETA) if not isinstance(file.get(part), h5py.Dataset)]
    if missing:
        raise InputError(f"{name} is no Data Exchange file: {', '.join(missing)} {_is_are(missing)} missing")
    empty = [
        part for part in (_DATA, _WHITE, _DARK, _THETA) if not file[part].size or file[part].dtype.kind not in "uif"
    ]
    if empty:
        raise InputError(f"{name}: {', '.join(empty)} {_is_are(empty)} empty, or no numbers")
    shape = file[_DATA].shape
    if len(shape) != 3 or 0 in shape:
        raise InputError(f"{name}: {_DATA} has the shape {shape} where [view, row, column] is needed")
    odd = [part for part in (_WHITE, _DARK) if file[part].shape[1:] != shape[1:] or not file[part].shape[0]]
    if odd:
        raise InputError(
            f"{name}: {', '.join(odd)} {_is_are(odd)} not of the {shape[1]} x {shape[2]} pixels of {_DATA}"
        )


def _refuse_links(file: Any, name: str) -> None:  # noqa: ANN401
    """Refuse a file whose data lie in another one: it would be somebody else's."""
    import h5py

    for part in (_DATA, _WHITE, _DARK, _THETA, *itertools.chain(*_PIXEL_SIZES)):
        steps = part.strip("/").split("/")
        paths = ["/".join(steps[: count + 1]) for count in range(len(steps))]
        if any(isinstance(file.get(path, getlink=True), h5py.ExternalLink) for path in paths if path in file):
            raise InputError(f"{name}: {part} leads to another file", remedy="Copy the data into the file itself")
        found = file.get(part)
        if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
            raise InputError(f"{name}: the data of {part} lie outside it", remedy="Copy the data into the file itself")


def _is_are(things: list[str]) -> str:
    return "is" if len(things) == 1 else "are"


def _angles(theta: Any, views: int, name: str) -> Array:  # noqa: ANN401
    """Return radians."""
    values = np.asarray(theta, dtype=np.float64)
    if values.shape != (views,):
        raise GeometryError(f"{name}: {_THETA} has {values.size} angles for {views} views")
    if not np.isfinite(values).all():
        raise GeometryError(f"{name}: {_THETA} has angles that are no finite numbers")
    units, span = _units(theta), float(np.ptp(values))
    many = views >= _MANY_VIEWS
    if units.startswith("rad"):
        if span > _TURN:
            raise GeometryError(
                f"{name}: {_THETA} spans {span:.4g}, in {units}: they look like degrees", remedy="Correct its units"
            )
        return values
    if units and not units.startswith("deg"):
        raise GeometryError(f"{name}: {_THETA} is in {units[:20]!r}", remedy="Write degrees")
    if not units and many and span <= _TURN:
        raise GeometryError(
            f"{name}: {views} angles in {_THETA} span only {span:.4g} degrees: they look like radians",
            remedy="Write degrees, or give the data set the attribute units = 'radian'",
        )
    return np.deg2rad(values)


def _units(dataset: Any) -> str:  # noqa: ANN401
    value = dataset.attrs.get("units", "")
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value)).strip().lower()


def _pixel_size(file: Any, name: str) -> tuple[float, float]:  # noqa: ANN401
    """Return the width and the height of a pixel in mm."""
    for across, down in _PIXEL_SIZES:
        if across in file:
            width = _length(file[across], across, name)
            return width, _length(file[down], down, name) if down in file else width
    raise GeometryError(
        f"{name} does not say how large a pixel is", remedy="Pass it in mm, by --arg recon=--pixel-mm=0.01 for example"
    )


def _length(dataset: Any, where: str, name: str) -> float:  # noqa: ANN401
    units = _units(dataset)
    try:
        value = float(np.asarray(dataset[()], dtype=np.float64).reshape(()))
    except (TypeError, ValueError):
        value = math.nan
    if units not in _MM or not (math.isfinite(value) and value > 0):
        told = f"in {units[:20]!r}" if units else "without units"
        raise GeometryError(
            f"{name}: {where} is {value:g} {told}, which is no size in m, mm or um",
            remedy="Pass it by --arg recon=--pixel-mm=0.01 for example",
        )
    return value * _MM[units]


def _find_centre(file: Any, angles: Array, white: NDArray[np.float32], dark: NDArray[np.float32]) -> float:  # noqa: ANN401
    rows = file[_DATA].shape[1]
    chosen = sorted({round(rows * (index + 0.5) / _CENTRE_ROWS - 0.5) for index in range(min(_CENTRE_ROWS, rows))})
    centres = []
    for row in chosen:
        counts = np.asarray(file[_DATA][:, row, :], dtype=np.float32)
        centres.append(find_centre(line_integrals(counts, white[row], dark[row]), angles))
    return float(np.median(centres))
