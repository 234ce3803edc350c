from __future__ import annotations

import numpy as np
import pytest

from clara_wf.inference.description import Window
from clara_wf.inference.windows import fitting, infer, tiles
from clara_wf.model.errors import InputError

LIVER = Window(size=(189, 162, 162), margin=(13, 13, 13), step=(27, 27, 27), padding=0, overlap=0, tiling=False)
SMALL = Window(size=(10, 12, 8), margin=(2, 3, 1), step=(0, 0, 0), padding=-7, overlap=0, tiling=True)


class Shrinking:
    """Gives its input back without the margin, as a network with VALID convolutions does."""

    identity = "test"
    batch = 1

    def __init__(self, margin):
        self.margin = margin
        self.windows = []

    def prepare(self, shape, *, batch=1):
        pass

    def release(self):
        pass

    def infer(self, window):
        self.windows.append(window.copy())
        x, y, z = self.margin
        return window[..., x : window.shape[2] - x, y : window.shape[3] - y, z : window.shape[4] - z]


def test_a_window_grows_in_its_steps_until_its_output_covers_the_image():
    assert fitting(LIVER, (100, 80, 100)) == (189, 162, 162)
    assert fitting(LIVER, (163, 136, 136)) == (189, 162, 162)
    assert fitting(LIVER, (164, 136, 136)) == (216, 162, 162)
    assert fitting(LIVER, (163, 136, 164)) == (189, 162, 216)


def test_a_window_that_cannot_grow_refuses_a_larger_image():
    rigid = Window(size=(10, 10, 10), margin=(0, 0, 0), step=(0, 0, 0), padding=0, overlap=0, tiling=False)
    with pytest.raises(InputError, match="11 voxels"):
        fitting(rigid, (10, 11, 10))


@pytest.mark.parametrize("overlap", [0, 0.5])
@pytest.mark.parametrize("shape", [(5, 4, 3), (6, 6, 6), (13, 20, 9), (37, 7, 30)])
def test_windows_cover_the_image_and_give_it_back(shape, overlap):
    window = Window(**{**SMALL.__dict__, "overlap": overlap})
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    network = Shrinking(window.margin)
    assert np.allclose(infer(network, window, image, channels=1)[0], image)
    assert len(network.windows) == len(tiles(window, shape))
    assert all(given.shape == (1, 1, *window.size) for given in network.windows)


def test_what_lies_beyond_the_image_is_padding():
    network = Shrinking(SMALL.margin)
    infer(network, SMALL, np.ones((3, 3, 3), np.float32), channels=1)
    assert np.count_nonzero(network.windows[0] == 1) == 27
    assert np.count_nonzero(network.windows[0] == -7) == network.windows[0].size - 27


def test_windows_without_anything_wanted_are_left_out():
    network = Shrinking(SMALL.margin)
    image = np.random.default_rng(0).standard_normal((60, 6, 6)).astype(np.float32)
    wanted = np.zeros(image.shape, bool)
    wanted[30] = True
    scores = infer(network, SMALL, image, channels=1, wanted=wanted)
    assert len(network.windows) == 1
    assert np.array_equal(scores[0, 30], image[30])
    assert (scores[0, :20] == scores.min()).all()


def test_a_margin_that_the_network_does_not_keep_is_an_error():
    with pytest.raises(InputError, match="margin"):
        infer(Shrinking((0, 0, 0)), SMALL, np.zeros((5, 5, 5), np.float32), channels=1)
