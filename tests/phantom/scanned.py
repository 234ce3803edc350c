"""Scans that cost nothing, for who writes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clara_wf.imaging.geometry import VolumeGeometry
from clara_wf.imaging.volume import Volume
from clara_wf.phantom.acquisition import Acquisition
from clara_wf.phantom.scans import helical
from clara_wf.reconstruction.geometry import ScanGeometry


def slab(geometry: ScanGeometry | None = None) -> Acquisition:
    """Return a scan of a box of water that nothing is symmetric in; a helix if no other is given."""
    grid = VolumeGeometry(shape=(40, 30, 40), spacing=(3.0, 4.0, 4.0), origin=(-50.0, -70.0, -50.0))
    array = np.zeros(grid.shape, dtype=np.float32)
    array[4:30, 3:28, 5:36] = 0.0192
    return Acquisition(body=Volume(geometry=grid, array=array), geometry=geometry or short_helix())


def short_helix() -> ScanGeometry:
    """Return a helix of two and a half turns, 8 views each."""
    geometry = helical(8, seen=(0.0, 12.0))
    return replace(geometry, angles=geometry.angles[:20], axial=geometry.axial[:20])
