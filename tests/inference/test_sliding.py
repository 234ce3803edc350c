"""Windows whose scores are blended and given away part by part, beside the plain way that holds everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from clara_wf.inference import accumulator
from clara_wf.inference.description import Window
from clara_wf.inference.sliding import Sliding, importance, starts
from clara_wf.model.errors import InputError


def window(**changes):
    plain = {"size": (10, 12, 8), "margin": (0, 0, 0), "step": (0, 0, 0), "padding": -7, "overlap": 0.5, "tiling": True}
    return Window(**{**plain, **changes})


class Positions:
    """Gives scores that depend on where in its window a voxel is, so that a wrong weight or place shows."""

    identity = "test"

    def __init__(self, margin=(0, 0, 0), *, batch=1, value=None):
        self.margin, self.batch, self.value = margin, batch, value
        self.asked = []

    def prepare(self, shape, *, batch=1):
        pass

    def release(self):
        pass

    def infer(self, windows):
        self.asked.append(len(windows))
        x, y, z = self.margin
        inner = windows[:, 0, x : windows.shape[2] - x, y : windows.shape[3] - y, z : windows.shape[4] - z]
        i, j, k = np.ogrid[tuple(slice(0, length) for length in inner.shape[1:])]
        scores = np.stack([inner, inner + i, inner * 0.5 + j, inner - 0.3 * k], axis=1).astype(np.float32)
        if self.value is not None:
            scores[0, 1, 0, 0, 0] = self.value
        return scores


def plainly(network, described, image):
    """Blend as a textbook has it: all sums and all weights of the whole image."""
    output = [size - 2 * edge for size, edge in zip(described.size, described.margin, strict=True)]
    places = [
        starts(length, part, overlap=described.overlap, placement=described.placement)
        for length, part in zip(image.shape, output, strict=True)
    ]
    room = [(40, 40)] * 3
    padded = np.pad(image, room, constant_values=described.padding)
    sums = np.zeros((4, *padded.shape))
    weights = np.zeros(padded.shape)
    for start in itertools.product(*places):
        begin = [first + 40 - edge for first, edge in zip(start, described.margin, strict=True)]
        cut = padded[tuple(slice(b, b + size) for b, size in zip(begin, described.size, strict=True))]
        place = tuple(slice(first + 40, first + 40 + part) for first, part in zip(start, output, strict=True))
        weight = importance(described, output)
        sums[(slice(None), *place)] += network.infer(cut[None, None])[0] * weight
        weights[place] += weight
    core = tuple(slice(40, 40 + length) for length in image.shape)
    return sums[(slice(None), *core)] / weights[core]


def gathered(network, described, image, *, beside=0):
    """Put the blocks together again, and check that they cover the image exactly once, but for what is beside bands."""
    sliding = Sliding(network, described, image, channels=4)
    whole = np.full((4, *sliding.shape), np.nan, np.float32)
    for band in sliding.bands():
        for block in sliding.blocks(band, beside=beside):
            (first, near, begin), (_, deep, wide, long) = block.start, block.scores.shape
            part = whole[:, first : first + deep, near : near + wide, begin : begin + long]
            assert (begin, begin + long) == (max(0, band.low - beside), band.high)
            assert np.isnan(part[..., band.low - begin :]).all()
            assert np.allclose(part[..., : band.low - begin], block.scores[..., : band.low - begin], atol=1e-4)
            part[:] = block.scores
    assert not np.isnan(whole).any()
    return whole.transpose(0, *(sliding.order.index(axis) + 1 for axis in range(3)))


@pytest.mark.parametrize("placement", ["even", "stride"])
@pytest.mark.parametrize("blending", ["constant", "gaussian"])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(5, 4, 3), (10, 12, 8), (23, 20, 19), (37, 13, 8), (9, 40, 30)])
def test_blocks_are_the_blended_whole(placement, blending, overlap, shape):
    described = window(placement=placement, blending=blending, overlap=overlap)
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = gathered(Positions(), described, image)
    assert np.allclose(found, plainly(Positions(), described, image), atol=1e-4)


@pytest.mark.parametrize("shape", list(itertools.permutations((20, 23, 26))))
def test_a_margin_and_a_batch_whichever_axis_is_the_longest(shape):
    described = window(margin=(2, 3, 1), blending="gaussian", batch=3)
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    network = Positions(described.margin, batch=4)
    wanted = plainly(Positions(described.margin), described, image)
    assert np.allclose(gathered(network, described, image), wanted, atol=1e-4)
    assert max(network.asked) == min(3, len(network.asked))


@pytest.mark.parametrize("shape", [(5, 4, 3), (23, 20, 19), (37, 13, 8), (9, 40, 30)])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
def test_row_by_row_is_the_same(monkeypatch, shape, overlap):
    monkeypatch.setattr(accumulator, "_LAYER_LIMIT", 0)
    described = window(overlap=overlap, blending="gaussian")
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert np.allclose(gathered(Positions(), described, image), plainly(Positions(), described, image), atol=1e-4)


@pytest.mark.parametrize("beside", [0, 1])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
def test_bands_are_the_same(monkeypatch, overlap, beside):
    monkeypatch.setattr(accumulator, "_LAYER_LIMIT", 0)
    monkeypatch.setattr(accumulator, "_BAND_LIMIT", 20_000)
    described = window(overlap=overlap, blending="gaussian")
    image = np.random.default_rng(0).standard_normal((37, 20, 23)).astype(np.float32)
    assert len(Sliding(Positions(), described, image, channels=4).bands()) > 2
    found = gathered(Positions(), described, image, beside=beside)
    assert np.allclose(found, plainly(Positions(), described, image), atol=1e-4)


@pytest.mark.parametrize(
    ("length", "size", "overlap", "even", "stride"),
    [
        (96, 96, 0.5, [0], [0]),
        (90, 96, 0.5, [-3], [-3]),
        (91, 96, 0.5, [-2], [-2]),
        (100, 96, 0.5, [0, 4], [0, 4]),
        (200, 96, 0.5, [0, 35, 69, 104], [0, 48, 96, 104]),
        (192, 96, 0, [0, 96], [0, 96]),
        (193, 96, 0.75, [0, 19, 39, 58, 78, 97], [0, 24, 48, 72, 96, 97]),
    ],
)
def test_where_windows_begin(length, size, overlap, even, stride):
    assert starts(length, size, overlap=overlap, placement="even") == even
    assert starts(length, size, overlap=overlap, placement="stride") == stride


def test_a_gaussian_counts_the_middle_most_and_never_nothing():
    bell = importance(window(blending="gaussian"), (16, 16, 9))
    assert bell.max() == bell[7, 7, 4] == bell[8, 8, 4]
    assert bell.min() == np.float32(1e-3)
    assert bell[8, 8, 4] > bell[8, 8, 5] > bell[8, 8, 6]
    off_centre = importance(window(blending="gaussian-nnunet"), (16, 16, 9))
    assert off_centre[8, 8, 4] == 1 > off_centre[7, 7, 4]
    assert 0 < off_centre.min() < 1e-7


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(value):
    with pytest.raises(InputError, match="no numbers"):
        gathered(Positions(value=value), window(), np.zeros((20, 20, 20), np.float32))


def test_a_network_with_another_margin_or_other_channels():
    with pytest.raises(InputError, match="margin"):
        gathered(Positions(), window(margin=(1, 1, 1)), np.zeros((20, 20, 20), np.float32))
    sliding = Sliding(Positions(), window(), np.zeros((20, 20, 20), np.float32), channels=3)
    with pytest.raises(InputError, match="gives 4 channels, its description names 3"):
        next(sliding.blocks(sliding.bands()[0]))
