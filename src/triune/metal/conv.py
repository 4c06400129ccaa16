"""Convolutions and BatchNormalization.

MLX has channels last, ONNX has them first: see `images`. Between convolutions nothing is copied.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from triune.graph.conversion.lowering import norms
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.window import Window, cuts_of, window_of
from triune.metal.builder import biased_product, product
from triune.metal.context import Context, Lowering, builder_of
from triune.metal.images import channels_last
from triune.metal.kernels.depthwise import depthwise, fits
from triune.metal.library import Value, mx
from triune.metal.nvidia import is_nvidia

_MOST_SPATIAL = 3


def _conv(c: Context) -> None:
    x, weights = builder_of(c).paired(c.input(0), c.input(1))
    groups, images = int(c.attributes.get("group", 1)), builder_of(c).images
    window = window_of(c.attributes, weights.shape[2:])
    sizes = x.shape[2:]
    _require_known(sizes)
    window.require_room(sizes)
    pads = [window.padding(axis, size) or (0, 0) for axis, size in enumerate(sizes)]
    if not mx.issubdtype(x.dtype, mx.floating):
        found = of_integers(x, weights, window, groups, product)
    elif is_nvidia() and groups == 1 and {*window.kernel, *window.strides} == {1} and not any(map(any, pads)):
        c.give(images.first(pointwise(images.last(x), channels_last(weights), c.input(2) if c.has(2) else None)))
        return
    else:
        found = _convolved(images.last(x), channels_last(weights), window, pads, groups)
    c.give(images.first(_biased(c, found)))


def _convolved(x: Value, weights: Value, window: Window, pads: Sequence[tuple[int, int]], groups: int) -> Value:
    """Compute a convolution of floats. The image, the weights and the result have channels last."""
    if fits(x, weights, window.dilations, groups):
        return depthwise(x, weights, window.strides, pads)
    return mx.conv_general(
        x,
        weights,
        stride=window.strides,
        padding=([low for low, _ in pads], [high for _, high in pads]),
        kernel_dilation=window.dilations,
        groups=groups,
    )


def pointwise(x: Value, weights: Value, bias: Value | None) -> Value:
    """Compute a convolution with kernels of one element as a matrix product, which is up to four times as fast as MLX's
    convolution.

    Args:
        x: (batch, ..., channels).
        weights: (filters, 1, ..., 1, channels), of the same type.
        bias: (filters); None means none.
    """
    matrix = mx.transpose(weights.reshape((weights.shape[0], -1)))
    return mx.matmul(x, matrix) if bias is None else biased_product(x, matrix, bias)


def _conv_transpose(c: Context) -> None:
    x, weights = builder_of(c).paired(c.input(0), c.input(1))
    groups = int(c.attributes.get("group", 1))
    kernel, spatial, images = weights.shape[2:], x.ndim - 2, builder_of(c).images
    _require_known(kernel)
    strides = list(c.attributes.get("strides", [1] * spatial))
    dilations = list(c.attributes.get("dilations", [1] * spatial))
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    # ConvTranspose is a convolution with the mirrored kernel over the image with zeros inserted between its elements.
    pads = [
        (extent - 1 - begin, extent - 1 - end)
        for extent, (begin, end) in zip(extents, cuts_of(c.attributes, extents, strides, x.shape[2:]), strict=True)
    ]
    grouped = weights.reshape((groups, weights.shape[0] // groups, *weights.shape[1:]))
    turned = mx.swapaxes(grouped, 1, 2).reshape((-1, weights.shape[0] // groups, *kernel))
    found = mx.conv_general(
        images.last(x),
        channels_last(turned),
        stride=1,
        padding=([max(low, 0) for low, _ in pads], [max(high, 0) for _, high in pads]),
        kernel_dilation=dilations,
        input_dilation=strides,
        groups=groups,
        flip=True,
    )
    # Slice the result where the padding cuts off more elements than the kernel's extent has added.
    cuts = [slice(max(-low, 0), size + min(high, 0)) for (low, high), size in zip(pads, found.shape[1:-1], strict=True)]
    c.give(images.first(_biased(c, found[(slice(None), *cuts)])))


def _require_known(sizes: Sequence[int]) -> None:
    if not 1 <= len(sizes) <= _MOST_SPATIAL:
        raise Refusal(f"a convolution of {len(sizes)} spatial dimensions; MLX has 1 to {_MOST_SPATIAL}")


def _biased(c: Context, found: Value) -> Value:
    return found + c.input(2) if c.has(2) else found


def of_integers(x: Value, weights: Value, window: Window, groups: int, multiply: Callable[..., Value]) -> Value:
    """Compute a convolution of integers by matrix products, one for each element of the kernel.

    Args:
        x: (batch, channels, ...).
        weights: (filters, channels / groups, ...), of the same type.
        window: the kernel.
        groups: the number of groups of channels.
        multiply: the product of two matrices, or of each matrix in a list with its counterpart in another list.
    """
    sizes = x.shape[2:]
    counts = [window.count(axis, size) for axis, size in enumerate(sizes)]
    pads = [window.padding(axis, size) or (0, 0) for axis, size in enumerate(sizes)]
    padded = channels_last(mx.pad(x, [(0, 0), (0, 0), *pads]))
    channels = weights.shape[1]
    kernel = weights.reshape((groups, -1, *weights.shape[1:]))
    shape = (x.shape[0], *counts, weights.shape[0])
    total = mx.zeros(shape, dtype=x.dtype)
    for place, part in zip(np.ndindex(*window.kernel), window.parts(counts), strict=True):
        rows = padded[(slice(None), *part)]
        # For this element of the kernel: one matrix for each group, [channels, filters].
        matrices = mx.swapaxes(kernel[(*[slice(None)] * 3, *place)], 1, 2)
        if groups == 1:
            found = multiply(rows, matrices[0])
        elif channels == 1:
            found = rows[..., None] * matrices[:, 0]
        else:
            found = mx.swapaxes(multiply(mx.swapaxes(rows.reshape((-1, groups, channels)), 0, 1), matrices), 0, 1)
        total = total + found.reshape(shape)
    return total


def _batch_norm(c: Context) -> None:
    x = c.input(0)
    if x.ndim < 3 or c.attributes.get("training_mode", 0):
        norms.TABLE["BatchNormalization"](c)
        return
    scale, bias, mean, variance = (c.input(index).astype(mx.float32) for index in range(1, 5))
    factor = scale * mx.rsqrt(variance + norms.epsilon_of(c))
    images = builder_of(c).images
    c.give(images.first(images.last(x) * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)))


TABLE: Mapping[str, Lowering] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "BatchNormalization": _batch_norm,
}
