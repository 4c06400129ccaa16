"""Operators on shapes and indices, and operators that select or scatter elements."""

import math

import numpy as np
from onnx import TensorProto, helper

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.draws import only_value


def flatten(c: Context) -> bool:
    """Flatten: a Reshape to (product of the dimensions before `axis`, product of the others)."""
    shape, b, x = c.values.shape(c.input(0)), c.build, c.input(0)
    if shape is None:
        return False
    axis = c.attributes.get("axis", 1)
    axis += len(shape) if axis < 0 else 0
    before, after = shape[:axis], shape[axis:]
    rows = math.prod(each for each in before if each is not None) if None not in before else -1
    columns = math.prod(each for each in after if each is not None) if None not in after else -1
    if rows == -1 == columns or 0 in (rows, columns):
        sizes = b.op("Shape", x)
        left = b.op("ReduceProd", b.op("Slice", sizes, b.ints(0), b.ints(axis)), keepdims=1)
        right = b.op("ReduceProd", b.op("Slice", sizes, b.ints(axis), b.ints(len(shape))), keepdims=1)
        target = b.op("Concat", left, right, axis=0)
        c.give(b.op("Reshape", x, target, allowzero=1))
        return True
    c.give(b.op("Reshape", x, b.ints(rows, columns if rows == -1 else -1)))
    return True


def size(c: Context) -> bool:
    """Size: the product of the dimensions."""
    c.give(c.build.op("ReduceProd", c.build.op("Shape", c.input(0)), keepdims=0))
    return True


def eye_like(c: Context) -> bool:
    """EyeLike: a constant, if the shape is known."""
    shape = c.values.static_shape(c.input(0))
    if shape is None:
        return False
    elem_type = c.attributes.get("dtype", c.values.elem_type(c.input(0)))
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    c.give(c.build.constant(np.eye(*shape, k=c.attributes.get("k", 0)), dtype))
    return True


def hardmax(c: Context) -> bool:
    """Hardmax: 1 at the first largest element along the axis, else 0."""
    shape, b, x = c.values.shape(c.input(0)), c.build, c.input(0)
    axis: int = c.attributes.get("axis", -1)
    depth = shape[axis] if shape is not None else None
    count = b.constant(depth, np.int64) if depth is not None else _dim(c, x, axis)
    zero_one = b.constant([0, 1], helper.tensor_dtype_to_np_dtype(c.values.elem_type(x)))
    if shape is not None and len(shape) == 1:
        # The index of a vector's largest element keeps its axis, since OneHot does not accept a scalar.
        c.give(b.op("Reshape", b.op("OneHot", b.op("ArgMax", x, axis=0), count, zero_one), b.ints(-1)))
    else:
        c.give(b.op("OneHot", b.op("ArgMax", x, axis=axis, keepdims=0), count, zero_one, axis=axis))
    return True


def compress(c: Context) -> bool:
    """Compress: a Gather of the indices at which the condition is true."""
    b, x = c.build, c.input(0)
    axis = c.attributes.get("axis")
    if axis is None:
        x, axis = b.op("Reshape", x, b.ints(-1)), 0
    condition = c.values.constant(c.input(1))
    if condition is not None:
        positions = b.constant(np.flatnonzero(condition), np.int64)
    else:
        positions = b.op("Squeeze", b.op("NonZero", c.input(1)), b.ints(0))
    c.give(b.op("Gather", x, positions, axis=axis))
    return True


def random_like(op_type: str) -> Decomposition:
    """RandomUniformLike or RandomNormalLike: RandomUniform or RandomNormal (`op_type`) of the operand's shape, if that
    is known. Without a spread it is one number for all elements.
    """

    def decompose(c: Context) -> bool:
        only = only_value(c.node)
        if only is not None:
            elem_type = c.attributes.get("dtype", c.values.elem_type(c.input(0)))
            number = c.build.constant(only, helper.tensor_dtype_to_np_dtype(elem_type))
            c.give(c.build.op("Expand", number, c.build.op("Shape", c.input(0))))
            return True
        shape = c.values.static_shape(c.input(0))
        if shape is None:
            return False
        elem_type = c.attributes.get("dtype", c.values.elem_type(c.input(0)))
        rest = {name: value for name, value in c.attributes.items() if name != "dtype"}
        c.give(c.build.op(op_type, shape=shape, dtype=elem_type, **rest))
        return True

    return decompose


def draw(c: Context) -> bool:
    """RandomUniform or RandomNormal without a spread: one number for all elements."""
    only = only_value(c.node)
    if only is None:
        return False
    dtype = helper.tensor_dtype_to_np_dtype(c.attributes.get("dtype", TensorProto.FLOAT))
    c.give(c.build.op("Expand", c.build.constant(only, dtype), c.build.ints(*c.attributes["shape"])))
    return True


def cum_prod(c: Context) -> bool:
    """CumProd: one Mul for each index of the axis, if its size is at most 256."""
    b, x = c.build, c.input(0)
    axis, shape = c.values.constant(c.input(1)), c.values.shape(x)
    if axis is None or shape is None:
        return False
    position = int(axis.reshape(-1)[0])
    if not -len(shape) <= position < len(shape):
        raise Refusal(f"its axis is {position}, and its input has rank {len(shape)}")
    count = shape[position]
    if count is None or not 1 <= count <= 256:
        return False
    rows = b.ops("Split", count, x, axis=position, num_outputs=count)
    if c.attributes.get("reverse", 0):
        rows.reverse()
    one = b.op("Expand", b.constant(1, helper.tensor_dtype_to_np_dtype(c.values.elem_type(x))), b.op("Shape", rows[0]))
    totals = [one if c.attributes.get("exclusive", 0) else rows[0]]
    for row in rows[:-1] if c.attributes.get("exclusive", 0) else rows[1:]:
        totals.append(b.op("Mul", totals[-1], row))
    if c.attributes.get("reverse", 0):
        totals.reverse()
    c.give(b.op("Concat", *totals, axis=position))
    return True


def max_unpool(c: Context) -> bool:
    """MaxUnpool: scatter the elements into a tensor of zeros, at the given indices into the flattened tensor."""
    shape, b = c.values.static_shape(c.input(0)), c.build
    if shape is None:
        return False
    spatial = len(shape) - 2
    kernel = c.attributes["kernel_shape"]
    strides = c.attributes.get("strides", [1] * spatial)
    pads = c.attributes.get("pads", [0] * 2 * spatial)
    inferred = [
        (size - 1) * stride - pads[axis] - pads[axis + spatial] + kernel[axis]
        for axis, (size, stride) in enumerate(zip(shape[2:], strides, strict=True))
    ]
    full = (*shape[:2], *inferred)
    target = full
    if c.input(2):
        wanted = c.values.constant(c.input(2))
        if wanted is None:
            return False
        target = tuple(int(each) for each in wanted)
    dtype = helper.tensor_dtype_to_np_dtype(c.values.elem_type(c.input(0)))
    zeros = b.constant(np.zeros(math.prod(full)), dtype)
    flat = [b.op("Reshape", c.input(index), b.ints(-1)) for index in (1, 0)]
    unpooled = b.op("Reshape", b.op("ScatterElements", zeros, *flat, axis=0), b.ints(*full))
    if target != full:
        ends = [after - before for before, after in zip(full, target, strict=True)]
        unpooled = b.op("Pad", unpooled, b.ints(*[0] * len(full), *ends))
    c.give(unpooled)
    return True


def tensor_scatter(c: Context) -> bool:
    """TensorScatter: write an update into the cache, for each row of the batch from its own index on; mode "circular"
    wraps around.
    """
    past, update = c.values.shape(c.input(0)), c.values.shape(c.input(1))
    if past is None or update is None:
        return False
    b = c.build
    axis: int = c.attributes.get("axis", -2) % len(past)
    count, size = update[axis], past[axis]
    if axis == 0 or count is None or size is None:
        return False
    starts = b.cast(c.input(2) or b.ints(0), TensorProto.INT64)
    positions = b.op("Add", b.op("Unsqueeze", starts, b.ints(1)), b.constant(np.arange(count), np.int64))
    if c.attributes.get("mode", "linear") == "circular":
        positions = b.op("Mod", positions, b.constant(size, np.int64))
    form = [1] * len(past)
    form[0], form[axis] = -1, count
    target = b.op("Shape", c.input(1)) if None in update else b.ints(*(each or 0 for each in update))
    indices = b.op("Expand", b.op("Reshape", positions, b.ints(*form)), target)
    c.give(b.op("ScatterElements", c.input(0), indices, c.input(1), axis=axis))
    return True


def optional_get_element(c: Context) -> bool:
    """OptionalGetElement: for a tensor, the tensor itself."""
    if c.values.rank(c.input(0)) is None:
        return False
    c.give(c.input(0))
    return True


def optional_has_element(c: Context) -> bool:
    """OptionalHasElement: true for a tensor, false for an omitted input."""
    if c.input(0) and c.values.rank(c.input(0)) is None:
        return False
    c.give(c.build.constant(bool(c.input(0)), np.bool_))
    return True


def _dim(c: Context, name: str, axis: int) -> str:
    b = c.build
    return b.op("Gather", b.op("Shape", name), b.constant(axis, np.int64))


TABLE: dict[str, Decomposition] = {
    "Flatten": flatten,
    "Size": size,
    "EyeLike": eye_like,
    "Hardmax": hardmax,
    "Compress": compress,
    "RandomUniform": draw,
    "RandomNormal": draw,
    "RandomUniformLike": random_like("RandomUniform"),
    "RandomNormalLike": random_like("RandomNormal"),
    "CumProd": cum_prod,
    "MaxUnpool": max_unpool,
    "TensorScatter": tensor_scatter,
    "OptionalGetElement": optional_get_element,
    "OptionalHasElement": optional_has_element,
}
