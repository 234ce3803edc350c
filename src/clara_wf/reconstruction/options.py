"""What a user may ask of a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """How projections become a volume."""

    AUTO = "auto"  # filtered backprojection: FBP, FDK, or single-slice rebinning before it on a helix
    ITERATIVE = "iterative"  # least squares with a penalty on total variation, for few views


class Filter(StrEnum):
    """What the ramp is multiplied with, from the sharpest to the smoothest."""

    RAMP = "ramp"
    SHEPP_LOGAN = "shepp-logan"
    COSINE = "cosine"
    HANN = "hann"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to reconstruct. What is None follows from the scan's geometry."""

    method: Method = Method.AUTO
    filter: Filter = Filter.RAMP
    cutoff: float = 1.0  # of the filter's window, as a part of the Nyquist frequency, above 0 to 1
    field_of_view: float | None = None  # mm; None: what every view sees
    matrix: int | None = None  # rows and columns; None: pixels no larger than a column at the isocentre
    slice_thickness: float | None = None  # mm, and from slice to slice; None: a row's height at the isocentre
    iterations: int = 60  # of the iterative method
    regularization: float = (
        0.01  # of the iterative method: weight of the total variation, of an image in units of water
    )
    memory: int = 2 * 2**30  # bytes that volume and projections may take together; more is done in blocks of slices
