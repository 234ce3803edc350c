"""What would not fit into memory is refused before it is asked for: the system ends whoever takes too much of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import psutil

from clara_wf.model.errors import InputError

_BYTES = 4  # of a float32


def check_fits(what: str, shape: Sequence[int], *, copies: int = 1) -> None:
    """Check that an array of float32 fits into the memory that is available now.

    Parameters
    ----------
    what : str
        What the array is, for the message.
    shape : sequence of int
        Of the array.
    copies : int
        How many of them will be there at once, at least.

    Raises
    ------
    InputError
        It does not; the message has the shape and both sizes.
    """
    needed = prod(int(length) for length in shape) * _BYTES * copies
    available = psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"{what} of {' x '.join(str(length) for length in shape)} voxels needs {_gib(needed)}, "
            f"{_gib(available)} are available",
            remedy="Is the spacing right, of the image and in the model's description?",
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
