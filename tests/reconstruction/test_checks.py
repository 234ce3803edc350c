"""Views that are missing or double, scans that are too short, rays that measured nothing."""

from __future__ import annotations

import numpy as np
import pytest

from clara_wf.model.errors import GeometryError, InputError
from clara_wf.reconstruction.checks import RayCheck, check_views
from clara_wf.reconstruction.geometry import Beam, Detector, ScanGeometry


def geometry(degrees, *, beam=Beam.CONE, axial=None, centre=9.5, rows=4) -> ScanGeometry:
    angles = np.deg2rad(np.asarray(degrees, dtype=float))
    return ScanGeometry(
        beam=beam,
        detector=Detector(
            rows=rows, columns=20, row_spacing=10, column_spacing=10, central_row=1.5, central_column=centre
        ),
        angles=angles,
        axial=np.zeros_like(angles) if axial is None else np.asarray(axial, dtype=float),
        source_to_isocenter=0 if beam is Beam.PARALLEL else 500,
        source_to_detector=0 if beam is Beam.PARALLEL else 1000,
    )


FULL = np.arange(0, 360, 2.0)


@pytest.mark.parametrize(
    "scan",
    [
        geometry(FULL),
        geometry(-FULL),
        geometry(np.roll(FULL, 7)),
        geometry(np.arange(0, 180, 2.0), beam=Beam.PARALLEL),
        geometry(np.arange(0, 182, 2.0), beam=Beam.PARALLEL),
        geometry(np.arange(0, 192, 1.0)),
        geometry(np.arange(0, 1080, 3.0), axial=np.arange(360) * 0.5),
        geometry(np.arange(0, 360, 0.7)),
    ],
)
def test_good_scans(scan):
    assert check_views(scan, reweight=False) == ()


@pytest.mark.parametrize(
    ("scan", "told"),
    [
        (
            geometry(np.delete(FULL, range(40, 44))),
            "4 views are missing between view 40 at 78 degrees and view 41 at 88 degrees",
        ),
        (geometry(np.delete(FULL, 40)), "1 view is missing between view 40 at 78 degrees and view 41 at 82 degrees"),
        (
            geometry(np.delete(np.arange(0, 1080, 3.0), 100), axial=np.delete(np.arange(360) * 0.5, 100)),
            "1 view is missing between view 100",
        ),
        (geometry(np.arange(0, 362, 2.0)), "views 1 and 181 are both at 0 degrees"),
        (geometry(np.insert(FULL, 9, 16)), "views 9 and 10 are both at 16 degrees"),
        (
            geometry(np.insert(np.arange(0, 1080, 3.0), 9, 24), axial=np.insert(np.arange(360) * 0.5, 9, 4.0)),
            "views 9 and 10 are both at 24 degrees",
        ),
    ],
)
def test_gaps_and_doubles(scan, told):
    with pytest.raises(GeometryError, match=f"{told}.*--missing-projections=reweight"):
        check_views(scan, reweight=False)
    (note,) = check_views(scan, reweight=True)
    assert note.startswith(told)


def test_many_faults_are_counted():
    with pytest.raises(GeometryError, match="and 57 more faults of this kind"):
        check_views(geometry([*FULL, *FULL[:60] + 360]), reweight=False)


@pytest.mark.parametrize(
    ("scan", "told"),
    [
        (
            geometry(np.arange(0, 150, 2.0), beam=Beam.PARALLEL),
            "span 150.0 degrees.*180.0: it is short by 30.0 degrees",
        ),
        (geometry(np.arange(0, 185, 1.0)), "span 185.0 degrees.*190.9: it is short by 5.9 degrees"),
    ],
)
def test_short_scans(scan, told):
    with pytest.raises(GeometryError, match=told):
        check_views(scan, reweight=True)
    assert check_views(scan, reweight=False, iterative=True) == ()


def air() -> np.ndarray:
    return np.zeros((180, 4, 20), np.float32)


def test_isolated_rays_are_mended_once():
    rays, check = air(), RayCheck(geometry(FULL), 0.02)
    rays[:, :, 5:15] = 3.0
    rays[2, 1, 9] = np.inf
    rays[100, 0, 8] = -5.0
    for _ in range(20):  # a volume in blocks reads the views again
        mended = np.concatenate([check.mend(start, rays[start : start + 60]) for start in (0, 60, 120)])
        assert mended[2, 1, 9] == mended[100, 0, 8] == 3.0
    assert np.isinf(rays[2, 1, 9])
    assert check.notes() == ("2 rays measured nothing (0.00014 of all) and are the median of their neighbours",)


def test_rays_that_are_no_numbers():
    rays = air()
    rays[7, 2, 3:5] = np.nan
    with pytest.raises(InputError, match="2 rays of view 48 are no numbers"):
        RayCheck(geometry(FULL), 0.02).mend(40, rays[:60])


def test_too_many_rays_without_a_photon():
    rays = air()
    rays[7, :, 3:8] = np.inf
    rays[7, 0, 0] = -1
    with pytest.raises(InputError, match="in view 8 alone, 20 are without a photon and 1 saturated"):
        RayCheck(geometry(FULL), 0.02).mend(0, rays)


def test_an_object_that_is_cut_off_is_noted_with_its_side():
    rays, check = air(), RayCheck(geometry(FULL), 0.02)
    rays[:20, :, -5:] = 1.0
    check.mend(0, rays)
    (note,) = check.notes()
    assert "cut off at the last column of the detector in 20 of 180 views" in note


def test_an_offset_detector_has_an_edge_in_the_object():
    rays = air()
    rays[:, :, :8] = 2.0
    offset, centred = RayCheck(geometry(FULL, centre=4.0), 0.02), RayCheck(geometry(FULL), 0.02)
    offset.mend(0, rays)
    centred.mend(0, rays)
    assert offset.notes() == ()
    assert "first column" in centred.notes()[0]


def test_a_turn_of_a_helix_that_is_missing_cannot_be_bridged():
    kept = np.r_[0:200, 320:600]
    helix = geometry(kept * 3.0, axial=kept * 0.4)
    with pytest.raises(GeometryError, match=r"(119|120) views are missing") as told:
        check_views(helix, reweight=True)
    assert "can be bridged" in told.value.message
    few = np.r_[0:200, 202:600]
    assert len(check_views(geometry(few * 3.0, axial=few * 0.4), reweight=True)) == 1


def test_a_handful_of_views_is_refused_but_by_the_iterative_method():
    few = geometry(np.arange(0, 360, 45.0))
    with pytest.raises(GeometryError, match="8 views are too few"):
        check_views(few, reweight=False)
    assert check_views(few, reweight=False, iterative=True) == ()


def test_rays_that_few_photons_come_through_are_told():
    rays, check = air(), RayCheck(geometry(FULL), 0.02, 1e4)
    rays[10:30, :, 8:10] = 8.0  # three photons of ten thousand
    check.mend(0, rays)
    assert any("fewer than 10 photons left" in note for note in check.notes())
