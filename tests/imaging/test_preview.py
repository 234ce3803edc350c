"""What stands where in a picture of a result."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.preview import draw_preview
from clara_wf.imaging.record import Code, Label, Verdict
from clara_wf.imaging.volume import Volume

CODE = Code(value="10200004", scheme="SCT", meaning="Liver")
RED = Label(value=1, name="liver", category=CODE, type=CODE, color=(255, 0, 0))
AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
CORONAL_TURNED = ((0.0, -1.0, 0.0), (0.0, 0.0, -1.0), (-1.0, 0.0, 0.0))


def patient(axes, spacing=(4.0, 3.0, 2.0)):
    """A block of tissue with a labelled block in its right, front and upper corner."""
    extent = np.array([200.0, 140.0, 120.0])  # L, P, S mm
    shape = tuple(int(length / step) for length, step in zip(np.abs(axes) @ extent, spacing, strict=True))
    first = -((np.array(shape) - 1) / 2 * spacing) @ np.array(axes)
    geometry = VolumeGeometry(shape=shape, spacing=spacing, origin=tuple(first), axes=axes)
    world = geometry.index_to_world(np.moveaxis(np.indices(shape), 0, -1))
    image = np.where((np.abs(world) < extent / 2 - 15).all(axis=-1), 60, -1000).astype(np.int16)
    labels = ((world > (-80, -50, 5)) & (world < (-30, -10, 40))).all(axis=-1).astype(np.uint8)
    return Volume(geometry=geometry, array=image), Volume(geometry=geometry, array=labels)


def panels(picture):
    """The columns of each panel: what lies between two stripes of paper."""
    paper = (np.abs(picture - [18, 20, 24]).max(axis=2) < 3)[80:-50].all(axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate(([True], paper, [True])).astype(int)))
    return list(zip(edges[::2], edges[1::2], strict=True))


def draw(image, labels, **options):
    png = draw_preview(image, labels, [RED], **options)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def red(picture):
    return (picture[..., 0] > 200) & (picture[..., 1:].max(axis=-1) < 90)


@pytest.mark.parametrize("axes", [AXIAL, CORONAL_TURNED])
def test_right_is_left_front_is_up_and_superior_is_up(axes):
    picture = draw(*patient(axes))[:-50]
    assert len(panels(picture)) == 3
    for start, stop in panels(picture):
        part = picture[:, start:stop]
        rows, columns = np.nonzero(red(part))
        body_rows, body_columns = np.nonzero(part.min(axis=2) > 100)
        # The label is in the patient's right, front and upper part: left and up in every panel.
        assert columns.mean() < body_columns.mean() - 5
        assert rows.mean() < body_rows.mean() - 5


def test_the_same_patient_looks_the_same_however_the_volume_lies():
    one, other = (draw(*patient(axes, spacing=(2.0, 2.0, 2.0))) for axes in (AXIAL, CORONAL_TURNED))
    assert one.shape == other.shape
    assert np.abs(one - other).mean() < 1


def test_proportions_are_the_patient_s():
    picture = draw(*patient(AXIAL))
    start, stop = panels(picture)[0]
    body = picture[80:-50, start:stop].min(axis=2) > 100
    width, height = np.flatnonzero(body.any(axis=0)), np.flatnonzero(body.any(axis=1))
    assert (width[-1] - width[0]) / (height[-1] - height[0]) == pytest.approx(170 / 110, rel=0.06)


@pytest.mark.parametrize("verdict", [None, Verdict(status="review", reasons=("far too long a reason " * 20,))])
def test_nothing_found_is_drawn_as_well(verdict):
    image, labels = patient(AXIAL)
    empty = Volume(geometry=labels.geometry, array=np.zeros_like(labels.array))
    picture = draw(image, empty, verdict=verdict)
    assert not red(picture[80:-50]).any()


def test_a_volume_of_one_slice_and_one_of_noise():
    geometry = VolumeGeometry(shape=(1, 40, 50), spacing=(5.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
    array = np.random.default_rng(0).integers(-2000, -1000, geometry.shape).astype(np.int16)
    volume = Volume(geometry=geometry, array=array)
    assert draw(volume, Volume(geometry=geometry, array=np.zeros(geometry.shape, np.uint8))).size
