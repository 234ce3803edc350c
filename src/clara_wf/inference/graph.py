"""ONNX graphs for the liver and lesion networks of KU Leuven, whose weights are published without a graph.

Both are 3-D U-Nets, written out here layer for layer after `create_unet_like_model` of pyliverlesionseg 0.3
(Apache-2.0). Tensors are ``[1, channel, x, y, z]``; the last three are free, so that a window can grow.

A concatenation is never made: an instance norm and a LeakyReLU work on each channel alone, and a convolution over
concatenated channels is the sum of a convolution over each part. That is the same network, but the largest tensor of
the whole graph (80 channels at full resolution, twice) never exists: faster and smaller in OpenVINO and in ONNX Runtime
(docs/decisions/0003).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clara_wf.model.errors import InputError

Kernel = tuple[NDArray[np.float32], NDArray[np.float32]]  # OIXYZ kernel and bias
#: A tensor of the graph and how many channels it has; several stand for their concatenation.
Part = tuple[str, int]

INPUT, OUTPUT = "image", "probability"
_OPSET, _IR = 17, 8
#: Features of both convolutions of a level, top to bottom; the way up has them in reverse.
_DOWN = ((20, 40), (40, 80), (80, 160), (160, 160))
_UP = ((160, 80), (80, 40), (40, 20))
_SPATIAL = [2, 3, 4]
_TO_THE_END = np.iinfo(np.int64).max


class WeightsError(InputError):
    """The weights are not those of the network."""


def liver_graph(kernels: Sequence[Kernel]) -> onnx.ModelProto:
    """Build the liver network: SAME convolutions, pooling by 3, linear upsampling.

    Parameters
    ----------
    kernels : sequence of (kernel, bias)
        15 convolutions in the order of their creation, kernels as ``[out, in, x, y, z]``.

    Returns
    -------
    onnx.ModelProto
        Takes ``[1, 1, 27 i, 27 j, 27 k]``, gives a probability 13 voxels shorter on each side.

    Raises
    ------
    WeightsError
        The kernels' number or shapes are not those of the network.
    """
    net = _Builder(kernels, same=True)
    path: list[Part] = [(INPUT, 1)]
    skips: list[Part] = []
    for level, features in enumerate(_DOWN):
        if level:
            path = [net.pool(path[0], 3)]
        for index, count in enumerate(features):
            path = [net.conv(path if level == index == 0 else net.activate(path), count)]
        skips.append(path[0])
    # Each step up loses two voxels to the average, which the skip of that level must lose as well.
    for level, features, crop in zip((2, 1, 0), _UP, (1, 4, 13), strict=True):
        path = [net.crop(skips[level], (crop, crop, crop)), net.grow_linear(path[0], 3)]
        for count in features:
            path = [net.conv(net.activate(path), count)]
    return net.finish("liver", path)


def lesion_graph(kernels: Sequence[Kernel]) -> onnx.ModelProto:
    """Build the lesion network: VALID convolutions, pooling by 2, a residual in each block.

    Parameters and errors are those of `liver_graph`, with 21 convolutions. It takes ``[1, 1, 180, 172, 86]`` (or other
    sizes that pool evenly) and gives a probability 44, 44 and 22 voxels shorter on each side.
    """
    net = _Builder(kernels, same=False)
    path: list[Part] = [(INPUT, 1)]
    skips: list[Part] = []
    size = np.array((180, 172, 86), np.int64)
    sizes = []
    for level, features in enumerate(_DOWN):
        if level:
            path, size = [net.pool(path[0], 2)], size // 2
        path, size = net.residual_block(path, features, size, first=level == 0)
        skips.append(path[0])
        sizes.append(size)
    for level, features in zip((2, 1, 0), _UP, strict=True):
        size = size * 2
        crop = (sizes[level] - size) // 2
        path = [net.crop(skips[level], crop), net.grow(path[0], 2)]
        path, size = net.residual_block(path, features, size, first=False)
    return net.finish("liver-lesion", path)


class _Builder:
    """Collects nodes and takes the kernels one by one."""

    def __init__(self, kernels: Sequence[Kernel], *, same: bool) -> None:
        self._kernels = kernels
        self._same = same
        self._used = 0
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def _add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:  # noqa: ANN401 - ONNX decides
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self._constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _take(self, channels: int, features: int) -> Kernel:
        if self._used == len(self._kernels):
            raise WeightsError(f"the weights have {self._used} convolutions, the network needs more")
        kernel, bias = self._kernels[self._used]
        self._used += 1
        if kernel.shape[:2] != (features, channels) or bias.shape != (features,):
            raise WeightsError(
                f"convolution {self._used} of the weights maps {kernel.shape[1]} to {kernel.shape[0]} channels, "
                f"the network's {channels} to {features}"
            )
        return kernel, bias

    def conv(self, parts: Sequence[Part], features: int) -> Part:
        """Convolve the concatenation of `parts` with the next kernel."""
        kernel, bias = self._take(sum(channels for _, channels in parts), features)
        number = self._used
        pads = [length // 2 if self._same else 0 for length in kernel.shape[2:]] * 2
        terms = []
        first = 0
        for index, (name, channels) in enumerate(parts):
            weights = self._constant(f"conv{number}_kernel{index}", kernel[:, first : first + channels])
            inputs = [name, weights] + ([] if index else [self._constant(f"conv{number}_bias", bias)])
            terms.append(self._add("Conv", inputs, pads=pads, kernel_shape=list(kernel.shape[2:])))
            first += channels
        total = terms[0]
        for term in terms[1:]:
            total = self._add("Add", [total, term])
        return total, features

    def activate(self, parts: Sequence[Part]) -> list[Part]:
        """Normalise each channel over the window, then LeakyReLU."""
        activated = []
        for name, channels in parts:
            scale = self._constant(f"one{channels}", np.ones(channels, np.float32))
            shift = self._constant(f"zero{channels}", np.zeros(channels, np.float32))
            norm = self._add("InstanceNormalization", [name, scale, shift], epsilon=1e-12)
            activated.append((self._add("LeakyRelu", [norm], alpha=0.01), channels))
        return activated

    def pool(self, part: Part, factor: int) -> Part:
        """Take the maximum of blocks."""
        return self._add("MaxPool", [part[0]], kernel_shape=[factor] * 3, strides=[factor] * 3), part[1]

    def grow(self, part: Part, factor: int) -> Part:
        """Repeat each voxel."""
        factors = self._constant(f"times{factor}", np.array([1, 1, factor, factor, factor], np.float32))
        rules = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self._add("Resize", [part[0], "", factors], **rules), part[1]

    def grow_linear(self, part: Part, factor: int) -> Part:
        """Interpolate between voxels: repeat each, then average over as many; loses ``factor - 1`` voxels."""
        name, channels = self.grow(part, factor)
        return self._add("AveragePool", [name], kernel_shape=[factor] * 3), channels

    def crop(self, part: Part, edges: Sequence[int] | NDArray[np.int64]) -> Part:
        """Cut as many voxels from both sides of each axis."""
        edges = [int(edge) for edge in edges]
        if not any(edges):
            return part
        name = "_".join(str(edge) for edge in edges)
        starts = self._constant(f"from_{name}", np.array(edges, np.int64))
        ends = self._constant(f"to_{name}", np.array([-edge if edge else _TO_THE_END for edge in edges], np.int64))
        axes = self._constant("spatial", np.array(_SPATIAL, np.int64))
        return self._add("Slice", [part[0], starts, ends, axes]), part[1]

    def residual_block(
        self, path: list[Part], features: Sequence[int], size: NDArray[np.int64], *, first: bool
    ) -> tuple[list[Part], NDArray[np.int64]]:
        """Convolve twice and add the block's raw input, cropped, through a 1x1x1 kernel where channels change."""
        shortcut, channels, before = path, sum(count for _, count in path), size
        for index, count in enumerate(features):
            if self._used < len(self._kernels):
                size = size - (np.array(self._kernels[self._used][0].shape[2:]) - 1)
            path = [self.conv(path if first and index == 0 else self.activate(path), count)]
        cropped = [self.crop(part, (before - size) // 2) for part in shortcut]
        if channels != features[-1]:
            cropped = [self.conv(cropped, features[-1])]
        return [(self._add("Add", [path[0][0], cropped[0][0]]), features[-1])], size

    def finish(self, name: str, path: list[Part]) -> onnx.ModelProto:
        """Add the last 1x1x1 convolution and close the graph."""
        last, _ = self.conv(self.activate(path), 1)
        if self._used != len(self._kernels):
            raise WeightsError(f"the weights have {len(self._kernels)} convolutions, the network {self._used}")
        self._nodes.append(helper.make_node("Sigmoid", [last], [OUTPUT], name=OUTPUT))
        free = ["x", "y", "z"]
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 1, *free])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, 1, *(f"{axis}_out" for axis in free)])],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="clara-wf"
        )
        onnx.checker.check_model(model)
        return model
