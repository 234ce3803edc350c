"""The Reconstruction Toolkit (RTK) as the other modules here need it.

RTK's fixed frame has the axis of rotation as y: its x, y, z are ours x, z, -y. Its volumes are therefore arrays
``[-y, z, x]``. Loading it takes two to three seconds, which is why a stage does it while others still work.

Source: RTK, openrtk.org; S. Rit et al., J. Phys.: Conf. Ser. 489 (2014) 012079.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clara_wf.reconstruction.geometry import Beam, Detector, ScanGeometry
from clara_wf.reconstruction.grid import Grid
from clara_wf.reconstruction.options import Filter, Options

Floats = NDArray[np.float32]

#: What a parallel beam has for a distance to its source: RTK wants one, and does not use it.
_ANY_DISTANCE = 1000.0


#: An image of 32-bit floats in three dimensions, as it is written in the names of classes.
_IMAGE = "IF3"
#: What is loaded before it is needed: not in the middle of the work.
_NEEDED = (
    "DisplacedDetectorForOffsetFieldOfViewImageFilter",
    "FDKBackProjectionImageFilter",
    "FDKWeightProjectionFilter",
    "FFTRampImageFilter",
    "ParkerShortScanImageFilter",
    "RegularizedConjugateGradientConeBeamReconstructionFilter",
    "ThreeDCircularProjectionGeometry",
)


@dataclass(frozen=True)
class Template:
    """A class of ITK's or RTK's that there is for several types."""

    module: ModuleType
    name: str

    def __getitem__(self, types: object) -> Any:  # noqa: ANN401 - RTK has no types
        """Return it for the types that its name ends with."""
        return getattr(self.module, self.name + "".join(map(str, types if isinstance(types, tuple) else (types,))))


class Classes:
    """The classes of a toolkit, each loaded when it is asked for.

    `itk.RTK` would load all that RTK was built on, to know every class for every type: 49 libraries of 0.9 GB, in ten
    seconds. A class from its own module needs the library that it is in, and those of the classes that it derives from.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        whole = self._prefix + name
        module = _module(whole)
        found = getattr(module, whole, None) or Template(module, whole)
        setattr(self, name, found)
        return found


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """RTK's classes, and ITK's that they work with."""

    itk: Classes
    rtk: Classes
    image: str  # the type of an image of 32-bit floats in three dimensions
    arrays: Any  # between such an image and an array: GetImageViewFromArray, GetArrayViewFromImage


@cache
def toolkit() -> Toolkit:
    """Load RTK, once."""
    # A Fourier transform is made by whichever factory has registered one; nobody else registers it.
    _module("itkVnlFFTImageFilterInitFactory").itkVnlFFTImageFilterInitFactory.RegisterFactories()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _module("ITKCommonBase").itkMultiThreaderBase.SetGlobalDefaultNumberOfThreads(threads)
    found = Toolkit(itk=Classes("itk"), rtk=Classes("rtk"), image=_IMAGE, arrays=Classes("itk").PyBuffer[_IMAGE])
    for name in _NEEDED:
        getattr(found.rtk, name)
    return found


def _module(name: str) -> ModuleType:
    """Return the module of one class."""
    return importlib.import_module(f"itk.{name}Python")


def scan(geometry: ScanGeometry) -> Any:  # noqa: ANN401 - RTK has no types
    """Return a circular scan's geometry as RTK's own."""
    found = toolkit().rtk.ThreeDCircularProjectionGeometry.New()
    parallel = geometry.beam is Beam.PARALLEL
    near = _ANY_DISTANCE if parallel else geometry.source_to_isocenter
    for angle in geometry.angles:
        found.AddProjectionInRadians(near, geometry.source_to_detector, float(angle))
    return found


@dataclass(eq=False)
class Image:
    """An array that RTK sees as an image, without a copy. Keep it for as long as RTK works on it."""

    array: Floats
    origin: Sequence[float]  # of x, y, z in RTK's frame, mm
    spacing: Sequence[float]  # likewise
    first: int = 0  # index of the first entry along the array's first axis
    view: Any = field(init=False)  # the image

    def __post_init__(self) -> None:
        kit = toolkit()
        itk = kit.itk
        self.array = np.ascontiguousarray(self.array, dtype=np.float32)
        self.view = kit.arrays.GetImageViewFromArray(self.array)
        region = itk.ImageRegion[3]()
        index, size = itk.Index[3](), itk.Size[3]()
        for axis, (start, length) in enumerate(zip((0, 0, self.first), reversed(self.array.shape), strict=True)):
            index[axis], size[axis] = start, length
        region.SetIndex(index)
        region.SetSize(size)
        self.view.SetRegions(region)
        self.view.SetOrigin(list(self.origin))
        self.view.SetSpacing(list(self.spacing))


def projection_image(detector: Detector, chunk: Floats, first: int = 0) -> Image:
    """Show a range of views to RTK, which begins with the view `first`."""
    return Image(
        array=chunk,
        origin=(
            -detector.central_column * detector.column_spacing,
            -detector.central_row * detector.row_spacing,
            0.0,
        ),
        spacing=(detector.column_spacing, detector.row_spacing, 1.0),
        first=first,
    )


def volume_image(grid: Grid, axial: float) -> Image:
    """Make an empty volume on a grid, whose scan circles at `axial` mm."""
    shape = (grid.matrix, grid.slices, grid.matrix)
    return Image(
        array=np.zeros(shape, np.float32),
        origin=(grid.edge, grid.first - axial, grid.edge),
        spacing=(grid.pixel, grid.thickness, grid.pixel),
    )


def slices_of(volume: Image) -> Floats:
    """Return a volume of RTK's as ours, [slice, row, column] in the scanner frame; a view."""
    return volume.array[::-1].transpose(1, 0, 2)


def ramp(weighted: Any, options: Options, *, finer: int = 1) -> Any:  # noqa: ANN401
    """Filter projections along their rows by a ramp and its window; return the filter.

    The window ends at a part of the Nyquist frequency of the detector's columns, which are `finer` times as wide as
    those of the projections.
    """
    kind, cutoff = options.filter, options.cutoff / finer
    kit = toolkit()
    found = kit.rtk.FFTRampImageFilter[kit.image, kit.image, "D"].New(weighted)
    match kind:
        case Filter.RAMP if options.cutoff < 1:
            found.SetRamLakCutFrequency(cutoff)
        case Filter.SHEPP_LOGAN:
            found.SetSheppLoganCutFrequency(cutoff)
        case Filter.COSINE:
            found.SetCosineCutFrequency(cutoff)
        case Filter.HANN:
            found.SetHannCutFrequency(cutoff)
        case _:
            pass
    return found


def backproject(volume: Image, filtered: Any, geometry: Any) -> None:  # noqa: ANN401
    """Add the backprojection of filtered views to a volume, in place."""
    kit = toolkit()
    found = kit.rtk.FDKBackProjectionImageFilter[kit.image, kit.image].New()
    found.SetInput(0, volume.view)
    found.SetInput(1, filtered)
    found.SetGeometry(geometry)
    found.InPlaceOn()
    found.Update()
    # In place: the result is in the same memory, and the image that went in has given it away.
    volume.view = found.GetOutput()
    volume.view.DisconnectPipeline()
