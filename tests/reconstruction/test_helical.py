"""Helical scans against spheres in water: densities, and places in millimetres, whichever way the scanner turns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from analytic import WATER, Ellipsoid, project
from numpy.typing import NDArray

from clara_wf.model.errors import GeometryError, InputError, UsageError
from clara_wf.reconstruction.geometry import Array, Beam, Detector, DetectorShape, FocalSpot, ScanGeometry
from clara_wf.reconstruction.grid import Grid
from clara_wf.reconstruction.options import Method, Options
from clara_wf.reconstruction.reconstruct import plan, reconstruct

pytestmark = pytest.mark.xdist_group("rtk")

BODY = (
    Ellipsoid(centre=(5, 3, 0), radii=(95, 70, 1e6), density=1.0),
    Ellipsoid(centre=(60, -20, 14), radii=(9, 9, 9), density=0.6),
    Ellipsoid(centre=(-55, 25, 3), radii=(10, 10, 10), density=-0.4),
    Ellipsoid(centre=(-20, -40, -9), radii=(8, 8, 8), density=0.8),
)


def helix(
    *,
    shape: DetectorShape = DetectorShape.ARC,
    turn: int = 1,
    table: int = 1,
    pitch: float = 0.9,
    turns: float = 4.2,
    views: int = 200,
) -> ScanGeometry:
    rows, height = 16, 2.0
    count = round(turns * views)
    along = np.arange(count) - (count - 1) / 2
    return ScanGeometry(
        beam=Beam.CONE,
        detector=Detector(
            rows=rows,
            columns=140,
            row_spacing=height * 1.8,
            column_spacing=1.6 * 1.8,
            central_row=(rows - 1) / 2,
            central_column=69.75,
            shape=shape,
        ),
        angles=0.7 + turn * along * 2 * math.pi / views,
        axial=2.0 + table * along * pitch * rows * height / views,
        source_to_isocenter=550.0,
        source_to_detector=990.0,
    )


def hounsfield(geometry: ScanGeometry, views: NDArray[np.float32], **more: object) -> tuple[NDArray[np.int16], Grid]:
    planned = plan(geometry, Options(matrix=128, field_of_view=205.0, **more))  # type: ignore[arg-type]
    grid = planned.grid
    volume = np.zeros((grid.slices, grid.matrix, grid.matrix), np.int16)
    reconstruct(planned, lambda a, b: views[a:b], WATER, volume.__setitem__, lambda _: None)
    return volume, grid


def found_at(volume: NDArray[np.int16], grid: Grid, body: Ellipsoid) -> tuple[NDArray[np.float64], float]:
    """Return the centre of mass of a sphere, x, y, z in mm, and the mean of its inside in HU."""
    place = grid.edge + np.arange(grid.matrix) * grid.pixel
    z = grid.positions
    distance = np.sqrt(
        (z[:, None, None] - body.centre[2]) ** 2
        + (place[None, :, None] - body.centre[1]) ** 2
        + (place[None, None, :] - body.centre[0]) ** 2
    )
    weights = np.where(distance < 1.6 * body.radii[0], volume * np.sign(body.density), 0).astype(float)
    weights = np.clip(weights - abs(body.density) * 1000 / 4, 0, None)
    centre = [
        (weights.sum(axis=axes) * places).sum() / weights.sum()
        for axes, places in (((0, 1), place), ((0, 2), place), ((1, 2), z))
    ]
    return np.array(centre), float(volume[distance < 0.5 * body.radii[0]].mean())


@pytest.mark.parametrize("turn", [1, -1], ids=["counter-clockwise", "clockwise"])
@pytest.mark.parametrize("table", [1, -1], ids=["table in", "table out"])
@pytest.mark.parametrize("shape", list(DetectorShape))
def test_spheres_are_where_they_are(turn: int, table: int, shape: DetectorShape) -> None:
    geometry = helix(turn=turn, table=table, shape=shape)
    volume, grid = hounsfield(geometry, project(BODY, geometry))
    assert grid.thickness == pytest.approx(2.0)
    for body in BODY[1:]:
        centre, hu = found_at(volume, grid, body)
        # Half a voxel, of 1.6 x 1.6 x 2 mm; a slice's own is tighter in the plane.
        assert np.abs(centre[:2] - body.centre[:2]).max() < 0.4
        assert abs(centre[2] - body.centre[2]) < 0.5
        assert hu == pytest.approx(1000 * body.density, abs=0.04 * 1000 * abs(body.density) + 6)
    middle = slice(grid.slices // 2 - 3, grid.slices // 2 + 3)
    assert volume[middle, 60:68, 60:68].mean() == pytest.approx(0, abs=4)
    assert volume.min() >= -1024


@pytest.mark.parametrize("pitch", [0.5, 1.3])
def test_the_pitch_may_be_low_or_high(pitch: float) -> None:
    geometry = helix(pitch=pitch, turns=6 if pitch < 1 else 4)
    volume, grid = hounsfield(geometry, project(BODY, geometry))
    for body in BODY[1:]:
        centre, hu = found_at(volume, grid, body)
        assert np.abs(centre - body.centre).max() < 0.8
        assert hu == pytest.approx(1000 * body.density, abs=0.05 * 1000 * abs(body.density) + 10)


@pytest.mark.parametrize("shape", list(DetectorShape))
def test_a_flying_focal_spot_is_taken_where_it_is(shape: DetectorShape) -> None:
    still = helix(views=400, shape=shape)
    place = np.arange(still.views) % 2
    spot = FocalSpot(
        angle=np.where(place, 4.0, -4.0) / 550, axial=np.where(place, 1.0, -1.0), radial=np.where(place, 5.0, 0.0)
    )
    flying = replace(still, focal_spot=spot)
    views = project(BODY, flying)
    volume, grid = hounsfield(flying, views)
    for body in BODY[1:]:
        centre, hu = found_at(volume, grid, body)
        assert np.abs(centre - body.centre).max() < 0.5
        assert hu == pytest.approx(1000 * body.density, abs=0.04 * 1000 * abs(body.density) + 6)
    ignored, _ = hounsfield(still, views)
    inner = (slice(4, -4), slice(30, 98), slice(30, 98))
    truth, _ = hounsfield(still, project(BODY, still))
    error = np.std(volume[inner].astype(float) - truth[inner])
    assert error < 0.5 * np.std(ignored[inner].astype(float) - truth[inner])


def test_little_memory_gives_the_same_volume_in_blocks() -> None:
    geometry = helix()
    views = project(BODY, geometry)
    asked: list[int] = []

    def read(start: int, stop: int) -> NDArray[np.float32]:
        asked.append(stop - start)
        return views[start:stop]

    whole, _ = hounsfield(geometry, views)
    planned = plan(geometry, Options(matrix=128, field_of_view=205.0, memory=9 * 2**20))
    blocks = np.zeros_like(whole)
    reconstruct(planned, read, WATER, blocks.__setitem__, lambda _: None)
    assert len(asked) > 2
    assert max(asked) < geometry.views
    assert np.abs(blocks.astype(int) - whole).max() <= 1


def test_a_helix_can_be_reconstructed_iteratively() -> None:
    geometry = helix(views=60, turns=3)
    views = project(BODY, geometry)
    volume, grid = hounsfield(geometry, views, method=Method.ITERATIVE, slice_thickness=4.0)
    for body in BODY[1:3]:
        centre, hu = found_at(volume, grid, body)
        assert np.abs(centre - body.centre).max() < 1.0
        assert hu == pytest.approx(1000 * body.density, abs=60)


def test_memory_that_holds_no_slice_is_refused_before_anything_is_done() -> None:
    with pytest.raises(InputError, match=r"a single slice needs .* GiB"):
        plan(helix(), Options(matrix=128, memory=2**20))


@pytest.mark.parametrize(
    ("geometry", "why"),
    [
        (helix(turns=0.5), "0.50 rotations"),
        (helix(pitch=2.6), "a pitch of 2.60"),
    ],
)
def test_a_scan_without_a_whole_slice_is_refused(geometry: ScanGeometry, why: str) -> None:
    with pytest.raises(GeometryError, match=why):
        plan(geometry, Options())


@pytest.mark.parametrize(
    "spoil",
    [lambda z: np.where(np.arange(z.size) < 300, z, z - 20), lambda z: np.floor(z / 20) * 20, np.abs],
    ids=["back and forth", "step and shoot", "and back again"],
)
def test_a_table_that_does_not_move_evenly_is_refused(spoil: Callable[[Array], Array]) -> None:
    geometry = helix()
    with pytest.raises(GeometryError, match="do not move evenly"):
        plan(replace(geometry, axial=spoil(geometry.axial)), Options())


@pytest.mark.parametrize("field", [900.0, 1300.0])
def test_a_field_of_view_beyond_the_helix_s_is_refused(field: float) -> None:
    with pytest.raises(UsageError, match="the scan sees"):
        plan(helix(), Options(field_of_view=field))


def test_every_pixel_of_a_small_field_of_view_is_reconstructed() -> None:
    planned = plan(helix(pitch=1.2), Options(matrix=64, field_of_view=140.0, slice_thickness=1.0))
    rebinning = planned.rebinning
    assert rebinning is not None
    positions = rebinning.tilted(planned.grid)
    ones = np.ones((positions.size, 64, 64), np.float32)
    for plane in rebinning.straighten(ones, positions, planned.grid):
        assert plane == pytest.approx(1.0)
