"""What the peers' scripts share: a volume to segment, and how a segmentation is handed over.

Run by the peers' interpreter, which has neither clara-wf nor pytest.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

#: Of the file's axes [i, j, k]: nothing is isotropic, and nothing divides by anything.
SHAPE = (93, 79, 41)
SPACING = (0.83, 1.07, 2.3)


def make_volume(path: Path, *, seed: int, air: int = 0) -> None:
    """Write soft noise with shapes in it as NIfTI, its axes growing to Left, Posterior and Superior.

    `air` voxels on every side are 0, for what crops.
    """
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=SHAPE), (4, 4, 2))
    values = 80 * noise / noise.std()
    i, j, k = np.indices(SHAPE)
    values += 300 * (np.hypot((i - 30) / 15, (j - 40) / 20) < 1) - 200 * (np.hypot((i - 65) / 12, (k - 20) / 9) < 1)
    values += 40 * np.sin(i / 7) * np.cos(j / 9) + random.normal(size=SHAPE) * 10
    values = np.rint(values + 20)
    values[values == 0] = 1
    if air:
        inner = np.zeros(SHAPE, bool)
        inner[air:-air, air : -air - 3, air // 2 : -air // 2] = True
        values[~inner] = 0
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = (40.0, 55.0, -310.0)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), affine), path)


def hand_over(path: Path, image: Path, labels: np.ndarray) -> None:
    """Write image and labels as arrays [k, j, i], with the matrix from their index to LPS mm."""
    source = nibabel.load(image)
    assert labels.shape == source.shape, (labels.shape, source.shape)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ source.affine
    turned = np.eye(4)
    turned[:3, :3] = lps[:3, 2::-1]
    turned[:3, 3] = lps[:3, 3]
    np.savez(path, image=np.asarray(source.dataobj).T, labels=labels.astype(np.uint8).T, affine=turned)
