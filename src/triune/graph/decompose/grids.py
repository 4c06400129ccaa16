"""AffineGrid: for each pixel of the result, its coordinates in the input image."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from triune.graph.decompose.context import Context, Decomposition

_AFTER_BATCH_AND_CHANNELS = 2


def affine_grid(c: Context) -> bool:
    """AffineGrid: homogeneous pixel coordinates (x, y[, z], 1) times the transposed matrices (N, n, n + 1).

    The image covers [-1, 1]. With `align_corners` the centers of the outermost pixels are at -1 and 1, else their
    borders are. For an axis of size 1 the coordinate is 0, or 1 with `align_corners`, as in ONNX Runtime.

    ONNX's own function body drops a batch axis of size 1, because its Squeeze names no axes.
    """
    size = c.values.static_shape(c.input(1))
    elem_type = c.values.elem_type(c.input(0))
    if size is None or not elem_type:
        return False
    b, num_axes = c.build, size[0] - _AFTER_BATCH_AND_CHANNELS
    kind = TensorProto.DOUBLE if elem_type == TensorProto.DOUBLE else TensorProto.FLOAT
    sizes = b.cast(c.input(1), TensorProto.INT64)
    whole = b.op("Slice", sizes, b.ints(_AFTER_BATCH_AND_CHANNELS), b.ints(size[0]))
    positions = b.op("Concat", whole, b.ints(1), axis=0)
    # The axes (depth, height, width) are reversed, since coordinates are in the order x, y, z.
    lines = [b.op("Expand", _line(c, sizes, axis, num_axes, kind), positions) for axis in reversed(range(num_axes))]
    ones = b.op("Expand", b.typed(1, kind), positions)
    points = b.op("Reshape", b.op("Concat", *lines, ones, axis=-1), b.ints(-1, num_axes + 1))
    moved = b.op("MatMul", b.cast(points, elem_type), b.op("Transpose", c.input(0), perm=[0, 2, 1]))
    batch = b.op("Slice", sizes, b.ints(0), b.ints(1))
    c.give(b.op("Reshape", moved, b.op("Concat", batch, whole, b.ints(num_axes), axis=0), allowzero=1))
    return True


def _line(c: Context, sizes: str, axis: int, num_axes: int, kind: int) -> str:
    """The coordinates along one axis of an image. Their shape has the length of this axis, a 1 for each other axis, and
    a last 1 for the coordinate itself: (1, length, 1, 1) for axis 1 of 3.
    """
    b = c.build
    position = axis + _AFTER_BATCH_AND_CHANNELS
    length = b.op("Gather", sizes, b.constant(position, np.int64))
    pixels = b.cast(b.op("Range", b.constant(0, np.int64), length, b.constant(1, np.int64)), kind)
    # Numerator and denominator are integers, so that only the division rounds. The length is computed as a sum of ones,
    # since Core AI miscomputes numbers derived from a size (decision 4).
    one = b.typed(1, kind)
    below = b.op("ReduceSum", b.op("Expand", one, b.op("Unsqueeze", length, b.ints(0))), keepdims=1)
    above = b.op("Sub", b.op("Mul", pixels, b.typed(2, kind)), b.op("Sub", below, one))
    if c.attributes.get("align_corners", 0):
        is_single = b.cast(b.op("Equal", below, one), kind)
        above, below = b.op("Add", above, is_single), b.op("Add", b.op("Sub", below, one), is_single)
    line = b.op("Div", above, below)
    others: Sequence[int] = [each for each in range(num_axes + 1) if each != axis]
    return b.op("Unsqueeze", line, b.ints(*others))


TABLE: dict[str, Decomposition] = {"AffineGrid": affine_grid}
