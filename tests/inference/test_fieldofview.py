from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from clara_wf.imaging.volume import Volume
from clara_wf.inference.description import load
from clara_wf.inference.fieldofview import look
from clara_wf.inference.resample import box_of

RULES = load(Path(str(resources.files("clara_wf.inference") / "catalogue" / "liver.yaml"))).field_of_view


def test_an_abdomen_with_the_base_of_the_lungs(body):
    volume = body(height_mm=400, lungs_mm=(300, 400))
    view = look(volume, RULES)
    assert view.box is not None
    assert view.reasons == ()
    low, high = box_of(view.box)
    # R, A and S: the body is centred on the origin of x and y, the dome is 300 mm above the lowest slice.
    assert np.allclose([low[0], high[0]], [-160, 160], atol=8)
    assert np.allclose([low[1], high[1]], [-110, 110], atol=8)
    assert np.allclose([low[2], high[2]], [-700 + 300 - 230, -700 + 300 + 70], atol=8)


def test_a_volume_whose_slices_run_downwards_is_seen_alike(body):
    volume = body()
    geometry = volume.geometry
    turned = Volume(
        geometry=type(geometry)(
            shape=geometry.shape,
            spacing=geometry.spacing,
            origin=tuple(geometry.index_to_world((geometry.shape[0] - 1, 0, 0))),
            axes=((0.0, 0.0, -1.0), *geometry.axes[1:]),
        ),
        array=volume.array[::-1],
    )
    assert look(turned, RULES).box.is_close(look(volume, RULES).box)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"half_axes_mm": (75, 95), "lungs_mm": None, "bone_mm": 8}, "0 mm of a torso"),  # a head
        ({"lungs_mm": (0, 240)}, "ends within the lungs"),  # a chest
        ({"height_mm": 40, "lungs_mm": (20, 40)}, "40 mm of a torso"),  # too few slices
        ({"height_mm": 15, "lungs_mm": None}, "15 mm|16 mm"),  # three slices
    ],
)
def test_what_holds_no_liver(body, arguments, reason):
    view = look(body(**arguments), RULES)
    assert view.box is None
    assert len(view.reasons) == 1
    assert any(part in view.reasons[0] for part in reason.split("|"))


def test_without_lungs_a_find_wants_a_review(body):
    view = look(body(lungs_mm=None), RULES)
    assert view.box is not None
    assert "no lung" in view.reasons[0]


def test_gas_in_the_bowel_is_no_lung(body):
    volume = body(height_mm=400, lungs_mm=(300, 400))
    volume.array[10:26, 30:40, 30:70] = -985  # 4 x 16 x 8 cm of gas
    _, high = box_of(look(volume, RULES).box)
    assert high[2] == pytest.approx(-700 + 300 + 70, abs=8)


def test_values_that_are_no_hu(body):
    volume = body()
    magnetic = Volume(geometry=volume.geometry, array=(volume.array + 1000).astype(np.uint16))
    view = look(magnetic, RULES)
    assert view.box is None
    assert view.reasons == (
        "the darkest voxel is 0; air would be near -1000, so the values are not HU or no air is in view",
    )


@pytest.mark.parametrize("value", [-1024, 0, 40])
def test_an_empty_volume(body, value):
    volume = body()
    view = look(Volume(geometry=volume.geometry, array=np.full(volume.array.shape, value, np.int16)), RULES)
    assert view.box is None
