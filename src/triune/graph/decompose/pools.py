"""Pools, LRN, and normalizations over spatial axes."""

import numpy as np
from onnx import TensorProto, helper

from triune.graph.conversion.window import SAME, window_of
from triune.graph.decompose.context import Context, Decomposition


def global_pool(op_type: str) -> Decomposition:
    """GlobalAveragePool and GlobalMaxPool: a reduction over all axes after the channels."""

    def decompose(c: Context) -> bool:
        rank = c.values.rank(c.input(0))
        if rank is None:
            return False
        c.give(c.build.op(op_type, c.input(0), c.build.ints(*range(2, rank)), keepdims=1))
        return True

    return decompose


def global_lp_pool(c: Context) -> bool:
    """GlobalLpPool: the p-norm over all axes after the channels."""
    rank = c.values.rank(c.input(0))
    if rank is None:
        return False
    b, p = c.build, c.attributes.get("p", 2)
    powers = _power(c, b.op("Abs", c.input(0)), p)
    c.give(_power(c, b.op("ReduceSum", powers, b.ints(*range(2, rank)), keepdims=1), 1 / p))
    return True


def pool(c: Context) -> bool:
    """MaxPool or AveragePool with a window that exceeds the padded image along an axis, by less than a stride.

    ONNX Runtime computes one output along that axis, and so does a pool with `ceil_mode`. Where `ceil_mode` adds
    outputs along other axes, a Slice removes them.
    """
    shape, window = _spatial(c), window_of(c.attributes, c.attributes["kernel_shape"])
    if shape is None or c.attributes.get("ceil_mode", 0) or window.auto_pad in SAME or c.is_read(1):
        return False
    overhangs = [window.overhang(axis, size) for axis, size in enumerate(shape)]
    if not any(overhangs):
        return False
    b, op_type = c.build, c.node.op_type
    y = b.op(op_type, c.input(0), **{**c.attributes, "ceil_mode": 1})
    counts = [1 if over else window.count(axis, shape[axis]) for axis, over in enumerate(overhangs)]
    axes = range(2, 2 + len(shape))
    c.give(b.op("Slice", y, b.ints(*[0] * len(counts)), b.ints(*counts), b.ints(*axes)))
    return True


def lp_pool(c: Context) -> bool:
    """LpPool: (mean(|x|^p) * window size)^(1/p), where the mean counts the padding."""
    b, p = c.build, c.attributes.get("p", 2)
    kernel: list[int] = c.attributes["kernel_shape"]
    rest = {name: value for name, value in c.attributes.items() if name not in ("p", "kernel_shape", "ceil_mode")}
    powers = _power(c, b.op("Abs", c.input(0)), p)
    window = window_of(c.attributes, kernel)
    if c.attributes.get("ceil_mode", 0) and window.auto_pad not in SAME:
        # Pad `powers` by the elements that `ceil_mode` adds after the padding. AveragePool would leave these out when
        # it divides by the number of elements.
        ends = [window.reach(axis, window.pads[len(kernel) + axis]) for axis in range(len(kernel))]
        powers = b.op("Pad", powers, b.ints(0, 0, *window.pads[: len(kernel)], 0, 0, *ends))
        rest = {name: value for name, value in rest.items() if name not in ("auto_pad", "pads")}
    overhangs = [window.overhang(axis, size) for axis, size in enumerate(_spatial(c) or ())]
    if any(overhangs) and not c.attributes.get("ceil_mode", 0) and window.auto_pad not in SAME:
        powers = b.op("Pad", powers, b.ints(*[0] * (len(kernel) + 4), *overhangs))
    mean = b.op("AveragePool", powers, kernel_shape=kernel, count_include_pad=1, **rest)
    total = b.op("Mul", mean, b.constant(np.prod(kernel), _dtype(c)))
    c.give(_power(c, total, 1 / p))
    return True


def lp_normalization(c: Context) -> bool:
    """LpNormalization: x / norm_p(x) along an axis; 0 if the norm is 0."""
    b, x, dtype = c.build, c.input(0), _dtype(c)
    axis, p = c.attributes.get("axis", -1), c.attributes.get("p", 2)
    size = b.op("Abs", x)
    total = b.op("ReduceSum", size if p == 1 else b.op("Mul", x, x), b.ints(axis), keepdims=1)
    norm = total if p == 1 else b.op("Sqrt", total)
    is_zero = b.op("Equal", norm, b.constant(0, dtype))
    c.give(b.op("Div", x, b.op("Where", is_zero, b.constant(1, dtype), norm)))
    return True


def mean_variance_normalization(c: Context) -> bool:
    """MeanVarianceNormalization: (x - mean) / (deviation + 1e-9).

    The variance is computed as mean((x - mean)^2), which is never negative. ONNX's function body has
    mean(x^2) - mean^2, which loses all bits if the mean is far larger than the deviation.
    """
    b, x, dtype = c.build, c.input(0), _dtype(c)
    axes = b.ints(*c.attributes.get("axes", (0, 2, 3)))
    centred = b.op("Sub", x, b.op("ReduceMean", x, axes, keepdims=1))
    variance = b.op("ReduceMean", b.op("Mul", centred, centred), axes, keepdims=1)
    c.give(b.op("Div", centred, b.op("Add", b.op("Sqrt", variance), b.constant(1e-9, dtype))))
    return True


def group_normalization(c: Context) -> bool:
    """GroupNormalization: (x - mean) / sqrt(variance + epsilon) of each group of channels, times scale, plus bias.

    x is (batch, channels, ...); scale and bias have an element for each channel. The groups are the channels of an
    InstanceNormalization of (batch, groups, elements), whose variance is mean((x - mean)^2). ONNX's function body has
    mean(x^2) - mean^2, as in MeanVarianceNormalization.
    """
    b, x, groups = c.build, c.input(0), int(c.attributes["num_groups"])
    kind, inner = c.values.elem_type(x), int(c.attributes.get("stash_type", TensorProto.FLOAT))
    dtype = helper.tensor_dtype_to_np_dtype(inner)
    parts = b.op("Reshape", x if kind == inner else b.cast(x, inner), b.ints(0, groups, -1))
    one, zero = b.constant(np.ones(groups), dtype), b.constant(np.zeros(groups), dtype)
    normal = b.op("InstanceNormalization", parts, one, zero, epsilon=c.attributes.get("epsilon", 1e-5))
    if kind != inner:
        normal = b.cast(normal, kind)
    channels = b.op("Reshape", normal, b.op("Concat", b.ints(0), b.op("Shape", c.input(1)), b.ints(-1), axis=0))
    scale, bias = (b.op("Unsqueeze", c.input(index), b.ints(1)) for index in (1, 2))
    c.give(b.op("Reshape", b.op("Add", b.op("Mul", channels, scale), bias), b.op("Shape", x)))
    return True


def lrn(c: Context) -> bool:
    """LRN: x / (bias + alpha / size * sum of x^2 over neighbouring channels)^beta."""
    shape, b, x, dtype = c.values.shape(c.input(0)), c.build, c.input(0), _dtype(c)
    if shape is None or len(shape) < 2 or shape[1] is None:
        return False
    count = c.attributes["size"]
    before, after = (count - 1) // 2, count // 2
    pads = [0] * 2 * len(shape)
    pads[1], pads[len(shape) + 1] = before, after
    squares = b.op("Pad", b.op("Mul", x, x), b.ints(*pads))
    parts = [b.op("Slice", squares, b.ints(offset), b.ints(offset + shape[1]), b.ints(1)) for offset in range(count)]
    total = parts[0]
    for part in parts[1:]:
        total = b.op("Add", total, part)
    scale = b.op("Mul", total, b.constant(c.attributes.get("alpha", 1e-4) / count, dtype))
    base = b.op("Add", scale, b.constant(c.attributes.get("bias", 1.0), dtype))
    c.give(b.op("Div", x, b.op("Pow", base, b.constant(c.attributes.get("beta", 0.75), dtype))))
    return True


def col2im(c: Context) -> bool:
    """Col2Im: a ConvTranspose with a one-hot kernel, which adds each element of a column at its own position."""
    shape = c.values.shape(c.input(0))
    image, block = c.values.constant(c.input(1)), c.values.constant(c.input(2))
    if shape is None or shape[-2] is None or image is None or block is None:
        return False
    b = c.build
    sizes, kernel = [int(each) for each in image], [int(each) for each in block]
    rank, count = len(sizes), int(np.prod(kernel))
    strides = c.attributes.get("strides", [1] * rank)
    dilations = c.attributes.get("dilations", [1] * rank)
    pads = c.attributes.get("pads", [0] * 2 * rank)
    positions = [
        (sizes[i] + pads[i] + pads[i + rank] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i in range(rank)
    ]
    # The elements of each axis that no window covers, since they come after the last window. `output_padding` adds
    # them.
    rests = [
        sizes[i] - ((positions[i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[i + rank])
        for i in range(rank)
    ]
    weight = b.constant(np.eye(count).reshape(count, 1, *kernel), _dtype(c))
    columns = b.op("Reshape", c.input(0), b.ints(-1, count, *positions))
    image_name = b.op(
        "ConvTranspose", columns, weight, strides=strides, dilations=dilations, pads=pads, output_padding=rests
    )
    c.give(b.op("Reshape", image_name, b.ints(-1, shape[-2] // count, *sizes)))
    return True


def _spatial(c: Context) -> tuple[int, ...] | None:
    """The sizes of the axes after the channels; None if one of them is not known."""
    shape = c.values.shape(c.input(0))
    known = [size for size in (shape or ())[2:] if size is not None]
    return None if shape is None or len(known) < len(shape) - 2 else tuple(known)


def _power(c: Context, name: str, exponent: float) -> str:
    if exponent == 1:
        return name
    return c.build.op("Pow", name, c.build.constant(exponent, _dtype(c)))


def _dtype(c: Context) -> np.dtype[np.generic]:
    elem_type = c.values.elem_type(c.input(0)) or TensorProto.FLOAT
    return helper.tensor_dtype_to_np_dtype(elem_type)


TABLE: dict[str, Decomposition] = {
    "GlobalAveragePool": global_pool("ReduceMean"),
    "GlobalMaxPool": global_pool("ReduceMax"),
    "MaxPool": pool,
    "AveragePool": pool,
    "GlobalLpPool": global_lp_pool,
    "LpPool": lp_pool,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "GroupNormalization": group_normalization,
    "LRN": lrn,
    "Col2Im": col2im,
}
