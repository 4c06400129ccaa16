"""A sample program for each of Core AI's operations, by family. Raised programs and Apple's interpreter must agree on
them.
"""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from support.coreai_programs import (
    Array,
    Build,
    Sample,
    axis,
    grouped,
    integers,
    ints,
    numbers,
    one,
    ops,
    packed,
    uints,
)
from triune.coreai.library import ir
from triune.coreai.lowering.values import tensor_type

X = numbers(2, 3, 4, 6)
UNIT = numbers(2, 3, 4, low=-0.9, high=0.9)
POSITIVE = np.abs(X) + np.float32(0.1)
INTS = integers(2, 3, 4)
DIVISORS = np.where(INTS == 0, 3, INTS)[:, ::-1].copy()
BOOLS, OTHERS = integers(2, 3, 4, low=0, high=2).astype(bool), integers(2, 1, 4, low=0, high=2).astype(bool)
SPECIAL = np.array([[np.nan, 1, -np.inf, 0.5, np.inf, -1.5], [2.5, 3.5, -0.5, -0.0, np.nan, 7]], np.float32)
HALF = X.astype(np.float16)
BRAIN = X.astype(ml_dtypes.bfloat16)


def _attribute(text: str) -> Any:
    return ir.Attribute.parse(text)


def _unary() -> dict[str, Sample]:
    names = "abs_ asinh atan cos cosh erf exp gelu relu round_ sigmoid silu sin sinh tan tanh"
    samples = {name: Sample(one(name), {"x": X}) for name in names.split()}
    samples |= {name: Sample(one(name), {"x": UNIT}) for name in ("acos", "asin", "atanh")}
    samples |= {name: Sample(one(name), {"x": POSITIVE}) for name in ("log", "rsqrt", "sqrt")}
    samples["acosh"] = Sample(one("acosh"), {"x": POSITIVE + 1})
    samples |= {f"{name}_special": Sample(one(name), {"x": SPECIAL}) for name in ("abs_", "relu", "round_", "sigmoid")}
    samples |= {f"{name}_int": Sample(one(name), {"x": INTS.astype(np.int8)}) for name in ("abs_", "relu")}
    samples |= {f"{name}_half": Sample(one(name), {"x": HALF}) for name in ("exp", "gelu", "tanh", "round_")}
    samples |= {f"{name}_brain": Sample(one(name), {"x": BRAIN}) for name in ("exp", "relu", "sigmoid")}
    samples["not_"] = Sample(one("not_"), {"x": BOOLS})
    samples |= {
        f"softmax_{place}": Sample(lambda x, place=place: ops.softmax(x, axis(place)), {"x": X}) for place in (1, -1)
    }
    for approximate in ("tanh", "sigmoid"):
        attribute = f"#coreai.approximate<{approximate}>"
        samples[f"gelu_{approximate}"] = Sample(
            lambda x, text=attribute: ops.GELUOp(x, approximate=_attribute(text)).result, {"x": X}
        )
    return samples


def _cast(dtype: Any) -> Build:
    return lambda x: ops.cast(x, dtype)


def _casts() -> dict[str, Sample]:
    floats = numbers(3, 5, low=0, high=100)
    samples = {
        f"cast_float_to_{np.dtype(dtype).name}": Sample(_cast(dtype), {"x": floats})
        for dtype in (np.float16, np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32, np.bool_)
    }
    samples |= {
        f"cast_int_to_{np.dtype(dtype).name}": Sample(_cast(dtype), {"x": integers(3, 5, low=-300, high=300)})
        for dtype in (np.float32, np.float16, np.int8, np.uint8, np.int16, np.uint32, np.bool_)
    }
    samples["cast_brain"] = Sample(_cast(ml_dtypes.bfloat16), {"x": X})
    samples["cast_from_brain"] = Sample(_cast(np.float32), {"x": BRAIN})
    samples["cast_bool"] = Sample(_cast(np.float32), {"x": BOOLS})
    return samples


def _binary() -> dict[str, Sample]:
    y = numbers(3, 1, 6)
    apart = np.where(np.abs(y) < 0.2, np.float32(0.7), y)
    samples: dict[str, Sample] = {}
    for name in ("add", "sub", "mul", "divide", "floor_divide", "modulo", "maximum", "minimum", "equal", "greater"):
        pair = {"x": INTS, "y": DIVISORS}
        samples[f"broadcasting_{name}"] = Sample(one(f"broadcasting_{name}"), {"x": X, "y": apart})
        samples[f"{name}_int"] = Sample(one(name), pair)
        for dtype in (np.int8, np.uint8, np.uint32, np.int16):
            small = {
                key: np.abs(value).astype(dtype) if dtype in (np.uint8, np.uint32) else value.astype(dtype)
                for key, value in pair.items()
            }
            samples[f"{name}_{np.dtype(dtype).name}"] = Sample(one(name), small)
        samples[f"{name}_half"] = Sample(one(name), {"x": HALF, "y": HALF[::-1].copy()})
        samples[f"{name}_brain"] = Sample(one(name), {"x": BRAIN, "y": BRAIN[::-1].copy()})
    for kind in (np.float32, np.float16, ml_dtypes.bfloat16):
        multiples = {"x": np.arange(-60, 60).astype(kind) * kind(0.3), "y": np.array([0.3], kind)}
        for name in ("floor_divide", "modulo"):
            samples[f"broadcasting_{name}_multiples_{np.dtype(kind).name}"] = Sample(
                one(f"broadcasting_{name}"), multiples
            )
    samples["not_equal"] = Sample(one("not_equal"), {"x": INTS, "y": DIVISORS})
    samples["broadcasting_not_equal"] = Sample(one("broadcasting_not_equal"), {"x": X, "y": y})
    samples["broadcasting_pow"] = Sample(one("broadcasting_pow"), {"x": POSITIVE, "y": y})
    samples["pow_int"] = Sample(one("pow_"), {"x": INTS, "y": np.abs(INTS) % 4})
    for name in ("and", "or", "xor"):
        samples[f"broadcasting_{name}"] = Sample(one(f"broadcasting_{name}"), {"x": BOOLS, "y": OTHERS})
        samples[f"broadcasting_bitwise_{name}"] = Sample(
            one(f"broadcasting_bitwise_{name}"), {"x": INTS, "y": DIVISORS}
        )
        samples[f"bitwise_{name}_uint8"] = Sample(
            one(f"bitwise_{name}"), {"x": INTS.astype(np.uint8), "y": DIVISORS.astype(np.uint8)}
        )
    for name in ("add", "mul"):
        samples[f"{name}_bool"] = Sample(one(name), {"x": BOOLS, "y": ~BOOLS[::-1]})
    for name in ("maximum", "minimum", "greater", "equal", "divide", "modulo"):
        samples[f"{name}_special"] = Sample(one(name), {"x": SPECIAL, "y": SPECIAL[::-1].copy()})
    wrap = {"x": np.array([127, -128, 100], np.int8), "y": np.array([1, -1, 100], np.int8)}
    samples |= {f"{name}_wraps": Sample(one(name), wrap) for name in ("add", "sub", "mul")}
    samples["where"] = Sample(one("where"), {"c": BOOLS, "x": INTS, "y": DIVISORS})
    samples["broadcasting_where"] = Sample(one("broadcasting_where"), {"c": OTHERS, "x": UNIT, "y": UNIT[:1, :, :1]})
    samples["where_bool"] = Sample(one("where"), {"c": BOOLS, "x": ~BOOLS, "y": BOOLS[::-1].copy()})
    samples["where_uint8"] = Sample(
        one("where"), {"c": BOOLS, "x": INTS.astype(np.uint8), "y": DIVISORS.astype(np.uint8)}
    )
    return samples


def _linear() -> dict[str, Sample]:
    weight = numbers(6, 5)
    return {
        "batch_matmul": Sample(one("batch_matmul"), {"x": X, "y": numbers(2, 3, 6, 5)}),
        "batch_matmul_constant": Sample(
            lambda x: ops.batch_matmul(x, weight), {"x": numbers(4, 6)}, places={"x": (1,)}
        ),
        "broadcasting_batch_matmul": Sample(one("broadcasting_batch_matmul"), {"x": X, "y": numbers(6, 5)}),
        "batch_matmul_int": Sample(one("batch_matmul"), {"x": integers(3, 4), "y": integers(4, 2)}),
        "batch_matmul_half": Sample(one("batch_matmul"), {"x": HALF[0], "y": HALF[1].swapaxes(1, 2).copy()}),
        "batch_matmul_brain": Sample(one("batch_matmul"), {"x": BRAIN[0], "y": BRAIN[1].swapaxes(1, 2).copy()}),
    }


def _reductions() -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for name in ("max", "mean", "min", "product", "sum"):
        function = f"reduce_{name}"
        samples[function] = Sample(lambda x, f=function: getattr(ops, f)(x, ints(1, -1)), {"x": X})
        samples[f"{function}_half"] = Sample(lambda x, f=function: getattr(ops, f)(x, ints(0)), {"x": HALF})
        if name != "mean":
            for dtype in (np.int32, np.int8, np.uint32):
                samples[f"{function}_{np.dtype(dtype).name}"] = Sample(
                    lambda x, f=function: getattr(ops, f)(x, ints(1)), {"x": np.abs(INTS).astype(dtype)}
                )
    for name in ("all_", "any_"):
        samples[name] = Sample(lambda x, f=name: getattr(ops, f)(x, ints(-1)), {"x": BOOLS})
    samples["argmax"] = Sample(lambda x: ops.argmax(x, axis(1)), {"x": X})
    samples["argmax_ties"] = Sample(lambda x: ops.argmax(x, axis(-1)), {"x": INTS // 4})
    samples["argmax_int8"] = Sample(lambda x: ops.argmax(x, axis(0)), {"x": INTS.astype(np.int8)})
    for combiner in ("sum", "product", "min", "max"):
        for is_reverse in (False, True):
            samples[f"scan_{combiner}_{is_reverse}"] = Sample(
                lambda x, c=combiner, r=is_reverse: ops.scan(x, np.uint32(1), r, c), {"x": UNIT}
            )
        samples[f"scan_{combiner}_int"] = Sample(lambda x, c=combiner: ops.scan(x, np.uint32(2), False, c), {"x": INTS})
    samples["scan_sum_half"] = Sample(lambda x: ops.scan(x, np.uint32(3), True), {"x": HALF})
    ends = np.array([-128, 127], np.float32)
    samples["symmetric_statistics"] = Sample(
        lambda x: ops.symmetric_quant_stats(x, ends, axis(1)), {"x": X}, is_static=True
    )
    samples["asymmetric_statistics"] = Sample(
        lambda x: list(ops.asymmetric_quant_stats(x, np.array([0, 255], np.uint8), axis(0))),
        {"x": X},
        is_static=True,
    )
    return samples


def _orders() -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for is_descending in (False, True):
        for name in ("sort", "argsort"):
            samples[f"{name}_{is_descending}"] = Sample(
                lambda x, f=name, d=is_descending: getattr(ops, f)(x, axis(1), d, True), {"x": X}
            )
            samples[f"{name}_special_{is_descending}"] = Sample(
                lambda x, f=name, d=is_descending: getattr(ops, f)(x, axis(-1), d, True), {"x": SPECIAL}
            )
            samples[f"{name}_int_{is_descending}"] = Sample(
                lambda x, f=name, d=is_descending: getattr(ops, f)(x, axis(-1), d, True), {"x": INTS}
            )
    samples["non_zero"] = Sample(one("non_zero"), {"x": np.array([[0, 2, -0.0], [np.nan, 0, 1]], np.float32)})
    samples["non_zero_bool"] = Sample(one("non_zero"), {"x": BOOLS})
    samples["non_zero_int"] = Sample(one("non_zero"), {"x": INTS // 4})
    return samples


def _gathers() -> dict[str, Sample]:
    along = integers(2, 5, 4, low=-3, high=3)
    rows, points = integers(4, 1, low=-2, high=2), np.array([[0, 1], [-1, 2], [1, -3]], np.int32)
    places = np.array([[[0], [1]]] * 2, np.int32)[:, :, [0] * 4]
    samples: dict[str, Sample] = {
        "gather_along_axis": Sample(lambda x, i: ops.gather_along_axis(x, i, axis(1)), {"x": UNIT, "i": along}),
        "gather_along_axis_bool": Sample(lambda x, i: ops.gather_along_axis(x, i, axis(1)), {"x": BOOLS, "i": along}),
        "gather_nd_rows": Sample(one("gather_nd"), {"x": UNIT, "i": rows}, places={"i": (1,)}),
        "gather_nd_points": Sample(one("gather_nd"), {"x": UNIT, "i": points}, places={"i": (1,)}),
        "gather_nd_uint8": Sample(one("gather_nd"), {"x": INTS.astype(np.uint8), "i": points}, places={"i": (1,)}),
        "scatter_nd_rows": Sample(
            one("scatter_nd"), {"x": UNIT, "i": np.array([[1]], np.int32), "u": numbers(1, 3, 4)}, places={"i": (1,)}
        ),
        "scatter_nd_points": Sample(
            one("scatter_nd"), {"x": UNIT, "i": points, "u": numbers(3, 4)}, places={"i": (1,)}
        ),
    }
    for mode in ("update", "add", "sub", "mul", "div", "max", "min"):
        samples[f"scatter_along_axis_{mode}"] = Sample(
            lambda x, i, u, m=mode: ops.scatter_along_axis(
                x.type, x, i, u, axis(1), _attribute(f"#coreai.scatter_mode<{m}>")
            ),
            {"x": UNIT, "i": places, "u": numbers(2, 2, 4) + np.float32(3)},
        )
    return samples


def _slices() -> dict[str, Sample]:
    def cut(starts: Array, ends: Array, steps: Array) -> Build:
        return lambda x: ops.slice_(x, starts, ends, steps)

    def put(starts: Array, ends: Array, steps: Array) -> Build:
        return lambda x, u: ops.slice_update(x, starts, ends, steps, u)

    y = numbers(5, 8)
    dynamic = {"x": y, "s": ints(1, 2), "e": ints(4, 8)}
    return {
        "slice": Sample(cut(ints(1, 2), ints(4, 7), ints(1, 2)), {"x": y}),
        "slice_negative": Sample(cut(ints(-4, -3), ints(-1, 100), ints(1, 1)), {"x": y}),
        "slice_back": Sample(cut(ints(4, 7), ints(1, 0), ints(-1, -2)), {"x": y}),
        "slice_back_negative": Sample(cut(ints(-1, -2), ints(-6, -8), ints(-1, -3)), {"x": y}),
        "slice_bool": Sample(cut(ints(0, 1, 0), ints(2, 3, 4), ints(1, 1, 2)), {"x": BOOLS}),
        "slice_moving": Sample(lambda x, s, e: ops.slice_(x, s, e, ints(1, 1)), dynamic, places={"s": (0,), "e": (0,)}),
        "slice_update": Sample(put(ints(1, 2), ints(4, 8), ints(1, 2)), {"x": y, "u": numbers(3, 3)}),
        "slice_update_rows": Sample(put(ints(2, 0), ints(4, 8), ints(1, 1)), {"x": y, "u": numbers(2, 8)}),
        "slice_update_back": Sample(put(ints(4, 0), ints(0, 8), ints(-2, 1)), {"x": y, "u": numbers(2, 8)}),
        "slice_update_whole": Sample(put(ints(0, 0), ints(5, 8), ints(1, 1)), {"x": y, "u": numbers(5, 8)}),
        "slice_update_moving": Sample(
            lambda x, s, e, u: ops.slice_update(x, s, e, ints(1, 1), u),
            {"x": y, "s": ints(1, 2), "e": ints(4, 8), "u": numbers(3, 6)},
            places={"s": (0,), "e": (0,)},
        ),
        "split_size": Sample(lambda x: list(ops.split(x, np.uint32(3), axis(1))), {"x": y}, is_static=True),
        "split_sections": Sample(lambda x: list(ops.split(x, uints(1, 3, 4), axis(1))), {"x": y}),
    }


def _shapes() -> dict[str, Sample]:
    small = {"x": numbers(2, 3)}
    return {
        "reshape": Sample(lambda x: ops.reshape(x, ints(4, -1)), {"x": X}),
        "reshape_moving": Sample(one("reshape"), {"x": X, "s": ints(6, 24)}, places={"s": (0,)}),
        "transpose": Sample(lambda x: ops.transpose(x, uints(2, 0, 3, 1)), {"x": X}),
        "expand_dims": Sample(lambda x: ops.expand_dims(x, ints(3, -4)), {"x": UNIT}),
        "shrink_dims": Sample(lambda x: ops.shrink_dims(x, ints(0, -1)), {"x": numbers(1, 3, 1)}, places={"x": (0, 2)}),
        "broadcast_to": Sample(lambda x: ops.broadcast_to(x, uints(4, 2, 3)), small, places={"x": (0, 1)}),
        "broadcast_in_dims": Sample(
            lambda x: ops.broadcast_in_dims(x, uints(5), ints(-1)), {"x": numbers(2, 1)}, places={"x": (1,)}
        ),
        "broadcast_shapes": Sample(
            one("broadcast_shapes"), {"x": uints(3, 1, 5), "y": uints(4, 1)}, places={"x": (0,), "y": (0,)}
        ),
        "get_shape": Sample(one("get_shape"), {"x": X}),
        "concat": Sample(lambda x, y: ops.concat(axis(-1), [x, y, x]), {"x": UNIT, "y": numbers(2, 3, 1)}),
        "concat_bool": Sample(lambda x: ops.concat(axis(0), [x, x]), {"x": BOOLS}),
        "tile": Sample(lambda x: ops.tile(x, uints(2, 3)), {"x": UNIT}),
        "reverse": Sample(lambda x: ops.reverse(x, ints(1, -1)), {"x": X}),
        "range": Sample(one("range_"), {"a": np.int32(2), "b": np.int32(11), "c": np.int32(3)}),
        "range_float": Sample(one("range_"), {"a": np.float32(1), "b": np.float32(-1), "c": np.float32(-0.25)}),
        "pad_constant": Sample(lambda x: ops.pad(x, uints(1, 0, 2, 3), np.float32(7)), small),
        "pad_int": Sample(lambda x: ops.pad(x, uints(0, 0, 1, 1, 0, 2), np.int32(-1)), {"x": INTS}),
        **{
            f"pad_{mode}": Sample(
                lambda x, m=mode: ops.pad(x, uints(1, 0, 2, 1), np.float32(0), m), {"x": numbers(4, 5)}
            )
            for mode in ("replicate", "reflect", "symmetric", "circular")
        },
    }


def _windows() -> dict[str, Sample]:
    def pool(dims: int, dilation: int, is_ceil: bool, shape: list[int]) -> Build:
        name = f"maxpool{dims}d"

        def build(x: Any) -> Any:
            kind = tensor_type(shape, np.float32)
            sizes = [uints(*[size] * dims) for size in (2, 2, dilation)]
            return getattr(ops, name)(kind, x, *sizes, is_ceil)

        return build

    w2, w3 = numbers(6, 2, 3, 2), numbers(3, 2, 2, 3, 1)
    image, volume = numbers(2, 4, 9, 8), numbers(1, 2, 5, 6, 4)
    padded = uints(0, 0, 0, 0, 1, 2, 0, 1)
    return {
        "conv2d": Sample(
            lambda x: ops.conv2d(x, w2, uints(2, 1), uints(1, 2), np.uint32(2)), {"x": image}, places={"x": (1,)}
        ),
        "conv2d_padded": Sample(
            lambda x: ops.conv2d(ops.pad(x, padded, np.float32(0)), w2, uints(1, 1), uints(1, 1), np.uint32(2)),
            {"x": image},
            places={"x": (1,)},
        ),
        "conv2d_padded_by_one": Sample(
            lambda x: ops.conv2d(ops.pad(x, padded, np.float32(1)), w2, uints(1, 1), uints(1, 1), np.uint32(2)),
            {"x": image},
            places={"x": (1,)},
        ),
        "conv3d": Sample(
            lambda x: ops.conv3d(x, w3, uints(1, 2, 1), uints(1, 1, 1), np.uint32(1)), {"x": volume}, places={"x": (1,)}
        ),
        "conv_transpose2d": Sample(
            lambda x: ops.conv_transpose2d(
                x, numbers_once("t2", 4, 3, 3, 2), uints(2, 1), uints(1, 0), uints(1, 2), uints(1, 0), np.uint32(2)
            ),
            {"x": image},
            is_static=True,
        ),
        "conv_transpose3d": Sample(
            lambda x: ops.conv_transpose3d(
                x, numbers_once("t3", 2, 3, 2, 2, 2), *(uints(*[n] * 3) for n in (2, 0, 1, 0)), np.uint32(1)
            ),
            {"x": volume},
            is_static=True,
        ),
        "max_pool_2d": Sample(pool(2, 1, False, [2, 4, 4, 4]), {"x": image}, is_static=True),
        "max_pool_2d_ceil": Sample(pool(2, 1, True, [2, 4, 5, 4]), {"x": image}, is_static=True),
        "max_pool_2d_dilated": Sample(pool(2, 2, False, [2, 4, 4, 3]), {"x": image}, is_static=True),
        "max_pool_3d": Sample(pool(3, 1, False, [1, 2, 2, 3, 2]), {"x": volume}, is_static=True),
        "sum_pool_2d": Sample(
            lambda x: ops.sumpool2d(x, *(ops.constant(each) for each in (uints(3, 2), uints(2, 1), uints(1, 2)))),
            {"x": image},
        ),
        "sum_pool_2d_padded": Sample(
            lambda x: ops.sumpool2d(
                ops.pad(x, padded, np.float32(0)),
                *(ops.constant(each) for each in (uints(3, 2), uints(1, 1), uints(1, 1))),
            ),
            {"x": image},
        ),
        "sum_pool_2d_int": Sample(
            lambda x: ops.sumpool2d(x, *(ops.constant(each) for each in (uints(3, 2), uints(2, 1), uints(1, 2)))),
            {"x": integers(1, 2, 7, 6)},
        ),
        "sum_pool_3d": Sample(
            lambda x: ops.sumpool3d(
                x, *(ops.constant(each) for each in (uints(2, 2, 1), uints(1, 2, 1), uints(1, 1, 1)))
            ),
            {"x": volume},
        ),
    }


_MADE: dict[str, Array] = {}


def numbers_once(name: str, *shape: int) -> Array:
    """The array of this name, which is the same whenever a program is built."""
    if name not in _MADE:
        _MADE[name] = np.random.default_rng(len(name)).uniform(-1, 1, shape).astype(np.float32)
    return _MADE[name]


def _quantized() -> dict[str, Sample]:
    x = numbers(3, 4, low=-5, high=5)
    q = integers(3, 4, low=-100, high=100, dtype=np.int8)
    vectors = (numbers(4, low=0.05, high=0.2), ints(1, -2, 3, 0).astype(np.int8))
    zeros = np.zeros(4, np.float32)
    both = ints(0, 1)
    scale, point, low = np.float32(0.07), np.int8(3), np.float32(0.21)
    blocks = (numbers(2, 2), integers(2, 2, dtype=np.int8), numbers(2, 2))
    data = integers(4, 6, low=-100, high=100, dtype=np.int8)
    nibbles = integers(4, 6, low=-8, high=8).astype(ml_dtypes.int4)
    shifts = (numbers(2, 3), integers(2, 3, low=-8, high=8).astype(ml_dtypes.int4), np.zeros((2, 3), np.float32))
    table = numbers(2, 1, 4, 1)
    indices = integers(6, 3, low=0, high=4).astype(ml_dtypes.uint2)
    vector_table = numbers(1, 1, 4, 3)
    mask = np.array([[0, 1, 0], [1, 0, 1]], bool)
    return {
        "quantize": Sample(lambda x: ops.quantize(x, scale, point, low, both), {"x": x}),
        "quantize_plain": Sample(lambda x: ops.quantize(x, scale, point, np.float32(0), both), {"x": x}),
        "quantize_axis": Sample(lambda x: ops.quantize(x, *vectors, zeros, axis(1)), {"x": x}, places={"x": (1,)}),
        "quantize_uint8": Sample(lambda x: ops.quantize(x, scale, np.uint8(9), low, both), {"x": x}),
        "dequantize": Sample(lambda q: ops.dequantize(q, scale, point, low, both), {"q": q}),
        "dequantize_plain": Sample(lambda q: ops.dequantize(q, scale, point, np.float32(0), both), {"q": q}),
        "dequantize_axis": Sample(lambda q: ops.dequantize(q, *vectors, zeros, axis(1)), {"q": q}, places={"q": (1,)}),
        "blockwise_constant": Sample(
            lambda x: ops.mul(x, ops.blockwise_shift_scale(data, *blocks)), {"x": numbers(4, 6)}, is_static=True
        ),
        "blockwise": Sample(lambda d: ops.blockwise_shift_scale(d, *blocks), {"d": data}, is_static=True),
        "blockwise_nibbles": Sample(
            lambda x: ops.mul(
                x, ops.blockwise_shift_scale(packed(nibbles, "si4"), shifts[0], packed(shifts[1], "si4"), shifts[2])
            ),
            {"x": numbers(4, 6)},
            is_static=True,
        ),
        "lut_to_dense": Sample(
            lambda x: ops.mul(x, ops.lut_to_dense(packed(indices, "ui2"), table, np.int16(0))),
            {"x": numbers(6, 3)},
            is_static=True,
        ),
        "lut_to_dense_vectors": Sample(
            lambda x: ops.mul(x, ops.lut_to_dense(packed(indices, "ui2"), vector_table, np.int16(1))),
            {"x": numbers(6, 9)},
            is_static=True,
        ),
        "sparse": Sample(
            lambda x: ops.mul(
                x,
                ops.sparse_with_bitmask_to_dense(
                    ops.build_sparse_with_bitmask(ops.constant(np.array([10, 20, 30], np.float32)), packed(mask, "ui1"))
                ),
            ),
            {"x": numbers(2, 3)},
            is_static=True,
        ),
    }


def _sparse_tables() -> dict[str, Sample]:
    mask = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]], bool)
    places = integers(9, low=0, high=4, dtype=np.uint8)

    def dense(values: Any, lut: Any, along: int) -> Any:
        sparse = ops.build_sparse_with_bitmask(values, packed(mask, "ui1"))
        return ops.sparse_with_bitmask_to_dense(
            ops.lut_to_sparse_with_bitmask(sparse, lut, ops.constant(np.int16(along)))
        )

    def known(lut: Array, along: int) -> Build:
        return lambda x: ops.broadcasting_mul(x, dense(packed(places, "ui2"), ops.constant(lut), along))

    def whole_rows(values: Any) -> Any:
        return ops.sparse_with_bitmask_to_dense(ops.build_sparse_with_bitmask(values, packed(mask, "ui1")))

    one_table, vectors = numbers(1, 1, 4, 1), numbers(1, 1, 4, 3)
    moving_table = {"x": numbers(4, 18), "t": vectors}
    moving_places = {"x": numbers(4, 6), "i": places}
    wide = numbers(1, 1, 256, 1)
    return {
        "lut_to_sparse": Sample(known(one_table, 0), {"x": numbers(4, 6)}),
        "lut_to_sparse_half": Sample(known(one_table.astype(np.float16), 1), {"x": numbers(4, 6, dtype=np.float16)}),
        "lut_to_sparse_int8": Sample(
            known(integers(1, 1, 4, 1, dtype=np.int8), 0), {"x": integers(4, 6, dtype=np.int8)}
        ),
        "lut_to_sparse_blocks": Sample(known(numbers(2, 3, 4, 1), 0), {"x": numbers(4, 6)}),
        # Apple's interpreter computes vectors along other axes wrongly: see test_compression.
        "lut_to_sparse_vectors": Sample(known(vectors, 1), {"x": numbers(4, 18)}),
        "lut_to_sparse_blocks_of_vectors": Sample(known(numbers(2, 3, 4, 2), 1), {"x": numbers(4, 12)}),
        "lut_to_sparse_moving_table": Sample(
            lambda x, t: ops.broadcasting_mul(x, dense(packed(places, "ui2"), t, 1)),
            moving_table,
            places={"t": range(4)},
        ),
        "lut_to_sparse_moving_places": Sample(
            lambda x, i: ops.broadcasting_mul(x, dense(i, ops.constant(wide), 0)), moving_places, places={"i": (0,)}
        ),
        "sparse_moving": Sample(whole_rows, {"v": numbers(9)}, places={"v": (0,)}),
    }


def _interpolations() -> dict[str, Sample]:
    def resized(mode: str, sizes: list[int], scale: list[float], offset: list[float]) -> Build:
        return lambda x: ops.interpolate(
            x,
            ints(*sizes),
            np.array(scale, np.float32),
            np.array(offset, np.float32),
            _attribute(f"#coreai.interpolation_mode<{mode}>"),
        )

    samples: dict[str, Sample] = {}
    plane, image = numbers(4, 5), numbers(1, 2, 4, 5)
    points = np.array([[0.5, 1.25], [-3, 2], [9, 9], [1.5, 2.5], [2.5, 0.5]], np.float32)
    for mode in ("linear", "nearest_neighbor"):
        half = resized(mode, [1, 2, 8, 10], [1, 1, 2, 2], [0, 0, 0, 0])
        odd = resized(mode, [7, 3], [1.7, 0.55], [0.25, -0.1])
        corner = resized(mode, [1, 2, 7, 9], [1, 1, 2, 2], [0, 0, -0.5, -0.5])
        down = resized(mode, [2, 5], [0.5, 1], [0, 0])
        samples[f"interpolate_half_{mode}"] = Sample(half, {"x": image}, is_static=True)
        samples[f"interpolate_corners_{mode}"] = Sample(corner, {"x": image}, is_static=True)
        samples[f"interpolate_odd_{mode}"] = Sample(odd, {"x": plane})
        samples[f"interpolate_down_{mode}"] = Sample(down, {"x": plane})
        samples[f"interpolate_coordinates_{mode}"] = Sample(
            lambda x, p, m=mode: ops.interpolate_coordinates(x, p, _attribute(f"#coreai.interpolation_mode<{m}>")),
            {"x": plane, "p": points},
            places={"p": (1,)},
        )
    return samples


def _complex() -> dict[str, Sample]:
    pair = {"a": numbers(2, 3), "b": numbers(2, 3)}

    def of(make: Build) -> Build:
        def build(a: Any, b: Any) -> Any:
            value = make(ops.create_complex(a, b), ops.create_complex(b, a))
            return [ops.real_part(value), ops.imaginary_part(value)]

        return build

    return {
        "complex_add": Sample(of(lambda x, y: ops.add(x, y)), pair),
        "complex_mul": Sample(of(lambda x, y: ops.mul(x, y)), pair),
        "complex_divide": Sample(of(lambda x, y: ops.divide(x, y)), pair),
        **{
            f"complex_{name}": Sample(of(lambda x, y, f=name: ops.add(getattr(ops, f)(x), y)), pair)
            for name in ("cosh", "sin", "sinh")
        },
        "complex_exp": Sample(of(lambda x, y: ops.exp(ops.sub(x, y))), pair),
        "complex_shapes": Sample(of(lambda x, y: ops.transpose(ops.concat(axis(0), [x, y]), uints(1, 0))), pair),
    }


def _control() -> dict[str, Sample]:
    def chosen(c: Any, x: Any, y: Any) -> Any:
        results, (yes, no) = ops.if_([x.type], c)
        with yes:
            ops.yield_([ops.add(x, y)])
        with no:
            ops.yield_([ops.mul(x, y)])
        return results

    def doubled(n: Any, x: Any) -> Any:
        start = ops.constant(np.array(0, np.int32))
        results, (before, after) = ops.while_([start.type, x.type], [start, x])
        with before:
            count, value = before.arguments
            ops.condition(ops.greater(n, count), count, value)
        with after:
            count, value = after.arguments
            ops.yield_([ops.add(count, np.int32(1)), ops.add(value, value)])
        return list(results)

    def counted(x: Any, total: Any) -> Any:
        value, token = ops.read_handle(total, ops.create_token())
        new = ops.add(value, x)
        return [ops.write_handle(total, new, token), ops.mul(new, new)]

    def nested(x: Any, y: Any) -> Any:
        return [*grouped(lambda a, b: [ops.sub(a, b)], lambda kinds: kinds[:1])(x, y), ops.relu(y)]

    def with_constant(x: Any) -> Any:
        return grouped(lambda a: [ops.broadcasting_mul(a, ops.constant(np.float32(3)))])(x)

    def counted_in_group(x: Any, total: Any) -> Any:
        return grouped(counted, lambda kinds: [ops.TokenType.get(), kinds[0]])(x, total)

    state = {"total": numbers(2, 3)}
    return {
        "if_yes": Sample(chosen, {"c": np.array(True), "x": UNIT, "y": UNIT + 1}),
        "if_no": Sample(chosen, {"c": np.array(False), "x": UNIT, "y": UNIT + 1}),
        "while": Sample(doubled, {"n": np.array(3, np.int32), "x": UNIT}),
        "while_never": Sample(doubled, {"n": np.array(0, np.int32), "x": UNIT}),
        "state": Sample(counted, {"x": numbers(2, 3)}, states=state, is_static=True),
        "group": Sample(grouped(lambda x, y: [ops.sub(x, y), ops.mul(x, y)]), {"x": UNIT, "y": UNIT + 1}),
        "group_in_group": Sample(grouped(nested), {"x": UNIT, "y": UNIT + 1}),
        "group_with_constant": Sample(with_constant, {"x": UNIT}),
        "group_with_state": Sample(counted_in_group, {"x": numbers(2, 3)}, states=state, is_static=True),
    }


SAMPLES: Mapping[str, Mapping[str, Sample]] = {
    "elementwise_unary": _unary(),
    "casts": _casts(),
    "elementwise_binary": _binary(),
    "linear": _linear(),
    "reduction": _reductions(),
    "sorting": _orders(),
    "gathering": _gathers(),
    "slicing": _slices(),
    "shaping": _shapes(),
    "window": _windows(),
    "quantization": _quantized(),
    "compression": _sparse_tables(),
    "interpolation": _interpolations(),
    "complex_numbers": _complex(),
    "control_flow": _control(),
}
