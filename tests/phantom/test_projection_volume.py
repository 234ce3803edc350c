from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from clara_wf.model.errors import UsageError
from clara_wf.phantom.data_exchange import DARK, write_data_exchange
from clara_wf.phantom.projection_series import projection_source
from clara_wf.phantom.projection_volume import write_projection_volume
from clara_wf.phantom.scans import SCANS, fan, parallel
from clara_wf.reconstruction.data_exchange import open_data_exchange
from clara_wf.reconstruction.inputs import InputOptions, open_inputs

from .scanned import short_helix, slab


@pytest.mark.parametrize("geometry", [short_helix(), fan(6), parallel(5)])
def test_a_stack_is_read_as_it_was_scanned(geometry, tmp_path):
    scan = slab(geometry)
    header = write_projection_volume(tmp_path, scan)
    (stack,) = open_inputs(tmp_path, InputOptions())
    assert header.name == stack.name == "projections.mhd"
    assert stack.geometry.detector == geometry.detector
    assert stack.geometry.angles == pytest.approx(geometry.angles)
    assert stack.geometry.axial == pytest.approx(geometry.axial)
    assert stack.patient_position == "HFS"
    assert stack.water_attenuation == 0.0192
    assert stack.record.kind == "projections"
    assert stack.record.source == projection_source(scan)
    for view, integrals in scan.line_integrals():
        assert np.array_equal(stack.read(view, view + 1)[0], integrals)


def test_a_dark_ray_stays_infinite(tmp_path):
    write_projection_volume(tmp_path, replace(slab(), photons=20.0))
    (stack,) = open_inputs(tmp_path, InputOptions())
    assert np.isinf(stack.read(0, 20)).any()


def test_data_exchange_is_counts_between_dark_and_white(tmp_path):
    scan = replace(slab(parallel(6)), photons=1e5)
    write_data_exchange(tmp_path / "projections.h5", scan)
    with h5py.File(tmp_path / "projections.h5") as file:
        exchange = file["exchange"]
        shape = (scan.geometry.detector.rows, scan.geometry.detector.columns)
        assert exchange["data"].shape == (6, *shape)
        assert exchange["data"].dtype == exchange["data_white"].dtype == exchange["data_dark"].dtype == np.uint16
        assert np.mean(exchange["data_dark"]) == pytest.approx(DARK, abs=0.1)
        assert exchange["data_white"][()].mean() == pytest.approx(60000 + DARK, rel=1e-3)
        assert exchange["theta"][()] == pytest.approx([0, 30, 60, 90, 120, 150])
        camera = file["measurement/instrument/detector"]
        assert camera["x_pixel_size"].attrs["units"] == camera["y_pixel_size"].attrs["units"] == "mm"
        assert (camera["x_pixel_size"][()], camera["y_pixel_size"][()]) == (1.5, 3.0)


def test_data_exchange_has_the_line_integrals_in_it(tmp_path):
    scan = slab(parallel(6))
    write_data_exchange(tmp_path / "projections.h5", scan)
    centre = scan.geometry.detector.central_column
    assert centre - (scan.geometry.detector.columns - 1) / 2 == pytest.approx(3.3)
    read = open_data_exchange(tmp_path / "projections.h5", centre=centre)
    for view, integrals in scan.line_integrals():
        assert np.abs(read.read(view, view + 1)[0] - integrals).mean() < 0.005


def test_data_exchange_is_the_same_for_the_same_scan(tmp_path):
    for name in ("first.h5", "again.h5"):
        write_data_exchange(tmp_path / name, slab(parallel(4)))
    with h5py.File(tmp_path / "first.h5") as first, h5py.File(tmp_path / "again.h5") as again:
        for part in ("data", "data_white", "data_dark"):
            assert np.array_equal(first["exchange"][part], again["exchange"][part])
        assert not np.array_equal(first["exchange/data_white"][0], first["exchange/data_white"][1])


@pytest.mark.parametrize("name", sorted(set(SCANS) - {"parallel"}))
def test_another_beam_is_no_data_exchange(name, tmp_path):
    with pytest.raises(UsageError, match="of a parallel beam, not of a"):
        write_data_exchange(tmp_path / "projections.h5", slab(SCANS[name](4)))
    assert not list(tmp_path.iterdir())
