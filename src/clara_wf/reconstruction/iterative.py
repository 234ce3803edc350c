"""Iterative reconstruction with regularisation, for few views: least squares and a small total variation.

RTK's regularised conjugate gradient alternates between a few steps of conjugate gradient on the data, positivity, and
denoising by total variation. All views are held in memory, so it is for scans that are small or sparse.

Source: C. Mory et al., Med. Phys. 41 (2014) 021903, and RTK's documentation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from clara_wf.model.errors import InputError
from clara_wf.reconstruction.filtered import Prepared, Progress, Reader
from clara_wf.reconstruction.geometry import Beam, ScanGeometry
from clara_wf.reconstruction.grid import Grid
from clara_wf.reconstruction.options import Options
from clara_wf.reconstruction.rtk import Image, projection_image, scan, toolkit, volume_image

#: RTK holds about this many copies of the views and of the volume at once.
WORKING_COPIES: Final = 8
#: Steps of conjugate gradient between two denoisings.
_STEPS: Final = 4
_DENOISING_STEPS: Final = 10
#: Rows that are put beside those of a parallel or fan beam, on either side.
_ROWS_BESIDE: Final = 3


def iterations_of(options: Options) -> int:
    """Return how many iterations are made: those asked for, in whole rounds between two denoisings."""
    return max(1, round(options.iterations / _STEPS)) * _STEPS


def iterative(read: Reader, geometry: ScanGeometry, grid: Grid, options: Options, progress: Progress) -> Image:
    """Reconstruct a circular scan; parameters and result as of `filtered.filtered_backprojection`.

    Raises
    ------
    InputError
        Views and volume together do not fit into `options.memory`.
    """
    prepared = Prepared.of(geometry, filtered=False)
    detector = prepared.geometry.detector
    needed = (
        WORKING_COPIES
        * 4
        * (geometry.views * detector.rows * detector.columns + grid.slices * grid.matrix * grid.matrix)
    )
    if needed > options.memory:
        raise InputError(
            f"the iterative method needs {needed / 2**30:.1f} GiB for {geometry.views} views and {grid.slices} slices"
            f" of {grid.matrix}x{grid.matrix}, and may take {options.memory / 2**30:.1f} GiB",
            remedy="Ask for a smaller matrix, or allow more GiB by --arg recon=--memory=8 for example",
        )
    views = np.concatenate([prepared.apply(read(index, index + 1)) for index in range(geometry.views)])
    # Joseph's projector drops rays through the outermost slices, which therefore are none of ours. Where slices are as
    # independent as rows, more rows beside keep what is wrong in the outermost from coming in by the total variation.
    beside = 1
    if geometry.beam is not Beam.CONE:
        beside = _ROWS_BESIDE + 1
        views = np.pad(views, ((0, 0), (_ROWS_BESIDE, _ROWS_BESIDE), (0, 0)), mode="edge")
        rows = detector.rows + 2 * _ROWS_BESIDE
        detector = replace(detector, rows=rows, central_row=detector.central_row + _ROWS_BESIDE)
    padded = replace(grid, slices=grid.slices + 2 * beside, first=grid.first - beside * grid.thickness)
    progress(0.05)
    kit = toolkit()
    circle = scan(prepared.geometry)
    volume = volume_image(padded, float(geometry.axial[0]))
    measured = projection_image(detector, views)
    solver = kit.rtk.RegularizedConjugateGradientConeBeamReconstructionFilter[kit.image].New()
    solver.SetInputVolume(volume.view)
    solver.SetInputProjectionStack(measured.view)
    solver.SetGeometry(circle)
    base = kit.rtk.IterativeConeBeamReconstructionFilter[kit.image]
    solver.SetForwardProjectionFilter(base.ForwardProjectionType_FP_JOSEPH)
    solver.SetBackProjectionFilter(base.BackProjectionType_BP_JOSEPH)
    solver.SetDisableDisplacedDetectorFilter(True)
    solver.SetMainLoop_iterations(iterations_of(options) // _STEPS)
    solver.SetCG_iterations(_STEPS)
    solver.SetPerformPositivity(True)
    solver.SetPerformTVSpatialDenoising(options.regularization > 0)
    solver.SetGammaTV(options.regularization)
    solver.SetTV_iterations(_DENOISING_STEPS)
    solver.SetPerformWaveletsSpatialDenoising(False)
    solver.Update()
    result = volume_image(grid, float(geometry.axial[0]))
    result.array[...] = kit.arrays.GetArrayViewFromImage(solver.GetOutput())[:, beside:-beside]
    progress(1.0)
    return result
