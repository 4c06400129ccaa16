"""The functions that raise normalizations."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.graph.axes import existing_axis
from triune.graph.raising.graph import Graph, Tensor


def _channels(graph: Graph, given: Given, name: str, default: float) -> Tensor:
    """A vector with an element for each channel; `default` for all if the parameter is not given."""
    x, tensor = given["x"], given.maybe(name)
    if tensor is not None:
        return graph.cast(tensor, x.dtype)
    count = x.size(1)
    if count is None:
        raise UnsupportedError(f"'{name}' is missing and the number of channels is not known")
    return graph.like(np.full(count, default), x)


def _batch_norm(graph: Graph, given: Given) -> Tensor:
    """Write gamma * (x - mean) / sqrt(variance + epsilon) + beta; gamma, beta, mean and variance are [channels]."""
    x = given["x"]
    vectors = [_channels(graph, given, "gamma", 1), _channels(graph, given, "beta", 0)]
    vectors += [graph.cast(given[name], x.dtype) for name in ("mean", "variance")]
    return graph.op("BatchNormalization", x, *vectors, epsilon=given.number("epsilon"))


def _instance_norm(graph: Graph, given: Given) -> Tensor:
    gamma, beta = _channels(graph, given, "gamma", 1), _channels(graph, given, "beta", 0)
    return graph.op("InstanceNormalization", given["x"], gamma, beta, epsilon=given.number("epsilon"))


def _l2_norm(graph: Graph, given: Given) -> Tensor:
    """Write x / sqrt(sum of squares over the last three dimensions + epsilon)."""
    x = given["x"]
    squares = graph.op("ReduceSumSquare", x, graph.ints(x.rank - 3, x.rank - 2, x.rank - 1), keepdims=1)
    return graph.op("Div", x, graph.op("Sqrt", graph.op("Add", squares, graph.like(given.array("epsilon"), x))))


def _layer_norm(graph: Graph, given: Given) -> Tensor:
    """Write gamma * (x - mean) / sqrt(variance + epsilon) + beta over `axes`, in fp32. No `axes` means all of them."""
    x = given["x"]
    chosen = given.maybe_ints("axes")
    axes = sorted({existing_axis(axis, x.rank, "axes") for axis in (range(x.rank) if chosen is None else chosen)})
    gamma, beta = given.maybe("gamma"), given.maybe("beta")
    if axes == list(range(x.rank - len(axes), x.rank)) and gamma is not None:
        scale, bias = graph.cast(gamma, x.dtype), None if beta is None else graph.cast(beta, x.dtype)
        return graph.op("LayerNormalization", x, scale, bias, axis=axes[0], epsilon=given.number("epsilon"))
    wide = graph.cast(x, DType.FP32)
    over = graph.ints(*axes)
    centred = graph.op("Sub", wide, graph.op("ReduceMean", wide, over, keepdims=1))
    variance = graph.op("ReduceMean", graph.op("Mul", centred, centred), over, keepdims=1)
    deviation = graph.op("Sqrt", graph.op("Add", variance, graph.like(given.array("epsilon"), wide)))
    result = graph.op("Div", centred, deviation)
    # Gamma and beta get size 1 along the dimensions that are not normalized.
    others = [axis for axis in range(x.rank) if axis not in axes]
    for op_type, vector in (("Mul", gamma), ("Add", beta)):
        if vector is not None:
            result = graph.op(op_type, result, graph.unsqueeze(graph.cast(vector, DType.FP32), *others))
    return graph.cast(result, x.dtype)


def _local_response_norm(graph: Graph, given: Given) -> Tensor:
    """Write x / (k + alpha * mean)^beta; the mean is over squares of `size` neighbouring channels, 0 beyond the ends.

    The channels are the third dimension from the end, as in Core ML's neural networks: for x of shape (1, 3, 2), for
    example, the mean is over a single channel, as in the results that coremltools' tests expect.
    """
    x, size = given["x"], given.integer("size")
    sizes = [graph.dim(x, axis) for axis in range(x.rank - 3, x.rank)]
    squares = graph.op("Reshape", graph.op("Mul", x, x), graph.concat(graph.ints(-1, 1), *sizes))
    mean = graph.op(
        "AveragePool",
        squares,
        kernel_shape=[size, 1, 1],
        strides=[1, 1, 1],
        pads=[size // 2, 0, 0, (size - 1) // 2, 0, 0],
        count_include_pad=1,
    )
    mean = graph.op("Reshape", mean, graph.shape_of(x))
    scaled = graph.op("Mul", mean, graph.like(given.array("alpha"), x))
    base = graph.op("Add", scaled, graph.like(given.array("k"), x))
    return graph.op("Div", x, graph.op("Pow", base, graph.like(given.array("beta"), x)))


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "batch_norm": _batch_norm,
        "instance_norm": _instance_norm,
        "l2_norm": _l2_norm,
        "layer_norm": _layer_norm,
        "local_response_norm": _local_response_norm,
    }
)
