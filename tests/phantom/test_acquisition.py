from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.phantom.acquisition import Acquisition, acquisition
from clara_wf.phantom.inserts import INSERTS, inserts, inserts_truth
from clara_wf.phantom.patient import make_anatomy
from clara_wf.phantom.projector import WATER_ATTENUATION
from clara_wf.phantom.scans import RADIUS_MM, SCANS, fan
from clara_wf.reconstruction.geometry import Beam

from .scanned import slab


def test_counts_scatter_as_photons_do():
    scan = replace(slab(), photons=1e4)
    expected, counts = dict(replace(scan, noise=False).counts()), dict(scan.counts())
    wanted, found = (np.concatenate([planes[view].ravel() for view in expected]) for planes in (expected, counts))
    for level in (wanted > 9999, wanted < 1500):
        rest, mean = (found - wanted)[level], wanted[level].mean()
        assert level.sum() > 3000
        assert rest.mean() == pytest.approx(0, abs=4 * np.sqrt(mean / level.sum()))
        assert rest.var() == pytest.approx(mean, rel=0.1)
    # So a line integral's variance is one over its counts.
    integrals, silent = dict(scan.line_integrals()), dict(replace(scan, noise=False).line_integrals())
    rest = np.concatenate([((integrals[view] - silent[view]) * np.sqrt(expected[view])).ravel() for view in silent])
    assert rest.std() == pytest.approx(1, rel=0.03)


def test_the_same_seed_gives_the_same_noise_whatever_else_is_scanned():
    scan = slab()
    views = dict(scan.counts())
    first = replace(
        scan, geometry=replace(scan.geometry, angles=scan.geometry.angles[:3], axial=scan.geometry.axial[:3])
    )
    for view, counts in first.counts():
        assert np.array_equal(counts, views[view])
    assert not np.array_equal(dict(replace(scan, seed=1).counts())[0], views[0])
    assert not np.array_equal(views[0], views[3])


def test_a_dark_ray_is_infinite_and_the_usual_dose_has_none():
    assert any(np.isinf(integrals).any() for _, integrals in replace(slab(), photons=20.0).line_integrals())
    scan = acquisition(make_anatomy(), fan(24))
    assert min(counts.min() for _, counts in scan.counts()) > 100


def test_identifiers_follow_all_that_the_values_depend_on():
    scan = slab()
    others = [
        replace(scan, photons=1.0),
        replace(scan, noise=False),
        replace(scan, seed=1),
        replace(scan, geometry=replace(scan.geometry, axial=scan.geometry.axial + 1)),
        replace(scan, body=replace(scan.body, array=scan.body.array * 2)),
    ]
    assert len({scan.name, *(other.name for other in others)}) == 1 + len(others)
    assert slab().name == scan.name


@pytest.mark.parametrize("name", SCANS)
def test_no_scan_cuts_anything_off(name):
    geometry = SCANS[name](36)
    assert geometry.field_of_view >= 2 * RADIUS_MM
    seen = acquisition(make_anatomy(), replace(geometry, angles=geometry.angles[::3], axial=geometry.axial[::3]))
    for _, integrals in replace(seen, noise=False).line_integrals():
        assert integrals.max() > 1
        assert np.abs(integrals[:, [0, -1]]).max() < 1e-4


@pytest.mark.parametrize("views", [None, 36])
def test_scans_are_what_their_names_say(views):
    scans = {name: make(views) for name, make in SCANS.items()}
    assert {name for name, scan in scans.items() if scan.is_helical} == {"helical"}
    assert scans["helical"].pitch == pytest.approx(0.9)
    assert scans["helical"].axial[0] < -150 - 40
    assert scans["helical"].axial[-1] > 159 + 40
    assert np.rad2deg(scans["fan"].span) == pytest.approx(360)
    assert np.rad2deg(scans["cone"].span) == pytest.approx(360)
    assert np.rad2deg(scans["parallel"].span) == pytest.approx(180)
    low, high = scans["fan-short"].fan_angles
    last = scans["fan-short"].angles[-1]
    assert np.pi + high - low <= last < np.pi + high - low + 0.6
    for scan in (scans["helical"], scans["fan"]):
        assert scan.detector.central_column % 0.5 == pytest.approx(0.25)
    assert scans["parallel"].beam is Beam.PARALLEL


def test_rods_have_the_density_that_their_truth_says():
    scan = acquisition(inserts(), fan(12))
    array, geometry = scan.body.array, scan.body.geometry
    for rod in inserts_truth()["inserts"]:
        index = np.rint(geometry.world_to_index((*rod["centre_mm"], 9.0))).astype(int)
        assert array[tuple(index)] == pytest.approx(WATER_ATTENUATION * (1 + rod["hu"] / 1000), abs=1e-6)
    assert {rod.name for rod in INSERTS} == {"air", "fat", "water", "liver", "bone"}
    assert len(inserts_truth()["markers"]) == 3


def test_a_body_of_its_own_can_be_scanned():
    grid = VolumeGeometry(shape=(3, 8, 8), spacing=(3.0, 5.0, 5.0), origin=(-20.0, -20.0, 6.0))
    body = Volume(geometry=grid, array=np.full(grid.shape, 0.02, dtype=np.float32))
    for _, integrals in Acquisition(body=body, geometry=fan(8), noise=False).line_integrals():
        assert integrals.max() == pytest.approx(0.02 * 40, rel=0.5)
