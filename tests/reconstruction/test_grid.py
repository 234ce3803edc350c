"""The voxels: how many, and where they are in a patient who lies in any of DICOM's positions."""

from __future__ import annotations

import numpy as np
import pytest

from clara_wf.model.errors import GeometryError, UsageError
from clara_wf.reconstruction.geometry import (
    PATIENT_POSITIONS,
    Beam,
    Detector,
    DetectorShape,
    ScanGeometry,
    patient_axes,
)
from clara_wf.reconstruction.grid import Grid, choose_grid, circular_extent
from clara_wf.reconstruction.options import Options
from clara_wf.reconstruction.reconstruct import plan

GRID = Grid(matrix=6, pixel=2.0, slices=5, thickness=3.0, first=-4.0)
#: Where the patient's left, back and head are for who looks into the bore from the table: x right, y down, z into it.
LIES = {
    "HFS": ("right", "down", "in"),
    "HFP": ("left", "up", "in"),
    "FFS": ("left", "down", "out"),
    "FFP": ("right", "up", "out"),
    # On the right side: the left is up.
    "HFDR": ("up", "right", "in"),
    "HFDL": ("down", "left", "in"),
    "FFDR": ("up", "left", "out"),
    "FFDL": ("down", "right", "out"),
}
DIRECTIONS = {
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
    "down": (0, 1, 0),
    "up": (0, -1, 0),
    "in": (0, 0, 1),
    "out": (0, 0, -1),
}


def test_all_of_dicom_s_positions_are_known_and_none_is_mirrored() -> None:
    assert set(LIES) == set(PATIENT_POSITIONS)
    for position, directions in LIES.items():
        turn = patient_axes(position)
        assert turn.tolist() == [list(DIRECTIONS[name]) for name in directions]
        assert np.linalg.det(turn) == 1


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_a_voxel_is_in_the_patient_where_it_is_in_the_scanner(position: str) -> None:
    geometry = GRID.patient_geometry(position)
    volume = np.zeros(geometry.shape)
    marked = (3, 1, 4)  # slice, row, column in the scanner frame
    for index in range(GRID.slices):
        plane = np.zeros((GRID.matrix, GRID.matrix))
        if index == marked[0]:
            plane[marked[1:]] = 1
        place, turned = GRID.patient_slice(position, index, plane)
        volume[place] = turned
    scanner = np.array([GRID.edge + 2.0 * marked[2], GRID.edge + 2.0 * marked[1], -4.0 + 3.0 * marked[0]])
    (found,) = np.argwhere(volume)
    assert geometry.index_to_world(found) == pytest.approx(patient_axes(position) @ scanner)
    # Slices to the head, rows to the back, columns to the left.
    assert geometry.axes == ((0, 0, 1), (0, 1, 0), (1, 0, 0))


def test_an_unknown_position_is_refused() -> None:
    with pytest.raises(GeometryError, match="Patient Position XYZ is none of HFS"):
        patient_axes("XYZ")


def scan(beam: Beam = Beam.CONE, **more: float) -> ScanGeometry:
    return ScanGeometry(
        beam=beam,
        detector=Detector(
            rows=1 if beam is Beam.FAN else 40,
            columns=401,
            row_spacing=3.0,
            column_spacing=1.5,
            central_row=0.0 if beam is Beam.FAN else 19.5,
            central_column=200.0,
            shape=DetectorShape.FLAT,
        ),
        angles=np.arange(90) * np.pi / 45,
        axial=np.full(90, 7.0),
        source_to_isocenter=more.get("near", 600.0),
        source_to_detector=more.get("far", 900.0),
    )


def test_voxels_are_as_fine_as_the_detector_at_the_isocentre() -> None:
    geometry = scan()
    grid = choose_grid(geometry, 300.0, circular_extent(geometry, 300.0), Options())
    assert grid.thickness == pytest.approx(2.0)
    assert grid.matrix == 512  # 256 would have pixels of 1.17 mm, and a column is 1 mm
    assert grid.pixel * grid.matrix == pytest.approx(300.0)
    # What the rows see from 450 mm, the near edge of the field.
    assert grid.positions[0] >= 7.0 - 19.5 * 3.0 * 450 / 900
    assert grid.positions[-1] <= 7.0 + 19.5 * 3.0 * 450 / 900
    assert grid.positions.mean() == pytest.approx(7.0)


def test_a_fan_has_one_slice() -> None:
    grid = plan(scan(Beam.FAN), Options()).grid
    assert (grid.slices, grid.first) == (1, 7.0)


def test_a_field_of_view_beyond_the_scan_s_is_refused() -> None:
    geometry = scan()
    with pytest.raises(UsageError, match=r"a field of view of 500 mm: the scan sees 3\d\d\.\d mm"):
        plan(geometry, Options(field_of_view=500.0))


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(GeometryError, match="source_to_isocenter is missing; source_to_detector is missing"):
        scan(near=0.0, far=0.0)
    with pytest.raises(GeometryError, match="source_to_detector, 500 mm, is not more than source_to_isocenter, 600 mm"):
        scan(far=500.0)
