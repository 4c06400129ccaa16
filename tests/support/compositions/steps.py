"""The operators of random programs. Each function appends one operator, with random attributes and constants."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from support.compositions.building import Growing, NotPossible, Value

Step = Callable[[Growing, Value], Value]

_FLOATS = (0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 7.0, 41.0, -3.0, 0.1, 1e-5, 1e-12, 1000.0, -0.25, 6.0)
_EXTREME = (1e30, 1e-30, 12582912.0, float(np.finfo(np.float32).min), 1e38, 65504.0, 1e-38)
_WHOLE = (1, 2, 3, 7, -1, -2, -3, 8, 41, 100, 0, 255, 4)


def constant_beside(g: Growing, value: Value, choices: tuple[Any, ...] | None = None) -> Value:
    """Add a constant that broadcasts with `value`: a scalar, a vector along one axis, a tensor of the same shape, or
    one of a greater rank.
    """
    numbers = choices or (_WHOLE if value.is_integer else _FLOATS + (_EXTREME if g.is_lucky(0.15) else ()))
    dtype = {TensorProto.INT32: np.int32, TensorProto.INT64: np.int64}.get(value.elem_type, np.float32)
    rank = len(value.shape)
    match g.number(["scalar", "scalar", "one", "axis", "last", "whole", "wider"]):
        case "axis" if rank:
            axis = int(g.rng.integers(rank))
            shape = tuple(size if each == axis else 1 for each, size in enumerate(value.shape))
            shape = shape[axis:] if g.is_lucky(0.5) else shape
        case "last" if rank:
            shape = value.shape[-1:]
        case "whole":
            shape = value.shape
        case "wider" if rank < 4:
            shape = (g.number([1, 2]), *value.shape)
        case "one":
            shape = (1,) * g.number([1, max(rank, 1), max(rank, 1)])
        case _:
            shape = ()
    if g.is_lucky(0.4):
        return g.constant(np.full(shape, g.number(numbers), dtype))
    return g.constant(np.array([g.number(numbers) for _ in range(int(np.prod(shape)))], dtype).reshape(shape))


def unary(*names: str) -> Step:
    def step(g: Growing, x: Value) -> Value:
        return g.add(g.number(names), x)[0]

    return step


def binary(*names: str) -> Step:
    """Append a binary operator whose other operand is a constant, on either side, or another value that broadcasts."""

    def step(g: Growing, x: Value) -> Value:
        name = g.number(names)
        others = [each for each in g.values if each.elem_type == x.elem_type]
        other = g.number(others) if g.is_lucky(0.2) else constant_beside(g, x)
        if name in ("Div", "Mod") and x.is_integer:
            other = constant_beside(g, x, tuple(each for each in _WHOLE if each))
        pair = (x, other) if g.is_lucky(0.75) or (name in ("Div", "Mod") and x.is_integer) else (other, x)
        attributes = {"fmod": 1} if name == "Mod" and (x.is_float or g.is_lucky(0.3)) else {}
        return g.add(name, *pair, **attributes)[0]

    return step


def power(g: Growing, x: Value) -> Value:
    return g.add("Pow", x, g.constant(np.float32(g.number([2, 0.5, 3, -1, 1, 0, -0.5]))))[0]


def parametrized(g: Growing, x: Value) -> Value:
    match g.number(["LeakyRelu", "Elu", "HardSigmoid", "PRelu", "Gelu", "ThresholdedRelu", "Celu"]):
        case "PRelu":
            channels = x.shape[1] if len(x.shape) > 1 else 1
            return g.add("PRelu", x, g.weights(channels, *([1] * (len(x.shape) - 2))))[0]
        case "Gelu":
            return g.add("Gelu", x, approximate=g.number(["none", "tanh"]))[0]
        case "HardSigmoid":
            return g.add("HardSigmoid", x, alpha=g.number([0.2, 1 / 6, 1.0]), beta=g.number([0.5, 0.0]))[0]
        case name:
            return g.add(name, x, alpha=g.number([0.01, 1.0, 1.5, 0.3]))[0]


def clip(g: Growing, x: Value) -> Value:
    dtype = {TensorProto.INT32: np.int32, TensorProto.INT64: np.int64}.get(x.elem_type, np.float32)
    ends = [g.constant(np.array(g.number([-3, -1, 0, 1, 6]), dtype)) if g.is_lucky(0.8) else None for _ in range(2)]
    return g.add("Clip", x, *ends)[0]


def minimum(g: Growing, x: Value) -> Value:
    return g.add(g.number(["Max", "Min"]), x, constant_beside(g, x))[0]


def guarded(g: Growing, x: Value) -> Value:
    """Append Log, Sqrt or Div, with a small number added that keeps the operand away from the pole."""
    guard = g.constant(np.float32(g.number([1e-12, 1e-9, 1e-5, 1e-3])))
    positive = g.add(g.number(["Abs", "Relu", "Softplus", "Exp"]), x)[0]
    safe = g.add(g.number(["Add", "Max"]), positive, guard)[0]
    match g.number(["Log", "Sqrt", "Div", "Reciprocal"]):
        case "Div":
            return g.add("Div", x, safe)[0]
        case name:
            return g.add(name, safe)[0]


def written_out(g: Growing, x: Value) -> Value:
    """Append a norm or an activation as exporters write it. One constant in four has an unusual value."""
    odd = g.is_lucky(0.25)
    half = g.constant(np.float32(0.45 if odd else 0.5))
    one = g.constant(np.float32(1))
    match g.number(["silu", "gelu", "norm", "l2", "softmax", "mean", "rms"]):
        case "silu":
            return g.add("Mul", x, g.add("Sigmoid", x)[0])[0]
        case "gelu":
            root = g.constant(np.float32(1.5 if odd else 2**0.5))
            inner = g.add("Add", g.add("Erf", g.add("Div", x, root)[0])[0], one)[0]
            return g.add("Mul", g.add("Mul", x, inner)[0], half)[0]
        case "softmax":
            shifted = g.add("Sub", x, g.add("ReduceMax", x, g.integers(-1))[0])[0]
            powers = g.add("Exp", shifted)[0]
            return g.add("Div", powers, g.add("ReduceSum", powers, g.integers(-1))[0])[0]
        case "l2":
            length = g.add("ReduceL2", x, g.integers(-1))[0]
            return g.add("Div", x, g.add("Max", length, g.constant(np.float32(1e-12)))[0])[0]
        case "mean":
            total = g.add("ReduceSum", x, g.integers(-1))[0]
            return g.add("Div", total, g.constant(np.float32(x.shape[-1] - odd or 1)))[0]
        case kind:
            axes = g.integers(g.number([-1, 1 if len(x.shape) > 1 else -1]))
            centred = g.add("Sub", x, g.add("ReduceMean", x, axes)[0])[0] if kind == "norm" else x
            power = g.add("Pow", centred, g.constant(np.float32(2)))[0]
            spread = g.add("ReduceMean", power, axes)[0]
            root = g.add("Sqrt", g.add("Add", spread, g.constant(np.float32(g.number([1e-5, 1e-12, 0.1]))))[0])[0]
            normed = g.add("Div", centred, root)[0]
            return g.add("Mul", normed, constant_beside(g, normed))[0]


def product(g: Growing, x: Value) -> Value:
    if not x.shape:
        raise NotPossible("a scalar")
    k, n = x.shape[-1], g.number([1, 3, 5])
    match g.number(["matmul", "left", "gemm", "batched"]):
        case "gemm" if len(x.shape) == 2:
            flags = {"transB": 1, "alpha": g.number([1.0, 0.5]), "beta": g.number([1.0, 2.0])}
            bias = g.weights(*g.number([(n,), (1, n), (x.shape[0], 1), ()]))
            return g.add("Gemm", x, g.weights(n, k), bias, **flags)[0]
        case "left" if len(x.shape) >= 2:
            return g.add("MatMul", g.weights(n, x.shape[-2]), x)[0]
        case "batched" if len(x.shape) > 2:
            return g.add("MatMul", x, g.weights(x.shape[-3], k, n))[0]
        case _:
            return g.add("MatMul", x, g.weights(k, n) if g.is_lucky(0.9) else g.weights(k))[0]


def convolution(g: Growing, x: Value) -> Value:
    if len(x.shape) not in (3, 4):
        raise NotPossible("no image")
    spatial, channels = len(x.shape) - 2, x.shape[1]
    group = g.number([1, 1, channels, 2 if channels % 2 == 0 else 1])
    kernel = [g.number([1, 2, 3]) for _ in range(spatial)]
    pads = [g.number([0, 0, 1]) for _ in range(2 * spatial)]
    common = {"group": group, "strides": [g.number([1, 1, 2])] * spatial, "pads": pads}
    out = group * g.number([1, 2])
    bias = g.weights(out) if g.is_lucky(0.5) else None
    if g.is_lucky(0.5):
        return g.add("Conv", x, g.weights(out, channels // group, *kernel, scale=0.5), bias, **common)[0]
    return g.add("ConvTranspose", x, g.weights(channels, out // group, *kernel, scale=0.5), bias, **common)[0]


def scaled_by_channel(g: Growing, x: Value) -> Value:
    """Append a batch norm, or a product or sum for each channel, which compilers fold into the convolution before
    it.
    """
    if len(x.shape) < 2:
        raise NotPossible("no channels")
    channels = x.shape[1]
    if g.is_lucky(0.5):
        spread = g.constant(np.abs(g.rng.standard_normal(channels)).astype(np.float32) + np.float32(0.1))
        weights = [g.weights(channels) for _ in range(3)]
        return g.add("BatchNormalization", x, *weights, spread, epsilon=g.number([1e-5, 1e-3]))[0]
    shape = g.number(
        [(channels, *[1] * (len(x.shape) - 2)), (1, channels, *[1] * (len(x.shape) - 2)), (1,) * len(x.shape)]
    )
    return g.add(g.number(["Mul", "Add", "Sub", "Div"]), x, g.weights(*shape))[0]


def normalization(g: Growing, x: Value) -> Value:
    if len(x.shape) < 3:
        name = "LayerNormalization"
    else:
        name = g.number(["LayerNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization"])
    epsilon = g.number([1e-5, 1e-12, 1e-2])
    match name:
        case "LpNormalization":
            return g.add(name, x, axis=g.number([1, -1]), p=2)[0]
        case "InstanceNormalization":
            return g.add(name, x, g.weights(x.shape[1]), g.weights(x.shape[1]), epsilon=epsilon)[0]
        case "GroupNormalization":
            weights = [g.weights(x.shape[1]) for _ in range(2)]
            return g.add(name, x, *weights, num_groups=g.number([1, x.shape[1]]), epsilon=epsilon)[0]
        case _:
            if not x.shape:
                raise NotPossible("a scalar")
            bias = g.weights(x.shape[-1]) if g.is_lucky(0.6) else None
            return g.add(name, x, g.weights(x.shape[-1]), bias, axis=-1, epsilon=epsilon)[0]


def pooling(g: Growing, x: Value) -> Value:
    if len(x.shape) not in (3, 4):
        raise NotPossible("no image")
    spatial = len(x.shape) - 2
    common = {"kernel_shape": [g.number([2, 3])] * spatial, "strides": [g.number([1, 2])] * spatial}
    common |= {"pads": [g.number([0, 1]) for _ in range(2 * spatial)], "ceil_mode": g.number([0, 0, 1])}
    match g.number(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"]):
        case "MaxPool":
            return g.add("MaxPool", x, **common)[0]
        case "AveragePool":
            return g.add("AveragePool", x, count_include_pad=g.number([0, 1]), **common)[0]
        case name:
            return g.add(name, x)[0]


def reduction(g: Growing, x: Value) -> Value:
    if not x.shape:
        raise NotPossible("a scalar")
    names = ["ReduceSum", "ReduceMax", "ReduceMin"]
    if x.is_float:
        # Products of integers may overflow int32, for which ONNX defines no result.
        names += [
            "ReduceProd",
            "ReduceMean",
            "ReduceMean",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceLogSumExp",
        ]
    num = int(g.rng.integers(1, len(x.shape) + 1))
    axes = sorted(int(each) for each in g.rng.choice(len(x.shape), num, replace=False))
    return g.add(g.number(names), x, g.integers(*axes), keepdims=g.number([0, 1]))[0]


def along_axis(g: Growing, x: Value) -> Value:
    if not x.shape:
        raise NotPossible("a scalar")
    axis = int(g.rng.integers(-len(x.shape), len(x.shape)))
    match g.number(["Softmax", "LogSoftmax", "Hardmax", "CumSum", "ArgMax", "TopK"]):
        case "CumSum":
            flags = {"exclusive": g.number([0, 1]), "reverse": g.number([0, 1])}
            return g.add("CumSum", x, g.constant(np.int64(axis)), **flags)[0]
        case "ArgMax":
            return g.add("ArgMax", x, axis=axis, keepdims=g.number([0, 1]))[0]
        case "TopK":
            count = min(2, x.shape[axis])
            return g.add("TopK", x, g.integers(count), outputs=2, axis=axis, largest=g.number([0, 1]))[0]
        case name:
            return g.add(name, x, axis=axis)[0]


def reshaped(g: Growing, x: Value) -> Value:
    rank = len(x.shape)
    match g.number(["Transpose", "Reshape", "Flatten", "Unsqueeze", "Squeeze", "Slice", "Pad", "Tile", "Expand"]):
        case "Transpose" if rank > 1:
            return g.add("Transpose", x, perm=[int(each) for each in g.rng.permutation(rank)])[0]
        case "Reshape" if rank > 1:
            axis = int(g.rng.integers(rank - 1))
            merged = (*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])
            shape = g.number([merged, (-1,), (0, -1), tuple(reversed(x.shape)), (-1, x.shape[-1])])
            return g.add("Reshape", x, g.integers(*shape))[0]
        case "Flatten":
            return g.add("Flatten", x, axis=g.number([0, 1, -1]))[0]
        case "Unsqueeze":
            return g.add("Unsqueeze", x, g.integers(g.number([0, -1, min(1, rank)])))[0]
        case "Squeeze" if 1 in x.shape:
            return g.add("Squeeze", x, g.integers(x.shape.index(1)))[0]
        case "Slice" if rank:
            axis = int(g.rng.integers(rank))
            start, end, step = g.number(
                [(0, -1, 1), (1, 99, 2), (-1, -99, -1), (-2, 99, 1), (-1, -(x.shape[axis] + 1), -1)]
            )
            return g.add("Slice", x, *(g.integers(each) for each in (start, end, axis, step)))[0]
        case "Pad" if rank:
            mode = g.number(["constant", "constant", "edge", "reflect"])
            pads = [int(g.rng.integers(0, min(2, size))) for size in x.shape] * 2
            filling = (
                g.constant(np.array(g.number([0, 1, -2]), np.float32)) if mode == "constant" and x.is_float else None
            )
            return g.add("Pad", x, g.integers(*pads), filling, mode=mode)[0]
        case "Tile" if rank:
            return g.add("Tile", x, g.integers(*(g.number([1, 1, 2]) for _ in x.shape)))[0]
        case "Expand":
            return g.add("Expand", x, g.integers(g.number([1, 2]), *x.shape))[0]
        case _:
            raise NotPossible("not for this rank")


def gathered(g: Growing, x: Value) -> Value:
    if not x.shape:
        raise NotPossible("a scalar")
    axis = int(g.rng.integers(len(x.shape)))
    size = x.shape[axis]
    match g.number(["Gather", "GatherElements", "Concat", "Split", "scatter"]):
        case "Gather":
            places = g.rng.integers(-size, size, g.number([(), (1,), (2,), (2, 2)]))
            return g.add("Gather", x, g.constant(np.asarray(places, np.int64)), axis=axis)[0]
        case "GatherElements":
            return g.add("GatherElements", x, g.constant(g.rng.integers(-size, size, x.shape)), axis=axis)[0]
        case "Concat":
            return g.add("Concat", *(x, x) if g.is_lucky(0.3) else (x, g.add("Neg", x)[0]), axis=axis)[0]
        case "Split" if size > 1:
            parts = g.add("Split", x, g.integers(1, size - 1), outputs=2, axis=axis)
            return g.number(parts)
        case "scatter" if x.is_float:
            places = g.constant(g.rng.integers(0, size, x.shape))
            flags = {"axis": axis, "reduction": g.number(["add", "max", "none"])}
            if flags["reduction"] == "none":
                # Each index occurs once, since ONNX does not define which of several writes to one element counts.
                order = np.argsort(g.rng.random(x.shape), axis=axis)
                places = g.constant(order.astype(np.int64))
            return g.add("ScatterElements", x, places, g.weights(*x.shape), **flags)[0]
        case _:
            raise NotPossible("not for this shape")


def image(g: Growing, x: Value) -> Value:
    if len(x.shape) != 4:
        raise NotPossible("no image")
    match g.number(["DepthToSpace", "SpaceToDepth", "Resize", "linear"]):
        case "DepthToSpace" if x.shape[1] % 4 == 0:
            return g.add("DepthToSpace", x, blocksize=2, mode=g.number(["DCR", "CRD"]))[0]
        case "SpaceToDepth" if x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0:
            return g.add("SpaceToDepth", x, blocksize=2)[0]
        case "Resize":
            scales = g.constant(np.array([1, 1, g.number([2, 0.5, 1.5]), 2], np.float32))
            flags = {"mode": "nearest", "coordinate_transformation_mode": g.number(["asymmetric", "half_pixel"])}
            return g.add("Resize", x, None, scales, nearest_mode=g.number(["floor", "round_prefer_floor"]), **flags)[0]
        case "linear":
            scales = g.constant(np.array([1, 1, 2, g.number([2, 1.5])], np.float32))
            way = g.number(["half_pixel", "asymmetric", "align_corners"])
            return g.add("Resize", x, None, scales, mode="linear", coordinate_transformation_mode=way)[0]
        case _:
            raise NotPossible("not for this shape")


def chosen(g: Growing, x: Value) -> Value:
    """Append a Where, whose condition compares the value with a constant or with itself."""
    test = g.add(g.number(["Less", "Greater", "Equal", "LessOrEqual"]), x, constant_beside(g, x))[0]
    test = g.add("Not", test)[0] if g.is_lucky(0.3) else test
    other = constant_beside(g, x)
    return g.add("Where", test, *((x, other) if g.is_lucky(0.5) else (other, x)))[0]


def cast_and_back(g: Growing, x: Value) -> Value:
    """Cast to a narrower type and back. fp16 is left out if the program is to be computed in fp16."""
    through = g.number([TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.INT32])
    small = g.add("Clip", x, g.constant(np.float32(-1e6)), g.constant(np.float32(1e6)))[0]
    return g.add("Cast", g.add("Cast", small, to=through)[0], to=TensorProto.FLOAT)[0]


def to_integers(g: Growing, x: Value) -> Value:
    small = g.add("Clip", x, g.constant(np.float32(-1000)), g.constant(np.float32(1000)))[0]
    return g.add("Cast", small, to=g.number([TensorProto.INT32, TensorProto.INT64]))[0]


def to_floats(g: Growing, x: Value) -> Value:
    return g.add("Cast", x, to=TensorProto.FLOAT)[0]


def quantized(g: Growing, x: Value) -> Value:
    """Quantize and dequantize, with scales that may differ."""
    dtype = g.number([np.uint8, np.int8])
    scales = [g.constant(np.float32(each)) for each in g.number([(0.05, 0.05), (0.1, 0.2), (0.5, 0.5)])]
    zeros = [g.constant(np.array(each, dtype)) for each in g.number([(0, 0), (3, 3), (5, 1)])]
    packed = g.add("QuantizeLinear", x, scales[0], zeros[0])[0]
    plain = g.add("DequantizeLinear", packed, scales[1], zeros[1])[0]
    if g.is_lucky(0.5):
        again = g.add("QuantizeLinear", plain, scales[0], zeros[1])[0]
        return g.add("DequantizeLinear", again, scales[0], zeros[1])[0]
    return plain


def attention(g: Growing, x: Value) -> Value:
    """Append self-attention: masked scores of the value with itself, and a Softmax."""
    if len(x.shape) < 3 or x.shape[-2] > 12:
        raise NotPossible("no sequence")
    rank, steps = len(x.shape), x.shape[-2]
    turned = g.add("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])[0]
    scores = g.add("Mul", g.add("MatMul", x, turned)[0], g.constant(np.float32(g.number([0.35, 0.5, 1.0]))))[0]
    low = np.float32(g.number([-1e9, -1e4, np.finfo(np.float32).min]))
    match g.number(["causal", "none", "where", "last"]):
        case "causal":
            scores = g.add("Add", scores, g.constant(np.triu(np.full((steps, steps), low), 1)))[0]
        case "where":
            kept = g.constant(np.tril(np.ones((steps, steps), bool)))
            scores = g.add("Where", kept, scores, g.constant(low))[0]
        case "last":
            kept = np.ones((1, steps), np.float32)
            kept[0, -1] = 0
            scores = g.add("Add", scores, g.constant((1 - kept) * low))[0]
    return g.add("MatMul", g.add("Softmax", scores, axis=-1)[0], x)[0]


FLOAT_STEPS: dict[str, Step] = {
    "activation": unary("Relu", "Sigmoid", "Tanh", "Softplus", "Erf", "Softsign", "HardSwish", "Mish", "Selu"),
    "function": unary("Neg", "Abs", "Exp", "Sqrt", "Sin", "Cos", "Reciprocal", "Log"),
    "rounding": unary("Floor", "Ceil", "Round", "Sign"),
    "parametrized": parametrized,
    "sum": binary("Add", "Sub"),
    "quotient": binary("Div", "Mul"),
    "quotient again": binary("Div", "Mul"),
    "remainder": binary("Mod"),
    "power": power,
    "clip": clip,
    "minimum": minimum,
    "guarded": guarded,
    "written out": written_out,
    "product": product,
    "convolution": convolution,
    "by channel": scaled_by_channel,
    "normalization": normalization,
    "pooling": pooling,
    "reduction": reduction,
    "along axis": along_axis,
    "reshaped": reshaped,
    "reshaped again": reshaped,
    "gathered": gathered,
    "image": image,
    "chosen": chosen,
    "cast and back": cast_and_back,
    "to integers": to_integers,
    "quantized": quantized,
    "attention": attention,
}
INTEGER_STEPS: dict[str, Step] = {
    "sum": binary("Add", "Sub"),
    "quotient": binary("Div", "Mul"),
    "remainder": binary("Mod"),
    "sign": unary("Neg", "Abs", "Sign"),
    "minimum": minimum,
    "reduction": reduction,
    "reshaped": reshaped,
    "gathered": gathered,
    "chosen": chosen,
    "to floats": to_floats,
    "to floats again": to_floats,
}
