"""Elementwise operators, reductions, pools and convolutions of com.microsoft on quantized tensors."""

import numpy as np
from onnx import TensorProto, helper

from triune.graph.conversion.window import SAME, window_of
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.decompose.microsoft.convolutions import channels_first, channels_last

_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def dequantized(c: Context, first: int) -> str:
    """Build input `first`, dequantized; the next two inputs are its scale and zero point."""
    names = [c.input(first), c.input(first + 1), c.input(first + 2)]
    return c.build.op("DequantizeLinear", *(each for each in names if each))


def quantized(c: Context, x: str, scale: int, elem_type: int) -> str:
    """Quantize `x`. Input number `scale` of the node is the scale, and the next input the zero point; without it, the
    zero point is 0 of the type `elem_type`.
    """
    b = c.build
    zero = c.input(scale + 1) or b.typed(0, elem_type)
    return b.op("QuantizeLinear", x, c.input(scale), zero)


def rounded(c: Context, x: str, elem_type: int) -> str:
    """Round `x`, in units of the quantization scale, half to even, and saturate it to the integer type."""
    b, limits = c.build, np.iinfo(helper.tensor_dtype_to_np_dtype(elem_type))
    ends = [b.constant(each, np.float32) for each in (limits.min, limits.max)]
    return b.cast(b.op("Clip", b.op("Round", x), *ends), elem_type)


def _zero(c: Context, index: int) -> str:
    """Build a zero point as fp32; 0 if the input is omitted."""
    return c.build.cast(c.input(index), TensorProto.FLOAT) if c.input(index) else c.build.constant(0, np.float32)


def q_linear_add(c: Context) -> bool:
    """QLinearAdd: round(a * (sa / sc) + b * (sb / sc) + (zc - za * (sa / sc) - zb * (sb / sc))), in this order so that
    ties round as in ONNX Runtime.

    a and b are the operands' integers; sa, sb and sc are the scales of both and of the result; za, zb and zc their zero
    points.
    """
    b, elem_type = c.build, c.values.elem_type(c.input(0))
    if not elem_type:
        return False
    # `fixed` is zc - (sa / sc) * za - (sb / sc) * zb.
    ratios = [b.op("Div", c.input(position), c.input(6)) for position in (1, 4)]
    shifts = [b.op("Mul", ratio, _zero(c, position)) for ratio, position in zip(ratios, (2, 5), strict=True)]
    fixed = b.op("Sub", _zero(c, 7), b.op("Add", *shifts))
    terms = [
        b.op("Mul", b.cast(c.input(position), TensorProto.FLOAT), ratio)
        for ratio, position in zip(ratios, (0, 3), strict=True)
    ]
    c.give(rounded(c, b.op("Add", terms[0], b.op("Add", terms[1], fixed)), elem_type))
    return True


def q_linear_mul(c: Context) -> bool:
    """QLinearMul: (a - za) * (b - zb) * (sa * sb / sc) + zc, where a and b are the operands' integers; sa, sb and sc
    are the scales of both and of the result; za, zb and zc their zero points.
    """
    b, elem_type = c.build, c.values.elem_type(c.input(0))
    if not elem_type:
        return False
    factors = [
        b.op("Sub", b.cast(c.input(position), TensorProto.FLOAT), _zero(c, zero)) for position, zero in ((0, 2), (3, 5))
    ]
    ratio = b.op("Div", b.op("Mul", c.input(1), c.input(4)), c.input(6))
    product = b.op("Mul", b.op("Mul", *factors), ratio)
    c.give(rounded(c, b.op("Add", product, _zero(c, 7)), elem_type))
    return True


def _dequantize_and_quantize(op_type: str, **defaults: float) -> Decomposition:
    """QLinearSigmoid and the like: dequantize, apply the core op with the node's attributes, quantize."""

    def rule(c: Context) -> bool:
        elem_type = c.values.elem_type(c.input(0))
        if not elem_type:
            return False
        attributes = {name: c.attributes.get(name, value) for name, value in defaults.items()}
        c.give(quantized(c, c.build.op(op_type, dequantized(c, 0), **attributes), 3, elem_type))
        return True

    return rule


def q_linear_reduce_mean(c: Context) -> bool:
    """QLinearReduceMean: dequantize, take the mean along the attribute `axes` (all axes without it), quantize."""
    elem_type = c.values.elem_type(c.input(0))
    if not elem_type:
        return False
    b, keepdims = c.build, c.attributes.get("keepdims", 1)
    axes = [b.ints(*c.attributes["axes"])] if c.attributes.get("axes") else []
    c.give(quantized(c, b.op("ReduceMean", dequantized(c, 0), *axes, keepdims=keepdims), 3, elem_type))
    return True


def q_linear_softmax(c: Context) -> bool:
    """QLinearSoftmax: dequantize, Softmax, quantize. Before operator set 13 Softmax is over all axes from `axis` on."""
    b, elem_type, shape = c.build, c.values.elem_type(c.input(0)), c.values.shape(c.input(0))
    if not elem_type or shape is None:
        return False
    x, axis = dequantized(c, 0), c.attributes.get("axis", -1) % len(shape)
    if c.attributes["opset"] >= 13 or axis == len(shape) - 1:
        result = b.op("Softmax", x, axis=axis)
    else:
        flat = b.op("Flatten", x, axis=axis)
        result = b.op("Reshape", b.op("Softmax", flat, axis=1), b.op("Shape", c.input(0)))
    c.give(quantized(c, result, 3, elem_type))
    return True


def q_linear_average_pool(c: Context) -> bool:
    """QLinearAveragePool: dequantize, AveragePool, quantize."""
    rank, elem_type = c.values.rank(c.input(0)), c.values.elem_type(c.input(0))
    if rank is None or not elem_type:
        return False
    b, is_last = c.build, c.attributes.get("channels_last", 0)
    own = {name: c.attributes[name] for name in _POOL if name in c.attributes}
    x = dequantized(c, 0)
    x = b.op("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)]) if is_last else x
    kernel = own["kernel_shape"]
    window = window_of(own, kernel)
    if own.get("ceil_mode", 0) and own.get("count_include_pad", 0) and window.auto_pad not in SAME:
        # ONNX Runtime divides by the size of the whole kernel, as if the elements added by `ceil_mode` were padding. So
        # a Pad adds them.
        ends = [window.reach(axis, window.pads[len(kernel) + axis]) for axis in range(len(kernel))]
        x = b.op("Pad", x, b.ints(0, 0, *window.pads[: len(kernel)], 0, 0, *ends))
        own = {name: value for name, value in own.items() if name not in ("auto_pad", "ceil_mode", "pads")}
    steps = b.op("Div", b.op("AveragePool", x, **own), c.input(3))
    pooled = rounded(c, b.op("Add", steps, _zero(c, 4)), elem_type)
    c.give(channels_last(c, pooled, rank) if is_last else pooled)
    return True


def q_linear_global_average_pool(c: Context) -> bool:
    """QLinearGlobalAveragePool: round(sum(x - zx) * sx / (sy * size)) + zy, summed over the spatial axes.

    sx and zx are the scale and the zero point of x; sy and zy are those of the result. `size` is the number of elements
    summed.
    """
    shape, elem_type = c.values.shape(c.input(0)), c.values.elem_type(c.input(0))
    if shape is None or not elem_type:
        return False
    b, rank = c.build, len(shape)
    axes = range(1, rank - 1) if c.attributes.get("channels_last", 0) else range(2, rank)
    steps = b.op("Sub", b.cast(c.input(0), TensorProto.FLOAT), _zero(c, 2))
    mean = b.op("ReduceMean", steps, b.ints(*axes), keepdims=1)
    scaled = b.op("Mul", mean, b.op("Div", c.input(1), c.input(3)))
    c.give(rounded(c, b.op("Add", scaled, _zero(c, 4)), elem_type))
    return True


def q_linear_concat(c: Context) -> bool:
    """QLinearConcat: dequantize each tensor, concatenate, quantize."""
    elem_type = c.values.elem_type(c.input(1))
    if not elem_type:
        return False
    parts = [dequantized(c, position) for position in range(2, len(c.node.input), 3)]
    c.give(quantized(c, c.build.op("Concat", *parts, axis=c.attributes["axis"]), 0, elem_type))
    return True


def q_linear_where(c: Context) -> bool:
    """QLinearWhere: dequantize both operands, Where, quantize."""
    elem_type = c.values.elem_type(c.input(1))
    if not elem_type:
        return False
    c.give(quantized(c, c.build.op("Where", c.input(0), dequantized(c, 1), dequantized(c, 4)), 7, elem_type))
    return True


def q_linear_conv(c: Context) -> bool:
    """QLinearConv of com.microsoft: ONNX's QLinearConv, perhaps with channels last."""
    own = {name: c.attributes[name] for name in _CONV if name in c.attributes}
    inputs, rank = list(c.node.input), c.values.rank(c.input(0))
    if not c.attributes.get("channels_last", 0):
        c.build.put("QLinearConv", inputs, list(c.node.output), **own)
        return True
    first = channels_first(c, c.input(0))
    if rank is None or first is None:
        return False
    c.give(channels_last(c, c.build.op("QLinearConv", first, *inputs[1:], **own), rank))
    return True


TABLE: dict[str, Decomposition] = {
    "QLinearAdd": q_linear_add,
    "QLinearMul": q_linear_mul,
    "QLinearSigmoid": _dequantize_and_quantize("Sigmoid"),
    "QLinearLeakyRelu": _dequantize_and_quantize("LeakyRelu", alpha=0.01),
    "QLinearSoftmax": q_linear_softmax,
    "QLinearAveragePool": q_linear_average_pool,
    "QLinearGlobalAveragePool": q_linear_global_average_pool,
    "QLinearReduceMean": q_linear_reduce_mean,
    "QLinearConcat": q_linear_concat,
    "QLinearWhere": q_linear_where,
    "QLinearConv": q_linear_conv,
}
