"""FBP and FDK against bodies whose projections are known exactly, in every kind of circular scan."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from analytic import WATER, Ellipsoid, project
from numpy.typing import NDArray

from clara_wf.model.errors import GeometryError
from clara_wf.reconstruction.filtered import voronoi
from clara_wf.reconstruction.geometry import Beam, Detector, DetectorShape, ScanGeometry
from clara_wf.reconstruction.options import Filter, Method, Options
from clara_wf.reconstruction.reconstruct import plan, reconstruct

pytestmark = pytest.mark.xdist_group("rtk")  # its import takes ten seconds: once is enough

INFINITE = 1e6
#: Water with fat, liver and bone, and nothing symmetric about their places.
BODY = (
    Ellipsoid(centre=(4, -3, 0), radii=(70, 52, INFINITE), density=1.0),
    Ellipsoid(centre=(-34, 10, 0), radii=(12, 12, INFINITE), density=-0.1),
    Ellipsoid(centre=(28, -24, 0), radii=(14, 10, INFINITE), density=0.108),
    Ellipsoid(centre=(10, 30, 0), radii=(9, 9, INFINITE), density=0.9),
)
PLACES = {(-34.0, 10.0): -100.0, (28.0, -24.0): 108.0, (10.0, 30.0): 900.0, (4.0, -10.0): 0.0, (-90.0, -60.0): -1000.0}


def detector(columns: int = 200, *, rows: int = 1, spacing: float = 1.2, offset: float = 0.0) -> Detector:
    return Detector(
        rows=rows,
        columns=columns,
        row_spacing=spacing,
        column_spacing=spacing,
        central_row=(rows - 1) / 2,
        central_column=(columns - 1) / 2 + offset,
    )


def parallel(views: int = 240, span: float = math.pi, **more: float) -> ScanGeometry:
    return ScanGeometry(
        beam=Beam.PARALLEL,
        detector=detector(**more),  # type: ignore[arg-type]
        angles=np.arange(views) * span / views,
        axial=np.zeros(views),
    )


def fan(
    views: int = 480,
    span: float = 2 * math.pi,
    *,
    shape: DetectorShape = DetectorShape.FLAT,
    columns: int = 200,
    offset: float = 0.0,
) -> ScanGeometry:
    return ScanGeometry(
        beam=Beam.FAN,
        detector=replace(detector(columns, spacing=1.9, offset=offset), shape=shape),
        angles=0.3 + np.arange(views) * span / views,
        axial=np.full(views, 12.5),
        source_to_isocenter=500.0,
        source_to_detector=800.0,
    )


def hounsfield(
    geometry: ScanGeometry, views: NDArray[np.float32], **options: object
) -> tuple[NDArray[np.int16], object]:
    """Reconstruct to [slice, row, column] in the scanner frame; return it and the grid."""
    planned = plan(geometry, Options(**options))  # type: ignore[arg-type]
    grid = planned.grid
    volume = np.zeros((grid.slices, grid.matrix, grid.matrix), np.int16)
    told: list[float] = []
    reconstruct(planned, lambda a, b: views[a:b], WATER, volume.__setitem__, told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    return volume, grid


def mean_at(plane: NDArray[np.int16], grid: object, place: tuple[float, float], radius: float = 5.0) -> float:
    pixels = grid.edge + np.arange(grid.matrix) * grid.pixel  # type: ignore[attr-defined]
    near = np.hypot(pixels[None, :] - place[0], pixels[:, None] - place[1]) < radius
    return float(plane[near].mean())


@pytest.mark.parametrize(
    "geometry",
    [
        parallel(),
        parallel(280, math.radians(210)),
        parallel(480, 2 * math.pi),
        parallel(480, 2 * math.pi, columns=170, offset=40.0),
        parallel(offset=7.3),
        fan(),
        fan(shape=DetectorShape.ARC),
        fan(offset=0.25),
        fan(320, math.radians(230)),
        fan(320, math.radians(230), shape=DetectorShape.ARC),
        fan(columns=170, offset=38.0),
    ],
    ids=(
        "half turn",
        "more than half a turn",
        "full turn",
        "parallel offset",
        "rotation centre",
        "fan",
        "arc",
        "quarter offset",
        "short",
        "short arc",
        "fan offset",
    ),
)
def test_densities_and_places_are_right_in_every_scan(geometry: ScanGeometry) -> None:
    volume, grid = hounsfield(geometry, project(BODY, geometry), matrix=192, field_of_view=190.0)
    for place, wanted in PLACES.items():
        assert mean_at(volume[0], grid, place) == pytest.approx(wanted, abs=6), place


@pytest.mark.parametrize("kind", list(Filter))
def test_every_filter_keeps_the_densities_and_smoother_ones_less_noise(kind: Filter) -> None:
    geometry = parallel()
    noisy = project(BODY, geometry) + np.random.default_rng(3).normal(0, 0.02, (240, 1, 200)).astype(np.float32)
    volume, grid = hounsfield(geometry, noisy, matrix=128, field_of_view=190.0, filter=kind)
    assert mean_at(volume[0], grid, (4, -10), 12) == pytest.approx(0, abs=8)
    sharp, _ = hounsfield(geometry, noisy, matrix=128, field_of_view=190.0)
    inner = (slice(0, 1), slice(54, 66), slice(62, 76))
    assert volume[inner].std() <= sharp[inner].std()
    if kind is not Filter.RAMP:
        assert volume[inner].std() < 0.95 * sharp[inner].std()


@pytest.mark.parametrize(("kind", "cutoff"), [(Filter.RAMP, 0.5), (Filter.HANN, 1.0), (Filter.COSINE, 0.75)])
def test_a_cutoff_means_the_same_in_parallel_and_fan_beams(kind: Filter, cutoff: float) -> None:
    left = []
    for geometry in (parallel(480), fan()):
        noise = np.random.default_rng(5).normal(0, 0.01, (geometry.views, 1, 200)).astype(np.float32)
        sharp, smooth = (
            hounsfield(geometry, noise, matrix=128, field_of_view=120.0, **options)[0][0, 40:88, 40:88].std()
            for options in ({}, {"filter": kind, "cutoff": cutoff})
        )
        left.append(smooth / sharp)
    # Of the noise; a fan is interpolated linearly between its columns, which takes some itself.
    assert left[0] == pytest.approx(left[1], abs=0.12)


def test_views_that_stand_twice_or_are_missing_are_weighed() -> None:
    geometry = parallel()
    order = np.r_[0:60, 30:60, 64:240]  # thirty twice, four missing
    uneven = replace(geometry, angles=geometry.angles[order], axial=geometry.axial[order])
    volume, grid = hounsfield(uneven, project(BODY, uneven), matrix=128, field_of_view=190.0)
    for place, wanted in PLACES.items():
        assert mean_at(volume[0], grid, place) == pytest.approx(wanted, abs=15), place


def test_shares_of_a_turn_add_up_to_it() -> None:
    angles = np.random.default_rng(0).uniform(-9, 9, 50)
    shares = voronoi(np.r_[angles, angles[:7]], math.pi)
    assert shares.sum() == pytest.approx(math.pi)
    assert (shares >= 0).all()
    assert voronoi(np.arange(8) * math.pi / 4, math.pi) == pytest.approx(np.full(8, math.pi / 8))


@pytest.mark.parametrize("rows", [2, 5, 8])
def test_every_row_of_a_parallel_beam_gives_a_slice(rows: int) -> None:
    geometry = parallel(rows=rows)
    volume, grid = hounsfield(geometry, project(BODY, geometry), matrix=96, field_of_view=190.0)
    assert grid.slices == rows
    for plane in volume:
        for place, wanted in PLACES.items():
            assert mean_at(plane, grid, place) == pytest.approx(wanted, abs=8), place


def test_an_offset_detector_on_an_open_circle_is_refused() -> None:
    geometry = fan(250, math.radians(225), columns=170, offset=38.0)
    with pytest.raises(GeometryError, match="a full turn is needed"):
        plan(geometry, Options())
    plan(geometry, Options(method=Method.ITERATIVE, field_of_view=100.0))


SPHERES = (
    Ellipsoid(centre=(0, 0, 0), radii=(60, 48, 50), density=1.0),
    Ellipsoid(centre=(22, -14, 8), radii=(7, 7, 7), density=0.5),
    Ellipsoid(centre=(-25, 12, -12), radii=(8, 8, 8), density=-0.3),
)


def cone(views: int = 180, span: float = 2 * math.pi, *, shape: DetectorShape = DetectorShape.FLAT) -> ScanGeometry:
    return ScanGeometry(
        beam=Beam.CONE,
        detector=replace(detector(120, rows=72, spacing=2.2), shape=shape),
        angles=np.arange(views) * span / views,
        axial=np.full(views, 5.0),
        source_to_isocenter=600.0,
        source_to_detector=900.0,
    )


@pytest.mark.parametrize(
    "geometry",
    [cone(), cone(130, math.radians(222)), cone(shape=DetectorShape.ARC)],
    ids=["full", "short", "arc"],
)
def test_a_cone_puts_spheres_where_they_are_in_millimetres(geometry: ScanGeometry) -> None:
    volume, grid = hounsfield(
        geometry, project(SPHERES, geometry), matrix=128, field_of_view=150.0, slice_thickness=1.5
    )
    x = grid.edge + np.arange(grid.matrix) * grid.pixel
    z = grid.positions
    for body, hu in ((SPHERES[1], 500.0), (SPHERES[2], -300.0)):
        near = np.sqrt(
            (z[:, None, None] - body.centre[2]) ** 2
            + (x[None, :, None] - body.centre[1]) ** 2
            + (x[None, None, :] - body.centre[0]) ** 2
        )
        assert volume[near < 4].mean() == pytest.approx(hu, abs=0.05 * abs(hu) + 8)
        weights = np.where(near < 14, np.clip(volume.astype(float) * np.sign(hu) - abs(hu) / 3, 0, None), 0)
        centre = [
            (weights.sum(axis=axes) * places).sum() / weights.sum()
            for axes, places in (((0, 1), x), ((0, 2), x), ((1, 2), z))
        ]
        assert np.abs(np.array(centre) - body.centre).max() < grid.pixel / 2


def test_a_cone_agrees_with_the_toolbox_s_own_fdk() -> None:
    from clara_wf.reconstruction.filtered import filtered_backprojection
    from clara_wf.reconstruction.rtk import projection_image, scan, slices_of, toolkit, volume_image

    geometry = cone(90)
    views = project(SPHERES, geometry)
    planned = plan(geometry, Options(matrix=64, field_of_view=150.0))
    ours = slices_of(
        filtered_backprojection(lambda a, b: views[a:b], geometry, planned.grid, planned.options, lambda _: None)
    )
    kit = toolkit()
    stack, empty = projection_image(geometry.detector, views), volume_image(planned.grid, 5.0)
    whole = kit.rtk.FDKConeBeamReconstructionFilter[kit.image].New()
    whole.SetInput(0, empty.view)
    whole.SetInput(1, stack.view)
    whole.SetGeometry(scan(geometry))
    whole.Update()
    theirs = kit.arrays.GetArrayViewFromImage(whole.GetOutput())[::-1].transpose(1, 0, 2)
    assert np.sqrt(((ours - theirs) ** 2).mean() / (theirs**2).mean()) < 1e-3
