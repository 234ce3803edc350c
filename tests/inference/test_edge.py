"""What is cut off by the edge of a volume, and where in the patient that edge is."""

from __future__ import annotations

import numpy as np
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.inference.edge import EDGE_CM2, EDGE_MM, cut_off

AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
CORONAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0))
PRONE_HEAD_FIRST = ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))
TILTED = (
    (0.0, float(np.sin(0.5)), float(np.cos(0.5))),
    (0.0, float(np.cos(0.5)), -float(np.sin(0.5))),
    (1.0, 0.0, 0.0),
)


def grid(axes=AXIAL):
    return VolumeGeometry(shape=(10, 30, 40), spacing=(5.0, 1.0, 2.0), origin=(0.0, 0.0, 0.0), axes=axes)


@pytest.mark.parametrize(
    ("axes", "places"),
    [
        (AXIAL, ("lowest slice", "highest slice", "front row", "back row", "rightmost column", "leftmost column")),
        (CORONAL, ("front slice", "back slice", "highest row", "lowest row", "rightmost column", "leftmost column")),
        (
            PRONE_HEAD_FIRST,
            ("highest slice", "lowest slice", "back row", "front row", "leftmost column", "rightmost column"),
        ),
        (TILTED, ("lowest slice", "highest slice", "front row", "back row", "rightmost column", "leftmost column")),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, -1])
def test_each_of_six_edges_is_named_as_in_the_patient(axes, places, axis, end):
    labels = np.zeros((10, 30, 40), np.uint8)
    np.moveaxis(labels, axis, 0)[end, 4:9, 4:26] = 1
    place = places[2 * axis + (end == -1)]
    assert cut_off(labels, grid(axes), {"liver": {1}}) == (
        f"the liver reaches the edge of the volume (its {place}): what is beyond it is not measured",
    )


def test_a_touch_is_no_cut():
    labels = np.zeros((10, 30, 40), np.uint8)
    labels[0, 5:15, 5:15] = 1  # 100 voxels of 1 mm x 2 mm
    assert EDGE_CM2 == 2.0
    assert cut_off(labels, grid(), {"liver": {1}}) == ()
    labels[0, 15, 5] = 1
    assert len(cut_off(labels, grid(), {"liver": {1}})) == 1


def test_a_structure_of_several_labels_and_one_that_is_whole():
    labels = np.zeros((10, 30, 40), np.uint8)
    labels[0, 5:15, 5:15] = 1
    labels[0, 15:25, 5:15] = 2
    labels[4:6, 5:15, 25:35] = 3
    labels[5, :, :8] = 4
    structures = {"liver": {1, 2}, "tumour": {2}, "spleen": {3}}
    assert [reason.split(" reaches")[0] for reason in cut_off(labels, grid(), structures)] == ["the liver"]


def test_thin_planes_that_the_network_s_grid_leaves_out_hide_no_cut():
    labels = np.zeros((10, 30, 40), np.uint8)
    assert EDGE_MM == 2.0
    labels[2:7, 3:26, 20] = 1  # three rows of 1 mm from the edge
    labels[2:7, 3, 4:36] = 1
    assert cut_off(labels, grid(), {"liver": {1}}) == ()
    labels[2:7, 2, 4:36] = 1
    assert "(its front row)" in cut_off(labels, grid(), {"liver": {1}})[0]


def test_several_edges_are_one_reason():
    labels = np.ones((10, 30, 40), np.uint8)
    (reason,) = cut_off(labels, grid(), {"liver": {1}})
    assert reason.count("its ") == 6
