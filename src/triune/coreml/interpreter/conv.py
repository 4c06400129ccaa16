"""Convolutions, as sums over the positions of the kernel."""

from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.interpreter.values import Family
from triune.coreml.interpreter.windows import num_windows, padding, taps
from triune.coreml.mil import Array


def conv(
    x: Array,
    weight: Array,
    bias: Array | None,
    strides: Array,
    pad_type: str,
    pad: Array,
    dilations: Array,
    groups: Any,
) -> Array:
    """Convolve x (n, C_in, *spatial) with the kernel `weight` (C_out, C_in / groups, *kernel).

    Raises:
        InvalidArgumentError: the channels do not fit `groups`, or the kernel is larger than the padded input.
    """
    groups = int(groups)
    num_out, num_in, *kernel = weight.shape
    if x.shape[1] != num_in * groups or num_out % groups:
        raise InvalidArgumentError(f"{x.shape[1]} channels and weights of {list(weight.shape)} in {groups} groups")
    pads = padding(pad_type, x.shape[2:], kernel, list(strides), list(dilations), list(pad))
    counts = [
        num_windows(size, (length - 1) * int(dilation) + 1, int(stride), *both)
        for size, length, dilation, stride, both in zip(x.shape[2:], kernel, dilations, strides, pads, strict=True)
    ]
    if min(counts) <= 0:
        raise InvalidArgumentError(f"a kernel of {kernel} on an input of {list(x.shape[2:])}, padded by {pads}")
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    matrices = _by_position(weight.reshape(groups, num_out // groups, num_in, *kernel))
    out = np.zeros((x.shape[0], groups, num_out // groups, int(np.prod(counts))), x.dtype)
    for position, seen in taps(padded, kernel, [int(s) for s in strides], [int(d) for d in dilations], counts):
        out += np.matmul(matrices[position], seen.reshape(x.shape[0], groups, num_in, -1))
    return _with_bias(out.reshape(x.shape[0], num_out, *counts), bias)


def conv_quantized(
    x: Array, weight: Array, quantization_type: str, nbits: Any, quant_scale: Array, quant_bias: Array, **others: Any
) -> Array:
    """Convolve with the kernel weight * quant_scale + quant_bias, where `weight` has `nbits` bits.

    Raises:
        UnsupportedError: `quantization_type` is not "linear".
    """
    if quantization_type != "linear":
        raise UnsupportedError(f"weights of {nbits} bits quantized by '{quantization_type}'")
    ones = (1,) * (weight.ndim - 1)
    scale, shift = (each.reshape(-1, *ones) if each.ndim == 1 else each for each in (quant_scale, quant_bias))
    return conv(x, weight.astype(x.dtype) * scale + shift, **others)


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None,
    pad: Array,
    output_shape: Array | None,
    pad_type: str,
    strides: Array,
    dilations: Array,
    groups: Any,
) -> Array:
    """Compute the transposed convolution of x (n, C_in, *spatial) with `weight` (C_in, C_out / groups, *kernel).

    Each element of x adds the kernel, multiplied by it, to the window of the output at its position. Then the padding
    is cut off. The output has the sizes of `output_shape`, or with pad type "same" stride times the sizes of x;
    elements in no window are 0.
    """
    groups = int(groups)
    num_in, num_out, *kernel = weight.shape
    if x.shape[1] != num_in or num_in % groups:
        raise InvalidArgumentError(f"{x.shape[1]} channels and weights of {list(weight.shape)} in {groups} groups")
    sizes = x.shape[2:]
    steps, gaps = [int(s) for s in strides], [int(d) for d in dilations]
    full = [
        (size - 1) * s + (length - 1) * d + 1 for size, s, length, d in zip(sizes, steps, kernel, gaps, strict=True)
    ]
    starts, wanted = _crop(pad_type, sizes, full, steps, [int(each) for each in pad], output_shape)
    # Make the array large enough for all windows and for the output, which may end behind the last window.
    room = [max(size, start + want) for size, start, want in zip(full, starts, wanted, strict=True)]
    out = np.zeros((x.shape[0], num_out * groups, *room), x.dtype)
    matrices = _by_position(weight.reshape(groups, num_in // groups, num_out, *kernel).swapaxes(1, 2))
    flat = x.reshape(x.shape[0], groups, num_in // groups, -1)
    for position, target in taps(out, kernel, steps, gaps, sizes):
        target += np.matmul(matrices[position], flat).reshape(target.shape)
    cut = [slice(start, start + want) for start, want in zip(starts, wanted, strict=True)]
    return _with_bias(out[(..., *cut)], bias)


def _crop(
    pad_type: str,
    sizes: tuple[int, ...],
    full: list[int],
    strides: list[int],
    pad: list[int],
    output_shape: Array | None,
) -> tuple[list[int], list[int]]:
    """Where the output begins in the full transposed convolution, and its size, for each spatial dimension."""
    given = None if output_shape is None else [int(each) for each in output_shape[2:]]
    match pad_type.lower():
        case "valid":
            return [0] * len(full), given or full
        case "custom":
            left = [size - pad[2 * i] - pad[2 * i + 1] for i, size in enumerate(full)]
            return pad[::2], given or left
        case "same":
            wanted = given or [size * stride for size, stride in zip(sizes, strides, strict=True)]
            return [max(0, size - want) // 2 for size, want in zip(full, wanted, strict=True)], wanted
        case _:
            raise UnsupportedError(f"there is no pad_type '{pad_type}'")


def _by_position(weight: Array) -> Array:
    """Transpose weights (groups, out, in, *kernel) to a matrix for each position in the kernel: (*kernel, groups, out,
    in).
    """
    spatial = weight.ndim - 3
    return np.ascontiguousarray(np.moveaxis(weight, range(3, weight.ndim), range(spatial)))


def _with_bias(x: Array, bias: Array | None) -> Array:
    return x if bias is None else x + bias.reshape(-1, *(1,) * (x.ndim - 2))


FAMILY: Family = {"conv": conv, "conv_quantized": conv_quantized, "conv_transpose": conv_transpose}
