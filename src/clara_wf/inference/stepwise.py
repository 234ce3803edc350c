"""The way through a network whose description lists its steps: prepare, slide, draw.

Nothing is known of what its labels must look like, so nothing is judged but whether there are any.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from clara_wf.imaging.record import Verdict
from clara_wf.imaging.volume import Volume
from clara_wf.inference.drawing import Drawer
from clara_wf.inference.engine import Network
from clara_wf.inference.postprocess import keep_largest
from clara_wf.inference.preparation import Turn, prepare
from clara_wf.inference.repository import InstalledModel
from clara_wf.inference.sliding import Sliding


def label_stepwise(
    network: Network,
    model: InstalledModel,
    volume: Volume,
    out: NDArray[np.uint8],
    *,
    lap: Callable[[str], None],
    progress: Callable[[float, str], None],
) -> Verdict:
    """Label a volume.

    Parameters
    ----------
    network : Network
        Of the model.
    model : InstalledModel
        Its description has `preprocess`.
    volume : Volume
        In any orientation; may be memory-mapped.
    out : array of uint8
        ``[slice, row, column]`` of the volume's shape; every voxel is written.
    lap : callable
        Told what has just been done, to measure it.
    progress : callable
        Told the share of the work done, and what is being done.

    Returns
    -------
    Verdict
        `none` where there is nothing to look for, or nothing was found; otherwise `ok`.

    Raises
    ------
    InputError
        See `Sliding`.
    """
    description = model.description
    out[...] = 0
    progress(0.02, "preparing the image")
    turn = Turn.towards(volume.geometry, description.orientation)
    prepared = prepare(volume, turn, description.preprocess)
    lap("preprocess")
    if prepared.nothing:
        return Verdict(status="none", reasons=(prepared.nothing,))
    running = f"running {model.name}"
    progress(0.1, running)
    sliding = Sliding(
        network,
        description.window,
        prepared.image,
        channels=description.channels,
        progress=lambda share: progress(0.1 + 0.75 * share, running),
    )
    drawer = Drawer(description, prepared.maps, sliding.order, turn.view(out))
    for band in sliding.bands():
        for block in sliding.blocks(band, beside=drawer.beside):
            lap("network")
            drawer.draw(block, sliding.shape[1], band)
            lap("draw")
    network.release()
    if description.keep_largest is not None:
        progress(0.86, "keeping the largest parts")
        keep_largest(out, description.keep_largest)
        lap("components")
    if not out.any():
        return Verdict(status="none", reasons=("the network found none of its labels",))
    return Verdict(status="ok", reasons=())
