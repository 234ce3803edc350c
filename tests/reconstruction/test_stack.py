"""Stacks with our geometry file: what is read, and every fault told at once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clara_wf.model.errors import GeometryError
from clara_wf.reconstruction.geometry import Beam, Detector, DetectorShape, FocalSpot, ScanGeometry
from clara_wf.reconstruction.inputs import InputOptions, open_inputs
from clara_wf.reconstruction.stack import Calibration, ProjectionStack, open_stack, open_stack_writer


def opened(path):
    return open_stack(path, path.with_suffix(".geometry.json"))


def test_a_stack_is_read_as_it_says(stack, fan):
    found = opened(stack(fan))
    assert found.name == "scan.mhd"
    assert found.geometry.beam is Beam.CONE
    assert found.geometry.angles == pytest.approx(np.deg2rad([0, 120, 240]))
    assert (found.geometry.detector.rows, found.geometry.detector.columns) == (4, 6)
    assert found.geometry.axial.tolist() == [0, 0, 0]
    assert found.patient_position == "HFS"
    assert found.read(1, 3).dtype == np.float32
    assert np.array_equal(found.read(1, 3), np.arange(24, 72, dtype=np.float32).reshape(2, 4, 6))


def test_what_is_written_is_read_back(tmp_path):
    geometry = ScanGeometry(
        beam=Beam.CONE,
        detector=Detector(
            rows=2,
            columns=3,
            row_spacing=1.5,
            column_spacing=1.25,
            central_row=0.5,
            central_column=1.25,
            shape=DetectorShape.ARC,
        ),
        angles=np.array([0.1, 0.2, 0.4, 7.0]),
        axial=np.array([0.0, 1, 2, 3]),
        source_to_isocenter=595,
        source_to_detector=1085,
        focal_spot=FocalSpot(angle=np.full(4, 0.001), axial=np.zeros(4), radial=np.full(4, -1.5)),
    )
    calibration = Calibration(slope=0.5, intercept=-1, water_attenuation=0.0192)
    path = tmp_path / "1.2.3.mhd"
    with open_stack_writer(path, geometry, patient_position="FFS", dtype=np.uint16, calibration=calibration) as write:
        for view in range(4):
            write(view, np.full((2, 3), view))
    found = opened(path)
    assert found.geometry.detector == geometry.detector
    assert found.geometry.angles == pytest.approx(geometry.angles)
    assert found.geometry.axial == pytest.approx(geometry.axial)
    assert found.geometry.focal_spot.radial == pytest.approx(geometry.focal_spot.radial)
    assert found.calibration == calibration
    assert found.water_attenuation == 0.0192
    assert found.read(2, 4)[:, 0, 0].tolist() == [0.0, 0.5]


def test_counts_become_line_integrals_and_no_photon_is_infinite(stack, fan):
    counts = np.full((3, 4, 6), 1000, np.uint16)
    counts[1, 2, 3] = 0
    found = opened(stack(fan | {"incident_counts": 1000 * np.e}, array=counts))
    rays = found.read(0, 3)
    assert rays[0, 0, 0] == pytest.approx(1)
    assert np.isposinf(rays[1, 2, 3])


def test_every_missing_field_is_named_at_once(stack):
    with pytest.raises(GeometryError) as error:
        opened(stack({"schema": "clara-wf/geometry/1"}))
    names = ("beam", "angles_deg", "detector.row_spacing_mm", "detector.column_spacing_mm")
    for name in (*names, "detector.central_row", "detector.central_column"):
        assert f"{name} is missing" in error.value.message
    assert error.value.message.startswith("scan.geometry.json: ")


def test_the_distances_of_a_divergent_beam_are_missing(stack, fan):
    del fan["source_to_isocenter_mm"], fan["source_to_detector_mm"]
    with pytest.raises(GeometryError, match="source_to_isocenter_mm is missing; source_to_detector_mm is missing"):
        opened(stack(fan))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"angles_deg": [0, 1]}, "angles_deg has 2 entries for 3 views"),
        ({"angles_deg": 5}, "angles_deg is not a list of numbers"),
        ({"angles_deg": [0, "x", 2]}, "angles_deg is not a list of numbers"),
        ({"angles_deg": [0, 1, float("nan")]}, "angles_deg is not a list of numbers"),
        ({"beam": "spiral"}, "beam is not one of parallel, fan, cone"),
        ({"detector": 7}, "detector is not an object"),
        ({"axial_mm": [1, 2]}, "axial_mm has 2 entries for 3 views"),
        ({"source_to_isocenter_mm": -1}, "source_to_isocenter_mm is not a positive number"),
        ({"source_to_isocenter_mm": True}, "source_to_isocenter_mm is not a positive number"),
        ({"source_to_isocenter_mm": 10**400}, "source_to_isocenter_mm is not a positive number"),
        ({"source_to_detector_mm": 400}, "is not more than source_to_isocenter"),
        ({"incident_counts": 0}, "incident_counts is not a positive number"),
        ({"patient_position": "MARKER"}, "patient_position is not one of HFS"),
        ({"focal_spot": {"angle_deg": [0, 0, 0]}}, "focal_spot.axial_mm is not|focal_spot.axial_mm is missing"),
        ({"schema": "other"}, "its schema is not clara-wf/geometry/1"),
    ],
)
def test_a_bad_field_is_named(stack, fan, change, told):
    with pytest.raises(GeometryError, match=told) as error:
        opened(stack(fan | change))
    assert "MARKER" not in str(error.value)


def test_radians_are_refused(stack, fan):
    array = np.zeros((90, 1, 6), np.float32)
    with pytest.raises(GeometryError, match=r"90 angles_deg span only 6\.213 degrees: they look like radians"):
        opened(stack(fan | {"angles_deg": np.arange(0, 2 * np.pi, 2 * np.pi / 90).tolist()}, array=array))


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff", "[" * 100000])
def test_broken_json(stack, text):
    path = stack()
    path.with_suffix(".geometry.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(GeometryError, match=r"scan\.geometry\.json"):
        opened(path)


def test_a_folder_of_stacks(stack, fan, tmp_path):
    for name in ("b", "a"):
        stack(fan, name=name)
    stack(name="no-projections")
    found = open_inputs(tmp_path, InputOptions())
    assert [one.name for one in found] == ["a.mhd", "b.mhd"]
    assert all(isinstance(one, ProjectionStack) for one in found)
    assert [one.name for one in open_inputs(tmp_path / "a.mhd", InputOptions())] == ["a.mhd"]


def test_one_geometry_for_several_stacks_is_refused(stack, fan, tmp_path):
    stack(fan, name="a", beside="geometry.json")
    assert len(open_inputs(tmp_path, InputOptions())) == 1
    stack(name="b")
    with pytest.raises(Exception, match=r"geometry\.json stands beside 2 stacks"):
        open_inputs(tmp_path, InputOptions())


def test_nothing_is_found(tmp_path):
    for path in (tmp_path, tmp_path / "none", tmp_path / "none.h5"):
        with pytest.raises(Exception, match=r"no projections in the input.*Looked for: .*DICOM-CT-PD"):
            open_inputs(path, InputOptions())


def test_a_stated_centre_is_for_parallel_beams(stack, fan, tmp_path):
    stack(fan)
    with pytest.raises(GeometryError, match="no parallel beam"):
        open_inputs(tmp_path, InputOptions(centre=2))
    (tmp_path / "scan.geometry.json").write_text(json.dumps(fan | {"beam": "parallel"}))
    (found,) = open_inputs(tmp_path, InputOptions(centre=2))
    assert found.geometry.detector.central_column == 2
    with pytest.raises(GeometryError, match="the rotation centre 6 is not on the detector"):
        open_inputs(tmp_path, InputOptions(centre=6))
