"""Convolution kernels out of a Keras HDF5 file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from clara_wf.inference.graph import Kernel, WeightsError

_PREFIX = "conv3d_"


def read_kernels(path: Path) -> list[Kernel]:
    """Read all 3-D convolutions of a Keras model, in the order of their creation.

    Parameters
    ----------
    path : Path
        A file with groups ``conv3d_N/conv3d_N/{kernel:0,bias:0}``; N counts the layers as they were created.

    Returns
    -------
    list of (kernel, bias)
        Kernels as ``[out, in, x, y, z]`` (Keras has ``[x, y, z, in, out]``), float32.

    Raises
    ------
    WeightsError
        It is no such file.
    """
    try:
        with h5py.File(path) as file:
            names = [name for name in file if name.startswith(_PREFIX)]
            # As numbers: conv3d_10 comes after conv3d_9.
            names.sort(key=lambda name: int(name.removeprefix(_PREFIX)))
            layers = [file[name][name] for name in names]
            return [
                (
                    np.ascontiguousarray(layer["kernel:0"][()].transpose(4, 3, 0, 1, 2), np.float32),
                    np.asarray(layer["bias:0"][()], np.float32),
                )
                for layer in layers
            ]
    except (OSError, KeyError, ValueError) as exc:
        raise WeightsError(f"{path.name} holds no Keras weights: {exc}") from exc
