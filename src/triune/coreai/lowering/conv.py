"""Lowering of Conv and ConvTranspose."""

from collections.abc import Sequence

import numpy as np

from triune.coreai.library import Value, dialect, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.values import constant, dtype_of, int32s, rank_of, shape_of, sizes, tensor_type
from triune.coreai.lowering.windows import at_least_two, off_plane, on_plane, pad, spatial_of, widths_of
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.window import cuts_of, window_of

_END = np.iinfo(np.int32).max


def _conv(c: Context) -> None:
    x, weight = c.input(0), c.input(1)
    spatial = spatial_of(x, "a convolution")
    window = window_of(c.attributes, _kernel(weight))
    window.require_room(shape_of(x)[2:])
    widths = widths_of(x, window)
    if spatial == 1 and all(isinstance(width, int) for pair in widths for width in pair):
        # Pad after `on_plane`: then the Pad is next to the convolution, and raising can fuse the two.
        padded = pad(on_plane(x), [(0, 0), *widths], 0)
    else:
        padded = on_plane(pad(x, widths, 0))
    conv = ops.conv2d if spatial <= 2 else ops.conv3d
    result = conv(
        padded,
        on_plane(weight),
        sizes(at_least_two(window.strides, 1)),
        sizes(at_least_two(window.dilations, 1)),
        constant(np.uint32(c.attributes.get("group", 1))),
    )
    c.give(off_plane(_with_bias(c, result), spatial))


def _kernel(weight: Value) -> list[int]:
    """The spatial sizes of the kernel."""
    kernel = [size for size in shape_of(weight)[2:] if size is not None]
    if len(kernel) < len(shape_of(weight)) - 2:
        raise Refusal("the kernel's shape is not fixed; give fixed sizes with --shape")
    return kernel


def _with_bias(c: Context, result: Value) -> Value:
    if not c.has(2):
        return result
    per_channel = ops.expand_dims(c.input(2), int32s(range(1, rank_of(result) - 1)))
    return ops.broadcasting_add(result, per_channel)


def _conv_transpose(c: Context) -> None:
    x, weight = c.input(0), c.input(1)
    spatial = spatial_of(x, "a transposed convolution")
    strides = list(c.attributes.get("strides", [1] * spatial))
    dilations = list(c.attributes.get("dilations", [1] * spatial))
    extents = [(size - 1) * step + 1 for size, step in zip(_kernel(weight), dilations, strict=True)]
    cuts = cuts_of(c.attributes, extents, strides, shape_of(x)[2:])
    # Core AI can cut the result itself if the beginning is cut by at least as much as the end, and by less than a
    # stride more: it cuts both by the same amount, then appends `output_pad` elements at the end.
    is_native = all(begin >= 0 and 0 <= begin - end < step for (begin, end), step in zip(cuts, strides, strict=True))
    begins = [begin if is_native else 0 for begin, _ in cuts]
    more = [begin - end if is_native else 0 for begin, end in cuts]
    groups = int(c.attributes.get("group", 1))
    full = [
        None if size is None else stride * (size - 1) + extent - 2 * begin + grown
        for size, stride, extent, begin, grown in zip(shape_of(x)[2:], strides, extents, begins, more, strict=True)
    ]
    channels = shape_of(weight)[1]
    shape = [shape_of(x)[0], None if channels is None else channels * groups, *([1] if spatial == 1 else []), *full]
    make = dialect.ConvTranspose2dOp if spatial <= 2 else dialect.ConvTranspose3dOp
    made = make(
        output=tensor_type(shape, dtype_of(x)),
        input=on_plane(x),
        weight=on_plane(weight),
        stride=sizes(at_least_two(strides, 1)),
        padding=sizes(at_least_two(begins, 0)),
        dilation=sizes(at_least_two(dilations, 1)),
        output_pad=sizes(at_least_two(more, 0)),
        groups=constant(np.uint32(groups)),
    )
    made.operation.verify()
    result = off_plane(made.result, spatial)
    if not is_native:
        result = _cut(result, cuts)
        result = pad(result, [(max(-begin, 0), max(-end, 0)) for begin, end in cuts], 0)
    c.give(_with_bias(c, result))


def _cut(x: Value, cuts: Sequence[tuple[int, int]]) -> Value:
    """Remove elements at the beginning and end of each spatial dimension; negative amounts count as 0."""
    begins, ends = ([max(pair[side], 0) for pair in cuts] for side in (0, 1))
    if not any((*begins, *ends)):
        return x
    sides = list(zip(shape_of(x), (0, 0, *begins), (0, 0, *ends), strict=True))
    limits = [_END if size is None and not end else -end if size is None else size - end for size, _, end in sides]
    kind = tensor_type([None if size is None else size - begin - end for size, begin, end in sides], dtype_of(x))
    steps = int32s([1] * len(sides))
    return dialect.SliceOp(x, int32s([0, 0, *begins]), int32s(limits), steps, results=[kind]).result


TABLE: dict[str, Lowering] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
