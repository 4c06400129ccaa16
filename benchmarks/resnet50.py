"""ResNet-50's shape as ONNX, with seeded random weights: for time, not for accuracy."""

import numpy as np
from onnx import TensorProto

from triune.zoo.graph_builder import GraphBuilder

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""The channels of each stage's middle convolutions, its number of blocks, and the stride of the first (He et al., 2016,
arXiv:1512.03385, with the stride at the convolution of 3 x 3, as torchvision has it).
"""


def resnet_50() -> bytes:
    """Images FP32 ["batch", 3, 224, 224] as `image` to `probabilities` ["batch", 1000]. Batch normalizations are folded
    into the convolutions.
    """
    graph = GraphBuilder("resnet50", opset=17, ir_version=8)
    rng = np.random.default_rng(0)

    def conv(x: str, inner: int, outer: int, size: int, stride: int = 1) -> str:
        scale = (2 / (inner * size * size)) ** 0.5
        weight = (rng.standard_normal((outer, inner, size, size)) * scale).astype(np.float32)
        name = f"weight_{x}_{outer}_{size}"
        bias = graph.weight(f"{name}_bias", np.zeros(outer, np.float32))
        half = size // 2
        return graph.add("Conv", x, graph.weight(name, weight), bias, strides=[stride] * 2, pads=[half] * 4)

    image = graph.input("image", TensorProto.FLOAT, ["batch", 3, 224, 224])
    x = graph.add("Relu", conv(image, 3, 64, 7, 2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for middle, num_blocks, first in _STAGES:
        for block in range(num_blocks):
            stride = first if block == 0 else 1
            y = graph.add("Relu", conv(x, channels, middle, 1))
            y = graph.add("Relu", conv(y, middle, middle, 3, stride))
            y = conv(y, middle, 4 * middle, 1)
            # Half of a block's size, so that sums do not grow from block to block.
            y = graph.add("Mul", y, graph.scalar(0.5))
            shortcut = conv(x, channels, 4 * middle, 1, stride) if block == 0 else x
            x = graph.add("Relu", graph.add("Add", y, shortcut))
            channels = 4 * middle
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    matrix = graph.weight("classes", (rng.standard_normal((channels, 1000)) * 0.1 / channels**0.5).astype(np.float32))
    graph.add("Softmax", graph.add("MatMul", x, matrix), axis=-1, output="probabilities")
    graph.output("probabilities", TensorProto.FLOAT, ["batch", 1000])
    return graph.build()
