"""Data Exchange: counts to line integrals, angles and their units, the size of a pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from clara_wf.model.errors import GeometryError, InputError
from clara_wf.reconstruction.data_exchange import DataExchange, open_data_exchange
from clara_wf.reconstruction.geometry import Beam
from clara_wf.reconstruction.inputs import InputOptions, open_inputs

VIEWS, ROWS, COLUMNS, CENTRE = 60, 3, 64, 34.4
X_SIZE, Y_SIZE = (f"measurement/instrument/detector/{axis}_pixel_size" for axis in "xy")


def rays() -> np.ndarray:
    """Line integrals of two discs, [view, row, column]."""
    angles = np.deg2rad(np.arange(VIEWS) * 3.0)[:, None]
    s = np.arange(COLUMNS)[None] - CENTRE
    total = np.zeros((VIEWS, COLUMNS))
    for x, y, radius in ((8, 5, 6), (-10, 3, 8)):
        d = s - x * np.cos(angles) - y * np.sin(angles)
        total += 0.1 * np.sqrt(np.maximum(radius**2 - d**2, 0))
    return np.stack([total, total * 0.5, total * 0.25], axis=1)


@pytest.fixture
def write(tmp_path: Path):
    def make(units: dict[str, str] | None = None, **changes: Any) -> Path:
        parts = {
            "exchange/data": np.rint(100 + 20000 * np.exp(-rays())).astype(np.uint16),
            "exchange/data_white": np.stack([np.full((ROWS, COLUMNS), n, np.uint16) for n in (20000, 20200)]),
            "exchange/data_dark": np.full((4, ROWS, COLUMNS), 100, np.uint16),
            "exchange/theta": np.arange(VIEWS) * 3.0,
            X_SIZE: 1.5,
            Y_SIZE: 2.0,
        } | {name.replace("__", "/"): value for name, value in changes.items()}
        units = {X_SIZE: "um", Y_SIZE: "micron"} | (units or {})
        path = tmp_path / "scan.h5"
        with h5py.File(path, "w") as file:
            for name, value in parts.items():
                if value is not None:
                    file[name] = value
                    if name in units:
                        file[name].attrs["units"] = units[name]
        return path

    return make


def test_a_file_is_read(write, tmp_path):
    write()
    (found,) = open_inputs(tmp_path, InputOptions())
    assert isinstance(found, DataExchange)
    geometry = found.geometry
    assert (geometry.beam, geometry.views) == (Beam.PARALLEL, VIEWS)
    assert (geometry.detector.column_spacing, geometry.detector.row_spacing) == pytest.approx((0.0015, 0.002))
    assert np.rad2deg(geometry.angles) == pytest.approx(np.arange(VIEWS) * 3)
    assert geometry.detector.central_column == pytest.approx(CENTRE, abs=0.25)
    assert found.read(10, 20) == pytest.approx(rays()[10:20], abs=2e-3)
    assert (found.patient_position, found.record, found.water_attenuation) == (None, None, None)


def test_where_no_photon_came_it_is_infinite(write):
    data = np.full((VIEWS, ROWS, COLUMNS), 5000, np.uint16)
    data[3, 1, 2] = 90
    found = open_data_exchange(write(exchange__data=data), centre=30)
    assert np.isposinf(found.read(3, 4)[0, 1, 2])
    assert np.isfinite(found.read(0, VIEWS)).sum() == data.size - 1


def test_radians_by_their_units(write):
    path = write({"exchange/theta": "radian"}, exchange__theta=np.deg2rad(np.arange(VIEWS) * 3.0))
    assert open_data_exchange(path, centre=30).geometry.angles == pytest.approx(np.deg2rad(np.arange(VIEWS) * 3))


def test_what_is_missing_is_named(write):
    with pytest.raises(InputError, match="/exchange/data_white, /exchange/theta are missing"):
        open_data_exchange(write(exchange__data_white=None, exchange__theta=None))


@pytest.mark.parametrize(
    ("units", "change", "told"),
    [
        ({}, {"exchange__theta": np.zeros(5)}, "/exchange/theta has 5 angles for 60 views"),
        ({}, {"exchange__theta": np.linspace(0, np.pi, VIEWS)}, "look like radians"),
        ({"exchange/theta": "rad"}, {}, "look like degrees"),
        ({"exchange/theta": "grad"}, {}, "in 'grad'"),
        ({}, {X_SIZE: None}, "how large a pixel is.*--pixel-mm"),
        ({X_SIZE: "pixel"}, {}, "in 'pixel'"),
        ({X_SIZE: ""}, {}, "without units"),
    ],
)
def test_bad_angles_and_sizes(write, units, change, told):
    with pytest.raises(GeometryError, match=told):
        open_data_exchange(write(units, **change), centre=30)


def test_other_faults(write, tmp_path):
    with pytest.raises(InputError, match="data_dark is not of the 3 x 64 pixels"):
        open_data_exchange(write(exchange__data_dark=np.zeros((1, 3, 60))))
    with pytest.raises(GeometryError, match="centre 64 is not on the detector, whose columns are 0 to 63"):
        open_data_exchange(write(), centre=64)
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"bad\.h5 cannot be read as HDF5"):
        open_data_exchange(tmp_path / "bad.h5")


def test_the_size_of_a_pixel_may_be_stated(write):
    found = open_data_exchange(write(**{X_SIZE: None}), pixel_mm=0.25, centre=30)
    assert (found.geometry.detector.column_spacing, found.geometry.detector.row_spacing) == (0.25, 0.25)


def test_data_in_another_file_are_refused(write, tmp_path):
    """It would be somebody else's scan, or no scan at all."""
    path = write()
    path.rename(tmp_path / "other.hdf")
    with h5py.File(path, "w") as file:
        file["exchange"] = h5py.ExternalLink("other.hdf", "/exchange")
    with pytest.raises(InputError, match="leads to another file"):
        open_data_exchange(path, pixel_mm=1.0)
    write(exchange__data_white=None)
    (tmp_path / "raw").write_bytes(bytes(2 * ROWS * COLUMNS * 2))
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "exchange/data_white", (2, ROWS, COLUMNS), np.uint16, external=[(str(tmp_path / "raw"), 0, 2**20)]
        )
    with pytest.raises(InputError, match="lie outside"):
        open_data_exchange(path, pixel_mm=1.0)


@pytest.mark.parametrize("part", ["data", "data_white", "data_dark", "theta"])
@pytest.mark.parametrize(
    "value", [h5py.Empty("f4"), np.array(b"text"), np.zeros((0, 3, 64))], ids=["null", "text", "none"]
)
def test_parts_without_numbers_are_named(write, part, value):
    path = write()
    with h5py.File(path, "a") as file:
        del file[f"exchange/{part}"]
        file[f"exchange/{part}"] = value
    with pytest.raises(InputError, match=f"/exchange/{part} is empty, or no numbers"):
        open_data_exchange(path, pixel_mm=1.0)
