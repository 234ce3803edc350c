from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from clara_wf.inference.median import median_3x3x3


@pytest.mark.parametrize("values", [(-1000, 1000), (-2, 3)])  # hardly any ties, and hardly anything else
@pytest.mark.parametrize("shape", [(13, 17, 19), (1, 5, 4), (40, 3, 2)])
def test_median_is_the_general_filter_s(shape, values):
    image = np.random.default_rng(1).integers(*values, shape, dtype=np.int16)
    assert np.array_equal(median_3x3x3(image), ndimage.median_filter(image, 3, mode="nearest"))
