"""Lowering of Conv and ConvTranspose."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from triune.coreml.lowering.context import (
    Context,
    Lowering,
    Refusal,
    dtype_of,
    like,
    static_shape,
)
from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.options import Target
from triune.coreml.lowering.window import flat, image_sizes, pad_words, padding_of
from triune.graph.conversion.window import cuts_of, window_of


def _conv(c: Context) -> None:
    x, weight = c.input(0), c.input(1)
    spatial = x.rank - 2
    if not 1 <= spatial <= 3:
        raise Refusal(f"a convolution over {spatial} dimensions; Core ML convolves over 1 to 3")
    window = window_of(c.attributes, static_shape(weight, "the kernel's shape")[2:])
    window.require_room(image_sizes(x))
    bias, extra = _bias(c)
    is_known = c.constant(1) is not None
    dilations = window.dilations
    if not is_known and any(each > 1 for each in dilations):
        # MIL's conv dilates only constant kernels. For a kernel that is computed, zeros are inserted into it instead.
        weight, dilations = dilate(weight, dilations), [1] * spatial
    result = mb.conv(
        x=x,
        weight=weight,
        bias=bias,
        strides=window.strides,
        **(pad_words(x, window, c.target) or {"pad_type": "custom", "pad": flat(padding_of(x, window))}),
        dilations=dilations,
        groups=int(c.attributes.get("group", 1)),
    )
    c.give(result if extra is None else mb.add(x=result, y=_per_channel(extra, spatial)))


def _bias(c: Context) -> tuple[Any, Var | None]:
    """The bias of the node, as a pair (constant, value).

    A constant goes into MIL's conv; a value that is computed at run time is added afterwards. At least one is None.
    """
    if not c.has(2):
        return None, None
    known = c.constant(2)
    return (known, None) if known is not None else (None, c.input(2))


def _per_channel(bias: Var, spatial: int) -> Var:
    return mb.expand_dims(x=bias, axes=[0, *range(2, 2 + spatial)])


def dilate(weight: Var, dilations: Sequence[int]) -> Var:
    """Insert `dilation - 1` zeros between neighbouring elements of a kernel, along each spatial dimension."""
    shape = static_shape(weight, "the kernel's shape")
    for axis, step in enumerate(dilations, start=2):
        size = shape[axis]
        if step == 1 or size == 1:
            continue
        after = int(np.prod(shape[axis + 1 :], dtype=np.int64))
        before = int(np.prod(shape[:axis], dtype=np.int64))
        rows = mb.reshape(x=weight, shape=[before, size, 1, after])
        zeros = np.zeros((before, size, step - 1, after), dtype_of(weight))
        spread = mb.reshape(x=mb.concat(values=[rows, zeros], axis=2), shape=[before, size * step, after])
        length = (size - 1) * step + 1
        cut = mb.slice_by_index(x=spread, begin=[0, 0, 0], end=[before, length, after])
        shape[axis] = length
        weight = mb.reshape(x=cut, shape=shape)
    return weight


def _conv_transpose(c: Context) -> None:
    x, weight = c.input(0), c.input(1)
    spatial = x.rank - 2
    if not 1 <= spatial <= 3:
        raise Refusal(f"a transposed convolution over {spatial} dimensions; Core ML has 1 to 3")
    if c.constant(1) is None and c.target.value < Target.IOS17.value:
        raise Refusal("a transposed convolution whose kernel is computed; give --target iOS17 or later")
    kernel = static_shape(weight, "the kernel's shape")[2:]
    strides = list(c.attributes.get("strides", [1] * spatial))
    dilations = list(c.attributes.get("dilations", [1] * spatial))
    extents = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    if c.constant(1) is None and any(each > 1 for each in dilations):
        weight, dilations = dilate(weight, dilations), [1] * spatial
    cuts = flat(cuts_of(c.attributes, extents, strides, image_sizes(x)))
    bias, extra = _bias(c)
    is_cut = all(each >= 0 for each in cuts)
    result = mb.conv_transpose(
        x=x,
        weight=weight,
        bias=bias if is_cut else None,
        pad_type="custom",
        pad=[max(each, 0) for each in cuts],
        strides=strides,
        dilations=dilations,
        groups=int(c.attributes.get("group", 1)),
    )
    if not is_cut:
        wider = [max(-each, 0) for each in cuts]
        result = mb.pad(x=result, pad=[0, 0, 0, 0, *wider], mode="constant", constant_val=like(result, 0))
        extra = c.input(2) if c.has(2) else None
    c.give(result if extra is None else mb.add(x=result, y=_per_channel(extra, spatial)))


TABLE: dict[str, Lowering] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
