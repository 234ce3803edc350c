"""Phantoms shared by the tests: one everyday, and grids on which a phantom is cheap."""

from __future__ import annotations

import numpy as np
import pytest

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.phantom.patient import EVERYDAY, Phantom, make_phantom

#: A fifth of a second on one core.
COARSE = VolumeGeometry(shape=(52, 96, 96), spacing=(6.0, 4.0, 4.0), origin=(-196.0, -184.0, -150.0))


def oblique_geometry() -> VolumeGeometry:
    """Return a grid turned about all three axes, the middle of which lies where the everyday grid has it."""
    turn = np.eye(3)
    for axis, degrees in ((0, 14.0), (1, -9.0), (2, 21.0)):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        first, second = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[[first, first, second, second], [first, second, first, second]] = cosine, -sine, sine, cosine
        turn = step @ turn
    shape, spacing = (90, 160, 150), (4.0, 2.6, 2.8)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, ::-1] @ np.diag(spacing)
    affine[:3, 3] = np.array((-5.0, 7.0, 6.0)) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return VolumeGeometry.from_affine(affine, shape)


def feet_first_geometry() -> VolumeGeometry:
    """Return the coarse grid with slices that run to the feet and columns that run to the right."""
    return VolumeGeometry(
        shape=(104, 128, 150),
        spacing=(3.0, 3.0, 2.6),
        origin=(196.0, -190.0, 161.0),
        axes=((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)),
    )


GRIDS = {"everyday": EVERYDAY, "oblique": oblique_geometry(), "feet first": feet_first_geometry()}


@pytest.fixture(scope="session")
def everyday() -> Phantom:
    return make_phantom()


@pytest.fixture(scope="session")
def coarse() -> Phantom:
    return make_phantom(COARSE)
