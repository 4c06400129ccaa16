"""Convolutions of one to three dimensions."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.coreml.raising.window import padding
from triune.graph.raising.graph import Graph, Tensor


def _kernel(weight: Tensor) -> list[int]:
    sizes = [size for size in (weight.shape or ())[2:] if size is not None]
    if len(sizes) != weight.rank - 2:
        raise UnsupportedError("the kernel's size is only known when the program runs")
    return sizes


def _conv(graph: Graph, given: Given) -> Tensor:
    return _convolve(graph, given, graph.cast(given["weight"], given["x"].dtype))


def _convolve(graph: Graph, given: Given, weight: Tensor) -> Tensor:
    kernel, strides, dilations = _kernel(weight), given.ints("strides"), given.ints("dilations")
    pads = padding(given, given["x"], kernel, strides, dilations)
    return _convolution(graph, "Conv", given, weight, kernel_shape=kernel, strides=strides, dilations=dilations, **pads)


def _convolution(graph: Graph, op_type: str, given: Given, weight: Tensor, **attributes: Any) -> Tensor:
    """Write an ONNX node with the operation's bias and groups: Conv or ConvTranspose (`op_type`)."""
    x, bias = given["x"], given.maybe("bias")
    bias = None if bias is None else graph.cast(bias, x.dtype)
    return graph.op(op_type, x, weight, bias, group=given.integer("groups"), **attributes)


def _conv_quantized(graph: Graph, given: Given) -> Tensor:
    """Write a convolution with the kernel weight * quant_scale + quant_bias, for each output channel."""
    kind = given.text("quantization_type")
    if kind != "linear":
        raise UnsupportedError(f"quantization of type '{kind}'")
    x, weight = given["x"], given.array("weight")
    scale, bias = (given.array(name) for name in ("quant_scale", "quant_bias"))
    by_channel = [-1] + [1] * (weight.ndim - 1)
    factors = [each.reshape(by_channel) if each.size > 1 else each.reshape(-1)[0] for each in (scale, bias)]
    dense = (weight.astype(np.float32) * factors[0] + factors[1]).astype(x.dtype.numpy)
    return _convolve(graph, given, graph.constant(dense, x.dtype))


def _conv_transpose(graph: Graph, given: Given) -> Tensor:
    """Write a transposed convolution.

    The result has the shape `output_shape` if that is given, sizes of size * stride for the pad type "same", and else
    sizes that follow from `pad`.
    """
    x = given["x"]
    weight = graph.cast(given["weight"], x.dtype)
    kernel, strides, dilations = _kernel(weight), given.ints("strides"), given.ints("dilations")
    count = x.rank - 2
    if not len(kernel) == len(strides) == len(dilations) == count:
        raise InvalidArgumentError(f"kernel {kernel}, strides {strides}, dilations {dilations} for {count} dimensions")
    starts, ends, more = _cropping(given, x, kernel, strides, dilations)
    pads = [*starts, *ends]
    sizes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "output_padding": more}
    return _convolution(graph, "ConvTranspose", given, weight, pads=pads, **sizes)


def _cropping(
    given: Given, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int], list[int]]:
    """How many elements of the full result of a transposed convolution are cut off, so that it gets the output's size.

    Returns:
        the numbers cut off at the start of each dimension and at its end, and the numbers of zeros added at its end.
    """
    count = len(kernel)
    kind = given.text("pad_type").lower()
    pad = given.ints("pad") if kind == "custom" else [0] * 2 * count
    if len(pad) != 2 * count:
        raise InvalidArgumentError(f"'pad' is {pad} for {count} dimensions")
    wanted = given.maybe_ints("output_shape")
    starts, ends, more = pad[0::2], pad[1::2], [0] * count
    for axis in range(count):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        size = x.size(axis + 2)
        if wanted is not None:
            if size is None:
                raise UnsupportedError("an output shape for an input of unknown size")
            total = (size - 1) * strides[axis] + reach - wanted[axis + 2]
        elif kind in ("same", "same_lower"):
            total = reach - strides[axis]
        elif kind in ("valid", "custom"):
            continue
        else:
            raise UnsupportedError(f"the pad type '{kind}' is not known")
        if kind in ("same", "same_lower"):
            less = max(total, 0) // 2
            starts[axis] = less if kind == "same" else max(total, 0) - less
        ends[axis] = total - starts[axis]
        if ends[axis] < 0:
            more[axis], ends[axis] = -ends[axis], 0
    return starts, ends, more


TABLE: Mapping[str, Raise] = MappingProxyType(
    {"conv": _conv, "conv_quantized": _conv_quantized, "conv_transpose": _conv_transpose}
)
