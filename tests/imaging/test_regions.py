import numpy as np
import pytest
from scipy import ndimage

from clara_wf.imaging.regions import eroded, largest_region, opened

SHAPES = ((1, 1), (1, 40), (40, 1), (37, 53), (120, 90))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.55, 0.8, 1.0])
def test_regions_are_those_of_scipy(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(7).random(shape) < share

    assert np.array_equal(eroded(mask), ndimage.binary_erosion(mask))
    assert np.array_equal(opened(mask), ndimage.binary_opening(mask))
    assert largest_region(mask) == largest_by_scipy(mask)
    assert largest_region(opened(mask)) == largest_by_scipy(opened(mask))


def test_of_two_equally_large_regions_the_first_is_taken() -> None:
    mask = np.zeros((5, 9), bool)
    mask[3:5, 0:2] = mask[0:2, 5:7] = True

    assert largest_region(mask) == (slice(0, 2), slice(5, 7))


def test_a_region_may_close_upon_itself() -> None:
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    mask[2:7, 2:7] = False
    mask[4, 4] = True

    assert largest_region(mask) == (slice(1, 8), slice(1, 8))


def largest_by_scipy(mask: np.ndarray) -> tuple[slice, slice] | None:
    things, count = ndimage.label(mask)
    if not count:
        return None
    sizes = np.bincount(things.ravel())
    sizes[0] = 0
    return ndimage.find_objects((things == sizes.argmax()).astype(np.uint8))[0]
