"""Our projector against chords that a formula gives, by rays that the geometry's own words give."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.model.errors import GeometryError
from clara_wf.phantom.parts import Anatomy, Part
from clara_wf.phantom.projector import WATER_ATTENUATION, attenuation, project
from clara_wf.phantom.render import Scanner, render
from clara_wf.phantom.scans import LIVER_Z, SCANS, fan
from clara_wf.phantom.shapes import Superellipsoid
from clara_wf.reconstruction.geometry import Beam, DetectorShape, FocalSpot, ScanGeometry

#: Centre and radii in mm. No two are alike, none is in the middle.
ELLIPSOIDS = (
    ((52.0, -31.0, LIVER_Z + 4.0), (22.0, 36.0, 28.0)),
    ((-64.0, 18.0, LIVER_Z - 6.0), (30.0, 30.0, 30.0)),
    ((20.0, 70.0, LIVER_Z + 2.0), (14.0, 20.0, 17.0)),
)
BEAD = (61.0, -37.0, LIVER_Z + 5.0)


def few_views(geometry: ScanGeometry, count: int) -> ScanGeometry:
    """Return a few views of a scan, those that see the slice of the liver."""
    indices = np.arange(geometry.views)
    indices = indices[np.abs(geometry.axial - LIVER_Z) < 16]
    indices = indices[np.linspace(0, indices.size - 1, count).astype(int)]
    return replace(geometry, angles=geometry.angles[indices], axial=geometry.axial[indices])


def flying(geometry: ScanGeometry) -> ScanGeometry:
    sign = (-1.0) ** np.arange(geometry.views)
    return replace(geometry, focal_spot=FocalSpot(angle=0.004 * sign, axial=1.5 * sign, radial=-2.0 * sign))


BEAMS = {
    **{name: few_views(make(None), 8) for name, make in SCANS.items()},
    "flat fan": few_views(fan(shape=DetectorShape.FLAT), 8),
    "flying": flying(few_views(SCANS["helical"](None), 8)),
    "flying flat": flying(few_views(SCANS["cone"](None), 8)),
}


def body(ellipsoids=ELLIPSOIDS, hu: float = 0.0) -> Volume:
    parts = tuple(
        Part(name="ball", hu=hu, shape=Superellipsoid(centre=centre, radii=radii)) for centre, radii in ellipsoids
    )
    grid = VolumeGeometry(shape=(60, 170, 160), spacing=(1.5, 1.25, 1.25), origin=(-105.0, -90.0, -32.0))
    image, _ = render(Anatomy(parts=parts, markers=()), grid, seed=0, scanner=Scanner(noise=0, blur=0))
    return attenuation(Volume(geometry=grid, array=image))


def rays(geometry: ScanGeometry, view: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sources and elements (rows, columns, 3), as the geometry's docstrings have them."""
    detector, b = geometry.detector, geometry.angles[view]
    right, ahead, up = np.array([[np.cos(b), np.sin(b), 0], [-np.sin(b), np.cos(b), 0], [0, 0, 1]])
    u = ((np.arange(detector.columns) - detector.central_column) * detector.column_spacing)[None, :, None]
    v = ((np.arange(detector.rows) - detector.central_row) * detector.row_spacing)[:, None, None]
    middle = geometry.axial[view] * up
    if geometry.beam is Beam.PARALLEL:
        through = middle + u * right + v * up
        return through - 1000 * ahead, through + 1000 * ahead
    focus = middle - geometry.source_to_isocenter * ahead
    length = geometry.source_to_detector
    if detector.shape is DetectorShape.ARC:
        element = focus + length * (np.cos(u / length) * ahead + np.sin(u / length) * right) + v * up
    else:
        element = focus + length * ahead + u * right + v * up
    if geometry.focal_spot is not None:
        b += geometry.focal_spot.angle[view]
        radius = geometry.source_to_isocenter + geometry.focal_spot.radial[view]
        focus = np.array((radius * np.sin(b), -radius * np.cos(b), middle[2] + geometry.focal_spot.axial[view]))
    return np.broadcast_to(focus, element.shape), element


def chords(source: np.ndarray, element: np.ndarray) -> np.ndarray:
    """Return the mm of each ray within the ellipsoids."""
    total = np.zeros(source.shape[:2])
    for centre, radii in ELLIPSOIDS:
        start, way = (source - centre) / radii, (element - source) / radii
        a, b, c = (way**2).sum(-1), (start * way).sum(-1), (start**2).sum(-1) - 1
        total += 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a * np.linalg.norm(element - source, axis=-1)
    return total


@pytest.mark.parametrize("name", BEAMS)
def test_line_integrals_are_those_of_a_formula(name):
    geometry = BEAMS[name]
    views = dict(project(body(), geometry))
    assert sorted(views) == list(range(geometry.views))
    for view, integrals in views.items():
        expected = WATER_ATTENUATION * chords(*rays(geometry, view))
        assert integrals.sum() == pytest.approx(expected.sum(), rel=0.003)
        # Away from the rims, which voxels blur.
        inside = expected > 0.3 * expected.max()
        assert inside.sum() > 20
        assert np.abs(integrals - expected)[inside].mean() < 0.005 * expected[inside].mean()


@pytest.mark.parametrize("name", BEAMS)
def test_a_bead_is_seen_where_the_geometry_says(name):
    geometry = BEAMS[name]
    detector = geometry.detector
    for view, integrals in project(body(((BEAD, (5.0, 5.0, 5.0)),), hu=2400.0), geometry):
        source, element = rays(geometry, view)
        way = element - source
        # The ray that passes nearest to the bead's centre, by the distance of a point from a line.
        distance = np.linalg.norm(np.cross(way, np.array(BEAD) - source), axis=-1) / np.linalg.norm(way, axis=-1)
        row, column = np.unravel_index(distance.argmin(), distance.shape)
        if distance.min() > 2.5:
            continue  # beside the detector
        rows, columns = np.indices(integrals.shape)
        found = np.average(columns, weights=integrals)
        assert found == pytest.approx(column, abs=0.6)
        if 4 < row < detector.rows - 5:
            assert np.average(rows, weights=integrals) == pytest.approx(row, abs=0.6)


def test_turns_of_a_helix_are_those_of_single_views():
    whole = SCANS["helical"](24)
    chosen = np.abs(whole.axial - LIVER_Z) < 60
    scan = replace(whole, angles=whole.angles[chosen], axial=whole.axial[chosen])
    together = dict(project(body(), scan))
    for view in range(0, scan.views, 7):
        alone = replace(scan, angles=scan.angles[[view]], axial=scan.axial[[view]])
        assert next(project(body(), alone))[1] == pytest.approx(together[view], abs=1e-6)


def test_the_same_views_whatever_the_machine(monkeypatch):
    geometry = BEAMS["helical"]
    many = dict(project(body(), geometry))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    for view, integrals in project(body(), geometry):
        assert np.array_equal(integrals, many[view])


def test_an_element_averages_what_its_rays_let_through():
    # Half of an element behind a wall that nothing passes: half of the photons, not half of the wall.
    grid = VolumeGeometry(shape=(3, 40, 40), spacing=(3.0, 0.25, 0.25), origin=(0.0, -5.0, LIVER_Z - 3.0))
    detector = replace(BEAMS["fan"].detector, central_column=161.0)
    geometry = replace(BEAMS["fan"], angles=np.zeros(1), axial=np.full(1, LIVER_Z), detector=detector)
    ((_, integrals),) = project(Volume(geometry=grid, array=np.ones(grid.shape, np.float32)), geometry)
    assert integrals[0, 161] == pytest.approx(math.log(2), abs=0.02)


def test_nothing_is_seen_of_nothing():
    empty = replace(body(), array=np.zeros(body().geometry.shape, dtype=np.float32))
    for _, integrals in project(empty, BEAMS["cone"]):
        assert not integrals.any()


def test_an_oblique_body_is_refused():
    feet_first = replace(body().geometry, axes=((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)))
    with pytest.raises(GeometryError, match="along the scanner's axes"):
        next(project(replace(body(), geometry=feet_first), BEAMS["fan"]))


def test_attenuation_is_that_of_water_and_never_negative():
    grid = VolumeGeometry(shape=(1, 1, 4), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
    image = Volume(geometry=grid, array=np.array([[[-1024, -1000, 0, 1000]]], dtype=np.int16))
    assert attenuation(image).array.ravel() == pytest.approx([0, 0, 0.0192, 0.0384])
