"""Few views: where filtered backprojection leaves streaks, the iterative method leaves fewer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from analytic import WATER, Ellipsoid, paint, project
from numpy.typing import NDArray

from clara_wf.model.errors import InputError
from clara_wf.reconstruction.geometry import Beam, Detector, ScanGeometry
from clara_wf.reconstruction.options import Method, Options
from clara_wf.reconstruction.reconstruct import plan, reconstruct

pytestmark = pytest.mark.xdist_group("rtk")

BODY = (
    Ellipsoid(centre=(3, -2, 0), radii=(70, 52, 1e6), density=1.0),
    Ellipsoid(centre=(-30, 12, 0), radii=(14, 14, 1e6), density=-0.3),
    Ellipsoid(centre=(30, -20, 0), radii=(9, 9, 1e6), density=0.8),
)


def few_views(beam: Beam, *, rows: int = 1) -> ScanGeometry:
    divergent = beam is not Beam.PARALLEL
    views = 18
    return ScanGeometry(
        beam=beam,
        detector=Detector(
            rows=rows,
            columns=128,
            row_spacing=2.0,
            column_spacing=2.6 if divergent else 1.6,
            central_row=(rows - 1) / 2,
            central_column=63.5,
        ),
        angles=np.arange(views) * (2 if divergent else 1) * math.pi / views,
        axial=np.zeros(views),
        source_to_isocenter=500.0 if divergent else 0.0,
        source_to_detector=800.0 if divergent else 0.0,
    )


def error(geometry: ScanGeometry, **options: object) -> float:
    """Return the RMS in HU within the body, of the middle slice."""
    views = project(BODY, geometry)
    planned = plan(geometry, Options(matrix=96, field_of_view=180.0, **options))  # type: ignore[arg-type]
    slices: dict[int, NDArray[np.int16]] = {}
    reconstruct(planned, lambda a, b: views[a:b], WATER, slices.__setitem__, lambda _: None)
    grid = planned.grid
    assert sorted(slices) == list(range(grid.slices))
    place = grid.edge + np.arange(96) * grid.pixel
    truth = 1000 * paint(BODY, place[None, :], place[:, None], 0.0) - 1000
    inside = np.hypot(place[None, :] / 64, place[:, None] / 46) < 1
    return float(np.sqrt(((slices[grid.slices // 2] - truth)[inside] ** 2).mean()))


@pytest.mark.parametrize(
    "geometry",
    [few_views(Beam.PARALLEL), few_views(Beam.PARALLEL, rows=4), few_views(Beam.FAN), few_views(Beam.CONE, rows=5)],
    ids=["parallel", "stack", "fan", "cone"],
)
def test_few_views_leave_fewer_streaks(geometry: ScanGeometry) -> None:
    assert error(geometry, method=Method.ITERATIVE) < 0.7 * error(geometry)


def test_regularisation_is_what_a_user_asks_for() -> None:
    geometry = few_views(Beam.PARALLEL)
    assert error(geometry, method=Method.ITERATIVE) < error(geometry, method=Method.ITERATIVE, regularization=0.0)


def test_what_does_not_fit_into_the_memory_is_refused() -> None:
    geometry = few_views(Beam.CONE, rows=64)
    planned = plan(geometry, Options(method=Method.ITERATIVE, memory=2**20))
    with pytest.raises(InputError, match=r"the iterative method needs .* GiB"):
        reconstruct(planned, lambda a, b: np.zeros((b - a, 64, 128)), WATER, lambda *_: None, lambda _: None)
