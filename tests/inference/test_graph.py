"""The graphs against a plain evaluation of the published architecture, with weights of the right shapes."""

from __future__ import annotations

import h5py
import numpy as np
import onnx
import pytest

from clara_wf.inference.engine import OpenVinoNetwork
from clara_wf.inference.graph import WeightsError, lesion_graph, liver_graph
from clara_wf.inference.weights import read_kernels

LIVER_CHANNELS = [
    (1, 20, 1), (20, 40, 3), (40, 40, 1), (40, 80, 3), (80, 80, 1), (80, 160, 3), (160, 160, 3), (160, 160, 3),
    (320, 160, 3), (160, 80, 1), (160, 80, 3), (80, 40, 1), (80, 40, 3), (40, 20, 1), (20, 1, 0),
]  # fmt: skip


def random_kernels(layers):
    """Random kernels: (in, out, depth of a 3x3 kernel); depth 0 is a 1x1x1 kernel."""
    rng = np.random.default_rng(0)
    kernels = []
    for channels, features, depth in layers:
        size = (3, 3, depth) if depth else (1, 1, 1)
        kernel = rng.standard_normal((features, channels, *size)) / np.sqrt(channels * np.prod(size))
        kernels.append((kernel.astype(np.float32), rng.standard_normal(features).astype(np.float32)))
    return kernels


def conv(x, kernel, bias):
    pads = [(0, 0)] + [(length // 2, length // 2) for length in kernel.shape[2:]]
    padded = np.pad(x, pads)
    out = np.zeros((kernel.shape[0], *x.shape[1:]), np.float32) + bias[:, None, None, None]
    for i, j, k in np.ndindex(*kernel.shape[2:]):
        part = padded[:, i : i + x.shape[1], j : j + x.shape[2], k : k + x.shape[3]]
        out += np.tensordot(kernel[:, :, i, j, k], part, 1)
    return out


def activate(x):
    mean, sd = x.mean(axis=(1, 2, 3), keepdims=True), x.std(axis=(1, 2, 3), keepdims=True)
    normal = (x - mean) / (sd + 1e-6)
    return np.where(normal > 0, normal, 0.01 * normal)


def blocks(x, size):
    c, *shape = x.shape
    return x.reshape(c, shape[0] // size, size, shape[1] // size, size, shape[2] // size, size)


def liver_by_hand(x, kernels):
    """The architecture as it is published: with its concatenations."""
    steps = iter(kernels)
    skips = []
    for level in range(4):
        if level:
            x = blocks(x, 3).max(axis=(2, 4, 6))
        for index in range(2):
            x = conv(x if level == index == 0 else activate(x), *next(steps))
        skips.append(x)
    for level in (2, 1, 0):
        x = x.repeat(3, 1).repeat(3, 2).repeat(3, 3)
        shape = [length - 2 for length in x.shape[1:]]
        x = sum(
            x[:, i : i + shape[0], j : j + shape[1], k : k + shape[2]] for i, j, k in np.ndindex(3, 3, 3)
        ) / np.float32(27)
        edge = (skips[level].shape[1] - x.shape[1]) // 2
        x = np.concatenate([skips[level][:, edge:-edge, edge:-edge, edge:-edge], x])
        for _ in range(2):
            x = conv(activate(x), *next(steps))
    return 1 / (1 + np.exp(-conv(activate(x), *next(steps))))


def test_liver_graph_is_the_published_architecture(tmp_path):
    kernels = random_kernels(LIVER_CHANNELS)
    path = tmp_path / "model" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(liver_graph(kernels), path)
    image = np.random.default_rng(2).standard_normal((1, 54, 54, 54)).astype(np.float32)
    given = OpenVinoNetwork(path, precision="f32").infer(image[None])[0]
    wanted = liver_by_hand(image, kernels)
    assert given.shape == wanted.shape == (1, 28, 28, 28)
    assert wanted.std() > 0.05, "a constant would prove nothing"
    assert np.abs(given - wanted).max() < 1e-3


def test_every_convolution_is_used():
    kernels = random_kernels(LIVER_CHANNELS)
    with pytest.raises(WeightsError, match="needs more"):
        liver_graph(kernels[:-1])
    with pytest.raises(WeightsError, match=r"16 convolutions, the network 15"):
        liver_graph([*kernels, kernels[-1]])
    with pytest.raises(WeightsError, match="convolution 3 of the weights maps 40 to 80"):
        liver_graph([*kernels[:2], kernels[3], kernels[2], *kernels[4:]])
    with pytest.raises(WeightsError):
        lesion_graph(kernels)


def test_layers_are_sorted_as_numbers(tmp_path):
    path = tmp_path / "weights.hdf5"
    with h5py.File(path, "w") as file:
        for number in range(1, 12):
            layer = file.create_group(f"conv3d_{number}/conv3d_{number}")
            layer["kernel:0"] = np.full((1, 2, 3, 4, 5), number, np.float32)
            layer["bias:0"] = np.zeros(5, np.float32)
        file.create_group("lambda_1")
    kernels = read_kernels(path)
    assert [kernel[0, 0, 0, 0, 0] for kernel, _ in kernels] == list(range(1, 12))
    assert kernels[0][0].shape == (5, 4, 1, 2, 3)  # DHWIO -> OIDHW


def test_a_random_file_is_no_weights(tmp_path):
    path = tmp_path / "weights.hdf5"
    path.write_bytes(b"\x00" * 1000)
    with pytest.raises(WeightsError, match=r"weights\.hdf5 holds no Keras weights"):
        read_kernels(path)
